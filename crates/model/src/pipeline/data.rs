//! Inputs, outputs and partitions of a stage.

use std::collections::BTreeMap;

use super::scope::{Findings, MAX_PATTERNS, did_you_mean};
use super::{Column, Input, Output, PartitionFilter, Partitions, acceptance, crossing};
use crate::codes;
use crate::diagnostic::quoted;
use crate::manifest::{
    Columns, Format, InputSpec, Manifest, OutputSpec, PartitionUnit, PartitionsSpec, StageSpec,
    WriteMode,
};
use crate::text::{ColumnName, ColumnType, DatasetName, MAX_COLUMNS, Name, whole_value_pattern};

/// Who writes each dataset.
pub(super) struct Writers<'a> {
    pipeline: &'a Name,
    writers: BTreeMap<&'a DatasetName, (usize, &'a OutputSpec)>,
}

impl<'a> Writers<'a> {
    /// Collects the writers and refuses datasets with more than one.
    pub(super) fn collect(findings: &mut Findings<'_>, manifest: &'a Manifest) -> Self {
        let mut writers: BTreeMap<_, (usize, &OutputSpec)> = BTreeMap::new();
        for (index, stage) in manifest.spec.stages.iter().enumerate() {
            for (position, output) in stage.outputs.iter().enumerate() {
                let Some((first, _)) = writers.get(&output.dataset) else {
                    writers.insert(&output.dataset, (index, output));
                    continue;
                };
                let pointer = format!("/spec/stages/{index}/outputs/{position}/dataset");
                let first = &manifest.spec.stages[*first].name;
                let message = if *first == stage.name {
                    format!("`{}` is already an output of this stage", output.dataset)
                } else {
                    format!("`{}` is already written by stage `{first}`", output.dataset)
                };
                let help = "a dataset has one writer; give this one another name";
                findings.error_with_help(codes::DATASET_WRITTEN_TWICE, &pointer, message, help);
            }
        }
        let pipeline = &manifest.metadata.name;
        Self { pipeline, writers }
    }

    /// The index of the stage that writes a dataset.
    pub(super) fn stage_of(&self, dataset: &DatasetName) -> Option<usize> {
        self.writers.get(dataset).map(|(stage, _)| *stage)
    }
}

/// The partitions of a stage.
pub(super) fn partitions(
    findings: &mut Findings<'_>,
    at: &str,
    spec: &PartitionsSpec,
) -> Option<Partitions> {
    let number = |text: &str| -> Option<i32> {
        match (spec.by, text.split_once('-')) {
            (PartitionUnit::Year, None) => text.parse().ok(),
            (PartitionUnit::Month, Some((year, month))) => {
                let month = month
                    .parse::<i32>()
                    .ok()
                    .filter(|month| (1..=12).contains(month))?;
                Some(year.parse::<i32>().ok()? * 12 + month - 1)
            }
            _ => None,
        }
    };
    let example = match spec.by {
        PartitionUnit::Year => "a year is written \"2024\"",
        PartitionUnit::Month => "a month is written \"2024-05\"",
    };
    let mut end = |key: &str, text: &str| {
        let parsed = number(text);
        if parsed.is_none() {
            let message = format!("{} is not a {}", quoted(text), spec.by.as_str());
            let pointer = format!("{at}/{key}");
            findings.error_with_help(codes::INVALID_PARTITIONS, &pointer, message, example);
        }
        parsed
    };
    let (from, to) = match (&spec.from, &spec.to) {
        (Some(from), Some(to)) => (from, to),
        (None, None) => return Some(Partitions::of_window(spec.by)),
        _ => {
            let message = "partitions have a first and a last, or are those of the window";
            let help = "Give both `from` and `to`, or neither.";
            findings.error_with_help(codes::INVALID_PARTITIONS, at, message, help);
            return None;
        }
    };
    let (first, last) = (end("from", from), end("to", to));
    let (first, last) = (first?, last?);
    if first > last {
        let message = format!("the partitions end before they start: {from} to {to}");
        findings.error(codes::INVALID_PARTITIONS, &format!("{at}/to"), message);
        return None;
    }
    if (last - first) as usize >= Partitions::MAX {
        let message = format!("a stage has at most {} partitions", Partitions::MAX);
        findings.error(codes::INVALID_PARTITIONS, &format!("{at}/to"), message);
        return None;
    }
    Some(Partitions {
        by: spec.by,
        range: Some((first, last)),
    })
}

