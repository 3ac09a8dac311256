//! The control group of one sandbox, in all hierarchies.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use serde::{Deserialize, Serialize};

use super::{Hierarchy, Version, read, write};
use crate::report::{Controller, Source, Usage};
use crate::spec::{Limits, OWN_PIDS};

/// Length of the period in which processor time is counted, in microseconds.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// A group, not removed when dropped: its processes may still be there.
#[derive(Debug)]
pub(crate) struct Group {
    name: String,
    parts: Vec<Part>,
}

/// A directory of a group, as it is told to whom its descriptor is given.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Directory {
    version: Version,
    controllers: Vec<Controller>,
}

#[derive(Debug)]
struct Part {
    /// Index of the hierarchy.
    hierarchy: usize,
    version: Version,
    controllers: Vec<Controller>,
    directory: OwnedFd,
    /// Where a task of version 1 writes `0` to come in. Writing for oneself, and for one thread,
    /// takes no lock over all processes of the host, which `cgroup.procs` does.
    tasks: Option<OwnedFd>,
}

impl Group {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            parts: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.hierarchy)
    }

    /// Makes the directory in one hierarchy.
    pub(super) fn enter(&mut self, index: usize, hierarchy: &Hierarchy) -> Result<()> {
        rustix::fs::mkdirat(&hierarchy.directory, &self.name, Mode::from(0o755))?;
        let directory = rustix::fs::openat(
            &hierarchy.directory,
            &self.name,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        if hierarchy.version == Version::V1 && hierarchy.controllers.contains(&Controller::Cpuset) {
            // A new cpuset is empty, and takes no task until it names cores and memory nodes.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                write(&directory, file, read(&hierarchy.directory, file)?.trim())?;
            }
        }
        let tasks = match hierarchy.version {
            Version::V1 => Some(rustix::fs::openat(
                &directory,
                "tasks",
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?),
            Version::V2 => None,
        };
        self.parts.push(Part {
            hierarchy: index,
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            directory,
            tasks,
        });
        Ok(())
    }

    /// Writes the limits that controllers are there for.
    pub(super) fn limit(&self, limits: &Limits) -> Result<()> {
        if let (Some(bytes), Some(part)) = (limits.memory_bytes, self.part(Controller::Memory)) {
            let bytes = bytes.to_string();
            match part.version {
                Version::V1 => {
                    write(&part.directory, "memory.limit_in_bytes", &bytes)?;
                    // Memory and swap together; not there when the kernel does not account swap.
                    optional(write(
                        &part.directory,
                        "memory.memsw.limit_in_bytes",
                        &bytes,
                    ))?;
                }
                Version::V2 => {
                    write(&part.directory, "memory.max", &bytes)?;
                    optional(write(&part.directory, "memory.swap.max", "0"))?;
                }
            }
        }
        if let (Some(millis), Some(part)) = (limits.cpu_millis, self.part(Controller::Cpu)) {
            let quota = u64::from(millis) * CPU_PERIOD_MICROS / 1000;
            match part.version {
                Version::V1 => {
                    let period = CPU_PERIOD_MICROS.to_string();
                    write(&part.directory, "cpu.cfs_period_us", &period)?;
                    write(&part.directory, "cpu.cfs_quota_us", &quota.to_string())?;
                }
                Version::V2 => {
                    write(
                        &part.directory,
                        "cpu.max",
                        &format!("{quota} {CPU_PERIOD_MICROS}"),
                    )?;
                }
            }
        }
        if let (Some(pids), Some(part)) = (limits.pids, self.part(Controller::Pids)) {
            let most = u64::from(pids) + u64::from(OWN_PIDS);
            write(&part.directory, "pids.max", &most.to_string())?;
        }
        if let (Some(cpus), Some(part)) = (&limits.cpus, self.part(Controller::Cpuset)) {
            let list: Vec<String> = cpus.iter().map(u32::to_string).collect();
            write(&part.directory, "cpuset.cpus", &list.join(","))?;
        }
        Ok(())
    }

    /// The group's directories, for somebody else to read its figures.
    pub(crate) fn directories(&self) -> (Vec<Directory>, Vec<BorrowedFd<'_>>) {
        let told = |part: &Part| Directory {
            version: part.version,
            controllers: part.controllers.clone(),
        };
        let descriptors = self.parts.iter().map(|part| part.directory.as_fd());
        (self.parts.iter().map(told).collect(), descriptors.collect())
    }

    /// The group whose [`Group::directories`] these are. It is there to be read.
    pub(crate) fn of_directories(directories: Vec<Directory>, descriptors: Vec<OwnedFd>) -> Self {
        let part = |(directory, descriptor): (Directory, OwnedFd)| Part {
            hierarchy: 0,
            version: directory.version,
            controllers: directory.controllers,
            directory: descriptor,
            tasks: None,
        };
        let parts = directories.into_iter().zip(descriptors).map(part).collect();
        Self {
            name: String::new(),
            parts,
        }
    }

    /// The version 2 directory, into which a process is born.
    pub(crate) fn birth_place(&self) -> Option<BorrowedFd<'_>> {
        self.parts
            .iter()
            .find(|part| part.version == Version::V2)
            .map(|part| part.directory.as_fd())
    }

    /// The files to which a process writes `0` to enter the version 1 directories.
    pub(crate) fn doors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.parts
            .iter()
            .filter_map(|part| part.tasks.as_ref().map(AsFd::as_fd))
    }

    /// Kills every process in the group, wherever it forked to.
    pub(crate) fn kill(&self) {
        for part in &self.parts {
            if part.version == Version::V2 && write(&part.directory, "cgroup.kill", "1").is_ok() {
                return;
            }
        }
        for part in &self.parts {
            super::sweep::kill_all(&part.directory);
        }
    }

    /// Whether the kernel has killed something in the group for want of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        let Some(part) = self.part(Controller::Memory) else {
            return false;
        };
        let file = match part.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        read(&part.directory, file)
            .is_ok_and(|text| keyed(&text, "oom_kill").is_some_and(|count| count > 0))
    }

    /// Puts the figures of the group over those that were measured otherwise.
    pub(crate) fn measure(&self, usage: &mut Usage) {
        if let Some(micros) = self.cpu_micros() {
            usage.cpu_micros = Some(micros);
            usage.cpu_source = Some(Source::ControlGroup);
        }
        usage.cpu_throttled_periods = self
            .part(Controller::Cpu)
            .and_then(|part| read(&part.directory, "cpu.stat").ok())
            .and_then(|text| keyed(&text, "nr_throttled"));
        let peak = self.number(
            Controller::Memory,
            "memory.max_usage_in_bytes",
            "memory.peak",
        );
        if let Some(bytes) = peak {
            usage.memory_peak_bytes = Some(bytes);
            usage.memory_source = Some(Source::ControlGroup);
        }
        // Version 1 does not see what is written through the page cache, which is nearly all.
        if let Some(part) = self
            .part(Controller::Io)
            .filter(|part| part.version == Version::V2)
            && let Ok(text) = read(&part.directory, "io.stat")
        {
            usage.io_read_bytes = Some(sum_of_pairs(&text, "rbytes"));
            usage.io_write_bytes = Some(sum_of_pairs(&text, "wbytes"));
            usage.io_source = Some(Source::ControlGroup);
        }
        usage.pids_peak = self
            .number(Controller::Pids, "pids.peak", "pids.peak")
            .map(|count| count.saturating_sub(u64::from(OWN_PIDS)));
    }

    /// Processor time so far.
    pub(crate) fn cpu_micros(&self) -> Option<u64> {
        let part = self.part(Controller::Cpuacct)?;
        match part.version {
            Version::V1 => {
                let text = read(&part.directory, "cpuacct.usage").ok()?;
                text.trim().parse::<u64>().ok().map(|nanos| nanos / 1000)
            }
            Version::V2 => keyed(&read(&part.directory, "cpu.stat").ok()?, "usage_usec"),
        }
    }

    /// The file of the highest memory use, open to be read and begun anew.
    pub(crate) fn memory_peak(&self) -> Option<OwnedFd> {
        let part = self.part(Controller::Memory)?;
        let file = match part.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        };
        // Before Linux 6.12 nobody may write that of version 2.
        [OFlags::RDWR, OFlags::RDONLY].into_iter().find_map(|way| {
            rustix::fs::openat(&part.directory, file, way | OFlags::CLOEXEC, Mode::empty()).ok()
        })
    }

    fn number(&self, controller: Controller, v1: &str, v2: &str) -> Option<u64> {
        let part = self.part(controller)?;
        let file = match part.version {
            Version::V1 => v1,
            Version::V2 => v2,
        };
        read(&part.directory, file).ok()?.trim().parse().ok()
    }

    fn part(&self, controller: Controller) -> Option<&Part> {
        self.parts
            .iter()
            .find(|part| part.controllers.contains(&controller))
    }
}

fn optional(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// The value in a file of `key value` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        if name == key {
            value.trim().parse().ok()
        } else {
            None
        }
    })
}

/// The sum over devices in a file of `8:0 rbytes=1 wbytes=2` lines.
fn sum_of_pairs(text: &str, key: &str) -> u64 {
    text.split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| *name == key)
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyed_value_is_found_by_its_whole_key() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom"), None);
    }

    #[test]
    fn bytes_are_summed_over_devices() {
        let text = "8:0 rbytes=10 wbytes=5 rios=1\n8:16 rbytes=7 wbytes=1\n";
        assert_eq!(sum_of_pairs(text, "rbytes"), 17);
        assert_eq!(sum_of_pairs(text, "wbytes"), 6);
    }
}
