//! The SQL of jobs, held against the columns that the manifest declares, before anything runs.
//!
//! The engine plans the same statements again over the files that an attempt is given; there it
//! finds nothing that is not found here.

use std::path::{Path, PathBuf};

use barecount_artifact::{Limits, Store, job as pinned};
use barecount_engine::{
    check::{self, Flaw},
    error::EngineError,
    job::{CheckSpec, DeclaredTable},
    parameters::{self, Parameter, Parameters},
};
use barecount_model::{
    codes,
    diagnostic::{Diagnostic, Span},
    digest::Digest,
    document::Document,
    pipeline::{Column, Input, JobLanguage, Loaded, Pipeline, Stage, Work},
    text::{ColumnName, DatasetName},
};

use super::schema;
use crate::{
    failure::{Failure, Status, chain},
    manifest::read_bounded,
};

/// More is not even read; the engine says that it is too much.
const MAX_BYTES: u64 = 1 << 20;

/// A job that could never run, and the text that the place is in.
pub(crate) struct Unplannable {
    /// What is wrong, and where.
    pub(crate) diagnostic: Diagnostic,
    /// The text of the file that the diagnostic names.
    pub(crate) source: String,
}

/// The jobs of the pipeline in a manifest file, or of one stage of it, that could never run.
///
/// Blocks while statements are planned. Nothing is changed.
///
/// `windowed` says whether a run would have a window, which the SQL may then name.
///
/// # Errors
/// If there can be no process that plans.
pub(crate) fn unplannable(
    loaded: &Loaded,
    file: &Path,
    only: Option<&str>,
    windowed: bool,
) -> Result<Vec<Unplannable>, Failure> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let stages = loaded.pipeline.stages.iter();
    let stages = stages.filter(|stage| only.is_none_or(|only| stage.name.as_str() == only));
    // Where a dataset of another pipeline could not be looked at, that is told by itself.
    let known = |stage: &&Stage| {
        stage.inputs.iter().all(|input| match input {
            Input::Dataset { dataset, .. } => loaded.pipeline.columns_of(dataset).is_some(),
            Input::File { .. } => true,
        })
    };
    let jobs = stages.filter(known).filter_map(|stage| match &stage.work {
        Work::Job { job, language } if *language == JobLanguage::Sql => Some((stage, job)),
        _ => None,
    });
    let (mut found, mut asked) = (Vec::new(), Vec::new());
    for (stage, job) in jobs {
        let path = folder.join(job.as_str());
        let sql = match text(&path) {
            Ok(sql) => sql,
            Err(reason) => {
                let what = format!("the job `{job}` of stage `{}` {reason}", stage.name);
                found.push(in_manifest(loaded, stage, file, what));
                continue;
            }
        };
        match spec(&loaded.pipeline, stage, sql.clone(), windowed) {
            Ok(spec) => asked.push((stage, path, spec)),
            Err(error) => {
                let flaw = Flaw {
                    message: chain(&error),
                    place: error.place(),
                };
                found.push(at_fault(stage, &path, sql, &flaw));
            }
        }
    }
    for ((stage, path, spec), flaw) in planned(asked)? {
        found.extend(flaw.map(|flaw| at_fault(stage, &path, spec.sql, &flaw)));
    }
    Ok(found)
}

/// A job of a stage, the file that it is in, and what is planned of it.
type Asked<'a> = (&'a Stage, PathBuf, CheckSpec);

/// Has jobs planned in a process of their own: this program once more.
fn planned(asked: Vec<Asked<'_>>) -> Result<Vec<(Asked<'_>, Option<Flaw>)>, Failure> {
    let specs: Vec<CheckSpec> = asked.iter().map(|(_, _, spec)| spec.clone()).collect();
    let flaws = check::check_jobs(Path::new("/proc/self/exe"), &specs).map_err(|error| {
        Failure::new(
            Status::Unavailable,
            "the process that plans SQL cannot be used",
        )
        .because(&error)
        .with_code(codes::RUNNER_UNFIT.id)
    })?;
    Ok(asked.into_iter().zip(flaws).collect())
}

fn at_fault(stage: &Stage, path: &Path, sql: String, flaw: &Flaw) -> Unplannable {
    let name = path.display().to_string();
    let what = format!("stage `{}`: {}", stage.name, flaw.message);
    let diagnostic =
        Diagnostic::error(codes::JOB_NOT_PLANNABLE, &name, span(flaw), what).with_help(help(stage));
    Unplannable {
        diagnostic,
        source: sql,
    }
}

