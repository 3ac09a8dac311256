//! Removing what nobody needs any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, SystemTime},
};

use barecount_agent::StagingFolders;
use barecount_artifact::{Digest, Limits, Store, image};
use barecount_control::store::reader::Reader;
use barecount_dataset::table::StateTables;
use barecount_model::{
    plan::Plan,
    run::{Run, TaskState},
    text::DatasetName,
};
use barecount_runner::launch::AttemptToken;
use barecount_tree::{Aside, Left};

use super::{Embedded, hold::Purpose, leftovers, runners};
use crate::{
    client::{Kept, Removed, Upkeep},
    details::letters_token,
    failure::{Failure, Status, chain},
    reporter::Reporter,
    runtime::runtime,
    state,
};

impl Upkeep for Embedded {
    fn collect(
        &self,
        kept: Kept,
        agreed: &dyn Fn() -> Result<(), Failure>,
        reporter: &dyn Reporter,
    ) -> Result<Removed, Failure> {
        let folder = state::folder(&self.state)?;
        if state::reader(&folder)?.is_none() {
            return Err(state::nothing_ran(&folder));
        }
        agreed()?;
        // Held to the end: nothing else may be writing meanwhile.
        let purpose = Purpose {
            verb: "gc",
            pipeline: None,
        };
        let _lock = self.hold(&folder, purpose, reporter)?;
        let reader = state::reader(&folder)?.ok_or_else(|| state::nothing_ran(&folder))?;
        let Needed {
            staging: keep_staging,
            artifacts: keep_artifacts,
            versions: keep_versions,
            caches: keep_caches,
        } = Needed::find(&reader, &folder)?;
        let (staging, mut left) = sweep_attempts(&folder, &keep_staging)?;
        let keep_caches = if kept.caches {
            keep_caches
        } else {
            BTreeSet::new()
        };
        let caches = StagingFolders::new(&folder).sweep_caches(&keep_caches);
        let mut caches = caches.map_err(|error| failed("caches", &error))?;
        left.append(&mut caches.left);
        let store = artifact_store(&folder)?;
        let collected = store
            .collect(&keep_artifacts)
            .map_err(|error| failed("artifacts", &error))?;
        let mut collected = collected.ok_or_else(|| {
            Failure::new(
                Status::Unavailable,
                "the artifacts are in use by another process",
            )
            .with_code("BC0803")
        })?;
        left.append(&mut collected.left);
        leftovers::tell(&left, reporter);
        let letters = sweep_letters(&reader, &folder)?;
        let (files, freed) = sweep_tables(&folder, kept.data, &keep_versions)?;
        Ok(Removed {
            staging,
            artifacts: collected,
            data_files: files,
            data_bytes: freed,
            caches: caches.removed,
            letters,
            left: left.len() as u64,
        })
    }
}

/// Removes attempts' folders, what runners left, and what could not be removed before. What still
/// cannot be keeps nothing else from being cleaned up.
fn sweep_attempts(folder: &Path, keep: &[AttemptToken]) -> Result<(u64, Vec<Left>), Failure> {
    let stop = barecount_tree::to_the_end;
    let again = Aside::of(folder).retry(&stop);
    let mut left = again
        .map_err(|error| failed("what was moved aside", &error))?
        .left;
    let swept = StagingFolders::new(folder).sweep_all_but(keep, &stop);
    let mut swept = swept.map_err(|error| failed("staging", &error))?;
    left.append(&mut swept.left);
    left.append(&mut runners::clear(folder, &stop));
    Ok((swept.removed, left))
}

fn artifact_store(folder: &Path) -> Result<Store, Failure> {
    Store::open(&folder.join("artifacts")).map_err(|error| failed("artifacts", &error))
}

