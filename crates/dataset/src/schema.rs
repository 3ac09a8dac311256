//! Declared columns, their types, and how they map to Arrow.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use barecount_model::text::{InvalidText, whole_value_pattern};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use barecount_model::text::{ColumnType, MAX_COLUMNS};

/// A schema that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSchema {
    /// No columns, or too many.
    #[error("a table needs 1 to {MAX_COLUMNS} columns, not {count}")]
    Count {
        /// How many there are.
        count: usize,
    },
    /// A column name that readers would stumble over.
    #[error(
        "column name `{name}` is empty, longer than 128 bytes, or contains a control character or one of ` ,;{{}}()=`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Two columns whose names differ at most in case.
    #[error("column `{name}` is declared twice (names are compared without case)")]
    Duplicate {
        /// The second of them.
        name: String,
    },
    /// A pattern on a column that is not text.
    #[error("column `{name}` has a pattern, but is not a string")]
    PatternOnNonString {
        /// The column.
        name: String,
    },
    /// A pattern that does not compile.
    #[error("the pattern of column `{name}` is not valid")]
    Pattern {
        /// The column.
        name: String,
        /// What is wrong with it.
        source: InvalidText,
    },
    /// A partition column that does not exist, is repeated, or cannot name a folder.
    #[error("`{name}` cannot partition the table: {reason}")]
    Partition {
        /// The column.
        name: String,
        /// Why not.
        reason: &'static str,
    },
}

/// How the type of a column maps to Arrow.
pub trait ArrowForm: Sized {
    /// The Arrow type that holds such a column in memory.
    fn to_arrow(self) -> DataType;

    /// The column type that an Arrow type is read as, where there is one.
    fn from_arrow(data_type: &DataType) -> Option<Self>;
}

impl ArrowForm for ColumnType {
    fn to_arrow(self) -> DataType {
        match self {
            Self::String => DataType::Utf8,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Decimal { precision, scale } => {
                DataType::Decimal128(precision, i8::try_from(scale).unwrap_or(i8::MAX))
            }
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Bool => DataType::Boolean,
            Self::Binary => DataType::Binary,
        }
    }

    fn from_arrow(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::String,
            DataType::Int64 => Self::Int64,
            DataType::Float64 => Self::Float64,
            DataType::Decimal128(precision, scale) => Self::Decimal {
                precision: *precision,
                scale: u8::try_from(*scale).ok()?,
            },
            DataType::Date32 => Self::Date,
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Self::Timestamp,
            DataType::Boolean => Self::Bool,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Self::Binary,
            _ => return None,
        })
    }
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, unique without regard to case.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Whether a value may be missing.
    pub nullable: bool,
    /// A regular expression that every present value matches as a whole; strings only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

impl Column {
    /// A column that may be null, without a pattern.
    pub fn nullable(name: impl Into<String>, column_type: ColumnType) -> Self {
        Self {
            name: name.into(),
            column_type,
            nullable: true,
            pattern: None,
        }
    }

    /// A column that is always present, without a pattern.
    pub fn required(name: impl Into<String>, column_type: ColumnType) -> Self {
        Self {
            name: name.into(),
            column_type,
            nullable: false,
            pattern: None,
        }
    }
}

/// The declared columns of a table, and by which of them its files are divided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SchemaFields")]
pub struct TableSchema {
    columns: Vec<Column>,
    partition_by: Vec<String>,
}

#[derive(Deserialize)]
struct SchemaFields {
    columns: Vec<Column>,
    #[serde(default)]
    partition_by: Vec<String>,
}

impl TryFrom<SchemaFields> for TableSchema {
    type Error = InvalidSchema;

    fn try_from(fields: SchemaFields) -> Result<Self, InvalidSchema> {
        Self::new(fields.columns, fields.partition_by)
    }
}