fn text(path: &Path) -> Result<String, String> {
    let bytes =
        read_bounded(path, MAX_BYTES).map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

fn spec(
    pipeline: &Pipeline,
    stage: &Stage,
    sql: String,
    windowed: bool,
) -> Result<CheckSpec, EngineError> {
    let inputs = stage.inputs.iter().filter_map(|input| match input {
        Input::Dataset { dataset, .. } => {
            let (columns, partition_by) = pipeline.columns_of(dataset)?;
            Some((dataset, columns, partition_by))
        }
        Input::File { .. } => None,
    });
    let outputs = stage
        .outputs
        .iter()
        .map(|output| (&output.dataset, &*output.columns, &*output.partition_by));
    Ok(CheckSpec {
        sql,
        inputs: inputs.map(declared).collect::<Result<_, _>>()?,
        outputs: outputs.map(declared).collect::<Result<_, _>>()?,
        parameters: samples(stage, windowed),
    })
}

/// Whether a job in SQL, as it is pinned, may name the window of a run. What cannot be read may:
/// whoever runs it says that it cannot.
pub(super) fn may_name_window(store: &Store, job: &Digest) -> bool {
    let text = pinned::text(store, job, &Limits::default());
    text.map_or(true, |sql| parameters::names_window(&sql))
}

/// Values of the types that a run would give, to plan with: no plan depends on more of them.
fn samples(stage: &Stage, windowed: bool) -> Parameters {
    let mut samples = Parameters::new();
    if windowed {
        for (name, moment) in [
            ("window_start", "2024-01-01T00:00:00Z"),
            ("window_end", "2024-02-01T00:00:00Z"),
        ] {
            let moment = Parameter::Timestamp(moment.to_owned());
            samples.insert(name.to_owned(), moment);
        }
    }
    if stage.partitions.is_some() {
        let partition = Parameter::Text("2024-01".to_owned());
        samples.insert("partition".to_owned(), partition);
    }
    samples
}

fn declared(
    (dataset, columns, partition_by): (&DatasetName, &[Column], &[ColumnName]),
) -> Result<DeclaredTable, EngineError> {
    let partition_by = partition_by.iter().map(ToString::to_string).collect();
    let schema = schema::of_columns(dataset, columns, partition_by);
    Ok(DeclaredTable {
        table: dataset.clone(),
        schema: schema.map_err(|error| EngineError::Setup {
            reason: chain(&error),
        })?,
    })
}

fn span(flaw: &Flaw) -> Span {
    let (line, column) = flaw.place.unwrap_or((1, 1));
    let from_one = |number: u64| usize::try_from(number).unwrap_or(1).max(1);
    Span {
        line: from_one(line),
        column: from_one(column),
        length: 1,
    }
}

/// What a person can write there.
fn help(stage: &Stage) -> String {
    let reads = stage.inputs.iter().filter_map(|input| match input {
        Input::Dataset { dataset, .. } => Some(dataset),
        Input::File { .. } => None,
    });
    let writes = stage.outputs.iter().map(|output| &output.dataset);
    let list = |names: Vec<&DatasetName>| match names[..] {
        [] => "nothing".to_owned(),
        _ => names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let (reads, writes) = (list(reads.collect()), list(writes.collect()));
    let mut help = format!(
        "the stage's `inputs` give it {reads}, and it writes {writes}; their columns are those that \
         the manifest declares"
    );
    for input in &stage.inputs {
        if let Input::Dataset {
            dataset,
            from: Some(from),
            ..
        } = input
        {
            help.push_str(&format!(
                "; those of `{dataset}` are as pipeline `{from}` has written them, and `barecount \
                 datasets history {dataset}` tells what has changed in them"
            ));
        }
    }
    help
}

/// What is wrong with a job that the manifest names.
fn in_manifest(loaded: &Loaded, stage: &Stage, file: &Path, what: String) -> Unplannable {
    let name = file.display().to_string();
    // It was read before; should it be gone by now, its first line has to do.
    let source = text(file).unwrap_or_default();
    let mut stages = loaded.manifest.spec.stages.iter();
    let index = stages.position(|declared| declared.name == stage.name);
    let span = match (index, Document::parse(&name, source.as_bytes())) {
        (Some(index), Ok(document)) => {
            document.value_span(&format!("/spec/stages/{index}/runner/job"))
        }
        _ => Span::START,
    };
    Unplannable {
        diagnostic: Diagnostic::error(codes::JOB_NOT_PLANNABLE, &name, span, what),
        source,
    }
}
