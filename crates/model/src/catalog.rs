//! What sizes are worth, and what they cost.
//!
//! The built-in catalog is the one of the embedded platform; an environment overrides what differs
//! there. Prices are those of the cloud service behind each class, so that a run on one machine
//! already tells what it would cost.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::class::{RunnerClass, Size};
use crate::cost::Prices;
use crate::pipeline::Stage;
use crate::text::{ByteSize, Duration};

/// Upper bounds for one attempt of a class and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Processor time per time, in thousandths of a processor.
    pub vcpu_millis: u32,
    /// Memory.
    pub memory: ByteSize,
    /// Processes and threads.
    pub pids: u32,
    /// Open files of a process.
    pub open_files: u32,
    /// The scratch folder.
    pub scratch: ByteSize,
    /// What an attempt may have on disk beside that: inputs that it was given unpacked, outputs,
    /// checkpoint, cache, and what of them is staged.
    pub disk: ByteSize,
    /// What is kept of an attempt's log.
    pub log: ByteSize,
    /// Workers that a job is priced for, and that a distributed engine starts.
    pub workers: u32,
    /// Attempts of one stage at a time.
    pub concurrency: u32,
    /// From being asked to stop to being killed.
    pub grace_period: Duration,
}

/// What an environment changes in a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileOverride {
    /// Processor time per time, in thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1_024_000))]
    pub vcpu_millis: Option<u32>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4, max = 1_000_000))]
    pub pids: Option<u32>,
    /// Open files of a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 1_000_000))]
    pub open_files: Option<u32>,
    /// The scratch folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<ByteSize>,
    /// What an attempt may have on disk beside that: outputs, checkpoint, cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
    /// What is kept of an attempt's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<ByteSize>,
    /// Workers that a job is priced for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub workers: Option<u32>,
    /// Attempts of one stage at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: Option<u32>,
    /// From being asked to stop to being killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Duration>,
}

impl Profile {
    /// The least memory in which a runner can start anything.
    pub const MIN_MEMORY: ByteSize = ByteSize::from_mib(16);
    /// The least of a disk on which an attempt can leave anything.
    pub const MIN_DISK: ByteSize = ByteSize::from_mib(16);

    /// The profile with an override applied.
    #[must_use]
    pub fn with(self, change: &ProfileOverride) -> Self {
        Self {
            vcpu_millis: change.vcpu_millis.unwrap_or(self.vcpu_millis),
            memory: change.memory.unwrap_or(self.memory),
            pids: change.pids.unwrap_or(self.pids),
            open_files: change.open_files.unwrap_or(self.open_files),
            scratch: change.scratch.unwrap_or(self.scratch),
            disk: change.disk.unwrap_or(self.disk),
            log: change.log.unwrap_or(self.log),
            workers: change.workers.unwrap_or(self.workers),
            concurrency: change.concurrency.unwrap_or(self.concurrency),
            grace_period: change.grace_period.unwrap_or(self.grace_period),
        }
    }
}

/// Profiles by class and size, and prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    profiles: BTreeMap<(RunnerClass, Size), Profile>,
    /// What the classes cost.
    pub prices: Prices,
}

impl Catalog {
    /// The catalog of the embedded platform.
    pub fn builtin() -> Self {
        let mut profiles = BTreeMap::new();
        for (class, rows) in BUILTIN {
            for (size, row) in rows {
                profiles.insert((*class, *size), profile(*class, *row));
            }
        }
        Self {
            profiles,
            prices: Prices::public(),
        }
    }

    /// The profile of a class and size. Size `custom` has none: its stage declares it.
    pub fn profile(&self, class: RunnerClass, size: Size) -> Option<&Profile> {
        self.profiles.get(&(class, size))
    }

    /// What a stage gets: the profile of its class and size, or what it declares in full, with the
    /// rest as in `xlarge`; and its own grace period and concurrency limit where it has them.
    pub fn profile_of(&self, stage: &Stage) -> Option<Profile> {
        let size = if stage.custom.is_some() {
            Size::XLarge
        } else {
            stage.size
        };
        let mut profile = *self.profile(stage.class, size)?;
        if let Some(custom) = stage.custom {
            profile.vcpu_millis = custom.vcpu * 1_000;
            profile.memory = custom.memory;
        }
        profile.grace_period = stage.grace_period.unwrap_or(profile.grace_period);
        profile.concurrency = stage.concurrency_limit.unwrap_or(profile.concurrency);
        Some(profile)
    }

