//! What becomes of a table's schema when rows of another one are committed.
//!
//! Pure: the table's schema and the declared one in, the table's next schema or a refusal out. The
//! same function answers before a run starts, when an attempt's outputs are staged, and when a
//! decision is rolled forward, so that the last of the three has nothing left to refuse.
//!
//! Where no row stays, the declared schema replaces the table's. Where rows stay, columns that may
//! be null are added, columns that had to have a value may be null from now on, and types are
//! widened by [`is_widening`]: those changes are true of the rows that stay as well. Everything
//! else is refused, unless the output's [`SchemaEvolution`] lets the rows that stay go.

use serde::{Deserialize, Serialize};

use crate::schema::{Column, ColumnType, InvalidSchema, TableSchema};

/// What a commit may do to a table's schema, as the output declares it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchemaEvolution {
    /// Nothing, even where no row stays.
    None,
    /// What is true of the rows that stay as well.
    #[default]
    Additive,
    /// Anything: rows that do not fit are removed with the schema that they have.
    Replace,
}

/// Whether a commit leaves rows in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// It replaces all of them.
    AllReplaced,
    /// Some stay: it adds to them, or replaces one partition.
    SomeStay,
}

/// One difference between two schemas of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A column is new.
    Added {
        /// The column.
        column: String,
        /// Its type.
        #[serde(rename = "type")]
        column_type: ColumnType,
        /// Whether it may be null.
        nullable: bool,
    },
    /// A column is gone.
    Removed {
        /// The column.
        column: String,
    },
    /// A column has another type.
    Type {
        /// The column.
        column: String,
        /// The type before.
        from: ColumnType,
        /// The type now.
        to: ColumnType,
    },
    /// A column may be null now, or may no longer.
    Nullability {
        /// The column.
        column: String,
        /// Whether it may be null now.
        nullable: bool,
    },
    /// The same columns come in another order.
    Order,
    /// The table is divided by other columns.
    Partitions {
        /// Those before.
        from: Vec<String>,
        /// Those now.
        to: Vec<String>,
    },
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Added {
                column,
                column_type,
                nullable,
            } => {
                let null = if *nullable {
                    "may be null"
                } else {
                    "never null"
                };
                write!(f, "column `{column}` ({column_type}, {null}) is new")
            }
            Self::Removed { column } => write!(f, "column `{column}` is gone"),
            Self::Type { column, from, to } => write!(f, "column `{column}` is {to}, was {from}"),
            Self::Nullability { column, nullable } => {
                let now = if *nullable {
                    "may be null now"
                } else {
                    "may no longer be null"
                };
                write!(f, "column `{column}` {now}")
            }
            Self::Order => f.write_str("the columns come in another order"),
            Self::Partitions { from, to } => {
                let (from, to) = (from.join(", "), to.join(", "));
                write!(f, "it is partitioned by [{to}], was by [{from}]")
            }
        }
    }
}

impl Change {
    /// Whether it is true of rows that were written before it.
    fn holds_of_earlier_rows(&self) -> bool {
        match self {
            Self::Added { nullable, .. } | Self::Nullability { nullable, .. } => *nullable,
            Self::Type { from, to, .. } => is_widening(*from, *to),
            Self::Order => true,
            Self::Removed { .. } | Self::Partitions { .. } => false,
        }
    }
}

/// What becomes of the rows that a commit would leave in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// They stay as they are, in the files that they are in.
    Stay,
    /// They stay, and their files are written anew with wider types.
    Widened,
    /// They are removed.
    Removed,
}

/// What a commit makes of a table's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evolution {
    /// The table's schema from then on.
    pub schema: TableSchema,
    /// How it differs from the one before; empty if it does not.
    pub changes: Vec<Change>,
    /// What becomes of rows that are there.
    pub present: Present,
}

/// A schema that a table cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub struct Refusal {
    /// What stands against it.
    pub changes: Vec<Change>,
    /// What the output allows.
    pub rule: SchemaEvolution,
    /// Why the schema that would come of it cannot be used, where that is the reason.
    pub unusable: Option<InvalidSchema>,
}

impl Refusal {
    fn reason(&self) -> String {
        if let Some(invalid) = &self.unusable {
            return format!("the columns of both together cannot be used: {invalid}");
        }
        let changes: Vec<String> = self.changes.iter().map(ToString::to_string).collect();
        let why = match self.rule {
            SchemaEvolution::None => "and `schema_evolution: none` keeps the schema as it is",
            _ => "and earlier rows stay",
        };
        format!("{}, {why}", changes.join("; "))
    }

    /// What to do about it, in whole sentences.
    pub fn way_out(&self) -> &'static str {
        match self.rule {
            SchemaEvolution::None => {
                "Declare the columns as the table has them, or remove `schema_evolution: none` \
                 from the output."
            }
            SchemaEvolution::Additive | SchemaEvolution::Replace => {
                "Where rows stay, columns that may be null can be added and types be widened. \
                 Declare the columns as the table has them (`barecount outputs show`), or set \
                 `schema_evolution: replace` on the output: the new schema then replaces the \
                 table's, and the rows that are there are removed with it."
            }
        }
    }
}

