//! Datasets as they are looked at.

use barecount_api::dataset::{
    ColumnView, DatasetRef, DatasetSummary, DatasetView, OutputSummary, Preview,
};
use barecount_control::store::reader::{Reader, Writer};
use barecount_dataset::{
    name::{InvalidTenant, Tenant},
    schema::TableSchema,
    table::{Snapshot, StateTables, TableError, Tables},
    versions::{Difference, Version},
};
use barecount_model::{codes, text::DatasetName};
use serde_json::Value;

use super::{Embedded, imports, layout, outputs, owners, trace};
use crate::{
    client::{Brought, DatasetChange, Datasets, Diff, Export, Trace},
    failure::{Failure, Status},
    reporter::Reporter,
    runtime::runtime,
    state,
};

impl Brought {
    fn of(version: Version, writers: &[Writer]) -> Self {
        let transaction = version.transaction.as_ref();
        let task = transaction.map(|transaction| &transaction.app_id);
        let writer = writers.iter().find(|writer| Some(&writer.task) == task);
        Self {
            at: version.at().map(|at| at.to_string()),
            run: writer.map(|writer| writer.run.clone()),
            task: writer.map(|writer| writer.task.clone()),
            pipeline: writer.map(|writer| writer.pipeline.clone()),
            version,
        }
    }
}

impl Datasets for Embedded {
    fn datasets(&self, tenant: Option<&str>) -> Result<Vec<DatasetSummary>, Failure> {
        let folder = state::folder(&self.state)?;
        let reader = state::reader(&folder)?;
        let all = StateTables::new(folder);
        let unlisted = |error: std::io::Error| {
            Failure::new(Status::Unavailable, "the datasets cannot be listed").because(&error)
        };
        let tenants = match tenant {
            Some(name) => vec![tenant_of(name)?],
            None => all.tenants().map_err(unlisted)?,
        };
        let mut found = Vec::new();
        let runtime = runtime()?;
        for tenant in &tenants {
            let tables = all.of(tenant);
            for name in tables.names().map_err(unlisted)? {
                let snapshot = match runtime.block_on(tables.snapshot(&name, None)) {
                    Err(TableError::NotFound { .. }) => continue,
                    found => found.map_err(|error| unreadable(&error))?,
                };
                let pipeline = match &reader {
                    Some(reader) => owners::owner(reader, tenant, &snapshot)?,
                    None => None,
                };
                found.push(DatasetSummary {
                    tenant: tenant.to_string(),
                    dataset: name.to_string(),
                    version: snapshot.version,
                    rows: rows(&snapshot),
                    bytes: size(&snapshot),
                    pipeline,
                    uri: snapshot.uri,
                });
            }
        }
        Ok(found)
    }

    fn dataset(&self, which: &DatasetRef, version: Option<u64>) -> Result<DatasetView, Failure> {
        let found = self.find(which)?;
        let snapshot = found.snapshot(version)?;
        let pipeline = owners::owner(&found.reader, found.tables.tenant(), &snapshot)?;
        let (rows, digest) = digest_of(&snapshot)?;
        let tenant = found.tables.tenant().as_str();
        let read_by = imports::readers(&found.reader, tenant, &[&found.table])?;
        Ok(DatasetView {
            schema: "barecount/dataset/v1".to_owned(),
            dataset: found.table.to_string(),
            tenant: found.tables.tenant().to_string(),
            version: snapshot.version,
            pipeline,
            rows,
            bytes: size(&snapshot),
            files: snapshot.files.len(),
            digest,
            columns: columns(&snapshot.schema),
            partition_by: snapshot.schema.partition_by().to_vec(),
            read_by,
            uri: snapshot.uri,
        })
    }

    fn history(&self, which: &DatasetRef) -> Result<Vec<Brought>, Failure> {
        let found = self.find(which)?;
        let told = runtime()?.block_on(found.tables.history(&found.table));
        let told = told.map_err(|error| unreadable(&error))?;
        let writers = found.writers()?;
        let newest_first = told.into_iter().rev();
        Ok(newest_first
            .map(|version| Brought::of(version, &writers))
            .collect())
    }

