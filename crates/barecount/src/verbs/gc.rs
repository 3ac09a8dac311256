//! `barecount gc`.

use std::{
    collections::BTreeSet,
    io::IsTerminal,
    path::Path,
    time::{Duration, SystemTime},
};

use barecount_agent::StagingFolders;
use barecount_artifact::{Digest, Limits, Store, image};
use barecount_control::store::reader::Reader;
use barecount_dataset::table::StateTables;
use barecount_model::run::{Run, TaskState};
use barecount_runner::launch::AttemptToken;
use clap::Args;
use serde_json::json;

use crate::{
    cli::Global,
    failure::{Failure, Status, chain},
    preparation,
    printer::Printer,
    state,
    verbs::dlq::letters_token,
    view::bytes,
};

/// Remove what nobody needs any more: staging of ended attempts, artifacts that no run kept names,
/// data files that no version names, dead letters that no run has on record.
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Keep data files that fell out of their dataset's latest version for so many hours, for
    /// those who still read an older one.
    #[arg(long, default_value_t = 168, value_name = "HOURS")]
    retention: u64,
    /// Do not ask before every older version is removed at once (`--retention 0`).
    #[arg(long)]
    yes: bool,
}

impl Gc {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let folder = state::folder(&global.state)?;
        let Some(reader) = state::reader(&folder)? else {
            let what = format!("nothing has ever run in {}", folder.display());
            return Err(Failure::new(Status::NotFound, what));
        };
        if self.retention == 0 && !self.yes && !agreed()? {
            let what = "every version of every dataset but the latest would be removed for good";
            return Err(Failure::new(Status::Usage, what).with_help(
                "Say `--yes` if that is meant, or keep some hours with `--retention`.",
            ));
        }
        // Held to the end: nothing else may be writing meanwhile.
        let _store = barecount_control::store::Store::open(&global.state).map_err(|error| {
            Failure::from_error(Status::Unavailable, &error).with_code("BC0803")
        })?;
        let (keep_staging, keep_artifacts) = needed(&reader, &folder)?;
        let staging = StagingFolders::new(&folder)
            .sweep_all_but(&keep_staging)
            .map_err(|error| failed("staging", &error))?;
        let store = artifact_store(&folder)?;
        let collected = store
            .collect(&keep_artifacts)
            .map_err(|error| failed("artifacts", &error))?;
        let collected = collected.ok_or_else(|| {
            Failure::new(
                Status::Unavailable,
                "the artifacts are in use by another process",
            )
            .with_code("BC0803")
        })?;
        let letters = sweep_letters(&reader, &folder)?;
        let retention = Duration::from_secs(self.retention.saturating_mul(3600));
        let (files, freed) = sweep_tables(&folder, retention)?;
        let value = json!({
            "schema": "barecount/gc/v1", "staging_folders": staging, "artifacts": collected,
            "data_files": files, "data_bytes": freed, "dead_letter_files": letters,
        });
        printer.data(&value, || {
            format!(
                "removed {staging} staging folders, {} artifacts ({}), {} unpacked artifacts, \
                 {files} data files ({}), {letters} files of dead letters\n",
                collected.blobs,
                bytes(collected.blob_bytes),
                collected.trees,
                bytes(freed)
            )
        })
    }
}

/// Whether somebody at a terminal says that nothing but the latest versions is to be kept.
fn agreed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    crate::printer::ask("Remove every version of every dataset but the latest? [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Status::Usage, "no answer can be read").because(&error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn artifact_store(folder: &Path) -> Result<Store, Failure> {
    Store::open(&folder.join("artifacts")).map_err(|error| failed("artifacts", &error))
}

fn sweep_tables(folder: &Path, retention: Duration) -> Result<(u64, u64), Failure> {
    let all = StateTables::new(folder.to_owned());
    let runtime = preparation::runtime()?;
    let (mut files, mut freed) = (0, 0);
    for tenant in all.tenants().map_err(|error| failed("datasets", &error))? {
        let tables = all.of(&tenant);
        for table in tables.names().map_err(|error| failed("datasets", &error))? {
            let swept = runtime.block_on(tables.sweep_table(&table, SystemTime::now(), retention));
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

/// Staging that is decided for, and artifacts of every run that is on record.
fn needed(
    reader: &Reader,
    folder: &Path,
) -> Result<(Vec<AttemptToken>, BTreeSet<Digest>), Failure> {
    let store = artifact_store(folder)?;
    let (mut staging, mut artifacts) = (Vec::new(), BTreeSet::new());
    for (run, plan) in reader.runs(u32::MAX).map_err(state::store_failure)? {
        staging.extend(decided(&run));
        for stage in &plan.stages {
            let pins = std::iter::once(stage.work.artifact()).chain(&stage.drivers);
            artifacts.extend(pins.filter_map(|pin| pin.digest.parse::<Digest>().ok()));
            if let Some(image) = stage.work.image()
                && let Ok(digest) = image.digest.parse()
                && let Ok(closure) = image::closure(&store, &digest, &Limits::default())
            {
                artifacts.extend(closure);
            }
        }
    }
    Ok((staging, artifacts))
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
