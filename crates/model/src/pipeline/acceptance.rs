//! Acceptance tests that could hold, over columns that exist.

use std::cmp::Ordering;

use super::Output;
use super::scope::{Findings, did_you_mean};
use crate::codes;
use crate::diagnostic::quoted;
use crate::manifest::{AcceptanceTest, RangeTest};
use crate::text::{ColumnName, ColumnType, DecimalText};

/// Checks the acceptance tests of the output at a JSON pointer.
pub(super) fn check(findings: &mut Findings<'_>, at: &str, output: &Output) {
    for (index, test) in output.tests.iter().enumerate() {
        let at = format!("{at}/tests/{index}");
        match test {
            AcceptanceTest::RowCount(count) => {
                if let (Some(min), Some(max)) = (count.min, count.max)
                    && min > max
                {
                    let message = format!("no count of rows is at least {min} and at most {max}");
                    findings.error(codes::INVALID_TEST, &format!("{at}/row_count/max"), message);
                }
            }
            AcceptanceTest::Unique(columns) => {
                check_columns(findings, &format!("{at}/unique"), columns, output);
            }
            AcceptanceTest::NotNull(columns) => {
                check_columns(findings, &format!("{at}/not_null"), columns, output);
            }
            AcceptanceTest::Range(range) => {
                check_range(findings, &format!("{at}/range"), range, output);
            }
            AcceptanceTest::Sql(sql) => {
                if sql.assert.trim().is_empty() {
                    let message = "the query is empty";
                    findings.error(codes::INVALID_TEST, &format!("{at}/sql/assert"), message);
                }
            }
        }
    }
}

fn check_columns(findings: &mut Findings<'_>, at: &str, columns: &[ColumnName], output: &Output) {
    for (index, name) in columns.iter().enumerate() {
        if findings.is_full() {
            return;
        }
        find_column(findings, &format!("{at}/{index}"), name, output);
    }
}

fn find_column(
    findings: &mut Findings<'_>,
    at: &str,
    name: &ColumnName,
    output: &Output,
) -> Option<ColumnType> {
    if let Some(column) = output.column(name.as_str()) {
        return Some(column.column_type);
    }
    let message = format!("`{}` has no column `{name}`", output.dataset);
    let names = output.columns.iter().map(|column| column.name.as_str());
    let help = did_you_mean(name.as_str(), "its columns", names);
    findings.error_with_help(codes::UNKNOWN_COLUMN, at, message, help);
    None
}

fn check_range(findings: &mut Findings<'_>, at: &str, range: &RangeTest, output: &Output) {
    let Some(column_type) = find_column(findings, &format!("{at}/column"), &range.column, output)
    else {
        return;
    };
    let mut bounds = Vec::new();
    for (key, bound) in [("min", &range.min), ("max", &range.max)] {
        let Some(text) = bound else { continue };
        match Bound::parse(column_type, text) {
            Ok(bound) => bounds.push(bound),
            Err(expected) => {
                let message = format!(
                    "{} cannot bound a column of type {column_type}",
                    quoted(text)
                );
                let pointer = format!("{at}/{key}");
                findings.error_with_help(codes::INVALID_TEST, &pointer, message, expected);
            }
        }
    }
    if let [min, max] = &bounds[..]
        && min.compare(max) == Ordering::Greater
    {
        let message = "no value is at least `min` and at most `max`";
        findings.error(codes::INVALID_TEST, &format!("{at}/max"), message);
    }
}

enum Bound {
    Number {
        negative: bool,
        whole: String,
        fraction: String,
    },
    Instant(i128),
}

impl Bound {
    fn parse(column_type: ColumnType, text: &str) -> Result<Self, &'static str> {
        match column_type {
            ColumnType::Int64 if text.contains('.') => Err("a whole number bounds whole numbers"),
            ColumnType::Int64 | ColumnType::Float64 | ColumnType::Decimal { .. } => {
                let decimal: DecimalText = text
                    .parse()
                    .map_err(|_| "a decimal number in quotes bounds numbers")?;
                let unsigned = decimal.as_str().trim_start_matches('-');
                let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
                let whole = whole.trim_start_matches('0').to_owned();
                let fraction = fraction.trim_end_matches('0').to_owned();
                let zero = whole.is_empty() && fraction.is_empty();
                let negative = decimal.as_str().starts_with('-') && !zero;
                Ok(Self::Number {
                    negative,
                    whole,
                    fraction,
                })
            }
            ColumnType::Date => {
                let parsed = text.parse().ok();
                // A time beside the day would be dropped.
                let date = parsed.filter(|date: &jiff::civil::Date| date.to_string() == text);
                let date = date.ok_or("a day as in \"2024-05-31\" bounds dates")?;
                let zoned = date.to_zoned(jiff::tz::TimeZone::UTC);
                let zoned = zoned.map_err(|_| "the day is outside the calendar")?;
                Ok(Self::Instant(zoned.timestamp().as_nanosecond()))
            }
            ColumnType::Timestamp => {
                let instant: jiff::Timestamp = text
                    .parse()
                    .map_err(|_| "an instant as in \"2024-05-31T12:00:00Z\" bounds timestamps")?;
                Ok(Self::Instant(instant.as_nanosecond()))
            }
            ColumnType::String | ColumnType::Bool | ColumnType::Binary => {
                Err("only numbers, dates and timestamps have a range; use `pattern` or `sql`")
            }
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Instant(a), Self::Instant(b)) => a.cmp(b),
            (
                Self::Number {
                    negative: a,
                    whole: aw,
                    fraction: af,
                },
                Self::Number {
                    negative: b,
                    whole: bw,
                    fraction: bf,
                },
            ) => {
                let size = || (aw.len(), aw, af).cmp(&(bw.len(), bw, bf));
                match (a, b) {
                    (true, false) => Ordering::Less,
                    (false, true) => Ordering::Greater,
                    (false, false) => size(),
                    (true, true) => size().reverse(),
                }
            }
            // both bounds of a column have the column's type
            _ => Ordering::Equal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_bounds_compare_by_value_and_not_by_spelling() {
        let bound = |text: &str| Bound::parse(ColumnType::Float64, text).map_err(str::to_owned);
        let compare = |a: &str, b: &str| Ok::<_, String>(bound(a)?.compare(&bound(b)?));
        assert_eq!(compare("-1", "0"), Ok(Ordering::Less));
        assert_eq!(compare("10", "9.99"), Ok(Ordering::Greater));
        assert_eq!(compare("-10", "-9.5"), Ok(Ordering::Less));
        assert_eq!(compare("0.10", "00.1"), Ok(Ordering::Equal));
        assert_eq!(compare("-0", "0.0"), Ok(Ordering::Equal));
        assert_eq!(compare("0.05", "0.1"), Ok(Ordering::Less));
    }
}