    fn diff(
        &self,
        which: &DatasetRef,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<Diff, Failure> {
        let found = self.find(which)?;
        let to = found.snapshot(to)?;
        let first = from.or(to.version.checked_sub(1)).ok_or_else(|| {
            let what = format!("{} has no version before its first", found.table);
            Failure::new(Status::Usage, what)
                .with_help("Name two versions with `--from` and `--to`.")
        })?;
        let from = found.snapshot(Some(first))?;
        Ok(Diff {
            dataset: found.table.to_string(),
            tenant: found.tables.tenant().to_string(),
            from: (from.version, rows(&from)),
            to: (to.version, rows(&to)),
            difference: Difference::between(&from, &to),
        })
    }

    fn change(
        &self,
        which: &DatasetRef,
        asked: &DatasetChange,
        agreed: &dyn Fn(&str) -> Result<(), Failure>,
        reporter: &dyn Reporter,
    ) -> Result<Value, Failure> {
        self.change_found(&self.find(which)?, asked, agreed, reporter)
    }

    fn trace(&self, which: &DatasetRef, version: Option<u64>) -> Result<Trace, Failure> {
        let found = self.find(which)?;
        Ok(Trace {
            tenant: found.tables.tenant().to_string(),
            trace: trace::trace(found, version)?,
        })
    }

    fn outputs(
        &self,
        tenant: Option<&str>,
        reporter: &dyn Reporter,
    ) -> Result<Vec<OutputSummary>, Failure> {
        outputs::list(&self.state, tenant, reporter)
    }

    fn preview(
        &self,
        which: &DatasetRef,
        version: Option<u64>,
        rows: u16,
    ) -> Result<Preview, Failure> {
        outputs::preview(&self.snapshot_of(which, version)?, rows)
    }

    fn export(
        &self,
        which: &DatasetRef,
        version: Option<u64>,
        export: Export<'_>,
    ) -> Result<String, Failure> {
        outputs::export(&self.snapshot_of(which, version)?, export)
    }

    fn give_to_tenant(&self, dataset: &str, tenant: &str) -> Result<(), Failure> {
        layout::give(&self.state, &named(dataset)?, &tenant_of(tenant)?)
    }
}

/// Rows of a whole snapshot, and its content digest.
pub(super) fn digest_of(snapshot: &Snapshot) -> Result<(u64, String), Failure> {
    snapshot
        .digest()
        .map_err(|error| Failure::from_error(Status::Failed, &error).with_code("BC0701"))
}

/// The columns of a table.
pub(super) fn columns(schema: &TableSchema) -> Vec<ColumnView> {
    let columns = schema.columns().iter();
    columns
        .map(|column| ColumnView {
            name: column.name.as_str().into(),
            column_type: column.column_type,
            nullable: column.nullable,
            pattern: column.pattern.clone(),
        })
        .collect()
}

/// A dataset that was named, the tables that it is of, and the store.
pub(super) struct Dataset {
    /// Its name.
    pub(super) table: DatasetName,
    /// Its tenant's tables.
    pub(super) tables: Tables,
    /// The store.
    pub(super) reader: Reader,
}

impl Embedded {
    /// Finds a dataset.
    pub(super) fn find(&self, which: &DatasetRef) -> Result<Dataset, Failure> {
        let table = named(&which.dataset)?;
        let folder = state::folder(&self.state)?;
        let reader = state::reader(&folder)?.ok_or_else(|| state::nothing_ran(&folder))?;
        let tenant = which.tenant.as_deref();
        let tables = tables_with(tenant, &StateTables::new(folder), &table)?;
        Ok(Dataset {
            table,
            tables,
            reader,
        })
    }
}

/// A dataset's name.
pub(super) fn named(name: &str) -> Result<DatasetName, Failure> {
    name.parse().map_err(|error| {
        let what = format!("`{name}` does not name a dataset");
        Failure::new(Status::Usage, what).because(&error)
    })
}

/// The tables of the tenant that has a dataset: of the one that was named, or of the only one
/// that has it.
///
/// # Errors
/// If nobody has it, and if several have it and none was named.
pub(super) fn tables_with(
    tenant: Option<&str>,
    tables: &StateTables,
    dataset: &DatasetName,
) -> Result<Tables, Failure> {
    if let Some(name) = tenant {
        return Ok(tables.of(&tenant_of(name)?));
    }
    let tenants = tables.tenants().map_err(|error| {
        Failure::new(Status::Unavailable, "the datasets cannot be listed").because(&error)
    })?;
    let has = |tenant: &&Tenant| tables.of(tenant).root(dataset).is_dir();
    let found: Vec<_> = tenants.iter().filter(has).collect();
    match found.as_slice() {
        [only] => Ok(tables.of(only)),
        [] => Err(Failure::new(
            Status::NotFound,
            format!("there is no version of dataset {dataset}"),
        )
        .with_code(codes::DATASET_UNAVAILABLE.id)
        .with_help("`barecount outputs ls` lists what there is.")),
        several => Err(ambiguous(
            &format!("dataset {dataset}"),
            several.iter().map(|tenant| tenant.as_str()),
        )),
    }
}

/// A tenant by name.
///
/// # Errors
/// If the text is none.
pub(super) fn tenant_of(text: &str) -> Result<Tenant, Failure> {
    text.parse()
        .map_err(|error: InvalidTenant| Failure::from_error(Status::Usage, &error))
}

/// Several tenants have what was named.
fn ambiguous<'a>(what: &str, tenants: impl Iterator<Item = &'a str>) -> Failure {
    let tenants: Vec<_> = tenants.collect();
    let message = format!("several tenants have {what}: {}", tenants.join(", "));
    let first = tenants.first().copied().unwrap_or("TENANT");
    Failure::new(Status::Usage, message)
        .with_code(codes::TENANT_AMBIGUOUS.id)
        .with_help(format!(
            "Name one of them, as with `--tenant {first}`, or in `BARECOUNT_TENANT`."
        ))
}

