//! Outputs as a manifest declares them, held against the tables as they stand.
//!
//! Asked three times: by `validate`, by `run` before anything runs, and when an attempt's outputs
//! are staged. Each of them changes nothing and may be told of a table that another run changes
//! afterwards; the last one alone stands directly before the commit decision.

use barecount_agent::DataError;
use barecount_dataset::{
    commit::CommitError,
    evolution::{Evolution, Refusal, compatible},
    name::Tenant,
    table::{StateTables, Tables},
};
use barecount_model::{
    codes,
    diagnostic::Diagnostic,
    document::Document,
    pipeline::{Loaded, Output, Pipeline, Stage},
};

use super::schema;
use crate::{
    failure::{Failure, Status, chain},
    runtime::runtime,
};

/// An output that its dataset, as it stands, cannot take.
pub(crate) struct Unfit {
    stage: String,
    dataset: String,
    refusal: Refusal,
}

impl Unfit {
    fn message(&self) -> String {
        let Self {
            dataset, refusal, ..
        } = self;
        format!("dataset `{dataset}` cannot take the declared schema: {refusal}")
    }

    /// The failure of a run that would end so.
    pub(crate) fn failure(&self) -> Failure {
        Failure::new(
            Status::Usage,
            format!("stage `{}`: {}", self.stage, self.message()),
        )
        .with_code(codes::SCHEMA_NOT_TAKEN.id)
        .with_help(self.refusal.way_out())
    }
}

/// The outputs of a pipeline, or of one stage of it, that their datasets cannot take.
///
/// # Errors
/// If a table cannot be read.
pub(crate) async fn unfit(
    tables: &StateTables,
    pipeline: &Pipeline,
    only: Option<&str>,
) -> Result<Vec<Unfit>, Failure> {
    let tenant = Tenant::from(pipeline.tenant.clone());
    let tables = &tables.of(&tenant);
    let mut found = Vec::new();
    let stages = pipeline.stages.iter();
    for stage in stages.filter(|stage| only.is_none_or(|only| stage.name.as_str() == only)) {
        for output in &stage.outputs {
            if let Some(Err(refusal)) = foresee(tables, stage, output).await? {
                found.push(Unfit {
                    stage: stage.name.to_string(),
                    dataset: output.dataset.to_string(),
                    refusal,
                });
            }
        }
    }
    Ok(found)
}

/// What an output would make of its dataset's schema; `None` where there is no dataset yet.
async fn foresee(
    tables: &Tables,
    stage: &Stage,
    output: &Output,
) -> Result<Option<Result<Evolution, Refusal>>, Failure> {
    let unusable = |error: DataError| {
        Failure::from_error(Status::Usage, &error).with_code(codes::OUTPUT_NOT_AS_DECLARED.id)
    };
    let snapshot = tables.latest(&output.dataset).await.map_err(|error| {
        Failure::from_error(Status::Failed, &error).with_code(codes::DATASET_UNAVAILABLE.id)
    })?;
    let Some(snapshot) = snapshot else {
        return Ok(None);
    };
    let declared = schema::of_output(output).map_err(unusable)?;
    let own = stage.partitions.map(|partitions| partitions.column());
    let one_partition =
        own.is_some_and(|own| output.partition_by.iter().any(|by| by.as_str() == own));
    let rows = schema::write_mode(output.mode).rows(one_partition);
    let rule = schema::evolution(output.schema_evolution);
    Ok(Some(compatible(&snapshot.schema, &declared, rows, rule)))
}

/// The same as [`unfit`], with the places in the manifest; nothing where there is no state folder.
///
/// # Errors
/// If a table cannot be read.
pub(crate) fn diagnose(
    state: &std::path::Path,
    loaded: &Loaded,
    file: &str,
    source: &str,
) -> Result<Vec<Diagnostic>, Failure> {
    let (Ok(state), Ok(document)) = (
        state.canonicalize(),
        Document::parse(file, source.as_bytes()),
    ) else {
        return Ok(Vec::new());
    };
    let runtime = runtime()?;
    let found = runtime.block_on(unfit(&StateTables::new(state), &loaded.pipeline, None))?;
    Ok(found
        .iter()
        .map(|unfit| {
            let place = place(loaded, &unfit.stage, &unfit.dataset);
            let span = document.value_span(&place.unwrap_or_default());
            Diagnostic::error(codes::SCHEMA_NOT_TAKEN, file, span, unfit.message())
                .with_help(unfit.refusal.way_out())
        })
        .collect())
}

/// Where a manifest names an output's dataset, as a JSON pointer.
pub(super) fn place(loaded: &Loaded, stage: &str, dataset: &str) -> Option<String> {
    let stages = &loaded.manifest.spec.stages;
    let stage = stages
        .iter()
        .position(|found| found.name.as_str() == stage)?;
    let mut outputs = stages[stage].outputs.iter();
    let output = outputs.position(|output| output.dataset.as_str() == dataset)?;
    Some(format!("/spec/stages/{stage}/outputs/{output}/dataset"))
}

/// The failure of an attempt whose outputs could never be rolled forward.
pub(super) fn refused(output: &Output, error: &CommitError) -> DataError {
    let message = |help: &str| format!("output {}: {}{help}", output.dataset, chain(error));
    match error {
        CommitError::Schema { source, .. } => DataError::Data {
            code: codes::SCHEMA_NOT_TAKEN.id,
            message: message(&format!(". {}", source.way_out())),
        },
        CommitError::Decision { .. } => DataError::Data {
            code: codes::OUTPUT_NOT_AS_DECLARED.id,
            message: message(""),
        },
        _ => DataError::Host {
            code: codes::STAGING_FAILED.id,
            message: message(""),
        },
    }
}
