//! `barecount run --dry-run`: what would run, and why. Nothing is written but to a folder aside, which
//! is gone when this is told; there need be no state folder.

use std::{io, path::Path};

use barecount_artifact::{Store, build::Cancel};
use barecount_control::{
    governance::{Action, Verdict, explain},
    store::reader::Reader,
};
use barecount_dataset::table::StateTables;
use barecount_model::{
    plan::Plan,
    run::{Run, RunState, Task, TaskState},
    work::Why,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Loaded, again, checked};
use crate::{
    embedded::{
        answers::{Answers, Asked, Judgement},
        build::Workshop,
        lock, open_failure, policy,
        submission::Request,
    },
    environment::Found,
    failure::{Failure, Status},
    preparation,
    printer::{Printer, Table},
    requester, view,
};

/// What becomes of a task.
enum Fate {
    /// It runs.
    Runs(Why),
    /// It runs if a task that it needs comes to something else than before.
    Depends(String),
    /// It has been done, by this run.
    Unchanged(String),
}

/// What is known before anything is decided.
pub(super) struct DryRun<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) folder: &'a Path,
    pub(super) found: &'a Found,
    pub(super) state: &'a Path,
    pub(super) printer: &'a Printer,
}

impl DryRun<'_> {
    /// Tells what would run, and why.
    ///
    /// # Errors
    /// What would keep the run from starting; of a refusal, after the reasons were told.
    pub(super) fn tell(&self, verb: super::Run) -> Result<(), Failure> {
        verb.plannable(self.loaded, self.printer)?;
        let aside = tempfile::tempdir().map_err(|error| aside_failure(&error))?;
        for kept in ["artifacts/blobs/sha256", "build/built"] {
            link_all(&self.state.join(kept), &aside.path().join(kept))
                .map_err(|error| aside_failure(&error))?;
        }
        let lock = match self.found.environment.refresh_lock {
            true => self.built_aside(aside.path())?,
            false => self.pinned()?,
        };
        let request = Request {
            manifest: &self.loaded.manifest,
            pipeline: &self.loaded.pipeline,
            folder: self.folder,
            environment: &self.found.environment,
            lock: &lock,
            window: verb.window,
            token: verb.token,
            stage: verb.stage,
            force: verb.force,
            requester: requester::name(),
        };
        let store = Store::open(&aside.path().join("artifacts"));
        let store = store.map_err(|error| aside_failure(&error))?;
        let plan = request.plan(&store, Value::Null)?;
        let run = request.run(&plan, Timestamp::now())?;
        let state = self.state.canonicalize().ok();
        let reader = match &state {
            Some(state) => Reader::open(state).map_err(|error| open_failure(&error))?,
            None => None,
        };
        let told = match (state, reader) {
            (Some(state), Some(reader)) => {
                let tables = StateTables::new(state.clone());
                let only = request.stage.as_deref();
                preparation::runtime()?.block_on(async {
                    checked(&tables, Some(&reader), &self.loaded.pipeline, only).await?;
                    let answers = Answers::new(state, tables);
                    judged(&answers, &request, &run, &plan).await
                })?
            }
            _ => Told::first(&run),
        };
        self.print(&request, &run, &told)
    }

    fn print(&self, request: &Request<'_>, run: &Run, told: &Told) -> Result<(), Failure> {
        let question = policy::question(
            Action::Run,
            &self.loaded.pipeline,
            &run.version,
            &self.found.environment,
            &request.requester,
            Timestamp::now(),
        );
        let verdict = preparation::governance()?.decide(&question);
        let permitted = verdict.is_permitted();
        let value = told.json(run, permitted, &verdict);
        self.printer.data(&value, || told.text(run))?;
        if permitted {
            return Ok(());
        }
        self.printer.warn(&explain(&verdict));
        Err(Failure::new(Status::Refused, "the run would be refused")
            .with_code("BC0401")
            .with_help("The conditions above say what is not met, and what would change that."))
    }

    fn pinned(&self) -> Result<barecount_model::lock::Lock, Failure> {
        let found = lock::read(self.folder)?;
        let found = found.ok_or_else(|| preparation::no_lock(self.folder))?;
        lock::complete(&found, &self.loaded.pipeline)?;
        Ok(found)
    }

    /// The pins that building would give. What was built before is taken as it is.
    fn built_aside(&self, aside: &Path) -> Result<barecount_model::lock::Lock, Failure> {
        let store = Store::open(&aside.join("artifacts"));
        let store = store.map_err(|error| aside_failure(&error))?;
        let pipeline = &self.loaded.pipeline;
        let workshop = Workshop::new(&store, pipeline, self.folder, aside, Cancel::default());
        Ok(workshop.make_all(&mut |_| {})?.lock)
    }
}

fn aside_failure(error: &(dyn std::error::Error + 'static)) -> Failure {
    let what = "what would be built cannot be put aside";
    Failure::new(Status::Unavailable, what)
        .because(error)
        .with_help("Make room where `TMPDIR` says, or name another folder by it.")
}

/// Links the files of a folder into another one, or copies them where that is on another disk.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    let entries = match std::fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let into = to.join(entry.file_name());
        if !entry.file_type()?.is_file() {
            continue;
        }
        if std::fs::hard_link(entry.path(), &into).is_err() {
            std::fs::copy(entry.path(), &into)?;
        }
    }
    Ok(())
}

