//! Datasets of other pipelines: looked up in the state folder, within the tenant, before a pipeline
//! that reads them is planned or run; and who reads what a pipeline writes.

use std::{collections::BTreeMap, path::Path};

use barecount_api::dataset::ReadBy;
use barecount_control::store::reader::Reader;
use barecount_dataset::{
    stage::files_schema,
    table::{Snapshot, StateTables, Tables},
};
use barecount_model::{
    codes,
    diagnostic::Diagnostic,
    document::Document,
    pipeline::{Column, Loaded, Misfit, Pipeline, Published},
    plan::{Pinned, Plan},
    text::{ColumnName, DatasetName},
};

use super::{boundaries::Boundaries, datasets::tenant_of, owners};
use crate::{
    failure::{Failure, Status},
    runtime::runtime,
    state,
};

/// Has a pipeline know what it reads of others, as the state folder has it now. Answers with what
/// does not fit.
///
/// # Errors
/// If the state cannot be read.
pub(super) async fn resolve(loaded: &mut Loaded, state: &Path) -> Result<Vec<Misfit>, Failure> {
    if loaded.pipeline.reads_from().is_empty() {
        return Ok(Vec::new());
    }
    let published = published(&loaded.pipeline, state).await?;
    Ok(loaded.import(&published))
}

/// As [`resolve`]; what does not fit is a failure, if a stage has it that is asked for.
///
/// # Errors
/// If the state cannot be read, and of what does not fit.
pub(super) async fn hold(
    loaded: &mut Loaded,
    state: &Path,
    only: Option<&str>,
) -> Result<(), Failure> {
    let misfits = resolve(loaded, state).await?;
    let mut asked = misfits
        .iter()
        .filter(|misfit| only.is_none_or(|only| misfit.stage.as_str() == only));
    asked.next().map_or(Ok(()), |first| Err(failure(first)))
}

/// As [`hold`], for verbs that start nothing: with a runtime of its own.
///
/// # Errors
/// As [`hold`].
pub(super) fn hold_of(
    loaded: &mut Loaded,
    state: &Path,
    only: Option<&str>,
) -> Result<(), Failure> {
    match loaded.pipeline.reads_from().is_empty() {
        true => Ok(()),
        false => runtime()?.block_on(hold(loaded, state, only)),
    }
}

/// The failure of a run that would read what is not so.
fn failure(misfit: &Misfit) -> Failure {
    let what = format!("stage `{}`: {}", misfit.stage, misfit.message);
    let mut help = misfit.help.clone();
    if let Some(first) = help.get(..1).map(str::to_uppercase) {
        help.replace_range(..1, &first);
    }
    Failure::new(Status::Usage, what)
        .with_code(misfit.code.id)
        .with_help(format!("{help}."))
}

/// As [`resolve`], with the places in the manifest. Where there is no state folder there is nothing
/// to look at, and nothing is said.
///
/// # Errors
/// If the state cannot be read.
pub(super) fn diagnose(
    state: &Path,
    loaded: &mut Loaded,
    file: &str,
    source: &str,
) -> Result<Vec<Diagnostic>, Failure> {
    let there = state.canonicalize().is_ok();
    if !there || loaded.pipeline.reads_from().is_empty() {
        return Ok(Vec::new());
    }
    let misfits = runtime()?.block_on(resolve(loaded, state))?;
    let Ok(document) = Document::parse(file, source.as_bytes()) else {
        return Ok(Vec::new());
    };
    let diagnostics = misfits.into_iter().map(|misfit| {
        let span = document.value_span(&misfit.pointer);
        Diagnostic::error(misfit.code, file, span, misfit.message).with_help(misfit.help)
    });
    Ok(diagnostics.collect())
}

/// What there is of what a pipeline reads of others. Of a state folder that is not there: nothing.
async fn published(
    pipeline: &Pipeline,
    state: &Path,
) -> Result<BTreeMap<DatasetName, Published>, Failure> {
    let mut published = BTreeMap::new();
    let Ok(folder) = state.canonicalize() else {
        return Ok(published);
    };
    let Some(reader) = state::reader(&folder)? else {
        return Ok(published);
    };
    let tenant = tenant_of(pipeline.tenant.as_str())?;
    // No name leads out of these: what is another tenant's is not there.
    let tables = StateTables::new(folder.clone()).of(&tenant);
    let boundaries = Boundaries::new(folder.join("boundaries"));
    for dataset in pipeline.reads_from().into_keys() {
        if let Some(found) = as_it_stands(dataset, &tables, &reader, &boundaries).await? {
            published.insert(dataset.clone(), found);
        }
    }
    Ok(published)
}

