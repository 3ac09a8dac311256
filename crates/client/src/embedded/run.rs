//! A run, from what is asked for to its end.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use barecount_api::run::{RunRequest, RunView};
use barecount_artifact::build::Cancel;
use barecount_control::{
    Authorised, CommandError, Submission, Submitted, Update,
    governance::{Action, Explanation, Permit, Verdict, explain},
};
use barecount_dataset::table::StateTables;
use barecount_model::{
    id::RunId,
    lock::Lock,
    pipeline::Loaded,
    plan::Pinned,
    run::{Run, RunState},
};
use jiff::Timestamp;
use serde_json::json;

use super::{
    Embedded, Platform, again,
    driver::{Followed, Notice},
    failures::{broken, command_failure},
    feasible::feasible,
    hold::Purpose,
    imports,
    interrupts::Interrupts,
    private_folder::Worked,
    settled::settled,
    submission::Request,
};
use crate::{
    approvals::Advice,
    client::{Checked, DryRun, Pipelines, Runs},
    environment::{self, Found},
    failure::{Failure, Status},
    manifest,
    preparation::{self, Preparation},
    reporter::{Reporter, Watcher},
    requester,
    rules::{self, Rules},
    runtime::runtime,
};

impl Pipelines for Embedded {
    fn run(&self, asked: &RunRequest, watcher: &dyn Watcher) -> Result<RunView, Failure> {
        let run = self.run_to_its_end(asked, watcher)?;
        self.show(&run.id.printed())
    }

    fn dry_run(&self, asked: &RunRequest, reporter: &dyn Reporter) -> Result<DryRun, Failure> {
        self.foresee(asked, reporter)
    }

    fn build(&self, manifest: &Path, reporter: &dyn Reporter) -> Result<Lock, Failure> {
        self.make(manifest, reporter)
    }

    fn check(&self, manifest: &Path) -> Result<Checked, Failure> {
        self.checked(manifest)
    }

    fn explain(
        &self,
        manifest: &Path,
        action: Action,
        reporter: &dyn Reporter,
    ) -> Result<Explanation, Failure> {
        self.answer_of_governance(manifest, action, reporter)
    }
}

impl Embedded {
    /// Runs a pipeline to its end in this process.
    fn run_to_its_end(
        &self,
        asked: &RunRequest,
        watcher: &dyn Watcher,
    ) -> Result<Arc<Run>, Failure> {
        let (mut loaded, folder, found) = self.loaded(&asked.manifest, watcher.reporter())?;
        let state = super::state_folder(&self.state)?;
        // Before there is a second thread.
        let launcher = super::fork_launcher(&state)?;
        let purpose = Purpose {
            verb: "run",
            pipeline: Some(loaded.pipeline.name.as_str()),
        };
        let lock = self.hold(&state, purpose, watcher.reporter())?;
        let worked = Worked::begin(&state)?;
        let tables = StateTables::new(state.clone());
        runtime()?.block_on(async {
            let reporter = watcher.reporter();
            let places = (folder.as_path(), state.as_path(), &found);
            let preparation = prepare(asked, &loaded, places, reporter);
            if let Some(run) = settled(asked, &loaded, &preparation, &tables).await {
                same_work(&run.id, reporter);
                return Ok(Arc::new(run));
            }
            let mut platform = Platform::open(launcher, lock, &found, tables, reporter).await?;
            if let Some(hint) = platform.host_hint() {
                reporter.note(hint);
            }
            // Nobody else writes to the folder now. A build alone is of no environment.
            rules::bind(&state, &found)?;
            let held = imports::hold(&mut loaded, &state, asked.stage.as_deref()).await;
            let preparation = prepare(asked, &loaded, places, reporter);
            let ready = match held {
                Ok(()) => feasible(asked, &loaded, platform.answers.tables(), &preparation),
                Err(refused) => Err(refused),
            };
            let result = match ready {
                Ok(()) => carry_out(asked, &preparation, &mut platform, watcher).await,
                Err(refused) => Err(refused),
            };
            for hint in platform.hints() {
                reporter.note(&hint);
            }
            // Whatever came out: what is left behind is cleaned up and entered in the ledger.
            let closed = platform.close().await;
            // Of one that is not there any more, nothing else is to be told.
            worked.end()?;
            let run = result?;
            closed?;
            Ok(run)
        })
    }

