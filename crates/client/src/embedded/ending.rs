//! Ends for runs that nobody works on.

use std::path::Path;

use barecount_api::run::RunView;
use barecount_control::{
    CommandError, Fenced, Update,
    governance::{Action, Permit},
};
use barecount_model::{
    codes,
    plan::Plan,
    run::{
        Abandonment, Run, TaskState,
        outcome::{CommittedDataset, Staged},
    },
};
use jiff::Timestamp;

use super::{
    Embedded, Platform,
    driver::{Followed, Notice},
    failures::{broken, command_failure},
    hold::Purpose,
    policy, working,
};
use crate::{
    client::Runs,
    environment::Found,
    failure::{Failure, Status, chain},
    preparation,
    reporter::Reporter,
    requester, state,
};

impl Embedded {
    /// Ends a run in good order; gives it up if there is a `reason` to.
    ///
    /// # Errors
    /// If it is not the tenant's, if a living process works on it, if it has ended, and if
    /// governance refuses.
    pub(super) fn end(
        &self,
        run: &str,
        tenant: Option<&str>,
        reason: Option<String>,
        reporter: &dyn Reporter,
    ) -> Result<RunView, Failure> {
        let (_, run, plan) = state::find_run(&self.state, run)?;
        if let Some(tenant) = tenant.filter(|tenant| *tenant != run.tenant) {
            let what = format!("tenant `{tenant}` has no run {}", run.id);
            return Err(Failure::new(Status::NotFound, what));
        }
        if let Some(worker) = self.worker()?.filter(|worker| worker.has(&run.id)) {
            let process = worker.process;
            let what = format!("process {process} works on run {}", run.id);
            return Err(Failure::new(Status::Unavailable, what)
                .with_code(codes::RUN_IN_HAND.id)
                .with_help(format!(
                    "Ctrl-C where it was started cancels it, and so does `kill -INT {process}`."
                )));
        }
        if run.state.is_final() {
            return Err(over(&run));
        }
        let verb = match reason {
            None => "runs cancel",
            Some(_) => "runs abandon",
        };
        let purpose = Purpose {
            verb,
            pipeline: Some(&run.pipeline),
        };
        preparation::on_platform(self, purpose, reporter, async |platform, folder, found| {
            let ending = Ending {
                folder,
                found,
                reporter,
            };
            ending.carry_out(platform, &run, &plan, reason).await
        })?;
        self.show(&run.id.printed())
    }

    /// The process that works on the state folder now, if there is one.
    ///
    /// # Errors
    /// If that cannot be told.
    pub(super) fn worker(&self) -> Result<Option<working::Worker>, Failure> {
        working::worker(&self.state).map_err(|error| {
            let what = "who works on the state folder cannot be told";
            Failure::new(Status::Unavailable, what).because(&error)
        })
    }
}

fn over(run: &Run) -> Failure {
    let what = format!("run {} has ended: it is {}", run.id, run.state.as_str());
    Failure::new(Status::Conflict, what)
        .with_code(codes::RUN_OVER.id)
        .with_help("What it committed stands; `barecount runs show` says what that is.")
}

/// How a run is ended.
struct Ending<'a> {
    folder: &'a Path,
    found: &'a Found,
    reporter: &'a dyn Reporter,
}