/// The inputs of the stage at a JSON pointer.
pub(super) fn inputs(
    findings: &mut Findings<'_>,
    at: &str,
    stage: &StageSpec,
    writers: &Writers<'_>,
) -> Vec<Input> {
    let mut inputs: Vec<Input> = Vec::new();
    for (index, spec) in stage.inputs.iter().enumerate() {
        if findings.is_full() {
            break;
        }
        let at = format!("{at}/inputs/{index}");
        let Some(input) = input(findings, &at, spec, stage, writers) else {
            continue;
        };
        let twice = inputs.iter().any(|other| match (other, &input) {
            (Input::Dataset { dataset: a, .. }, Input::Dataset { dataset: b, .. }) => a == b,
            (Input::File { name: a, .. }, Input::File { name: b, .. }) => a == b,
            _ => false,
        });
        if twice {
            let message = "the stage already has an input of this name";
            findings.error(codes::DUPLICATE_INPUT, &at, message);
        }
        inputs.push(input);
    }
    inputs
}

fn input(
    findings: &mut Findings<'_>,
    at: &str,
    spec: &InputSpec,
    stage: &StageSpec,
    writers: &Writers<'_>,
) -> Option<Input> {
    match (&spec.dataset, &spec.file) {
        (Some(dataset), None) => dataset_input(findings, at, dataset, spec, stage, writers),
        (None, Some(path)) => {
            if spec.from.is_some() {
                let message = "a file is beside the manifest, and of no other pipeline";
                let help = "`from` belongs to a `dataset`; leave it out";
                let pointer = format!("{at}/from");
                findings.key_error(codes::INVALID_INPUT, &pointer, message, help);
            }
            if spec.crossing.is_some() {
                let message = "a file beside the manifest is in no stage's boundary";
                let help = "`crossing` belongs to a `dataset`; leave it out";
                let pointer = format!("{at}/crossing");
                findings.key_error(codes::INVALID_INPUT, &pointer, message, help);
            }
            if stage.runner.job.is_some() {
                let message = "a job reads datasets, and a file is none";
                let help = "let a stage of another class write the file's rows into a dataset, and \
                            read that";
                let pointer = format!("{at}/file");
                findings.error_with_help(codes::INVALID_INPUT, &pointer, message, help);
            }
            if spec.format.is_some() || !spec.partitions.is_empty() {
                let message = "a file is given as it is; it has no `format` and no `partitions`";
                findings.error(codes::INVALID_INPUT, at, message);
            }
            if spec.name.is_none() {
                let message = "a file needs a `name`, under which the stage finds it";
                findings.error(codes::INVALID_INPUT, &format!("{at}/file"), message);
            }
            Some(Input::File {
                path: path.clone(),
                name: spec.name.clone()?,
            })
        }
        (Some(_), Some(_)) => {
            let message = "an input is a dataset or a file, not both";
            let help = "write them as two items of `inputs`";
            findings.error_with_help(codes::INVALID_INPUT, &format!("{at}/file"), message, help);
            None
        }
        (None, None) => {
            let message = "an input is a `dataset` or a `file`";
            findings.error(codes::INVALID_INPUT, at, message);
            None
        }
    }
}

fn dataset_input(
    findings: &mut Findings<'_>,
    at: &str,
    dataset: &DatasetName,
    spec: &InputSpec,
    stage: &StageSpec,
    writers: &Writers<'_>,
) -> Option<Input> {
    if spec.name.is_some() {
        let message = "a dataset keeps its name; `name` belongs to files";
        findings.error(codes::INVALID_INPUT, &format!("{at}/name"), message);
    }
    if let Some(from) = &spec.from {
        return foreign_input(findings, at, (dataset, from), spec, stage, writers);
    }
    let Some((_, written)) = writers.writers.get(dataset) else {
        let message = format!("no stage writes the dataset `{dataset}`");
        let names = writers.writers.keys().map(|name| name.as_str());
        let help = did_you_mean(dataset.as_str(), "datasets of this pipeline", names);
        let help = format!("{help}; one of another pipeline is read with `from: <pipeline>`");
        let pointer = format!("{at}/dataset");
        findings.error_with_help(codes::UNKNOWN_DATASET, &pointer, message, help);
        return None;
    };
    let format = spec.format.unwrap_or(written.format);
    if (format == Format::Files) != (written.format == Format::Files) {
        let message = format!(
            "`{dataset}` is written as {} and cannot be read as {format}",
            written.format
        );
        let help = "rows can be read as csv, ndjson or parquet; files only as files";
        let pointer = format!("{at}/format");
        findings.error_with_help(codes::INVALID_INPUT, &pointer, message, help);
    }
    let partitions = partition_filter(findings, at, spec, stage, &written.partition_by)?;
    Some(Input::Dataset {
        dataset: dataset.clone(),
        from: None,
        format,
        partitions,
    })
}

