//! What earlier runs answer: the rule of [`barecount_model::work`], held against what the state
//! folder holds now.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use barecount_control::store::{OpenError, StoreError, reader::Reader};
use barecount_dataset::{
    decision::{DatasetCommit, PartitionValues, WriteMode},
    table::{Snapshot, StateTables, TableError, Tables},
};
use barecount_model::{
    id::RunId,
    plan::{InputPlan, Plan, StagePlan, work_token},
    run::{Answered, AttemptState, Run, StandingOutput, Task, TaskState, Window},
    text::DatasetName,
    work::{self, Before, Decision, Fallen, LiveFile, Read, Why, Work, Wrote},
};

use super::schema;

/// Why nobody can tell what earlier runs answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswersError {
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error("what earlier runs did cannot be read")]
    Store(#[from] StoreError),
    /// The state folder has no store.
    #[error("the state folder has no store")]
    NoStore,
}

/// What becomes of a task that could be placed.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// It is done; what it comes to answers this work. The work is unknown where a dataset that it
    /// reads cannot be read: the attempt says so.
    Run(Option<Work>, Why),
    /// It has been done.
    Unchanged(Work, Answered),
}

/// A task as it would be placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// What the run carries out.
    pub(crate) plan: &'a Plan,
    /// The task.
    pub(crate) task: &'a Task,
    /// The logical time that the run is for.
    pub(crate) window: Option<&'a Window>,
    /// Whether the task is done whatever was before.
    pub(crate) forced: bool,
    /// The run's token.
    pub(crate) token: &'a str,
}

impl<'a> Asked<'a> {
    /// A task of a run.
    pub(crate) fn of(run: &'a Run, plan: &'a Plan, index: usize) -> Self {
        let task = &run.tasks[index];
        Self {
            plan,
            task,
            window: run.window.as_ref(),
            forced: plan.forced.iter().any(|forced| *forced == task.stage),
            token: &run.token,
        }
    }
}

/// The earlier runs of a state folder, and its datasets as they are now.
pub(crate) struct Answers {
    state: PathBuf,
    tables: StateTables,
    reader: Mutex<Option<Reader>>,
}

impl Answers {
    /// The answers of a state folder whose store has been opened.
    pub(crate) fn new(state: PathBuf, tables: StateTables) -> Arc<Self> {
        Arc::new(Self {
            state,
            tables,
            reader: Mutex::new(None),
        })
    }

    /// The datasets of the state folder.
    pub(crate) fn tables(&self) -> &StateTables {
        &self.tables
    }

