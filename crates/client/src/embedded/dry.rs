//! What would run, and why. Nothing is written but to a folder aside, which
//! is gone when this is told; there need be no state folder.

use std::{io, path::Path};

use barecount_api::run::RunRequest;
use barecount_artifact::{Store, build::Cancel};
use barecount_control::{
    governance::{Action, Approval, Explanation},
    store::reader::Reader,
};
use barecount_dataset::table::StateTables;
use barecount_model::{
    lock::Lock,
    pipeline::Pipeline,
    plan::Plan,
    run::{Run, RunState, Task, TaskState},
    work::Why,
};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Embedded, again,
    answers::{Answers, Asked, Judgement},
    build::Workshop,
    feasible::{checked, plannable, unplannable},
    imports, lock, open_failure, policy,
    submission::Request,
};
use crate::{
    approvals,
    client::{DryRun, Fate},
    environment::Found,
    failure::{Failure, Status},
    preparation,
    reporter::Reporter,
    requester,
    runtime::runtime,
    state,
};

impl Embedded {
    /// What would run, and why. Nothing is written but to a folder aside.
    ///
    /// # Errors
    /// What would keep the run from starting; a refusal is none.
    pub(super) fn foresee(
        &self,
        asked: &RunRequest,
        reporter: &dyn Reporter,
    ) -> Result<DryRun, Failure> {
        let (mut loaded, folder, found) = self.loaded(&asked.manifest, reporter)?;
        imports::hold_of(&mut loaded, &self.state, asked.stage.as_deref())?;
        plannable(&unplannable(asked, &loaded)?, reporter)?;
        let aside = tempfile::tempdir().map_err(|error| aside_failure(&error))?;
        for kept in ["artifacts/blobs/sha256", "build/built"] {
            link_all(&self.state.join(kept), &aside.path().join(kept))
                .map_err(|error| aside_failure(&error))?;
        }
        let pins = Pins {
            pipeline: &loaded.pipeline,
            folder: &folder,
        };
        let lock = match found.environment.refresh_lock {
            true => pins.built_aside(aside.path())?,
            false => pins.pinned()?,
        };
        let request = Request {
            manifest: &loaded.manifest,
            pipeline: &loaded.pipeline,
            folder: &folder,
            environment: &found.environment,
            lock: &lock,
            window: asked.window.clone(),
            token: asked.token.clone(),
            stage: asked.stage.clone(),
            force: asked.force.clone(),
            requester: requester::name(),
        };
        let store = Store::open(&aside.path().join("artifacts"));
        let store = store.map_err(|error| aside_failure(&error))?;
        let plan = request.plan(&store, Value::Null)?;
        let run = request.run(&plan, Timestamp::now())?;
        let (existing, fates) = self.foreseen(&request, &run, &plan)?;
        let approvals = approvals::on_record(&self.state, &found, &loaded.pipeline, None)?;
        let decision = decision(&request, &run, &found, approvals)?;
        Ok(DryRun {
            run,
            existing,
            fates,
            reads: imports::reads(&plan),
            decision,
        })
    }

    /// The run that would answer or go on, and what would become of each task.
    fn foreseen(
        &self,
        request: &Request<'_>,
        run: &Run,
        plan: &Plan,
    ) -> Result<(Option<Run>, Vec<Fate>), Failure> {
        let state = match state::folder(&self.state) {
            Err(failure) if failure.status() == Status::NotFound => None,
            found => Some(found?),
        };
        let reader = match &state {
            Some(state) => Reader::open(state).map_err(|error| open_failure(&error))?,
            None => None,
        };
        let (Some(state), Some(reader)) = (state, reader) else {
            // Nothing has ever run.
            let first = run.tasks.iter().map(|_| Fate::Runs(Why::First));
            return Ok((None, first.collect()));
        };
        let tables = StateTables::new(state.clone());
        let only = request.stage.as_deref();
        runtime()?.block_on(async {
            checked(&tables, Some(&reader), request.pipeline, only).await?;
            let answers = Answers::new(state, tables);
            judged(&answers, request, run, plan).await
        })
    }
}

fn decision(
    request: &Request<'_>,
    run: &Run,
    found: &Found,
    approvals: Vec<Approval>,
) -> Result<Explanation, Failure> {
    let question = policy::question(
        Action::Run,
        request.pipeline,
        &run.version,
        &found.environment,
        &request.requester,
        approvals,
        Timestamp::now(),
    );
    let verdict = preparation::governance()?.decide(&question);
    Ok(verdict.into_explanation())
}

/// Where the pins of a pipeline come from.
struct Pins<'a> {
    pipeline: &'a Pipeline,
    folder: &'a Path,
}

impl Pins<'_> {
    fn pinned(&self) -> Result<Lock, Failure> {
        let found = lock::read(self.folder)?;
        let found = found.ok_or_else(|| preparation::no_lock(self.folder))?;
        lock::complete(&found, self.pipeline)?;
        Ok(found)
    }

    /// The pins that building would give. What was built before is taken as it is.
    fn built_aside(&self, aside: &Path) -> Result<Lock, Failure> {
        let store = Store::open(&aside.join("artifacts"));
        let store = store.map_err(|error| aside_failure(&error))?;
        let workshop = Workshop::new(&store, self.pipeline, self.folder, aside, Cancel::default());
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

async fn judged(
    answers: &Answers,
    request: &Request<'_>,
    run: &Run,
    plan: &Plan,
) -> Result<(Option<Run>, Vec<Fate>), Failure> {
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
                Some(&need) => Fate::Depends(run.tasks[need].name()),
                None => Fate::Unchanged(answered.run.to_string()),
            },
            Judgement::Run(_, why) => Fate::Runs(why),
        });
    }
    Ok((existing, fates))
}

/// Whether a task of the same stage and partition has succeeded in a run.
fn is_done(run: &Run, task: &Task) -> bool {
    let same = |done: &&Task| (&done.stage, &done.partition) == (&task.stage, &task.partition);
    let done = run.tasks.iter().find(same);
    done.is_some_and(|done| done.state == TaskState::Succeeded)
}