    /// Changes the profile of a class and size. False if the catalog has no such profile.
    pub(crate) fn change(
        &mut self,
        class: RunnerClass,
        size: Size,
        change: &ProfileOverride,
    ) -> bool {
        match self.profiles.get_mut(&(class, size)) {
            Some(profile) => {
                *profile = profile.with(change);
                true
            }
            None => false,
        }
    }

    /// Every profile, by class and size.
    pub fn profiles(&self) -> impl Iterator<Item = (RunnerClass, Size, &Profile)> {
        self.profiles
            .iter()
            .map(|((class, size), profile)| (*class, *size, profile))
    }
}

/// Thousandths of a processor, memory in MiB, scratch in MiB, processes, workers, concurrency.
type Row = (u32, u64, u64, u32, u32, u32);

const BUILTIN: &[(RunnerClass, [(Size, Row); 4])] = &[
    (
        RunnerClass::Serverless,
        [
            (Size::Small, (1_000, 512, 512, 128, 1, 4)),
            (Size::Medium, (1_000, 1_024, 1_024, 256, 1, 8)),
            (Size::Large, (2_000, 2_048, 2_048, 512, 1, 16)),
            (Size::XLarge, (4_000, 8_192, 10_240, 1_024, 1, 32)),
        ],
    ),
    (
        // pairs of processors and memory that Fargate has, too
        RunnerClass::Container,
        [
            (Size::Small, (1_000, 2_048, 2_048, 256, 1, 1)),
            (Size::Medium, (2_000, 4_096, 4_096, 512, 1, 2)),
            (Size::Large, (4_000, 8_192, 10_240, 1_024, 1, 4)),
            (Size::XLarge, (8_000, 16_384, 20_480, 2_048, 1, 8)),
        ],
    ),
    (
        // workers are what Glue's G.1X would need for the like; the rest bounds the embedded engine
        RunnerClass::ManagedEtl,
        [
            (Size::Small, (2_000, 1_024, 4_096, 256, 2, 2)),
            (Size::Medium, (4_000, 2_048, 10_240, 512, 5, 4)),
            (Size::Large, (8_000, 8_192, 51_200, 1_024, 10, 8)),
            (Size::XLarge, (16_000, 32_768, 204_800, 2_048, 20, 16)),
        ],
    ),
    (
        RunnerClass::DedicatedCompute,
        [
            (Size::Small, (1_000, 2_048, 4_096, 512, 1, 1)),
            (Size::Medium, (2_000, 8_192, 20_480, 1_024, 1, 1)),
            (Size::Large, (4_000, 16_384, 51_200, 2_048, 1, 1)),
            (Size::XLarge, (16_000, 65_536, 204_800, 4_096, 1, 1)),
        ],
    ),
];

/// How much more may lie on disk than in scratch.
const DISK_TO_SCRATCH: u64 = 4;
/// The least that any attempt may have on disk: what Lambda gives at most, and half of what Fargate
/// gives unasked.
const LEAST_DISK_MIB: u64 = 10 << 10;

fn profile(class: RunnerClass, row: Row) -> Profile {
    let (vcpu_millis, memory, scratch, pids, workers, concurrency) = row;
    let grace_seconds = match class {
        RunnerClass::Serverless => 2,
        RunnerClass::Container | RunnerClass::ManagedEtl => 30,
        RunnerClass::DedicatedCompute => 60,
    };
    Profile {
        vcpu_millis,
        memory: ByteSize::from_mib(memory),
        pids,
        open_files: 1_024,
        scratch: ByteSize::from_mib(scratch),
        disk: ByteSize::from_mib(scratch.saturating_mul(DISK_TO_SCRATCH).max(LEAST_DISK_MIB)),
        log: ByteSize::from_mib(16),
        workers,
        concurrency,
        grace_period: Duration::from_secs(grace_seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_the_four_tiers_and_none_shrinks_with_size() {
        let catalog = Catalog::builtin();
        for class in RunnerClass::ALL {
            let tiers = [Size::Small, Size::Medium, Size::Large, Size::XLarge];
            let profiles: Vec<_> = tiers
                .iter()
                .map(|size| catalog.profile(*class, *size).expect("a tier"))
                .collect();
            for pair in profiles.windows(2) {
                assert!(pair[0].memory < pair[1].memory, "{class}");
                assert!(pair[0].vcpu_millis <= pair[1].vcpu_millis, "{class}");
            }
            assert!(catalog.profile(*class, Size::Custom).is_none());
        }
    }
}