/// What would become of a run.
struct Told {
    /// The run that is there already: it answers, or is taken up.
    existing: Option<Run>,
    fates: Vec<Fate>,
}

async fn judged(
    answers: &Answers,
    request: &Request<'_>,
    run: &Run,
    plan: &Plan,
) -> Result<Told, Failure> {
    let unreadable = again::unreadable;
    let latest = match request.token {
        Some(_) => answers.run_of_token(&run.tenant, &run.token),
        None => answers.latest_of_token(&run.tenant, &run.token),
    };
    let latest = latest.map_err(|error| unreadable(&error))?;
    let mut existing = None;
    let mut untrue = Vec::new();
    if let Some((latest, latest_plan)) = latest {
        let found = answers.untrue(&latest, &latest_plan).await;
        untrue = found.map_err(|error| unreadable(&error))?;
        let goes_on = match latest.state {
            RunState::Succeeded => {
                request.token.is_some() || (untrue.is_empty() && plan.forced.is_empty())
            }
            RunState::Refused => false,
            _ => true,
        };
        existing = goes_on.then_some(latest);
    }
    let mut fates: Vec<Fate> = Vec::with_capacity(run.tasks.len());
    for (index, task) in run.tasks.iter().enumerate() {
        let done = existing.as_ref().filter(|existing| is_done(existing, task));
        let fallen = untrue.iter().any(|(untrue, _)| *untrue == index);
        let needed = task
            .needs
            .iter()
            .find(|&&need| !matches!(fates[need], Fate::Unchanged(_)));
        if let Some(done) = done.filter(|_| !fallen && needed.is_none()) {
            fates.push(Fate::Unchanged(done.id.to_string()));
            continue;
        }
        let asked = answers.judge(Asked::of(run, plan, index)).await;
        fates.push(match asked.map_err(|error| unreadable(&error))? {
            Judgement::Unchanged(_, answered) => match needed {
                Some(&need) => Fate::Depends(view::task_name(&run.tasks[need])),
                None => Fate::Unchanged(answered.run.to_string()),
            },
            Judgement::Run(_, why) => Fate::Runs(why),
        });
    }
    Ok(Told { existing, fates })
}

/// Whether a task of the same stage and partition has succeeded in a run.
fn is_done(run: &Run, task: &Task) -> bool {
    let same = |done: &&Task| (&done.stage, &done.partition) == (&task.stage, &task.partition);
    let done = run.tasks.iter().find(same);
    done.is_some_and(|done| done.state == TaskState::Succeeded)
}

impl Fate {
    fn does(&self) -> &'static str {
        match self {
            Self::Runs(_) => "runs",
            Self::Depends(_) => "depends",
            Self::Unchanged(_) => "unchanged",
        }
    }

    fn why(&self) -> String {
        match self {
            Self::Runs(why) => why.to_string(),
            Self::Depends(on) => format!("runs if {on} comes to something else than before"),
            Self::Unchanged(by) => format!("answered by run {by}"),
        }
    }
}

impl Told {
    /// What is told where nothing has ever run.
    fn first(run: &Run) -> Self {
        Self {
            existing: None,
            fates: run.tasks.iter().map(|_| Fate::Runs(Why::First)).collect(),
        }
    }

    /// `barecount/dry_run/v1`.
    fn json(&self, run: &Run, permitted: bool, verdict: &Verdict) -> Value {
        let tasks: Vec<Value> = run
            .tasks
            .iter()
            .zip(&self.fates)
            .map(|(task, fate)| {
                let answered_by = match fate {
                    Fate::Unchanged(by) => Some(by),
                    _ => None,
                };
                json!({
                    "stage": task.stage, "partition": task.partition, "class": task.class,
                    "size": task.size, "network_profile": task.network_profile,
                    "does": fate.does(), "why": fate.why(), "answered_by": answered_by,
                })
            })
            .collect();
        let existing = self.existing.as_ref();
        json!({
            "schema": "barecount/dry_run/v1", "pipeline": run.pipeline, "tenant": run.tenant,
            "version": run.version, "environment": run.environment, "window": run.window,
            "permitted": permitted, "decision": verdict.explanation(),
            "run": existing.map(|run| json!({ "id": run.id, "state": run.state })),
            "tasks": tasks,
        })
    }

    fn text(&self, run: &Run) -> String {
        let mut table = Table::new(&["task", "class", "size", "does", "why"], "no tasks");
        for (task, fate) in run.tasks.iter().zip(&self.fates) {
            table.row([
                view::task_name(task),
                task.class.to_string(),
                task.size.to_string(),
                fate.does().to_owned(),
                fate.why(),
            ]);
        }
        let head = match &self.existing {
            Some(existing) if existing.state == RunState::Succeeded => {
                format!("nothing would run: run {} answers\n\n", existing.id)
            }
            Some(existing) => format!("run {} would be taken up\n\n", existing.id),
            None => "a new run would be made\n\n".to_owned(),
        };
        head + &table.render()
    }
}
