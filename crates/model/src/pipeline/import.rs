//! Datasets of other pipelines: what a manifest says of them is held against what a state has.
//!
//! A manifest alone does not know their columns, how they are split, and within which boundaries
//! they were written. Whoever knows says so, and the pipeline is whole only then.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Boundary, Column, Crossing, Input, Loaded, Pipeline};
use crate::boundary::Laxer;
use crate::codes::{self, Code};
use crate::diagnostic::quoted;
use crate::manifest::{Format, InputSpec};
use crate::text::{ColumnName, DatasetName, Name};

/// A dataset of another pipeline, as a state has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The pipeline that it belongs to; none where nobody on record has written it.
    pub owner: Option<String>,
    /// Its latest version.
    pub version: u64,
    /// Its columns; none exactly if it is a set of files.
    pub columns: Vec<Column>,
    /// The columns that it is split by.
    pub partition_by: Vec<ColumnName>,
    /// The boundaries within which its data was written.
    pub written_within: Vec<Boundary>,
}

/// What a pipeline knows of a dataset of another one, once it was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Imported {
    /// The version that was looked at, and is read.
    pub version: u64,
    /// Its columns; none exactly if it is a set of files.
    pub columns: Vec<Column>,
    /// The columns that it is split by.
    pub partition_by: Vec<ColumnName>,
}

/// What does not fit between a manifest and a dataset that it reads of another pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Misfit {
    /// The stage.
    pub stage: Name,
    /// Where in the manifest, as a JSON pointer.
    pub pointer: String,
    /// The code.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What would help, as a sentence.
    pub help: String,
}

impl Pipeline {
    /// The datasets of other pipelines that it reads, each once, with the pipeline that they are
    /// said to be of.
    pub fn reads_from(&self) -> BTreeMap<&DatasetName, &Name> {
        let inputs = self.stages.iter().flat_map(|stage| &stage.inputs);
        let imports = inputs.filter_map(|input| match input {
            Input::Dataset {
                dataset,
                from: Some(from),
                ..
            } => Some((dataset, from)),
            _ => None,
        });
        imports.collect()
    }

    /// The columns of a dataset that a stage reads, whoever writes it; none of one that is not known.
    pub fn columns_of(&self, dataset: &DatasetName) -> Option<(&[Column], &[ColumnName])> {
        if let Some((_, output)) = self.writer_of(dataset) {
            return Some((&output.columns, &output.partition_by));
        }
        let imported = self.imports.get(dataset)?;
        Some((&imported.columns, &imported.partition_by))
    }
}

impl Loaded {
    /// Holds every dataset of another pipeline that is read against what is published, and takes
    /// over what the pipeline has to know of it. `published` answers for the pipeline's own tenant.
    ///
    /// Answers with what does not fit, in the order of the manifest.
    pub fn import(&mut self, published: &BTreeMap<DatasetName, Published>) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        for (index, spec) in self.manifest.spec.stages.iter().enumerate() {
            for (position, input) in spec.inputs.iter().enumerate() {
                let (Some(dataset), Some(from)) = (&input.dataset, &input.from) else {
                    continue;
                };
                let mut import = Import {
                    stage: &spec.name,
                    at: format!("/spec/stages/{index}/inputs/{position}"),
                    spec: input,
                    dataset,
                    from,
                    tenant: &self.manifest.metadata.tenant,
                    own: spec.partitions.as_ref().map(|own| own.by.as_str()),
                    misfits: &mut misfits,
                };
                if let Some(found) = import.found(published.get(dataset)) {
                    import.enter(found, &mut self.pipeline);
                }
            }
        }
        misfits
    }
}

struct Import<'a> {
    stage: &'a Name,
    at: String,
    spec: &'a InputSpec,
    dataset: &'a DatasetName,
    from: &'a Name,
    tenant: &'a Name,
    /// The column that the stage's own partitions are of.
    own: Option<&'static str>,
    misfits: &'a mut Vec<Misfit>,
}