    /// The manifest, its folder, and the environment that it would run in.
    pub(super) fn loaded(
        &self,
        file: &Path,
        reporter: &dyn Reporter,
    ) -> Result<(Loaded, PathBuf, Found), Failure> {
        let loaded = manifest::load(file, reporter)?;
        let folder = manifest::folder(file)?;
        let found = environment::held(&folder, self.environment.as_deref(), &self.state)?;
        obstacles(&loaded, &found, reporter)?;
        Ok((loaded, folder, found))
    }
}

fn prepare<'a>(
    asked: &'a RunRequest,
    loaded: &'a Loaded,
    (folder, state, found): (&'a Path, &'a Path, &'a Found),
    reporter: &'a dyn Reporter,
) -> Preparation<'a> {
    Preparation {
        pipeline: &loaded.pipeline,
        manifest: &loaded.manifest,
        file: &asked.manifest,
        folder,
        state,
        found,
        reporter,
    }
}

/// What somebody asks to be run, by these pins.
pub(super) fn request<'a>(
    asked: &RunRequest,
    preparation: &Preparation<'a>,
    lock: &'a Lock,
) -> Request<'a> {
    Request {
        manifest: preparation.manifest,
        pipeline: preparation.pipeline,
        folder: preparation.folder,
        environment: &preparation.found.environment,
        lock,
        window: asked.window.clone(),
        token: asked.token.clone(),
        stage: asked.stage.clone(),
        force: asked.force.clone(),
        requester: requester::name(),
    }
}

async fn carry_out(
    asked: &RunRequest,
    preparation: &Preparation<'_>,
    platform: &mut Platform,
    watcher: &dyn Watcher,
) -> Result<Arc<Run>, Failure> {
    let cancel = Cancel::default();
    let mut interrupts = Interrupts::listen(cancel.clone())?;
    let lock = preparation.lock(platform, &cancel).await?;
    let request = request(asked, preparation, &lock);
    let permitted = permitted(&request, platform, preparation).await?;
    let (run, taken_up) = carry_out_once(
        &request,
        platform,
        &permitted,
        preparation,
        (watcher, &mut interrupts),
    )
    .await?;
    if !taken_up || run.state != RunState::Succeeded || request.token.is_some() {
        return Ok(run);
    }
    // What an interrupted run had decided for long ago is committed now; meanwhile something
    // that it had read may have changed.
    if again::untrue(platform, &run).await?.is_empty() {
        return Ok(run);
    }
    let again = carry_out_once(
        &request,
        platform,
        &permitted,
        preparation,
        (watcher, &mut interrupts),
    );
    Ok(again.await?.0)
}

/// The permit to run what is asked for. What is refused is kept as a run that was refused.
async fn permitted(
    request: &Request<'_>,
    platform: &Platform,
    preparation: &Preparation<'_>,
) -> Result<(Permit, Rules), Failure> {
    platform.signed().await;
    let (verdict, rules) = preparation.put(Action::Run, request.lock, None)?;
    let mut text = explain(verdict.explanation());
    let advice = Advice::text(&Advice::of(verdict.explanation(), preparation.file));
    if !advice.is_empty() {
        text.push_str(&format!("\n{advice}"));
    }
    let refusal = match verdict {
        Verdict::Permitted(permit) => return Ok((permit, rules)),
        Verdict::Refused(refusal) => refusal,
    };
    let plan = request.plan(&platform.artifacts, json!({ "rules": rules }))?;
    let run = request.run(&plan, Timestamp::now())?;
    let kept = platform.control.refuse(run, plan, &refusal).await;
    let kept = kept.map_err(|error| command_failure(&error))?;
    let reporter = preparation.reporter;
    reporter.warn(&text);
    reporter.note(&format!("it is kept as run {}", kept.run.id));
    Err(preparation::refused_failure(Action::Run, &refusal))
}

