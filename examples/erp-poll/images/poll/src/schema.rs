//! What an order looks like, as the API says, and whether a record is one.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::status::{Failure, Status};

/// Columns of the dataset, in order, each a field of an order.
pub(crate) const COLUMNS: [&str; 7] = [
    "order_id",
    "customer",
    "ordered_on",
    "status",
    "lines",
    "currency",
    "amount",
];
/// Fields that a schema may have, bytes of their names, and bytes of a text.
const MOST_FIELDS: usize = 200;
const MOST_NAME: usize = 100;
const MOST_TEXT: usize = 1_000;

/// The schema as the API gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Schema {
    /// Counts up as fields change.
    pub(crate) version: u64,
    /// The fields of an order.
    pub(crate) fields: Vec<Field>,
}

/// A field of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Field {
    /// Its name.
    pub(crate) name: String,
    /// What its values are.
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    /// Whether an order may be without it.
    #[serde(default)]
    pub(crate) optional: bool,
}

/// What values of a field are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// An exact number, written as text.
    Decimal,
    /// A day, as `2024-12-31`.
    Date,
}

/// Why a schema cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    /// A column has lost its field.
    #[error("version {version} of the schema of orders has no `{column}`, which the dataset needs")]
    Column { version: u64, column: &'static str },
    /// It is too large.
    #[error(
        "version {version} of the schema of orders has more than {MOST_FIELDS} fields, or one whose \
         name has more than {MOST_NAME} bytes"
    )]
    TooLarge { version: u64 },
}

impl Failure for SchemaError {
    fn status(&self) -> Status {
        Status::DataErr
    }
}

impl Schema {
    /// Holds that each column has a field. Fields that no column has are left alone: systems grow.
    pub(crate) fn has_all_columns(&self) -> Result<(), SchemaError> {
        let version = self.version;
        let long = |field: &Field| field.name.len() > MOST_NAME;
        if self.fields.len() > MOST_FIELDS || self.fields.iter().any(long) {
            return Err(SchemaError::TooLarge { version });
        }
        let missing = COLUMNS
            .into_iter()
            .find(|column| !self.fields.iter().any(|field| field.name == *column));
        match missing {
            Some(column) => Err(SchemaError::Column { version, column }),
            None => Ok(()),
        }
    }

    /// The digest that dead letters name the schema by.
    pub(crate) fn digest(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let digest = Sha256::digest(text);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }

    /// The columns of a record, as text; or what is wrong with it.
    pub(crate) fn row(&self, record: &Value) -> Result<Vec<String>, String> {
        let Value::Object(record) = record else {
            return Err("it is no object".to_owned());
        };
        for field in &self.fields {
            match record.get(&field.name) {
                None | Some(Value::Null) if field.optional => {}
                None | Some(Value::Null) => return Err(format!("`{}` is missing", field.name)),
                Some(value) => field.kind.check(value).map_err(|found| {
                    format!("`{}` should be {}, and is {found}", field.name, field.kind)
                })?,
            }
        }
        let column = |name: &&str| match record.get(*name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        Ok(COLUMNS.iter().map(column).collect())
    }
}

impl Kind {
    fn check(self, value: &Value) -> Result<(), String> {
        let fits = match (self, value) {
            (Self::Integer, Value::Number(number)) => number.is_i64(),
            (Self::String, Value::String(text)) => text.len() <= MOST_TEXT,
            (Self::Decimal, Value::String(text)) => is_decimal(text),
            (Self::Date, Value::String(text)) => is_date(text),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        Err(match value {
            Value::String(text) if text.len() > MOST_TEXT => "a longer text".to_owned(),
            Value::Array(_) | Value::Object(_) => "something else".to_owned(),
            plain => plain.to_string(),
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::String => "a text",
            Self::Integer => "a whole number",
            Self::Decimal => "a decimal number, as text",
            Self::Date => "a day, as in 2024-12-31",
        })
    }
}

fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let digits = |part: &str| {
        (1..=18).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    digits(whole) && digits(fraction)
}

/// The form of a day; whether there is such a day, the platform sees, which knows the calendar.
fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        let kind = |name| match name {
            "lines" => Kind::Integer,
            "amount" => Kind::Decimal,
            "ordered_on" => Kind::Date,
            _ => Kind::String,
        };
        Schema {
            version: 1,
            fields: COLUMNS
                .into_iter()
                .map(|name| Field {
                    name: name.to_owned(),
                    kind: kind(name),
                    optional: false,
                })
                .collect(),
        }
    }

    fn order() -> Value {
        json!({
            "order_id": "SO-0000001", "customer": "C-001", "ordered_on": "2024-12-31",
            "status": "open", "lines": 12, "currency": "EUR", "amount": "-1234.50",
            "channel": "web",
        })
    }

    #[test]
    fn an_order_becomes_a_row_in_the_order_of_the_columns() {
        let row = schema().row(&order());
        let expected = [
            "SO-0000001",
            "C-001",
            "2024-12-31",
            "open",
            "12",
            "EUR",
            "-1234.50",
        ];
        assert_eq!(row, Ok(expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn each_way_of_not_being_an_order_is_told_with_the_field() {
        for (field, value, told) in [
            (
                "lines",
                json!("twelve"),
                "`lines` should be a whole number, and is \"twelve\"",
            ),
            (
                "lines",
                json!(1.5),
                "`lines` should be a whole number, and is 1.5",
            ),
            ("customer", Value::Null, "`customer` is missing"),
            (
                "amount",
                json!(12.5),
                "`amount` should be a decimal number, as text, and is 12.5",
            ),
            (
                "amount",
                json!("1,5"),
                "`amount` should be a decimal number, as text, and is \"1,5\"",
            ),
            (
                "ordered_on",
                json!("31.12.2024"),
                "`ordered_on` should be a day, as in 2024-12-31, and is \"31.12.2024\"",
            ),
            (
                "status",
                json!(["open"]),
                "`status` should be a text, and is something else",
            ),
            (
                "status",
                json!("x".repeat(1_001)),
                "`status` should be a text, and is a longer text",
            ),
        ] {
            let mut order = order();
            order[field] = value;
            assert_eq!(schema().row(&order), Err(told.to_owned()));
        }
        assert_eq!(schema().row(&json!([1])), Err("it is no object".to_owned()));
    }

    #[test]
    fn a_schema_may_grow_and_may_not_lose_what_the_dataset_needs() {
        let mut schema = schema();
        schema.fields.push(Field {
            name: "channel".to_owned(),
            kind: Kind::String,
            optional: true,
        });
        assert!(schema.has_all_columns().is_ok());
        schema.fields.retain(|field| field.name != "amount");
        let error = schema.has_all_columns().expect_err("it lost a column");
        assert_eq!(error.status().code(), 65);
        assert!(error.to_string().contains("`amount`"), "{error}");
    }
}
