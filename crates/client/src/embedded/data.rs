//! Datasets of the state folder, as attempts and commits need them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use barecount_agent::{DataError, DataPlane, Letters, StagedOutput, StagingWatch};
use barecount_api::assignment::Assignment;
use barecount_artifact::{Limits as ArtifactLimits, Store, job};
use barecount_dataset::{
    decision::{AppTransaction, Committed, DatasetCommit, Decision, PartitionValues},
    input::InputFile,
    read::{DataFiles, InputFormat},
    stage::{self, Limits, OutputFormat, OutputSpec, Staged as StagedFiles},
    table::{StateTables, Tables},
};
use barecount_engine::job::{DeclaredTable, JobSpec};
use barecount_engine::parameters::{Parameter, Parameters};
use barecount_engine::process::Request;
use barecount_engine::session::InputTable;
use barecount_model::{
    boundary::Boundary,
    codes, manifest,
    pipeline::Output,
    plan::{InputPlan, Pinned, StagePlan, WorkPlan},
    run::outcome::{CommittedDataset, Staged, StagedCheckpoint, StagedDataset},
    text::DatasetName,
};
use barecount_runner::launch::inside;
use serde_json::{Value, json};

use super::{
    acceptance::Acceptance,
    blocking::blocking,
    boundaries::{self, Boundaries},
    checkpoints::Checkpoints,
    decoding::{Decoding, Written},
    driver::Committer,
    engine::{Engine, engine_resources},
    evolution, files,
    letters::{self, Watched},
    schema,
};
use crate::failure::chain;

/// Datasets in the tables of a state folder.
pub(crate) struct StateData {
    state: PathBuf,
    tables: StateTables,
    artifacts: Store,
    acceptance: Acceptance,
    decoding: Decoding,
    checkpoints: Checkpoints,
    boundaries: Boundaries,
}

impl StateData {
    /// The datasets of a state folder, which is named by an absolute path.
    pub(crate) fn new(
        state: PathBuf,
        tables: StateTables,
        artifacts: Store,
        engine: Engine,
        (checkpoints, boundaries): (Checkpoints, Boundaries),
    ) -> Arc<Self> {
        Arc::new(Self {
            checkpoints,
            boundaries,
            state,
            tables,
            artifacts,
            acceptance: Acceptance::new(engine.clone()),
            decoding: Decoding::new(engine),
        })
    }
}

#[async_trait]
impl DataPlane for StateData {
    async fn provide(
        &self,
        input: &InputPlan,
        assignment: &Assignment,
        into: &Path,
    ) -> Result<Value, DataError> {
        match input {
            InputPlan::Dataset {
                dataset,
                from,
                format,
                partitions,
                ..
            } => {
                let tables = self.tables_of(&assignment.tenant)?;
                let written =
                    self.boundaries
                        .let_read(tables.tenant(), dataset, &assignment.stage)?;
                let unprovided = |code, error: &(dyn std::error::Error + 'static)| {
                    DataError::Data {
                        code,
                        message: format!("input {dataset} cannot be provided: {}", chain(error)),
                    }
                    .unless_of_host(error)
                };
                let unavailable = codes::DATASET_UNAVAILABLE.id;
                let version = version_of(dataset, from.as_ref(), assignment);
                let snapshot = tables
                    .snapshot(dataset, version)
                    .await
                    .map_err(|error| unprovided(unavailable, &error))?;
                let wanted = schema::partitions(partitions, own_partition(assignment));
                let format = handed_over(*format, &assignment.stage.work);
                let data_files = data_files(&assignment.stage);
                let into = into.join(dataset.as_str());
                let version = snapshot.version;
                let done =
                    blocking(move || snapshot.materialize(format, data_files, &into, &wanted))
                        .await?;
                let done = done.map_err(|error| match error.is_altered() {
                    true => unprovided(codes::DATA_ALTERED.id, &error),
                    false => unprovided(unavailable, &error),
                })?;
                let mut given = json!({
                    "dataset": dataset, "version": version, "rows": done.rows,
                    "digest": done.digest, "written_within": written,
                });
                if let Some(pinned) = from {
                    given["from"] = json!(pinned.pipeline);
                }
                Ok(given)
            }
            InputPlan::File {
                name,
                path,
                digest,
                bytes,
            } => {
                let (from, folder) = (PathBuf::from(path), into.join(name));
                let expected = digest.clone();
                blocking(move || files::provide(&from, &folder, &expected)).await??;
                Ok(json!({ "file": name, "digest": digest, "bytes": bytes }))
            }
        }
    }