/// Why a table cannot be told of.
pub(super) fn unreadable(error: &TableError) -> Failure {
    let missing = matches!(error, TableError::NotFound { .. });
    let status = if missing {
        Status::NotFound
    } else {
        Status::Failed
    };
    let failure = Failure::from_error(status, error).with_code("BC0701");
    match missing {
        true => failure.with_help(
            "`barecount datasets ls` lists what there is, `datasets history` the versions, also \
             of one that was dropped.",
        ),
        false => failure,
    }
}

impl Dataset {
    /// The dataset at a version; at the latest one if none is named.
    ///
    /// # Errors
    /// If there is no such version, or it cannot be read.
    pub(super) fn snapshot(&self, version: Option<u64>) -> Result<Snapshot, Failure> {
        let read = async {
            // The log itself does not tell a version yet to come from a damaged one.
            let told = self.tables.history(&self.table).await?;
            let latest = told.last().map_or(0, |last| last.version);
            if version.is_some_and(|version| version > latest) {
                return Err(TableError::NotFound {
                    table: self.table.clone(),
                    version,
                });
            }
            self.tables.snapshot(&self.table, version).await
        };
        let found = runtime()?.block_on(read);
        found.map_err(|error| unreadable(&error))
    }

    /// The tasks that wrote it, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn writers(&self) -> Result<Vec<Writer>, Failure> {
        let (tenant, name) = (self.tables.tenant().as_str(), self.table.to_string());
        let writers = self.reader.writers(tenant, &name);
        writers.map_err(state::store_failure)
    }
}

/// Rows of a whole snapshot, where each file's writer said how many.
pub(super) fn rows(snapshot: &Snapshot) -> Option<u64> {
    snapshot.files.iter().map(|file| file.rows).sum()
}

/// Bytes of its files.
pub(super) fn size(snapshot: &Snapshot) -> u64 {
    snapshot.files.iter().map(|file| file.bytes).sum()
}
