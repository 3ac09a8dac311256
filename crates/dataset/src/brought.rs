//! What one commit brought, for who holds its rows against what was signed of them.

use std::collections::BTreeSet;

use barecount_model::text::DatasetName;
use serde_json::Value;

use crate::{
    commit::COMMITTED_KEY,
    decision::Committed,
    schema::TableSchema,
    seal::last,
    table::{Snapshot, TableError, Tables, WRITTEN_AS_TAG, log_error},
};

impl Tables {
    /// A version of a table as if it held only what its commit brought, with the schema that these
    /// rows had. Their files may be gone, if they fell out of the table and were collected.
    ///
    /// Cancel-safe: it only reads.
    ///
    /// # Errors
    /// [`TableError::NotFound`] if there is no such version in its log; if the log cannot be read.
    pub async fn brought(&self, table: &DatasetName, version: u64) -> Result<Snapshot, TableError> {
        let not_found = || TableError::NotFound {
            table: table.clone(),
            version: Some(version),
        };
        let error = |source| log_error(table, source);
        let delta = self.load(table, Some(version)).await?;
        let delta = delta.ok_or_else(not_found)?;
        let entry = delta.log_store().read_commit_entry(version).await;
        let entry = entry.map_err(error)?.ok_or_else(not_found)?;
        let mut snapshot = self.describe(table, &delta).await?;
        let (names, schema) = read(&entry);
        snapshot
            .files
            .retain(|file| names.contains(last(&file.name)));
        if let Some(schema) = schema {
            snapshot.schema = schema;
        }
        Ok(snapshot)
    }
}

/// The files whose rows are new with an entry of a log, and the schema that it has on record.
fn read(entry: &[u8]) -> (BTreeSet<String>, Option<TableSchema>) {
    let mut names = BTreeSet::new();
    let mut schema = None;
    for line in entry.split(|byte| *byte == b'\n') {
        let Ok(action) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        let add = &action["add"];
        if let (Some(path), None) = (add["path"].as_str(), add["tags"][WRITTEN_AS_TAG].as_str()) {
            names.insert(last(path).to_owned());
        }
        let committed = action["commitInfo"][COMMITTED_KEY].clone();
        if let Ok(committed) = serde_json::from_value::<Committed>(committed) {
            schema = committed.written_schema;
        }
    }
    (names, schema)
}
