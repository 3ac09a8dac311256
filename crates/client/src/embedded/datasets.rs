//! Datasets as they are looked at and changed by hand.

use barecount_control::store::reader::{Reader, Writer};
use barecount_dataset::{
    table::{Snapshot, TableError, Tables},
    versions::Amount,
};
use barecount_model::text::DatasetName;

use crate::{
    failure::{Failure, Status},
    runtime::runtime,
    state,
};

/// A dataset that was named, the tables that it is of, and the store.
pub struct Dataset {
    /// Its name.
    pub table: DatasetName,
    /// Its tenant's tables.
    pub tables: Tables,
    /// The store.
    pub reader: Reader,
}

/// Why a table cannot be told of.
pub fn unreadable(error: &TableError) -> Failure {
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
    pub fn snapshot(&self, version: Option<u64>) -> Result<Snapshot, Failure> {
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
    pub fn writers(&self) -> Result<Vec<Writer>, Failure> {
        let (tenant, name) = (self.tables.tenant().as_str(), self.table.to_string());
        let writers = self.reader.writers(tenant, &name);
        writers.map_err(state::store_failure)
    }
}

/// Rows of a whole snapshot, where each file's writer said how many.
pub fn rows(snapshot: &Snapshot) -> Option<u64> {
    snapshot.files.iter().map(|file| file.rows).sum()
}

/// Bytes of its files.
pub fn size(snapshot: &Snapshot) -> u64 {
    snapshot.files.iter().map(|file| file.bytes).sum()
}

/// A count for a person, as far as it is known.
pub fn number(count: Option<u64>) -> String {
    count.map_or("?".to_owned(), |count| count.to_string())
}

/// What came or went, for a person.
pub fn amount(amount: &Amount) -> String {
    format!("{} rows in {} files", number(amount.rows), amount.files)
}
