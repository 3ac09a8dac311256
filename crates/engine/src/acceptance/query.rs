//! Tests as queries over the table `output`.

use barecount_dataset::schema::{Column, ColumnType, TableSchema};

use super::{AcceptanceTest, OUTPUT, SAMPLE_ROWS};

/// The longest bound, in bytes.
const MAX_BOUND_BYTES: usize = 80;

/// What finds out about a test.
pub(super) struct Queries {
    /// Gives one row of figures.
    pub(super) found: String,
    /// Gives rows that break the test.
    pub(super) sample: Option<String>,
}

/// Counts rows, and the values of each column.
pub(super) fn count_columns(schema: &TableSchema) -> String {
    let columns = schema.columns().iter();
    let counts = columns.map(|column| format!(", count({})", quote(&column.name)));
    format!(
        "SELECT count(*){} FROM {OUTPUT}",
        counts.collect::<String>()
    )
}

/// The queries of a test; an error if it does not fit the columns.
pub(super) fn of_test(schema: &TableSchema, test: &AcceptanceTest) -> Result<Queries, String> {
    match test {
        AcceptanceTest::RowCount { .. } => Ok(Queries {
            found: format!("SELECT count(*) FROM {OUTPUT}"),
            sample: None,
        }),
        AcceptanceTest::Unique(columns) => {
            let keys = names(schema, columns)?.join(", ");
            let repeated = format!("FROM {OUTPUT} GROUP BY {keys} HAVING count(*) > 1");
            Ok(Queries {
                found: format!(
                    "SELECT count(*), coalesce(sum(n), 0) FROM (SELECT count(*) AS n {repeated})"
                ),
                sample: Some(format!(
                    "SELECT {keys}, count(*) AS \"rows\" {repeated} ORDER BY {keys} \
                     LIMIT {SAMPLE_ROWS}"
                )),
            })
        }
        AcceptanceTest::NotNull(columns) => {
            let nulls = names(schema, columns)?.join(" IS NULL OR ");
            let broken = format!("FROM {OUTPUT} WHERE {nulls} IS NULL");
            Ok(Queries {
                found: format!("SELECT count(*) {broken}"),
                sample: Some(format!("SELECT * {broken} LIMIT {SAMPLE_ROWS}")),
            })
        }
        AcceptanceTest::Range { column, min, max } => {
            let outside = outside(schema, column, [min.as_deref(), max.as_deref()])?;
            let column = quote(column);
            Ok(Queries {
                found: format!(
                    "SELECT count(*) FILTER (WHERE {outside}), min({column}), max({column}) \
                     FROM {OUTPUT}"
                ),
                sample: Some(format!(
                    "SELECT * FROM {OUTPUT} WHERE {outside} ORDER BY {column} LIMIT {SAMPLE_ROWS}"
                )),
            })
        }
        AcceptanceTest::Sql { assert, .. } => Ok(Queries {
            found: assert.clone(),
            sample: None,
        }),
    }
}

/// The condition that a value is outside a range.
fn outside(schema: &TableSchema, name: &str, bounds: [Option<&str>; 2]) -> Result<String, String> {
    let column = find(schema, name)?;
    let quoted = quote(name);
    let mut conditions = Vec::new();
    for (bound, operator) in bounds.into_iter().zip(["<", ">"]) {
        if let Some(bound) = bound {
            conditions.push(format!("{quoted} {operator} {}", literal(bound, column)?));
        }
    }
    if conditions.is_empty() {
        return Err("a range needs a bound".to_owned());
    }
    if column.column_type == ColumnType::Float64 {
        conditions.push(format!("isnan({quoted})"));
    }
    Ok(conditions.join(" OR "))
}

fn names(schema: &TableSchema, columns: &[String]) -> Result<Vec<String>, String> {
    if columns.is_empty() {
        return Err("no column is named".to_owned());
    }
    let name = |name: &String| find(schema, name).map(|_| quote(name));
    columns.iter().map(name).collect()
}

fn find<'a>(schema: &'a TableSchema, name: &str) -> Result<&'a Column, String> {
    let column = schema.column(name);
    column.ok_or_else(|| format!("the output has no column `{name}`"))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A bound as a literal that can be compared with the column without losing anything of either.
fn literal(bound: &str, column: &Column) -> Result<String, String> {
    let misfit = || {
        let bound = bound.chars().take(MAX_BOUND_BYTES).collect::<String>();
        format!(
            "`{bound}` cannot bound a column of type {}",
            column.column_type
        )
    };
    // Nothing that a number, a day or an instant is spelt with ends a literal.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"+-.: ".contains(&b);
    if bound.len() > MAX_BOUND_BYTES || !bound.bytes().all(is_plain) {
        return Err(misfit());
    }
    match column.column_type {
        // A decimal as precise as it is written: in the column's type it would be rounded.
        ColumnType::Int64 | ColumnType::Decimal { .. } => {
            let (precision, scale) = digits(bound).ok_or_else(misfit)?;
            Ok(format!("CAST('{bound}' AS DECIMAL({precision}, {scale}))"))
        }
        ColumnType::Float64 => {
            digits(bound).ok_or_else(misfit)?;
            Ok(format!("CAST('{bound}' AS DOUBLE)"))
        }
        ColumnType::Date => Ok(format!("CAST('{bound}' AS DATE)")),
        ColumnType::Timestamp => Ok(format!(
            "arrow_cast('{bound}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
        )),
        ColumnType::String | ColumnType::Binary | ColumnType::Bool => Err(misfit()),
    }
}

/// How many digits a decimal number has, and how many of them after the point; at most 38.
fn digits(text: &str) -> Option<(usize, usize)> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let count = whole.len() + fraction.len();
    let is_valid = is_number(whole) && is_number(fraction) && !whole.is_empty();
    (is_valid && count <= 38).then_some((count, fraction.len()))
}
