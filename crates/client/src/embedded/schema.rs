//! From what a manifest declares of a dataset to what the dataset layer works with.

use barecount_agent::DataError;
use barecount_dataset::{
    decision::{PartitionValues, WriteMode},
    evolution::SchemaEvolution,
    read::InputFormat,
    schema::{Column, TableSchema},
    stage::{OutputFormat, files_schema},
};
use barecount_model::{
    manifest,
    pipeline::{Output, PartitionFilter},
    text::DatasetName,
};

/// The schema of an output's table.
pub(super) fn of_output(output: &Output) -> Result<TableSchema, DataError> {
    let partition_by = output
        .partition_by
        .iter()
        .map(ToString::to_string)
        .collect();
    of_columns(&output.dataset, &output.columns, partition_by)
}

/// The schema that columns make; that of a set of files if there are none.
pub(super) fn of_columns(
    dataset: &DatasetName,
    columns: &[barecount_model::pipeline::Column],
    partition_by: Vec<String>,
) -> Result<TableSchema, DataError> {
    if columns.is_empty() {
        return files_schema().map_err(|error| unusable(dataset, &error));
    }
    let columns = columns
        .iter()
        .map(|column| Column {
            name: column.name.to_string(),
            column_type: column.column_type,
            nullable: column.nullable,
            pattern: column.pattern.clone(),
        })
        .collect();
    TableSchema::new(columns, partition_by).map_err(|error| unusable(dataset, &error))
}

/// The format in which a task hands rows over.
pub(super) fn output_format(format: manifest::Format) -> OutputFormat {
    match format {
        manifest::Format::Csv => OutputFormat::Csv,
        manifest::Format::Ndjson => OutputFormat::Ndjson,
        manifest::Format::Parquet => OutputFormat::Parquet,
        manifest::Format::Files => OutputFormat::Files,
    }
}

/// The format in which a task gets rows.
pub(super) fn input_format(format: manifest::Format) -> InputFormat {
    match format {
        manifest::Format::Csv => InputFormat::Csv,
        manifest::Format::Ndjson => InputFormat::Ndjson,
        manifest::Format::Parquet => InputFormat::Parquet,
        manifest::Format::Files => InputFormat::Files,
    }
}

/// What a commit does with what is there.
pub(super) fn write_mode(mode: manifest::WriteMode) -> WriteMode {
    match mode {
        manifest::WriteMode::Overwrite => WriteMode::Overwrite,
        manifest::WriteMode::Append => WriteMode::Append,
    }
}

/// What a commit may do to the schema of the table.
pub(super) fn evolution(declared: manifest::SchemaEvolution) -> SchemaEvolution {
    match declared {
        manifest::SchemaEvolution::None => SchemaEvolution::None,
        manifest::SchemaEvolution::Additive => SchemaEvolution::Additive,
        manifest::SchemaEvolution::Replace => SchemaEvolution::Replace,
    }
}

/// The partitions that a filter lets through; none stands for all.
pub(super) fn partitions(
    filter: &PartitionFilter,
    own: Option<(&str, &str)>,
) -> Vec<PartitionValues> {
    let one = |column: &str, value: &str| {
        PartitionValues::from([(column.to_owned(), Some(value.to_owned()))])
    };
    match filter {
        PartitionFilter::All => Vec::new(),
        PartitionFilter::Own => own
            .map(|(column, value)| one(column, value))
            .into_iter()
            .collect(),
        PartitionFilter::Values(values) => values
            .iter()
            .map(|(column, value)| one(column.as_str(), value))
            .collect(),
    }
}

fn unusable(dataset: &DatasetName, error: &(dyn std::error::Error + 'static)) -> DataError {
    DataError::Work {
        code: "BC0703",
        message: format!(
            "dataset {dataset} cannot be a table: {}",
            crate::failure::chain(error)
        ),
    }
}