async fn as_it_stands(
    dataset: &DatasetName,
    tables: &Tables,
    reader: &Reader,
    boundaries: &Boundaries,
) -> Result<Option<Published>, Failure> {
    let snapshot = tables.latest(dataset).await;
    let Some(snapshot) = snapshot.map_err(|error| unavailable(&error))? else {
        return Ok(None);
    };
    let written_within = boundaries.written_within(tables.tenant(), dataset);
    let (columns, partition_by) = columns(&snapshot)?;
    Ok(Some(Published {
        owner: owners::owner(reader, tables.tenant(), &snapshot)?,
        version: snapshot.version,
        columns,
        partition_by,
        written_within: written_within.map_err(|error| unavailable(&error))?,
    }))
}

/// The columns of a table, and those that it is split by; none of a set of files.
fn columns(snapshot: &Snapshot) -> Result<(Vec<Column>, Vec<ColumnName>), Failure> {
    let schema = &snapshot.schema;
    if files_schema().is_ok_and(|files| files == *schema) {
        return Ok((Vec::new(), Vec::new()));
    }
    let name = |name: &str| {
        let name = name.parse::<ColumnName>();
        name.map_err(|error| unavailable(&error))
    };
    let columns = schema.columns().iter().map(|column| {
        Ok(Column {
            name: name(&column.name)?,
            column_type: column.column_type,
            nullable: column.nullable,
            pattern: column.pattern.clone(),
            description: None,
            sensitive: false,
            tolerance: None,
        })
    });
    let partition_by = schema.partition_by().iter().map(|column| name(column));
    Ok((
        columns.collect::<Result<_, Failure>>()?,
        partition_by.collect::<Result<_, _>>()?,
    ))
}

/// What a run of this plan reads of other pipelines.
pub(super) fn reads(plan: &Plan) -> BTreeMap<DatasetName, Pinned> {
    plan.pinned()
        .map(|(_, dataset, pinned)| (dataset.clone(), pinned.clone()))
        .collect()
}

/// The stages of other pipelines that read what a pipeline writes; nobody where nothing has run.
///
/// # Errors
/// If the store cannot be read.
pub(super) fn readers_of(state: &Path, pipeline: &Pipeline) -> Result<Vec<ReadBy>, Failure> {
    let Ok(folder) = state.canonicalize() else {
        return Ok(Vec::new());
    };
    let Some(reader) = state::reader(&folder)? else {
        return Ok(Vec::new());
    };
    let outputs = pipeline.stages.iter().flat_map(|stage| &stage.outputs);
    let datasets: Vec<_> = outputs.map(|output| &output.dataset).collect();
    readers(&reader, pipeline.tenant.as_str(), &datasets)
}

/// The stages of other pipelines that read one of these datasets of a tenant, by the latest version
/// of each pipeline that was run.
///
/// # Errors
/// If the store cannot be read.
pub(super) fn readers(
    reader: &Reader,
    tenant: &str,
    datasets: &[&DatasetName],
) -> Result<Vec<ReadBy>, Failure> {
    let mut found = Vec::new();
    for plan in reader.latest_plans(tenant).map_err(state::store_failure)? {
        for (stage, dataset, _) in plan.pinned() {
            if datasets.contains(&dataset) {
                found.push(ReadBy {
                    dataset: dataset.to_string(),
                    pipeline: plan.pipeline.clone(),
                    stage: stage.name.clone(),
                });
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Who reads a dataset, in words; empty where nobody does.
pub(super) fn read_by(readers: &[ReadBy]) -> String {
    let readers: Vec<_> = readers.iter().map(ToString::to_string).collect();
    readers.join(", ")
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::from_error(Status::Failed, error).with_code(codes::DATASET_UNAVAILABLE.id)
}