    async fn stage(
        &self,
        output: &Output,
        assignment: &Assignment,
        written: &Path,
        staging: &Path,
        letters: &Letters,
        watch: &StagingWatch,
    ) -> Result<StagedOutput, DataError> {
        let table_schema = schema::of_output(output)?;
        let own = own_of_output(assignment, output);
        let spec = OutputSpec {
            format: handed_back(output.format, &assignment.stage.work),
            schema: table_schema.clone(),
            only_partition: own.clone(),
            limits: Limits::default(),
        };
        let written = written.join(output.dataset.as_str());
        let folder = staging.join(output.dataset.as_str());
        let disk = assignment.stage.resources.disk_bytes;
        let (listed, of) = (written.clone(), spec.clone());
        let files = blocking(move || stage::written_files(&listed, &of)).await?;
        let files = files.map_err(|error| letters::stage_error(output, &error))?;
        hold_length(output, &files, disk)?;
        let watched = Watched::new(output, watch, letters);
        let staged = if spec.format == OutputFormat::Parquet {
            let from = Written {
                output,
                assignment,
                watch,
                folder: written,
            };
            self.decoding.stage(&from, &folder, spec, watched).await?
        } else {
            let into = folder.clone();
            blocking(move || stage::stage_output(&written, &into, &spec, &watched))
                .await?
                .map_err(|error| letters::stage_error(output, &error))?
        };
        letters::hold(output, letters, staged.rows)?;
        let tests = self
            .acceptance
            .check(output, &table_schema, assignment, staging, watch)
            .await?;
        let commit = DatasetCommit {
            table: output.dataset.clone(),
            mode: schema::write_mode(output.mode),
            replace_partition: own,
            schema: table_schema,
            schema_evolution: schema::evolution(output.schema_evolution),
            staging: folder
                .strip_prefix(&self.state)
                .unwrap_or(&folder)
                .to_owned(),
            files: staged.files.clone(),
            transaction: AppTransaction {
                app_id: assignment.attempt.task.to_string(),
                version: assignment.attempt.number.into(),
            },
        };
        // The last moment at which a refusal costs nothing but the attempt: what is reported as
        // done is the commit decision, and must go forward.
        let tables = self.tables_of(&assignment.tenant)?;
        let foreseen = tables.foresee(&commit).await;
        foreseen.map_err(|error| evolution::refused(output, &error))?;
        let boundary = assignment.stage.boundary.as_ref();
        staged_output(output, staged, &commit, boundary, tests)
    }

    async fn dead_letters(
        &self,
        assignment: &Assignment,
        written: &Path,
        letters: &Letters,
    ) -> Result<(), DataError> {
        let (folder, letters) = (written.join("_dead_letters"), letters.clone());
        let outputs = assignment.stage.outputs.iter();
        let declared = outputs.map(|output| output.dataset.to_string()).collect();
        blocking(move || letters::take_own(&folder, &declared, &letters)).await?
    }

    async fn provide_checkpoint(
        &self,
        assignment: &Assignment,
        into: &Path,
    ) -> Result<Option<String>, DataError> {
        let (checkpoints, assignment) = (self.checkpoints.clone(), assignment.clone());
        let into = into.to_owned();
        blocking(move || checkpoints.provide(&assignment, &into)).await?
    }

    async fn stage_checkpoint(
        &self,
        assignment: &Assignment,
        saved: &Path,
        staging: &Path,
    ) -> Result<Option<StagedCheckpoint>, DataError> {
        let (checkpoints, assignment) = (self.checkpoints.clone(), assignment.clone());
        let (saved, staging) = (saved.to_owned(), staging.to_owned());
        blocking(move || checkpoints.stage(&assignment, &saved, &staging)).await?
    }

    async fn hand_on_checkpoint(
        &self,
        assignment: &Assignment,
        saved: &Path,
    ) -> Result<(), DataError> {
        let (checkpoints, assignment) = (self.checkpoints.clone(), assignment.clone());
        let saved = saved.to_owned();
        blocking(move || checkpoints.hand_on(&assignment, &saved)).await?
    }