/// Submits a run, or takes one up, and watches it until it has ended. Also tells whether it was
/// there before and went on.
async fn carry_out_once(
    request: &Request<'_>,
    platform: &mut Platform,
    permitted: &(Permit, Rules),
    preparation: &Preparation<'_>,
    (watcher, interrupts): (&dyn Watcher, &mut Interrupts),
) -> Result<(Arc<Run>, bool), Failure> {
    let lock = request.lock;
    let submitted = submit(request, platform, permitted, preparation).await?;
    let taken_up = matches!(submitted, Followed::Existing(_));
    let (Followed::New(update) | Followed::Existing(update)) = &submitted;
    if update.run.state.is_final() {
        return Ok((Arc::clone(&update.run), false));
    }
    let cancelled_before = update.run.cancel_requested;
    let permit = &permitted.0;
    let run = follow(submitted, platform, watcher, permit, interrupts).await?;
    let resumes = cancelled_before && !interrupts.heard && run.state == RunState::Cancelled;
    if !resumes {
        return Ok((run, taken_up));
    }
    // An earlier process was ended while it cancelled the run. Now that is done, and the run
    // can be taken up again, which is what it was asked for this time.
    let update = resume(&run, platform, preparation, lock).await?;
    let update = again::reopen(update, platform, preparation, lock).await?;
    let followed = Followed::Existing(update);
    let run = follow(followed, platform, watcher, permit, interrupts).await?;
    Ok((run, taken_up))
}

/// What the environment cannot carry out, whatever policy says.
fn obstacles(loaded: &Loaded, found: &Found, reporter: &dyn Reporter) -> Result<(), Failure> {
    let obstacles = found.environment.obstacles(&loaded.pipeline);
    let Some(first) = obstacles.first() else {
        return Ok(());
    };
    for obstacle in &obstacles[1..] {
        reporter.warn(&format!(
            "error[{}]: stage `{}`: {}",
            obstacle.code, obstacle.stage, obstacle.message
        ));
    }
    let what = format!("stage `{}`: {}", first.stage, first.message);
    let environment = &found.environment.name;
    let help = format!(
        "What environment `{environment}` offers stands in its file, `environments/{environment}.yaml` \
         beside the manifest; `--env` chooses another."
    );
    Err(Failure::new(Status::Usage, what)
        .with_code(first.code)
        .with_help(help))
}

/// Submits the run, or takes the one up that has its token.
async fn submit(
    request: &Request<'_>,
    platform: &Platform,
    (permit, rules): &(Permit, Rules),
    preparation: &Preparation<'_>,
) -> Result<Followed, Failure> {
    // The decision enters the plan where the two are bound to each other, beside its rules.
    let plan = request.plan(&platform.artifacts, json!({ "rules": rules }))?;
    let mut run = request.run(&plan, Timestamp::now())?;
    if request.token.is_none() {
        run.token = again::token(platform, &run, &plan).await?;
    }
    let first = platform.first(&run, &plan).await?;
    let place = again::undone(platform, &mut run, &plan, first).await?;
    let plan = Authorised::mint(plan, permit).map_err(|error| {
        Failure::from_error(Status::Refused, &error)
            .with_code("BC0401")
            .with_help("Nothing has started. Run it again; what was decided is not what would run.")
    })?;
    platform.work_on(&run.id)?;
    let submission = Submission { run, plan, place };
    match platform
        .control
        .submit(submission)
        .await
        .map_err(|error| command_failure(&error))?
    {
        Submitted::New(update) => {
            preparation
                .reporter
                .note(&format!("run {} submitted", update.run.id));
            for (dataset, Pinned { pipeline, version }) in imports::reads(&update.plan) {
                let what = format!("reads {dataset}@{version} of pipeline {pipeline}");
                preparation.reporter.note(&what);
            }
            Ok(Followed::New(update))
        }
        Submitted::Existing(update) => {
            let lock = request.lock;
            let update = existing(update, platform, preparation, lock).await?;
            let update = again::reopen(update, platform, preparation, lock).await?;
            Ok(Followed::Existing(update))
        }
    }
}