    /// What becomes of a task. Reads the store and the logs of the datasets that are concerned,
    /// each log once as long as nothing is added to it.
    ///
    /// Cancel-safe: it only reads.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) async fn judge(&self, asked: Asked<'_>) -> Result<Judgement, AnswersError> {
        let Some(work) = self.work(asked).await else {
            return Ok(Judgement::Run(None, Why::First));
        };
        let done = self.read(|reader| reader.answers(&work.key))?;
        let done = done.into_iter().filter(|(_, task)| is_answer(task, &work));
        let stands = self.latest_that_stands(done, &asked.plan.tenant).await;
        let before = match &stands {
            Ok(_) => Before::Stands,
            Err(None) => Before::Never,
            Err(Some((dataset, fallen))) => Before::Fallen {
                dataset,
                fallen: *fallen,
            },
        };
        let last = match before {
            Before::Never => self.last_work(asked)?,
            _ => None,
        };
        match (
            work::decide(&work, asked.forced, before, last.as_ref()),
            &stands,
        ) {
            (Decision::Unchanged, Ok((run, task))) => {
                let answered = answered(run.clone(), task);
                Ok(Judgement::Unchanged(work, answered))
            }
            (Decision::Unchanged, Err(_)) => Ok(Judgement::Run(Some(work), Why::First)),
            (Decision::Run(why), _) => {
                let keyless = match before {
                    Before::Never if !asked.forced => self.keyless_append(asked).await?,
                    _ => None,
                };
                Ok(match keyless {
                    Some(answered) => Judgement::Unchanged(work, answered),
                    None => Judgement::Run(Some(work), why),
                })
            }
        }
    }

    /// Of tasks that did the same work, the latest first: the first of which everything that it wrote
    /// stands. Where there is none, what of the latest one's does not stand, if that is known.
    async fn latest_that_stands(
        &self,
        done: impl Iterator<Item = (RunId, Task)>,
        tenant: &str,
    ) -> Result<(RunId, Task), Option<(String, Fallen)>> {
        let mut latest = None;
        for (run, task) in done {
            let fallen = match self.standing(&task, tenant).await {
                Ok(None) => return Ok((run, task)),
                Ok(Some(fallen)) => Some(fallen),
                Err(Unknown) => None,
            };
            latest.get_or_insert(fallen);
        }
        Err(latest.flatten())
    }

    /// The succeeded tasks of a run whose results are not true any more, by index, and why.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) async fn untrue(
        &self,
        run: &Run,
        plan: &Plan,
    ) -> Result<Vec<(usize, Why)>, AnswersError> {
        let mut untrue = Vec::new();
        for (index, task) in run.tasks.iter().enumerate() {
            if task.state != TaskState::Succeeded {
                continue;
            }
            let why = if task.work.is_none() {
                // It is older than keys. Its token covers its code and files, and the datasets that
                // it read are other tasks' of the run.
                match self.standing(task, &plan.tenant).await {
                    Ok(None) => None,
                    Ok(Some((dataset, fallen))) => Some(Why::Fallen { dataset, fallen }),
                    Err(Unknown) => Some(Why::First),
                }
            } else {
                let asked = Asked {
                    forced: false,
                    ..Asked::of(run, plan, index)
                };
                match self.judge(asked).await? {
                    Judgement::Unchanged(..) => None,
                    Judgement::Run(_, why) => Some(why),
                }
            };
            untrue.extend(why.map(|why| (index, why)));
        }
        Ok(untrue)
    }

    /// The latest of the runs that did the same work, by its token.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) fn latest_of_token(
        &self,
        tenant: &str,
        token: &str,
    ) -> Result<Option<(Run, Plan)>, AnswersError> {
        self.read(|reader| reader.latest_of_token(tenant, token))
    }

    /// The run of this very token.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) fn run_of_token(
        &self,
        tenant: &str,
        token: &str,
    ) -> Result<Option<(Run, Plan)>, AnswersError> {
        self.read(|reader| reader.run_of_token(tenant, token))
    }

    /// A run and its plan.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) fn run(&self, id: &RunId) -> Result<Option<(Run, Plan)>, AnswersError> {
        let found = self.read(|reader| reader.runs_by_prefix(&id.printed()))?;
        Ok(found.into_iter().next())
    }

    /// The work of a task, with what it reads as it is now; none if that cannot be read.
    async fn work(&self, asked: Asked<'_>) -> Option<Work> {
        let Asked { plan, task, .. } = asked;
        let stage = plan.stage(&task.stage)?;
        let tables = self.tables.of(&plan.tenant.parse().ok()?);
        let mut reads = Vec::new();
        for input in &stage.inputs {
            let InputPlan::Dataset {
                dataset,
                from,
                partitions,
                ..
            } = input
            else {
                continue;
            };
            let wanted = schema::partitions(partitions, own_partition(stage, task));
            let found = match from {
                Some(pinned) => at(&tables, dataset, pinned.version).await,
                None => tables.latest(dataset).await,
            };
            let (version, content) = match found.ok()? {
                Some(snapshot) => (Some(snapshot.version), snapshot.content_identity(&wanted)),
                None => (None, "none".to_owned()),
            };
            reads.push(Read {
                dataset: dataset.to_string(),
                version,
                content,
            });
        }
        let partition = task.partition.as_deref();
        Some(Work::of(plan, stage, partition, asked.window, &reads))
    }

    /// What a task of the same code and files appended in a run that is older than keys of work, if
    /// all of it is still there: nobody wants it twice.
    async fn keyless_append(&self, asked: Asked<'_>) -> Result<Option<Answered>, AnswersError> {
        let Asked { plan, task, .. } = asked;
        if plan.named.is_some() {
            return Ok(None);
        }
        let token = work_token::first(asked.token);
        let Some((run, _)) = self.read(|reader| reader.run_of_token(&plan.tenant, token))? else {
            return Ok(None);
        };
        let same = |old: &&Task| (&old.stage, &old.partition) == (&task.stage, &task.partition);
        let Some(old) = run.tasks.iter().find(same) else {
            return Ok(None);
        };
        let keyless = old.state == TaskState::Succeeded && old.work.is_none();
        if !keyless || !appends(old) || !matches!(self.standing(old, &plan.tenant).await, Ok(None))
        {
            return Ok(None);
        }
        Ok(Some(answered(run.id.clone(), old)))
    }

    /// What of a task's outputs does not stand, if anything.
    async fn standing(
        &self,
        task: &Task,
        tenant: &str,
    ) -> Result<Option<(String, Fallen)>, Unknown> {
        let tables = self.tables.of(&tenant.parse().map_err(|_| Unknown)?);
        let staged = task.current().and_then(|attempt| attempt.staged.as_ref());
        for staged in staged.into_iter().flat_map(|staged| &staged.datasets) {
            let commit: DatasetCommit =
                serde_json::from_value(staged.commit.clone()).map_err(|_| Unknown)?;
            let snapshot = tables.latest(&commit.table).await.map_err(|_| Unknown)?;
            let live: Option<Vec<LiveFile>> = snapshot.map(|snapshot| live(&snapshot));
            if let Err(fallen) = work::stands(&wrote(&commit), live.as_deref()) {
                return Ok(Some((staged.dataset.clone(), fallen)));
            }
        }
        Ok(None)
    }

    fn last_work(&self, asked: Asked<'_>) -> Result<Option<Work>, AnswersError> {
        let Asked { plan, task, .. } = asked;
        let partition = task.partition.as_deref();
        let last = self.read(|reader| {
            reader.last_work(&plan.tenant, &plan.pipeline, &task.stage, partition)
        })?;
        Ok(last.and_then(|(_, task)| task.work).map(|work| *work))
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError>,
    ) -> Result<T, AnswersError> {
        let mut reader = lock(&self.reader);
        let opened = match reader.take() {
            Some(reader) => reader,
            None => Reader::open(&self.state)?.ok_or(AnswersError::NoStore)?,
        };
        Ok(read(reader.insert(opened))?)
    }
}