/// Holds declared columns against those of a table.
///
/// # Errors
/// Every change that stands against it, if the rule does not allow them.
pub fn compatible(
    table: &TableSchema,
    declared: &TableSchema,
    rows: Rows,
    rule: SchemaEvolution,
) -> Result<Evolution, Refusal> {
    let changes = changes(table, declared);
    let replaced = |changes| Evolution {
        schema: declared.clone(),
        changes,
        present: Present::Removed,
    };
    let all_replaced = rows == Rows::AllReplaced;
    if all_replaced && rule != SchemaEvolution::None {
        return Ok(replaced(changes));
    }
    if changes.iter().all(|change| *change == Change::Order) {
        let present = if all_replaced {
            Present::Removed
        } else {
            Present::Stay
        };
        return Ok(Evolution {
            schema: table.clone(),
            changes: Vec::new(),
            present,
        });
    }
    let refuse = |changes, unusable| {
        Err(Refusal {
            changes,
            rule,
            unusable,
        })
    };
    if rule == SchemaEvolution::None {
        return refuse(changes, None);
    }
    let (fitting, against): (Vec<_>, Vec<_>) = changes
        .iter()
        .cloned()
        .partition(Change::holds_of_earlier_rows);
    if against.is_empty() {
        match merged(table, declared) {
            Ok(schema) => return Ok(extended(schema, fitting)),
            Err(_) if rule == SchemaEvolution::Replace => {}
            Err(invalid) => return refuse(changes, Some(invalid)),
        }
    }
    match rule {
        SchemaEvolution::Replace => Ok(replaced(changes)),
        _ => refuse(against, None),
    }
}

fn extended(schema: TableSchema, mut changes: Vec<Change>) -> Evolution {
    // Earlier columns keep their places.
    changes.retain(|change| *change != Change::Order);
    let widened = |change: &Change| matches!(change, Change::Type { .. });
    let present = if changes.iter().any(widened) {
        Present::Widened
    } else {
        Present::Stay
    };
    Evolution {
        schema,
        changes,
        present,
    }
}

/// How `next` differs from `table`: by column in the order of `table`, then what is new.
pub fn changes(table: &TableSchema, next: &TableSchema) -> Vec<Change> {
    let mut changes = Vec::new();
    if table.partition_by() != next.partition_by() {
        changes.push(Change::Partitions {
            from: table.partition_by().to_vec(),
            to: next.partition_by().to_vec(),
        });
    }
    for old in table.columns() {
        let column = old.name.clone();
        let Some(new) = next.column(&old.name) else {
            changes.push(Change::Removed { column });
            continue;
        };
        if new.column_type != old.column_type {
            changes.push(Change::Type {
                column: column.clone(),
                from: old.column_type,
                to: new.column_type,
            });
        }
        if new.nullable != old.nullable {
            let nullable = new.nullable;
            changes.push(Change::Nullability { column, nullable });
        }
    }
    let is_new = |column: &&Column| table.column(&column.name).is_none();
    changes.extend(
        next.columns()
            .iter()
            .filter(is_new)
            .map(|new| Change::Added {
                column: new.name.clone(),
                column_type: new.column_type,
                nullable: new.nullable,
            }),
    );
    if in_other_order(table, next) {
        changes.push(Change::Order);
    }
    changes
}

/// Whether the columns that both have come in another order.
fn in_other_order(table: &TableSchema, next: &TableSchema) -> bool {
    let shared = |of: &TableSchema, with: &TableSchema| -> Vec<String> {
        let names = of.columns().iter().map(|column| column.name.clone());
        names.filter(|name| with.column(name).is_some()).collect()
    };
    shared(table, next) != shared(next, table)
}

/// Whether every value of a type is a value of another one, and means the same: decimals that keep
/// all digits on both sides of the point, and whole numbers as decimals of 19 digits before it.
///
/// Not so: `int64` as `float64`, which has 53 bits for 64; a date as a timestamp, which says a time
/// that nobody said; anything as a string, which compares and sorts in another way.
pub fn is_widening(from: ColumnType, to: ColumnType) -> bool {
    match (from, to) {
        (
            ColumnType::Decimal { precision, scale },
            ColumnType::Decimal {
                precision: wider,
                scale: finer,
            },
        ) => finer >= scale && wider - finer >= precision - scale,
        (ColumnType::Int64, ColumnType::Decimal { precision, scale }) => precision - scale >= 19,
        _ => false,
    }
}

/// The table's columns, widened, with those that are new at the end.
fn merged(table: &TableSchema, declared: &TableSchema) -> Result<TableSchema, InvalidSchema> {
    let mut columns = table.columns().to_vec();
    for column in &mut columns {
        if let Some(new) = declared.column(&column.name) {
            column.column_type = new.column_type;
            column.nullable = new.nullable;
        }
    }
    let is_new = |column: &&Column| table.column(&column.name).is_none();
    columns.extend(declared.columns().iter().filter(is_new).cloned());
    TableSchema::new(columns, table.partition_by().to_vec())
}

#[cfg(test)]
mod tests;