impl Import<'_> {
    fn misfit(&mut self, key: &str, code: Code, message: String, help: impl Into<String>) {
        self.misfits.push(Misfit {
            stage: self.stage.clone(),
            pointer: format!("{}/{key}", self.at),
            code,
            message,
            help: help.into(),
        });
    }

    /// The dataset, if it is there and the other pipeline's.
    fn found<'p>(&mut self, published: Option<&'p Published>) -> Option<&'p Published> {
        let (dataset, from, tenant) = (self.dataset, self.from, self.tenant);
        let Some(published) = published else {
            let message = format!("tenant `{tenant}` has no dataset `{dataset}`");
            let help = format!(
                "run pipeline `{from}` of tenant `{tenant}` first, in this state folder; a dataset \
                 of another tenant cannot be read"
            );
            self.misfit("dataset", codes::IMPORT_MISSING, message, help);
            return None;
        };
        match &published.owner {
            Some(owner) if owner == from.as_str() => Some(published),
            owner => {
                let whose = match owner {
                    Some(owner) => format!("pipeline `{owner}`'s"),
                    None => "nobody's".to_owned(),
                };
                let message = format!("dataset `{dataset}` is {whose}, and not `{from}`'s");
                let help = match owner {
                    Some(owner) => format!("if that is the one that is meant, `from: {owner}`"),
                    None => format!("have pipeline `{from}` write it"),
                };
                self.misfit("from", codes::IMPORT_OWNER, message, help);
                None
            }
        }
    }

    /// Has the pipeline know the dataset as it was found.
    fn enter(&mut self, found: &Published, pipeline: &mut Pipeline) {
        let format = self.format(found);
        self.check_partitions(found);
        pipeline.imports.insert(
            self.dataset.clone(),
            Imported {
                version: found.version,
                columns: found.columns.clone(),
                partition_by: found.partition_by.clone(),
            },
        );
        let name = self.stage.clone();
        let mut stages = pipeline.stages.iter_mut();
        let Some(stage) = stages.find(|stage| stage.name == name) else {
            return;
        };
        for input in &mut stage.inputs {
            if let Input::Dataset {
                dataset,
                format: read_as,
                ..
            } = input
                && dataset == self.dataset
            {
                *read_as = format;
            }
        }
        let to = stage.boundary();
        let crossings = self.crossings(found, &to);
        let dataset = self.dataset;
        stage
            .crossings
            .retain(|crossing| crossing.dataset != *dataset);
        stage.crossings.extend(crossings);
    }

    fn format(&mut self, found: &Published) -> Format {
        let is_files = found.columns.is_empty();
        let fallback = match is_files {
            true => Format::Files,
            false => Format::Parquet,
        };
        let format = self.spec.format.unwrap_or(fallback);
        if is_files != (format == Format::Files) {
            let what = match is_files {
                true => "a set of files",
                false => "rows",
            };
            let message = format!(
                "`{}` is {what} and cannot be read as {format}",
                self.dataset
            );
            let help = "rows can be read as csv, ndjson or parquet; files only as files";
            self.misfit("format", codes::INVALID_INPUT, message, help);
        }
        format
    }

    fn check_partitions(&mut self, found: &Published) {
        let split: Vec<_> = found.partition_by.iter().map(ToString::to_string).collect();
        let filters = self.spec.partitions.iter().enumerate();
        let columns = filters.filter_map(|(index, filter)| {
            let column = match filter.as_str() {
                "own" => self.own?,
                other => other.split_once('=')?.0,
            };
            Some((index, column))
        });
        let unknown: Vec<_> = columns
            .filter(|(_, column)| !split.iter().any(|by| by == column))
            .map(|(index, column)| (index, column.to_owned()))
            .collect();
        for (index, column) in unknown {
            let message = format!("the dataset is not split by a column {}", quoted(&column));
            let help = match split.is_empty() {
                true => "it is not split at all; leave `partitions` out".to_owned(),
                false => format!("it is split by: {}", split.join(", ")),
            };
            let key = format!("partitions/{index}");
            self.misfit(&key, codes::INVALID_PARTITIONS, message, help);
        }
    }

    /// What crosses into the stage, from each stricter boundary that the data was written within.
    fn crossings(&mut self, found: &Published, to: &Boundary) -> Vec<Crossing> {
        let stricter = found.written_within.iter();
        let stricter: Vec<_> = stricter
            .filter(|from| !from.laxer_parts(to).is_empty())
            .collect();
        let declared = self.spec.crossing.as_ref().map(|spec| spec.reason.trim());
        match declared {
            Some(reason) => {
                let crossing = |from: &&Boundary| Crossing {
                    dataset: self.dataset.clone(),
                    from: Boundary::clone(from),
                    to: to.clone(),
                    reason: reason.to_owned(),
                };
                stricter.iter().map(crossing).collect()
            }
            None => {
                if let Some(from) = stricter.first() {
                    let laxer = from.laxer_parts(to);
                    let parts: Vec<_> = laxer.iter().map(part).collect();
                    let message = format!(
                        "`{}` was written within {from}, and this stage is laxer in its {}",
                        self.dataset,
                        parts.join(", ")
                    );
                    let help = "if that is meant, say so on the input: `crossing: { reason: \"why \
                                this data may leave its boundary\" }`; else keep the stage as strict \
                                as the data";
                    self.misfit("dataset", codes::CROSSING_UNDECLARED, message, help);
                }
                Vec::new()
            }
        }
    }
}

fn part(laxer: &Laxer) -> &'static str {
    match laxer {
        Laxer::Network => "network profile",
        Laxer::Residency => "residency",
        Laxer::Classification => "classification",
    }
}

#[cfg(test)]
mod tests;
