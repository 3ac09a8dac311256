//! Inputs, outputs, their columns and acceptance tests as a manifest spells them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::share::Share;
use crate::text::{ColumnName, ColumnType, DatasetName, DecimalText, Name, RelativePath};

/// Something that a stage reads: a dataset of another stage, or a file of the pipeline's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// A dataset that another stage writes, or with `from` another pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetName>,
    /// With `dataset`: the pipeline of the same tenant whose dataset it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Name>,
    /// How the stage finds the dataset's rows; the form in which they were written unless set, and
    /// Parquet for those of another pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<InputFormat>,
    /// Which partitions of the dataset: `own` for the one that the task works on, or
    /// `<column>=<value>`; all unless set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub partitions: Vec<String>,
    /// A file, given to the stage as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<RelativePath>,
    /// With `file`: the folder's name under which the stage finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// With `dataset`: that its data may leave the boundary of the stage that writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossing: Option<CrossingSpec>,
}

/// That a stage reads a dataset from within a stricter boundary than its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrossingSpec {
    /// Why the data may cross, for whoever approves it and for evidence.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
}

/// The form in which rows of a dataset are read.
pub type InputFormat = Format;

/// The form in which a stage hands rows over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Comma-separated values (RFC 4180) with a header.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// A set of files, without columns.
    Files,
}

impl Format {
    /// The value as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Files => "files",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A dataset that a stage writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// The dataset; no other stage writes it.
    pub dataset: DatasetName,
    /// The form in which the stage hands rows over.
    pub format: Format,
    /// Whether a commit replaces what is there or adds to it; `overwrite` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<WriteMode>,
    /// What a commit may do to the schema of a dataset that it adds to; `additive` unless set. A
    /// commit that replaces the whole dataset replaces its schema, unless this is `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_evolution: Option<SchemaEvolution>,
    /// Columns by whose values the dataset is split.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub partition_by: Vec<ColumnName>,
    /// The columns, in order. Rows that do not fit are dead letters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2_000))]
    pub columns: Vec<Columns>,
    /// How many rows of an attempt may be dead letters; any number unless set, as long as one row
    /// fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<DeadLetterLimits>,
    /// How far float columns may differ between engines and still be equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
    /// What must hold before the dataset is committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub tests: Vec<AcceptanceTest>,
}

/// What a commit does with what is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// It replaces the dataset, or the partitions that it writes.
    #[default]
    Overwrite,
    /// It adds to the dataset.
    Append,
}

/// What a commit may do to a dataset's schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchemaEvolution {
    /// The schema stays as it is, also where the whole dataset is replaced.
    None,
    /// Where rows stay, it may add columns that may be null, let columns be null, and widen
    /// decimals and whole numbers to wider decimals.
    #[default]
    Additive,
    /// Anything: rows that do not fit the new schema are removed with the old one.
    Replace,
}

/// How many rows may be dead letters before the attempt fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct DeadLetterLimits {
    /// The largest share of all rows that may be dead letters: 0 for none, 1 for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_share: Option<Share>,
    /// The largest number of dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_count: Option<u64>,
}

/// One column, or several that differ in nothing but their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The name of one column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ColumnName>,
    /// The names of several columns, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2_000))]
    pub names: Vec<ColumnName>,
    /// The type.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Whether a value may be absent; it may unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nullable: Option<bool>,
    /// A regular expression that the whole text of a value matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_000))]
    pub pattern: Option<String>,
    /// What the column means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Values are redacted from logs, samples and reports.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
    /// float64 only: how far values may differ between engines and still be equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
}

/// How far two floats may differ and still be equal: by the absolute amount, or by the relative
/// one times the larger of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Tolerance {
    /// In units of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute: Option<DecimalText>,
    /// As a fraction of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<DecimalText>,
}

/// Something that must hold of a dataset before it is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptanceTest {
    /// How many rows there are.
    RowCount(RowCountTest),
    /// No two rows agree in all of these columns.
    Unique(Vec<ColumnName>),
    /// Every value of a column that is not null is in a range.
    Range(RangeTest),
    /// These columns have a value in every row.
    NotNull(Vec<ColumnName>),
    /// A query gives true.
    Sql(SqlTest),
}

/// Bounds on the count of rows; both are included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct RowCountTest {
    /// The least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// The most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// Bounds on the values of a column; both are included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 2))]
pub struct RangeTest {
    /// The column: a number, a date or a timestamp.
    pub column: ColumnName,
    /// The least, in quotes, so that no digit is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 80))]
    pub min: Option<String>,
    /// The most, in quotes, so that no digit is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 80))]
    pub max: Option<String>,
}

/// A query over the table `output` that gives one row with one boolean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlTest {
    /// What the test says, for people.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// The query.
    #[schemars(length(min = 1, max = 10_000))]
    pub assert: String,
}

impl JsonSchema for AcceptanceTest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AcceptanceTest".into()
    }

    /// An object with exactly one of the properties. Said with counts and not with `oneOf`, so
    /// that a misspelt key is reported as that and not as five mismatches.
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let row_count = generator.subschema_for::<RowCountTest>();
        let range = generator.subschema_for::<RangeTest>();
        let sql = generator.subschema_for::<SqlTest>();
        let column = generator.subschema_for::<ColumnName>();
        let columns = |description: &str| {
            schemars::json_schema!({
                "type": "array", "items": column, "minItems": 1, "maxItems": 100,
                "description": description,
            })
        };
        schemars::json_schema!({
            "type": "object",
            "description": "Something that must hold of a dataset before it is committed.",
            "properties": {
                "row_count": row_count,
                "unique": columns("No two rows agree in all of these columns."),
                "range": range,
                "not_null": columns("These columns have a value in every row."),
                "sql": sql,
            },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        })
    }
}