impl TableSchema {
    /// Checks a schema.
    ///
    /// # Errors
    /// Names the first column that cannot be used, and why.
    pub fn new(columns: Vec<Column>, partition_by: Vec<String>) -> Result<Self, InvalidSchema> {
        if columns.is_empty() || columns.len() > MAX_COLUMNS {
            return Err(InvalidSchema::Count {
                count: columns.len(),
            });
        }
        let mut seen = BTreeSet::new();
        for column in &columns {
            check_column(column)?;
            if !seen.insert(column.name.to_lowercase()) {
                return Err(InvalidSchema::Duplicate {
                    name: column.name.clone(),
                });
            }
        }
        let schema = Self {
            columns,
            partition_by,
        };
        schema.check_partitions()?;
        Ok(schema)
    }

    fn check_partitions(&self) -> Result<(), InvalidSchema> {
        let refuse = |name: &str, reason| {
            Err(InvalidSchema::Partition {
                name: name.to_owned(),
                reason,
            })
        };
        for (position, name) in self.partition_by.iter().enumerate() {
            match self.column(name).map(|column| column.column_type) {
                None => return refuse(name, "there is no such column"),
                Some(column_type) if column_type.splits() => {}
                Some(_) => return refuse(name, "only string, int64, date and bool columns can"),
            }
            if self.partition_by[..position].contains(name) {
                return refuse(name, "it is named twice");
            }
        }
        if self.partition_by.len() == self.columns.len() {
            return refuse(
                &self.partition_by[0],
                "one column at least must remain in the files",
            );
        }
        Ok(())
    }

    /// All columns, in declaration order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The columns whose values divide the table into folders, outermost first.
    pub fn partition_by(&self) -> &[String] {
        &self.partition_by
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The Arrow schema of whole rows, partition columns included, in declaration order.
    pub fn to_arrow(&self) -> SchemaRef {
        Arc::new(Schema::new(
            self.columns.iter().map(to_field).collect::<Vec<_>>(),
        ))
    }

    /// The Arrow schema of the data files: Delta keeps partition columns in the log alone.
    pub fn file_arrow(&self) -> SchemaRef {
        let in_file = |column: &&Column| !self.partition_by.contains(&column.name);
        Arc::new(Schema::new(
            self.columns
                .iter()
                .filter(in_file)
                .map(to_field)
                .collect::<Vec<_>>(),
        ))
    }

    /// SHA-256 of the schema, `sha256:<hex>`: what a dead letter says it was checked against.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for column in &self.columns {
            let pattern = column.pattern.as_deref().unwrap_or("");
            let fields = [
                column.name.as_str(),
                &column.column_type.to_string(),
                pattern,
            ]
            .map(str::to_owned);
            for field in fields {
                hasher.update((field.len() as u64).to_le_bytes());
                hasher.update(field);
            }
            hasher.update([
                u8::from(column.nullable),
                u8::from(column.pattern.is_some()),
            ]);
        }
        format!("sha256:{:x}", hasher.finalize())
    }
}

fn to_field(column: &Column) -> Field {
    Field::new(&column.name, column.column_type.to_arrow(), column.nullable)
}

fn check_column(column: &Column) -> Result<(), InvalidSchema> {
    let name = &column.name;
    let unusual = |c: char| c.is_control() || " ,;{}()=".contains(c);
    if name.is_empty() || name.len() > 128 || name.contains(unusual) {
        return Err(InvalidSchema::Name {
            name: name.chars().take(128).collect(),
        });
    }
    match &column.pattern {
        Some(_) if column.column_type != ColumnType::String => {
            Err(InvalidSchema::PatternOnNonString { name: name.clone() })
        }
        Some(pattern) => compile_pattern(name, pattern).map(drop),
        None => Ok(()),
    }
}

/// Compiles a column's pattern so that it matches whole values only.
pub(crate) fn compile_pattern(name: &str, pattern: &str) -> Result<regex::Regex, InvalidSchema> {
    whole_value_pattern(pattern).map_err(|source| InvalidSchema::Pattern {
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