fn sweep_tables(
    folder: &Path,
    retention: Duration,
    keep: &Versions,
) -> Result<(u64, u64), Failure> {
    let none = BTreeSet::new();
    let all = StateTables::new(folder.to_owned());
    let runtime = runtime()?;
    let (mut files, mut freed) = (0, 0);
    for tenant in all.tenants().map_err(|error| failed("datasets", &error))? {
        let tables = all.of(&tenant);
        for table in tables.names().map_err(|error| failed("datasets", &error))? {
            let of_it = (tenant.to_string(), table.clone());
            let keep = keep.get(&of_it).unwrap_or(&none);
            let swept = tables.sweep_table(&table, SystemTime::now(), retention, keep);
            let swept = runtime.block_on(swept);
            let swept = swept.map_err(|error| failed(&format!("{tenant}'s {table}"), &error))?;
            files += swept.files;
            freed += swept.bytes;
        }
    }
    Ok((files, freed))
}

/// Removes dead letters of attempts that have none on record: those of which nobody heard, or whose
/// end was not taken.
fn sweep_letters(reader: &Reader, folder: &Path) -> Result<u64, Failure> {
    let on_record = reader.attempts_with_letters();
    let on_record: BTreeSet<String> = on_record
        .map_err(state::store_failure)?
        .into_iter()
        .filter_map(|(task, number)| letters_token(&task, number))
        .map(|token| token.to_string())
        .collect();
    let failed = |error: std::io::Error| failed("dead letters", &error);
    let all = StagingFolders::new(folder).all_letters().map_err(failed)?;
    let mut removed = 0;
    for (token, path) in all {
        if !on_record.contains(&token) {
            std::fs::remove_file(path).map_err(failed)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Versions of datasets, by tenant and name.
type Versions = BTreeMap<(String, DatasetName), BTreeSet<u64>>;

/// What runs that are on record need still.
#[derive(Default)]
struct Needed {
    /// What was staged and is decided for.
    staging: Vec<AttemptToken>,
    /// What any of them ran.
    artifacts: BTreeSet<Digest>,
    /// What those that have not ended read of other pipelines: a run that was interrupted goes on
    /// with the versions that it was accepted with.
    versions: Versions,
    /// The caches of each pipeline's latest run, and of those that have not ended.
    caches: BTreeSet<String>,
}

impl Needed {
    fn find(reader: &Reader, folder: &Path) -> Result<Self, Failure> {
        let store = artifact_store(folder)?;
        let mut needed = Self::default();
        let mut seen = BTreeSet::new();
        for (run, plan) in reader.runs(u32::MAX).map_err(state::store_failure)? {
            needed.staging.extend(decided(&run));
            needed.artifacts_of(&plan, &store);
            let is_latest = seen.insert((plan.tenant.clone(), plan.pipeline.clone()));
            if is_latest || !run.state.is_final() {
                let stages = plan.stages.iter();
                needed
                    .caches
                    .extend(stages.filter_map(|stage| plan.reuse_key(stage)));
            }
            if run.state.is_final() {
                continue;
            }
            for (_, dataset, pinned) in plan.pinned() {
                let versions = (plan.tenant.clone(), dataset.clone());
                let versions = needed.versions.entry(versions).or_default();
                versions.insert(pinned.version);
            }
        }
        Ok(needed)
    }

    fn artifacts_of(&mut self, plan: &Plan, store: &Store) {
        for stage in &plan.stages {
            let pins = std::iter::once(stage.work.artifact()).chain(&stage.drivers);
            self.artifacts
                .extend(pins.filter_map(|pin| pin.digest.parse::<Digest>().ok()));
            if let Some(image) = stage.work.image()
                && let Ok(digest) = image.digest.parse()
                && let Ok(closure) = image::closure(store, &digest, &Limits::default())
            {
                self.artifacts.extend(closure);
            }
        }
    }
}

fn decided(run: &Run) -> impl Iterator<Item = AttemptToken> {
    run.tasks
        .iter()
        .filter(|task| task.state == TaskState::Committing)
        .filter_map(|task| {
            Some(AttemptToken {
                task: task.id.clone(),
                number: task.current()?.number,
            })
        })
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(
        Status::Failed,
        format!("{what} could not be cleaned up: {}", chain(error)),
    )
}