    async fn job(&self, assignment: &Assignment, _job: &Path) -> Result<Value, DataError> {
        let stage = &assignment.stage;
        let WorkPlan::Job {
            job: pin,
            shuffle_partitions,
            ..
        } = &stage.work
        else {
            return Err(DataError::Work {
                code: "BC0703",
                message: format!("stage `{}` has no job", stage.name),
            });
        };
        let unreadable = |error: &(dyn std::error::Error + 'static)| DataError::Host {
            code: "BC0504",
            message: format!("job `{}` cannot be read: {}", pin.name, chain(error)),
        };
        let digest = pin.digest.parse().map_err(|error| unreadable(&error))?;
        let sql = job::text(&self.artifacts, &digest, &ArtifactLimits::default())
            .map_err(|error| unreadable(&error))?;
        let mut inputs = Vec::new();
        let tables = self.tables_of(&assignment.tenant)?;
        for input in &stage.inputs {
            inputs.extend(input_table(&tables, input, assignment).await?);
        }
        let outputs = stage
            .outputs
            .iter()
            .map(|output| {
                Ok(DeclaredTable {
                    table: output.dataset.clone(),
                    schema: schema::of_output(output)?,
                })
            })
            .collect::<Result<_, DataError>>()?;
        let request = Request::Job(JobSpec {
            sql,
            inputs,
            outputs,
            output_dir: PathBuf::from(inside::OUTPUT),
            parameters: parameters(assignment),
            timeout_ms: Some(stage.timeout_ms),
            resources: engine_resources(
                stage.resources.memory_bytes,
                stage.resources.scratch_bytes,
                shuffle_partitions.unwrap_or(1),
            ),
        });
        serde_json::to_value(request).map_err(|error| unreadable(&error))
    }
}

impl StateData {
    /// The tables of one tenant; no other's can be reached by them.
    fn tables_of(&self, tenant: &str) -> Result<Tables, DataError> {
        let tenant = tenant.parse().map_err(|error| DataError::Host {
            code: "BC0802",
            message: chain(&error),
        })?;
        Ok(self.tables.of(&tenant))
    }
}

/// The version of a dataset that an attempt is given: of another pipeline's the one that the run was
/// accepted with, and else what the task was placed for, which is what answers for it later.
fn version_of(
    dataset: &DatasetName,
    from: Option<&Pinned>,
    assignment: &Assignment,
) -> Option<u64> {
    let placed = assignment.reads.get(dataset.as_str()).copied();
    from.map(|pinned| pinned.version).or(placed)
}

/// A dataset as the engine sees it inside its sandbox. Files beside the manifest are no tables.
async fn input_table(
    tables: &Tables,
    input: &InputPlan,
    assignment: &Assignment,
) -> Result<Option<InputTable>, DataError> {
    let InputPlan::Dataset {
        dataset,
        from,
        columns,
        ..
    } = input
    else {
        return Ok(None);
    };
    let version = version_of(dataset, from.as_ref(), assignment);
    let partitions = match tables.snapshot(dataset, version).await {
        Ok(snapshot) => snapshot.schema.partition_by().to_vec(),
        // That there is nothing to read was said when the input was provided.
        Err(_) => Vec::new(),
    };
    Ok(Some(InputTable {
        schema: schema::of_columns(dataset, columns, partitions)?,
        table: dataset.clone(),
        path: Path::new(inside::INPUT).join(dataset.as_str()),
    }))
}

/// What a job's SQL may name: the window and the partition that it is run for.
fn parameters(assignment: &Assignment) -> Parameters {
    let mut parameters = Parameters::new();
    if let Some(window) = &assignment.window {
        for (name, moment) in [("window_start", window.start), ("window_end", window.end)] {
            let moment = Parameter::Timestamp(moment.to_string());
            parameters.insert(name.to_owned(), moment);
        }
    }
    if let Some(partition) = &assignment.partition {
        let partition = Parameter::Text(partition.clone());
        parameters.insert("partition".to_owned(), partition);
    }
    parameters
}

/// The format in which a dataset's files are handed to work. A job of the engine sees tables and
/// no files, so whatever format its input names, it gets them as they are kept: no value is
/// spelt as text on its way.
fn handed_over(format: manifest::Format, work: &WorkPlan) -> InputFormat {
    match work {
        WorkPlan::Job { .. } => InputFormat::Parquet,
        _ => schema::input_format(format),
    }
}

/// How an attempt gets data files. One in a sandbox of its own has its inputs under an overlay; a warm
/// process has them in a folder that changes, which no overlay shows, and who has no sandbox sees the
/// files themselves. A lease on those would stop everybody who reads the table.
fn data_files(stage: &StagePlan) -> DataFiles {
    let warm = matches!(
        stage.work,
        WorkPlan::Handler { .. } | WorkPlan::ImageHandler { .. }
    );
    if warm || stage.isolation == "process" {
        DataFiles::Copied
    } else {
        DataFiles::Linked
    }
}