/// What a task's outputs are cannot be told, so that it answers nothing.
#[derive(Debug)]
struct Unknown;

/// A dataset as it was at a version; none if it was not there then.
async fn at(
    tables: &Tables,
    table: &DatasetName,
    version: u64,
) -> Result<Option<Arc<Snapshot>>, TableError> {
    match tables.latest(table).await? {
        Some(latest) if latest.version == version => return Ok(Some(latest)),
        _ => {}
    }
    match tables.snapshot(table, Some(version)).await {
        Ok(snapshot) => Ok(Some(Arc::new(snapshot))),
        Err(TableError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a task came to a result by this work. Its row may since be of other work.
fn is_answer(task: &Task, work: &Work) -> bool {
    let own = task
        .work
        .as_ref()
        .is_some_and(|known| known.key == work.key);
    let decided = task.current().map(|attempt| attempt.state) == Some(AttemptState::Succeeded);
    own && decided && task.state == TaskState::Succeeded
}

fn appends(task: &Task) -> bool {
    let staged = task.current().and_then(|attempt| attempt.staged.as_ref());
    let mut outputs = staged.into_iter().flat_map(|staged| &staged.datasets);
    outputs.any(|output| {
        let commit = serde_json::from_value::<DatasetCommit>(output.commit.clone());
        commit.is_ok_and(|commit| commit.mode == WriteMode::Append)
    })
}

fn answered(run: RunId, task: &Task) -> Answered {
    let staged = task.current().and_then(|attempt| attempt.staged.as_ref());
    let outputs = staged.into_iter().flat_map(|staged| &staged.datasets);
    Answered {
        run,
        task: task.id.clone(),
        outputs: outputs
            .map(|output| StandingOutput {
                dataset: output.dataset.clone(),
                rows: output.rows,
                digest: output.digest.clone(),
            })
            .collect(),
    }
}

fn wrote(commit: &DatasetCommit) -> Wrote {
    Wrote {
        dataset: commit.table.to_string(),
        replaced: match commit.mode {
            WriteMode::Overwrite => Some(commit.replace_partition.clone()),
            WriteMode::Append => None,
        },
        files: commit.file_names(),
    }
}

fn live(snapshot: &Snapshot) -> Vec<LiveFile> {
    let files = snapshot.files.iter();
    files
        .map(|file| LiveFile {
            name: file.written_as.clone(),
            partition: PartitionValues::clone(&file.partition_values),
        })
        .collect()
}

fn own_partition<'a>(stage: &'a StagePlan, task: &'a Task) -> Option<(&'a str, &'a str)> {
    let column = stage.partition_column.as_deref()?;
    Some((column, task.partition.as_deref()?))
}