/// A dataset of another pipeline. What it is like is known once a state was looked at.
fn foreign_input(
    findings: &mut Findings<'_>,
    at: &str,
    (dataset, from): (&DatasetName, &Name),
    spec: &InputSpec,
    stage: &StageSpec,
    writers: &Writers<'_>,
) -> Option<Input> {
    let own = writers.pipeline == from;
    if own || writers.writers.contains_key(dataset) {
        let message = match own {
            true => format!("`{from}` is this pipeline"),
            false => format!("a stage of this pipeline writes `{dataset}`"),
        };
        let help = "`from` belongs to datasets of other pipelines; leave it out";
        let pointer = format!("{at}/from");
        findings.key_error(codes::INVALID_INPUT, &pointer, message, help);
        return None;
    }
    if let Some(declared) = &spec.crossing {
        crossing::hold_reason(findings, at, declared);
    }
    // Whatever it is split by: that is held against the dataset itself.
    let columns: Vec<ColumnName> = spec
        .partitions
        .iter()
        .filter_map(|filter| filter.split_once('=')?.0.parse().ok())
        .chain(
            stage
                .partitions
                .as_ref()
                .and_then(|own| own.by.as_str().parse().ok()),
        )
        .collect();
    let partitions = partition_filter(findings, at, spec, stage, &columns)?;
    Some(Input::Dataset {
        dataset: dataset.clone(),
        from: Some(from.clone()),
        format: spec.format.unwrap_or(Format::Parquet),
        partitions,
    })
}

fn partition_filter(
    findings: &mut Findings<'_>,
    at: &str,
    spec: &InputSpec,
    stage: &StageSpec,
    partition_by: &[ColumnName],
) -> Option<PartitionFilter> {
    let known = |column: &str| partition_by.iter().find(|name| name.as_str() == column);
    let mut values = Vec::new();
    for (index, text) in spec.partitions.iter().enumerate() {
        let at = format!("{at}/partitions/{index}");
        if text == "own" {
            let Some(unit) = stage
                .partitions
                .as_ref()
                .map(|partitions| partitions.by.as_str())
            else {
                let message = "the stage has no partitions, and so none of its own to read";
                findings.error(codes::INVALID_PARTITIONS, &at, message);
                return None;
            };
            if known(unit).is_none() {
                let message = format!("the dataset is not split by a column `{unit}`");
                findings.error(codes::INVALID_PARTITIONS, &at, message);
                return None;
            }
            if spec.partitions.len() > 1 {
                let message = "`own` stands alone";
                findings.error(codes::INVALID_PARTITIONS, &at, message);
            }
            return Some(PartitionFilter::Own);
        }
        let Some((column, value)) = text.split_once('=') else {
            let message = format!("{} is neither `own` nor `<column>=<value>`", quoted(text));
            findings.error(codes::INVALID_PARTITIONS, &at, message);
            continue;
        };
        if let Some(column) = known(column) {
            values.push((column.clone(), value.to_owned()));
        } else {
            let message = format!("the dataset is not split by a column {}", quoted(column));
            let names = partition_by.iter().map(|name| name.as_str());
            let help = did_you_mean(column, "partition columns of the dataset", names);
            findings.error_with_help(codes::INVALID_PARTITIONS, &at, message, help);
        }
    }
    Some(if values.is_empty() {
        PartitionFilter::All
    } else {
        PartitionFilter::Values(values)
    })
}

