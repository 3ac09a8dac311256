//! What could never come to its end is refused before anything is built.

use std::collections::BTreeSet;

use barecount_api::run::RunRequest;
use barecount_control::store::reader::Reader;
use barecount_dataset::table::StateTables;
use barecount_model::{
    pipeline::{Input, Loaded, Pipeline},
    text::DatasetName,
};
use futures::future::join_all;

use super::{
    datasets::tenant_of,
    evolution, owners,
    script::{self, Unplannable},
};
use crate::{
    failure::{Failure, Status},
    preparation::Preparation,
    reporter::Reporter,
    state,
};

/// Refuses jobs that cannot be planned, outputs that are another pipeline's, and outputs that their
/// datasets cannot take. Blocks; jobs are planned on a thread of their own while logs are read.
///
/// # Errors
/// Of the first that is refused, and if the state cannot be read.
pub(super) fn feasible(
    asked: &RunRequest,
    loaded: &Loaded,
    tables: &StateTables,
    preparation: &Preparation<'_>,
) -> Result<(), Failure> {
    let reader = state::reader(preparation.state)?;
    let only = asked.stage.as_deref();
    let (planned, fitting) = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let planning =
                std::thread::Builder::new().spawn_scoped(scope, || unplannable(asked, loaded));
            let fitting = checked(tables, reader.as_ref(), &loaded.pipeline, only);
            let fitting = tokio::runtime::Handle::current().block_on(fitting);
            match planning {
                Ok(planning) => (planning.join(), fitting),
                // The host makes no further thread just now.
                Err(_) => (Ok(unplannable(asked, loaded)), fitting),
            }
        })
    });
    let planned = planned.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    plannable(&planned?, preparation.reporter)?;
    fitting
}

/// Refuses outputs that are another pipeline's, or that their datasets cannot take.
pub(super) async fn checked(
    tables: &StateTables,
    reader: Option<&Reader>,
    pipeline: &Pipeline,
    only: Option<&str>,
) -> Result<(), Failure> {
    read_logs(tables, pipeline, only).await?;
    if let Some(reader) = reader
        && let Some(first) = owners::taken(reader, tables, pipeline, only).await?.first()
    {
        return Err(first.failure());
    }
    match evolution::unfit(tables, pipeline, only).await?.first() {
        Some(first) => Err(first.failure()),
        None => Ok(()),
    }
}

/// Reads the logs of all that a pipeline reads and writes at once, so that those who ask for one find
/// it read. What cannot be read is theirs to tell.
async fn read_logs(
    tables: &StateTables,
    pipeline: &Pipeline,
    only: Option<&str>,
) -> Result<(), Failure> {
    let tables = tables.of(&tenant_of(pipeline.tenant.as_str())?);
    let stages = pipeline.stages.iter();
    let stages = stages.filter(|stage| only.is_none_or(|only| stage.name.as_str() == only));
    let datasets: BTreeSet<&DatasetName> = stages
        .flat_map(|stage| {
            let outputs = stage.outputs.iter().map(|output| &output.dataset);
            outputs.chain(stage.inputs.iter().filter_map(dataset_of))
        })
        .collect();
    join_all(datasets.into_iter().map(|dataset| tables.latest(dataset))).await;
    Ok(())
}

fn dataset_of(input: &Input) -> Option<&DatasetName> {
    match input {
        Input::Dataset { dataset, .. } => Some(dataset),
        Input::File { .. } => None,
    }
}

/// The jobs that would run and cannot be planned.
pub(super) fn unplannable(
    asked: &RunRequest,
    loaded: &Loaded,
) -> Result<Vec<Unplannable>, Failure> {
    let (only, windowed) = (asked.stage.as_deref(), asked.window.is_some());
    script::unplannable(loaded, &asked.manifest, only, windowed)
}

/// Tells jobs that cannot be planned, each with its place; the first is the failure.
pub(super) fn plannable(
    unplannable: &[Unplannable],
    reporter: &dyn Reporter,
) -> Result<(), Failure> {
    for job in unplannable {
        reporter.warn(&job.diagnostic.render(&job.source));
    }
    match unplannable.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(
            Status::Usage,
            format!(
                "{} could never run; nothing has started",
                first.diagnostic.file
            ),
        )
        .with_code(first.diagnostic.code)),
    }
}
