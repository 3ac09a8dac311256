//! What a table's log says of a data file, sealed by who committed it.
//!
//! The log believes itself: whoever can write it can put another file in the place of one, with its
//! digest, and leave the sum of the rows that were there. So the entry that brings a file has a seal
//! over all of that which says what the file's rows are, under a key that is not where the tables are.

use barecount_model::seal::SealKey;
use barecount_model::text::DatasetName;

use crate::digest::RowsHash;
use crate::name::Tenant;
use crate::partition::PartitionValues;
use crate::schema::TableSchema;

/// What a record of this kind begins with.
const KIND: &[u8] = b"data file v1";

/// What is known of that which a table's log says of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Whoever reads it has no key, and believes it.
    Told,
    /// It is what was committed.
    Sealed,
    /// It has no seal: another program brought the file, or one from before there were any, or
    /// somebody removed it. It is not believed.
    Unsealed,
    /// It is not what was committed.
    Altered,
}

/// What the log says of a file.
pub(crate) struct Claim<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) table: &'a DatasetName,
    /// The file's path in the table.
    pub(crate) name: &'a str,
    /// The name that its rows were first committed under.
    pub(crate) written_as: &'a str,
    /// Its SHA-256 in hex.
    pub(crate) sha256: &'a str,
    pub(crate) rows: u64,
    pub(crate) rows_hash: &'a RowsHash,
    pub(crate) partition_values: &'a PartitionValues,
}

impl Claim<'_> {
    /// Its seal; the columns' types are those of `schema`, of which only the partition's matter: those
    /// of the others are in the file.
    pub(crate) fn seal(&self, schema: &TableSchema, key: &SealKey) -> String {
        self.with_parts(schema, |parts| hex::encode(key.seal(parts)))
    }

    /// Whether it has its seal.
    pub(crate) fn holds(&self, schema: &TableSchema, key: &SealKey, seal: &str) -> bool {
        hex::decode(seal).is_ok_and(|seal| self.with_parts(schema, |parts| key.holds(parts, &seal)))
    }

    fn with_parts<T>(&self, schema: &TableSchema, take: impl FnOnce(&[&[u8]]) -> T) -> T {
        let rows = self.rows.to_le_bytes();
        let rows_hash = String::from(self.rows_hash.clone());
        let values = self.partition_values.iter().map(|(name, value)| {
            let column = schema.column(name);
            let spelt = column.map(|column| column.column_type.to_string());
            (name, spelt.unwrap_or_default(), value)
        });
        let values: Vec<_> = values.collect();
        let mut parts: Vec<&[u8]> = vec![
            KIND,
            self.tenant.as_str().as_bytes(),
            self.table.layer().as_bytes(),
            self.table.name().as_bytes(),
            last(self.name).as_bytes(),
            last(self.written_as).as_bytes(),
            self.sha256.as_bytes(),
            &rows,
            rows_hash.as_bytes(),
        ];
        for (name, spelt, value) in &values {
            parts.extend([name.as_bytes(), spelt.as_bytes()]);
            // Null is no text, not the empty one either.
            parts.push(if value.is_some() { b"value" } else { b"null" });
            parts.push(value.as_deref().unwrap_or_default().as_bytes());
        }
        take(&parts)
    }
}

/// A file's own name, which no other commit's has. The folders before it may be written in two ways, and
/// are those of its partition.
pub(crate) fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