/// The outputs of the stage at a JSON pointer.
pub(super) fn outputs(findings: &mut Findings<'_>, at: &str, stage: &StageSpec) -> Vec<Output> {
    let specs = stage.outputs.iter().enumerate();
    specs
        .map(|(index, spec)| output(findings, &format!("{at}/outputs/{index}"), spec, stage))
        .collect()
}

fn output(findings: &mut Findings<'_>, at: &str, spec: &OutputSpec, stage: &StageSpec) -> Output {
    let output = Output {
        dataset: spec.dataset.clone(),
        format: spec.format,
        mode: spec.mode.unwrap_or_default(),
        schema_evolution: spec.schema_evolution.unwrap_or_default(),
        dead_letters: spec.dead_letters.unwrap_or_default(),
        partition_by: spec.partition_by.clone(),
        columns: columns(findings, at, spec),
        tests: spec.tests.clone(),
    };
    if output.format == Format::Files {
        for key in [
            "columns",
            "partition_by",
            "tests",
            "tolerance",
            "dead_letters",
        ] {
            let pointer = format!("{at}/{key}");
            if findings.has(&pointer) {
                let message = format!("a set of files has no rows, and so no `{key}`");
                let help = "leave it out, or choose the format csv, ndjson or parquet";
                findings.key_error(codes::INVALID_COLUMNS, &pointer, message, help);
            }
        }
        return output;
    }
    if output.columns.is_empty() {
        let message = format!("the output `{}` declares no columns", output.dataset);
        let help = "declare them under `columns`, or choose `format: files`";
        findings.error_with_help(
            codes::INVALID_COLUMNS,
            &format!("{at}/dataset"),
            message,
            help,
        );
        return output;
    }
    check_partition_columns(findings, at, &output);
    check_partitioned_stage(findings, at, &output, stage);
    acceptance::check(findings, at, &output);
    output
}

fn columns(findings: &mut Findings<'_>, at: &str, spec: &OutputSpec) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    // Tables compare names without case.
    let mut lines: BTreeMap<String, (usize, &ColumnName)> = BTreeMap::new();
    for (index, declared) in spec.columns.iter().enumerate() {
        let at = format!("{at}/columns/{index}");
        let names: Vec<(String, &ColumnName)> = match (&declared.name, &declared.names[..]) {
            (Some(name), []) => vec![(format!("{at}/name"), name)],
            (None, names @ [_, ..]) => {
                let place = |(n, name)| (format!("{at}/names/{n}"), name);
                names.iter().enumerate().map(place).collect()
            }
            _ => {
                let message = "a column has either `name` or a list of `names`";
                findings.error(codes::INVALID_COLUMNS, &at, message);
                continue;
            }
        };
        check_column(findings, &at, declared);
        for (place, name) in names {
            let caseless = name.as_str().to_lowercase();
            if let Some((line, other)) = lines.get(&caseless) {
                let message = if *other == name {
                    format!("the column `{name}` is already declared on line {line}")
                } else {
                    format!(
                        "the column `{name}` differs only in case from `{other}` on line {line}"
                    )
                };
                findings.error(codes::DUPLICATE_COLUMN, &place, message);
                continue;
            }
            lines.insert(caseless, (findings.line(&place), name));
            columns.push(column(name, declared, spec));
        }
    }
    if columns.len() > MAX_COLUMNS {
        let message = format!("a dataset has at most {MAX_COLUMNS} columns");
        findings.error(codes::OUT_OF_RANGE, &format!("{at}/columns"), message);
    }
    columns
}

fn column(name: &ColumnName, declared: &Columns, output: &OutputSpec) -> Column {
    let float = declared.column_type == ColumnType::Float64;
    let tolerance = declared.tolerance.as_ref().or(output.tolerance.as_ref());
    Column {
        name: name.clone(),
        column_type: declared.column_type,
        nullable: declared.nullable.unwrap_or(true),
        pattern: declared.pattern.clone(),
        description: declared.description.clone(),
        sensitive: declared.sensitive,
        tolerance: tolerance.filter(|_| float).cloned(),
    }
}

