//! Types of columns.

use super::{InvalidText, text_value};

/// The most columns that a table may have.
pub const MAX_COLUMNS: usize = 2_000;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// UTF-8 text.
    String,
    /// A signed integer of 64 bits.
    Int64,
    /// An IEEE 754 number of 64 bits.
    Float64,
    /// An exact decimal number.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits behind the point, at most `precision`.
        scale: u8,
    },
    /// A day of the proleptic Gregorian calendar.
    Date,
    /// An instant, in UTC, with microseconds.
    Timestamp,
    /// `true` or `false`.
    Bool,
    /// Bytes.
    Binary,
}

impl ColumnType {
    const PLAIN: [(&'static str, Self); 7] = [
        ("string", Self::String),
        ("int64", Self::Int64),
        ("float64", Self::Float64),
        ("date", Self::Date),
        ("timestamp", Self::Timestamp),
        ("bool", Self::Bool),
        ("binary", Self::Binary),
    ];

    /// Whether a dataset may be split by values of the type: those whose text names a folder that
    /// every reader of the table understands alike.
    pub fn splits(self) -> bool {
        matches!(self, Self::String | Self::Int64 | Self::Date | Self::Bool)
    }

    /// Whether values of the type are numbers.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Int64 | Self::Float64 | Self::Decimal { .. })
    }
}

impl std::fmt::Display for ColumnType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Self::Decimal { precision, scale } = self {
            return write!(f, "decimal({precision},{scale})");
        }
        let name = Self::PLAIN
            .iter()
            .find(|(_, value)| value == self)
            .map(|(name, _)| *name);
        f.pad(name.unwrap_or_default())
    }
}

impl std::str::FromStr for ColumnType {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        if let Some((_, plain)) = Self::PLAIN.iter().find(|(name, _)| *name == text) {
            return Ok(*plain);
        }
        if let Some(rest) = text.strip_prefix("decimal") {
            let parts = rest
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(')'));
            let parts = parts.and_then(|parts| parts.split_once(','));
            let number = |text: &str| {
                let text = text.strip_prefix(' ').unwrap_or(text);
                let text = text.strip_suffix(' ').unwrap_or(text);
                let digits =
                    matches!(text.len(), 1..=2) && text.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| text.parse::<u8>().ok()).flatten()
            };
            return match parts.map(|(p, s)| (number(p), number(s))) {
                Some((Some(precision @ 1..=38), Some(scale))) if scale <= precision => {
                    Ok(Self::Decimal { precision, scale })
                }
                _ => Err(InvalidText::new(
                    "a decimal is `decimal(p,s)`, such as `decimal(18,4)`, with at most 38 digits, s of them behind the point",
                )),
            };
        }
        let names: Vec<&str> = Self::PLAIN.iter().map(|(name, _)| *name).collect();
        let hint = crate::diagnostic::suggestion(text, names.iter().copied())
            .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        Err(InvalidText::new(format!(
            "expected one of {}, decimal(p,s){hint}",
            names.join(", ")
        )))
    }
}

text_value!(
    ColumnType,
    "barecount-column-type",
    "a column type",
    "^(string|int64|float64|date|timestamp|bool|binary|decimal\\( ?[0-9]{1,2} ?, ?[0-9]{1,2} ?\\))$",
    "string, int64, float64, date, timestamp, bool, binary, or decimal(precision,scale)."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_has_at_most_38_digits_and_types_one_spelling() {
        for right in ["string", "decimal(18,6)", "decimal(38,38)", "timestamp"] {
            let parsed = right.parse::<ColumnType>().map(|parsed| parsed.to_string());
            assert_eq!(parsed.as_deref(), Ok(right));
        }
        for wrong in [
            "decimal(39,0)",
            "decimal(3,4)",
            "decimal",
            "int",
            "decimal(0,0)",
            "DATE",
        ] {
            assert!(wrong.parse::<ColumnType>().is_err(), "{wrong} was accepted");
        }
    }
}