impl Ending<'_> {
    async fn carry_out(
        &self,
        platform: &mut Platform,
        run: &Run,
        plan: &Plan,
        reason: Option<String>,
    ) -> Result<(), Failure> {
        let permit = self.permit(platform, plan).await?;
        platform.work_on(&run.id)?;
        let told = match reason {
            None => platform.control.cancel(&run.id, &permit).await,
            Some(reason) => {
                let (update, standing) = self.commit_what_can_be(platform, run).await?;
                if update.is_some_and(|update| update.run.state.is_final()) {
                    self.reporter.note("nothing is left to be given up");
                    return Ok(());
                }
                let abandonment = Abandonment {
                    by: requester::name(),
                    reason,
                    standing,
                };
                platform
                    .control
                    .abandon(&run.id, abandonment, &permit)
                    .await
            }
        };
        match told {
            Ok(update) => self.to_its_end(platform, update).await,
            Err(CommandError::Rejected(_)) => Err(over(run)),
            Err(error) => Err(command_failure(&error)),
        }
    }

    async fn permit(&self, platform: &Platform, plan: &Plan) -> Result<Permit, Failure> {
        let question = policy::question_of_run(
            Action::Cancel,
            plan,
            &self.found.environment,
            &requester::name(),
            Timestamp::now(),
        );
        let rules = self.found.text.as_deref();
        let asked = preparation::ask(
            &platform.control,
            self.folder,
            rules,
            &question,
            self.reporter,
        );
        Ok(asked.await?.0)
    }

    /// Carries out the decisions that can be carried out after all: what was accepted is given up
    /// only where nothing else is left. Gives the run as it is after the last of them, and which
    /// datasets of the others are versions already.
    async fn commit_what_can_be(
        &self,
        platform: &Platform,
        run: &Run,
    ) -> Result<(Option<Update>, Vec<CommittedDataset>), Failure> {
        let (mut last, mut standing) = (None, Vec::new());
        for (index, task) in run.tasks.iter().enumerate() {
            let attempt = task
                .current()
                .filter(|_| task.state == TaskState::Committing);
            let Some((attempt, staged, decided)) = attempt
                .and_then(|attempt| Some((attempt, attempt.staged.as_ref()?, attempt.ended_at?)))
            else {
                continue;
            };
            let name = task.name();
            let moment = decided.as_millisecond();
            match platform
                .committer
                .roll_forward(&run.tenant, staged, moment)
                .await
            {
                Ok(outputs) => {
                    self.reporter
                        .note(&format!("{name}: what it wrote could be committed, and is"));
                    let fenced = Fenced {
                        run: run.id.clone(),
                        task: index,
                        number: attempt.number,
                    };
                    let update = platform.control.committed(&fenced, outputs).await;
                    last = Some(update.map_err(|error| command_failure(&error))?);
                }
                Err(error) => {
                    standing.extend(self.standing(platform, &run.tenant, &name, staged).await?);
                    self.reporter.note(&format!(
                        "{name}: what it wrote is given up; it cannot be committed because {}",
                        chain(&error)
                    ));
                }
            }
        }
        Ok((last, standing))
    }

    /// What of a decision that cannot be carried out was by an earlier try. Where that cannot be
    /// told, nothing is given up.
    async fn standing(
        &self,
        platform: &Platform,
        tenant: &str,
        task: &str,
        staged: &Staged,
    ) -> Result<Vec<CommittedDataset>, Failure> {
        let standing = platform.committer.standing(tenant, staged).await;
        let standing = standing.map_err(|error| {
            let what = format!("{task}: whether what it wrote was committed cannot be told");
            Failure::new(Status::Unavailable, what)
                .because(&error)
                .with_help("Nothing is given up. Make its tables readable, or move them away, and ask again.")
        })?;
        for CommittedDataset {
            dataset, version, ..
        } in &standing
        {
            self.reporter.warn(&format!(
                "{task}: {dataset}@{version} was committed before, and stays; `barecount datasets \
                 restore` goes back behind it"
            ));
        }
        Ok(standing)
    }

    /// Sees to it that what is under way is stopped, and what is decided for committed.
    async fn to_its_end(&self, platform: &mut Platform, update: Update) -> Result<(), Failure> {
        let id = update.run.id.clone();
        let mut run = update.run.clone();
        platform.follow(Followed::Existing(update));
        while !run.state.is_final() {
            match platform.notices.recv().await {
                Some(Notice::Changed(update)) if update.run.id == id => run = update.run,
                Some(Notice::Changed(_)) => {}
                Some(Notice::Broken { code, reason }) => return Err(broken(&run, code, reason)),
                None => {
                    return Err(Failure::new(
                        Status::Bug,
                        "the platform has ended by itself",
                    ));
                }
            }
        }
        Ok(())
    }
}
