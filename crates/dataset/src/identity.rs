//! What a commit wrote and what a snapshot holds, as work is told apart by.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::commit::{content_of, file_name};
use crate::decision::DatasetCommit;
use crate::partition::PartitionValues;
use crate::table::Snapshot;

impl DatasetCommit {
    /// The names of its files in the table; no other commit has the same.
    pub fn file_names(&self) -> BTreeSet<String> {
        let files = self.files.iter();
        files.map(|file| file_name(self, file)).collect()
    }
}

impl Snapshot {
    /// A digest over the columns and rows of the given partitions (of all, if none is given), in
    /// the order in which they are read. Equal for two versions that hold the same rows in the
    /// same order and the same files, whoever wrote them and when. Reads no data file.
    pub fn content_identity(&self, partitions: &[PartitionValues]) -> String {
        let mut hasher = Sha256::new();
        let mut add = |part: &str| {
            // With its length, so that two parts cannot run into each other.
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        };
        for column in self.schema.columns() {
            add(&column.name);
            add(&column.column_type.to_string());
            add(if column.nullable { "null" } else { "" });
        }
        self.schema.partition_by().iter().for_each(|by| add(by));
        for file in self.files_of(partitions) {
            for (column, value) in &file.partition_values {
                add(column);
                add(if value.is_some() { "value" } else { "null" });
                add(value.as_deref().unwrap_or_default());
            }
            match &file.rows_hash {
                Some(hash) => {
                    add(&String::from(hash.clone()));
                    add(content_of(&file.name));
                }
                // Another program's file: only its name says what it is.
                None => add(&file.name),
            }
        }
        format!("{:x}", hasher.finalize())[..32].to_owned()
    }
}