/// The format in which work hands an output's rows back: a job of the engine as they lie in memory.
fn handed_back(format: manifest::Format, work: &WorkPlan) -> OutputFormat {
    match work {
        WorkPlan::Job { .. } => OutputFormat::Arrow,
        _ => schema::output_format(format),
    }
}

#[async_trait]
impl Committer for StateData {
    async fn roll_forward(
        &self,
        tenant: &str,
        staged: &Staged,
        decided_at_ms: i64,
    ) -> Result<Vec<CommittedDataset>, DataError> {
        let tables = self.tables_of(tenant)?;
        let decision = decision(staged, decided_at_ms)?;
        self.boundaries.note(tables.tenant(), staged)?;
        let committed = tables.roll_forward(&decision).await;
        let committed = committed.map_err(|error| not_rolled(chain(&error)))?;
        self.boundaries
            .settle(staged, &decision, &committed, &tables)
            .await?;
        if let Some(checkpoint) = staged.checkpoint.clone() {
            let checkpoints = self.checkpoints.clone();
            blocking(move || checkpoints.roll_forward(&checkpoint, decided_at_ms)).await??;
        }
        Ok(committed.into_iter().map(committed_dataset).collect())
    }

    async fn standing(
        &self,
        tenant: &str,
        staged: &Staged,
    ) -> Result<Vec<CommittedDataset>, DataError> {
        let tables = self.tables_of(tenant)?;
        let standing = tables.standing(&decision(staged, 0)?).await;
        let standing = standing.map_err(|error| not_rolled(chain(&error)))?;
        Ok(standing.into_iter().map(committed_dataset).collect())
    }
}

fn decision(staged: &Staged, decided_at_ms: i64) -> Result<Decision, DataError> {
    let datasets = staged
        .datasets
        .iter()
        .map(|staged| serde_json::from_value(staged.commit.clone()))
        .collect::<Result<Vec<DatasetCommit>, _>>()
        .map_err(|error| not_rolled(format!("a commit decision cannot be read: {error}")))?;
    Ok(Decision {
        decided_at_ms,
        datasets,
    })
}

fn not_rolled(message: String) -> DataError {
    DataError::Host {
        code: "BC0706",
        message,
    }
}

fn committed_dataset(committed: Committed) -> CommittedDataset {
    CommittedDataset {
        dataset: committed.dataset.to_string(),
        uri: committed.uri,
        version: committed.version,
        rows: committed.written_rows,
        bytes: committed.written_bytes,
        digest: committed.written_digest,
    }
}

/// The column and the value that the task's partition has.
fn own_partition(assignment: &Assignment) -> Option<(&str, &str)> {
    let column = assignment.stage.partition_column.as_deref()?;
    Some((column, assignment.partition.as_deref()?))
}

/// The part of an output that the task covers; empty if it covers all of it.
fn own_of_output(assignment: &Assignment, output: &Output) -> PartitionValues {
    let own = own_partition(assignment)
        .filter(|(column, _)| output.partition_by.iter().any(|by| by.as_str() == *column));
    own.map(|(column, value)| (column.to_owned(), Some(value.to_owned())))
        .into_iter()
        .collect()
}

/// Holds the length of what work hands over against what its size has of the disk. A hole takes nothing
/// there, but whoever reads it reads as much as if it was written.
fn hold_length(output: &Output, files: &[InputFile], disk: Option<u64>) -> Result<(), DataError> {
    let lengths = files.iter().map(|file| file.bytes);
    let length = lengths.fold(0, u64::saturating_add);
    match disk {
        Some(disk) if length > disk => Err(DataError::Data {
            code: codes::DISK_USED_UP.id,
            message: format!(
                "output {}: its files have {} MiB by their length, holes included, and its size has \
                 {} MiB of the disk; write less, or choose a larger size",
                output.dataset,
                length >> 20,
                disk >> 20
            ),
        }),
        _ => Ok(()),
    }
}

fn staged_output(
    output: &Output,
    staged: StagedFiles,
    commit: &DatasetCommit,
    boundary: Option<&Boundary>,
    tests: Value,
) -> Result<StagedOutput, DataError> {
    let name = output.dataset.to_string();
    let mut commit = serde_json::to_value(commit).map_err(|error| DataError::Host {
        code: "BC0705",
        message: format!("the commit of {name} cannot be written down: {error}"),
    })?;
    boundaries::mark(&mut commit, boundary);
    Ok(StagedOutput {
        dataset: StagedDataset {
            dataset: name,
            rows: staged.rows,
            bytes: staged.bytes,
            digest: staged.content_digest,
            commit,
        },
        tests,
    })
}
