//! Whose a dataset is: it has one writer, over all manifests of a tenant.
//!
//! It belongs to the pipeline that it was given to, or else to the one whose run wrote it last. One
//! that was dropped belongs to nobody.

use std::path::Path;

use barecount_control::store::reader::Reader;
use barecount_dataset::{
    name::Tenant,
    table::{Snapshot, StateTables},
};
use barecount_model::{
    codes,
    diagnostic::Diagnostic,
    document::Document,
    pipeline::{Loaded, Pipeline},
};

use super::evolution;
use crate::{
    failure::{Failure, Status},
    runtime::runtime,
    state,
};

/// An output whose dataset is another pipeline's.
pub(crate) struct Taken {
    stage: String,
    dataset: String,
    owner: String,
    pipeline: String,
}

impl Taken {
    fn message(&self) -> String {
        let Self { dataset, owner, .. } = self;
        format!("dataset `{dataset}` is pipeline `{owner}`'s")
    }

    fn way_out(&self) -> String {
        let Self {
            dataset, pipeline, ..
        } = self;
        format!(
            "Write to another dataset; or, if it is to be this pipeline's from now on, run \
             `barecount datasets give {dataset} --to {pipeline}`."
        )
    }

    /// The failure of a run that would write it.
    pub(crate) fn failure(&self) -> Failure {
        let what = format!("stage `{}`: {}", self.stage, self.message());
        Failure::new(Status::Usage, what)
            .with_code(codes::DATASET_OWNED.id)
            .with_help(self.way_out())
    }
}

/// The pipeline that a dataset belongs to, as it stands.
///
/// # Errors
/// If the store cannot be read.
pub(crate) fn owner(
    reader: &Reader,
    tenant: &Tenant,
    snapshot: &Snapshot,
) -> Result<Option<String>, Failure> {
    if let Some(given) = &snapshot.given_to {
        return Ok(Some(given.clone()));
    }
    let writers = reader.writers(tenant.as_str(), snapshot.table.as_str());
    let last = writers.map_err(state::store_failure)?.pop();
    Ok(last.map(|writer| writer.pipeline))
}

/// The outputs of a pipeline, or of one stage of it, that are another's.
///
/// # Errors
/// If the store or a table cannot be read.
pub(crate) async fn taken(
    reader: &Reader,
    tables: &StateTables,
    pipeline: &Pipeline,
    only: Option<&str>,
) -> Result<Vec<Taken>, Failure> {
    let tenant = pipeline.tenant.as_str().parse::<Tenant>();
    let tenant = tenant.map_err(|error| Failure::from_error(Status::Usage, &error))?;
    let tables = tables.of(&tenant);
    let mut found = Vec::new();
    let stages = pipeline.stages.iter();
    for stage in stages.filter(|stage| only.is_none_or(|only| stage.name.as_str() == only)) {
        for output in &stage.outputs {
            let snapshot = tables.latest(&output.dataset).await.map_err(|error| {
                let code = codes::DATASET_UNAVAILABLE.id;
                Failure::from_error(Status::Failed, &error).with_code(code)
            })?;
            let Some(snapshot) = snapshot else {
                continue;
            };
            let owner = owner(reader, &tenant, &snapshot)?;
            if let Some(owner) = owner.filter(|owner| owner != pipeline.name.as_str()) {
                found.push(Taken {
                    stage: stage.name.to_string(),
                    dataset: output.dataset.to_string(),
                    owner,
                    pipeline: pipeline.name.to_string(),
                });
            }
        }
    }
    Ok(found)
}

/// The same as [`taken`], with the places in the manifest; nothing where nothing has ever run.
///
/// # Errors
/// If the store or a table cannot be read.
pub(crate) fn diagnose(
    folder: &Path,
    loaded: &Loaded,
    file: &str,
    source: &str,
) -> Result<Vec<Diagnostic>, Failure> {
    let (Ok(folder), Ok(document)) = (
        folder.canonicalize(),
        Document::parse(file, source.as_bytes()),
    ) else {
        return Ok(Vec::new());
    };
    let Some(reader) = state::reader(&folder)? else {
        return Ok(Vec::new());
    };
    let tables = StateTables::new(folder);
    let runtime = runtime()?;
    let found = runtime.block_on(taken(&reader, &tables, &loaded.pipeline, None))?;
    Ok(found
        .iter()
        .map(|taken| {
            let place = evolution::place(loaded, &taken.stage, &taken.dataset);
            let span = document.value_span(&place.unwrap_or_default());
            Diagnostic::error(codes::DATASET_OWNED, file, span, taken.message())
                .with_help(taken.way_out())
        })
        .collect())
}