/// Tells that a run answers.
fn same_work(run: &RunId, reporter: &dyn Reporter) {
    reporter.note(&format!(
        "the same work was done by run {run}; nothing runs again (`--force` does it again, \
         `--token` names other work)"
    ));
}

/// Takes up the run that has the token already.
async fn existing(
    update: Update,
    platform: &Platform,
    preparation: &Preparation<'_>,
    lock: &Lock,
) -> Result<Update, Failure> {
    let reporter = preparation.reporter;
    let (id, state) = (&update.run.id, update.run.state);
    match state {
        RunState::Succeeded | RunState::Refused => {
            match again::untrue(platform, &update.run).await?.first() {
                None => same_work(id, reporter),
                // Only of a token that somebody chose: it names this run, whatever became of it.
                Some((_, why)) => reporter.warn(&format!(
                    "the token names run {id}, and nothing runs again, but what it came to is not \
                     what stands now: {why}; run without `--token`, or with another one"
                )),
            }
            Ok(update)
        }
        RunState::Failed | RunState::Cancelled => {
            resume(&update.run, platform, preparation, lock).await
        }
        RunState::Waiting | RunState::Running | RunState::Finishing => {
            reporter.note(&format!("run {id} was interrupted; going on with it"));
            Ok(update)
        }
    }
}

/// Opens a run again that failed or was cancelled, if governance lets it.
async fn resume(
    run: &Run,
    platform: &Platform,
    preparation: &Preparation<'_>,
    lock: &Lock,
) -> Result<Update, Failure> {
    let (id, state) = (&run.id, run.state.as_str());
    let (permit, rules) = preparation
        .decide(platform, Action::Resume, lock, Some(id))
        .await?;
    preparation
        .reporter
        .note(&format!("run {id} was {state}; resuming it"));
    let resumed = platform.control.resume(id, &permit, json!(rules)).await;
    resumed.map_err(|error| command_failure(&error))
}

/// How often what is under way is looked at.
const LOOK: std::time::Duration = std::time::Duration::from_millis(200);

/// Watches a run until it has ended.
async fn follow(
    followed: Followed,
    platform: &mut Platform,
    watcher: &dyn Watcher,
    permit: &Permit,
    interrupts: &mut Interrupts,
) -> Result<Arc<Run>, Failure> {
    let (Followed::New(update) | Followed::Existing(update)) = &followed;
    platform.work_on(&update.run.id)?;
    let id = update.run.id.clone();
    let new = matches!(followed, Followed::New(_));
    let mut run = Arc::clone(&update.run);
    watcher.begins(&run, new);
    let mut looks = tokio::time::interval(LOOK);
    platform.follow(followed);
    loop {
        tokio::select! {
            _ = looks.tick() => watcher.under_way(&run, &platform.activities()),
            notice = platform.notices.recv() => match notice {
                Some(Notice::Changed(update)) if update.run.id == id => {
                    run = update.run;
                    watcher.changed(&run);
                    if run.state.is_final() {
                        return Ok(run);
                    }
                }
                Some(Notice::Changed(_)) => {}
                Some(Notice::Broken { code, reason }) => {
                    return Err(broken(&run, code, reason));
                }
                None => return Err(Failure::new(Status::Bug, "the platform has ended by itself")),
            },
            () = interrupts.next() => {
                watcher.line("stopping; once more to stop at once");
                match platform.control.stop(&id, permit).await {
                    Ok(_) | Err(CommandError::Rejected(_)) => {}
                    Err(error) => return Err(command_failure(&error)),
                }
            }
        }
    }
}