fn check_column(findings: &mut Findings<'_>, at: &str, declared: &Columns) {
    if let Some(pattern) = &declared.pattern {
        let pointer = format!("{at}/pattern");
        if declared.column_type != ColumnType::String {
            let message = format!("a column of type {} has no `pattern`", declared.column_type);
            findings.error(codes::INVALID_COLUMNS, &pointer, message);
        }
        if !findings.count_pattern() {
            let message = format!("a manifest has at most {MAX_PATTERNS} patterns");
            let help = "declare columns that share a pattern together, with `names`";
            findings.error_with_help(codes::OUT_OF_RANGE, &pointer, message, help);
            return;
        }
        if let Err(reason) = whole_value_pattern(pattern) {
            let message = format!("{} is not a regular expression", quoted(pattern));
            findings.error_with_help(
                codes::INVALID_COLUMNS,
                &pointer,
                message,
                reason.to_string(),
            );
        }
    }
    if declared.tolerance.is_some() && declared.column_type != ColumnType::Float64 {
        let message = format!("values of type {} are exact", declared.column_type);
        let help = "a tolerance belongs to columns of type float64";
        let pointer = format!("{at}/tolerance");
        findings.key_error(codes::INVALID_COLUMNS, &pointer, message, help);
    }
}

fn check_partition_columns(findings: &mut Findings<'_>, at: &str, output: &Output) {
    for (index, name) in output.partition_by.iter().enumerate() {
        if findings.is_full() {
            break;
        }
        let at = format!("{at}/partition_by/{index}");
        let Some(column) = output.column(name.as_str()) else {
            let message = format!("`{}` has no column `{name}` to be split by", output.dataset);
            let names = output.columns.iter().map(|column| column.name.as_str());
            let help = did_you_mean(name.as_str(), "its columns", names);
            findings.error_with_help(codes::UNKNOWN_COLUMN, &at, message, help);
            continue;
        };
        if !column.column_type.splits() {
            let message = format!("a dataset is not split by values of {}", column.column_type);
            let help = "only string, int64, date and bool columns split a dataset; declare one \
                        that is made from this, as the date of a timestamp";
            findings.error_with_help(codes::INVALID_PARTITIONS, &at, message, help);
        }
        if output.partition_by[..index].contains(name) {
            let message = format!("`{name}` is named twice");
            findings.error(codes::INVALID_PARTITIONS, &at, message);
        }
    }
    if output.partition_by.len() >= output.columns.len() {
        let message = "a dataset is split by some of its columns, not by all";
        findings.error(
            codes::INVALID_PARTITIONS,
            &format!("{at}/partition_by"),
            message,
        );
    }
}

/// Each task of a stage with partitions replaces its own partition; so the output must have it.
fn check_partitioned_stage(
    findings: &mut Findings<'_>,
    at: &str,
    output: &Output,
    stage: &StageSpec,
) {
    let Some(partitions) = &stage.partitions else {
        return;
    };
    let unit = partitions.by.as_str();
    let split = output.partition_by.iter().any(|name| name.as_str() == unit);
    if output.mode == WriteMode::Overwrite && !split {
        let message = format!(
            "each {unit} of stage `{}` would overwrite the others in `{}`",
            stage.name, output.dataset
        );
        let help = format!("declare a column `{unit}` and set `partition_by: [{unit}]`");
        findings.error_with_help(
            codes::INVALID_PARTITIONS,
            &format!("{at}/dataset"),
            message,
            help,
        );
    }
}

/// The stages that a stage depends on, by index: those of its datasets, and those it needs.
pub(super) fn dependencies(
    findings: &mut Findings<'_>,
    at: &str,
    stage: &StageSpec,
    writers: &Writers<'_>,
    names: &[&Name],
) -> Vec<usize> {
    let datasets = stage
        .inputs
        .iter()
        .filter_map(|input| input.dataset.as_ref());
    let mut indices: Vec<usize> = datasets.filter_map(|name| writers.stage_of(name)).collect();
    for (index, name) in stage.needs.iter().enumerate() {
        if let Some(stage) = names.iter().position(|other| *other == name) {
            indices.push(stage);
        } else {
            if findings.is_full() {
                break;
            }
            let message = format!("the pipeline has no stage `{name}`");
            let help = did_you_mean(
                name.as_str(),
                "stages",
                names.iter().map(|name| name.as_str()),
            );
            let pointer = format!("{at}/needs/{index}");
            findings.error_with_help(codes::UNKNOWN_STAGE, &pointer, message, help);
        }
    }
    indices.sort_unstable();
    indices.dedup();
    indices
}
