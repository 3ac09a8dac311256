//! What runs again, and what was done by earlier runs.

use barecount_control::{Update, governance::Action};
use barecount_model::{
    lock::Lock,
    plan::{Plan, work_token::successor},
    run::{Run, RunState},
    work::Why,
};
use serde_json::json;

use super::{
    Platform,
    answers::{AnswersError, Asked, Judgement},
    failures::command_failure,
};
use crate::{
    failure::{Failure, Status},
    preparation::Preparation,
};

/// The token for a run of the work that `run` is named after: that of the latest run of this work
/// if it is to go on or still answers, and else a new one.
///
/// # Errors
/// If earlier runs cannot be read.
pub(super) async fn token(platform: &Platform, run: &Run, plan: &Plan) -> Result<String, Failure> {
    let latest = platform.answers.latest_of_token(&run.tenant, &run.token);
    let Some((latest, latest_plan)) = latest.map_err(|error| unreadable(&error))? else {
        return Ok(run.token.clone());
    };
    let answers = match latest.state {
        RunState::Succeeded if plan.forced.is_empty() => {
            let untrue = platform.answers.untrue(&latest, &latest_plan).await;
            untrue.map_err(|error| unreadable(&error))?.is_empty()
        }
        RunState::Succeeded | RunState::Refused => false,
        _ => true,
    };
    Ok(if answers {
        latest.token
    } else {
        successor(&run.token, &latest.token)
    })
}

/// Those of the tasks whose work has not been done, each with what its work is.
///
/// # Errors
/// If earlier runs cannot be read.
pub(super) async fn undone(
    platform: &Platform,
    run: &mut Run,
    plan: &Plan,
    tasks: Vec<usize>,
) -> Result<Vec<usize>, Failure> {
    let mut undone = Vec::with_capacity(tasks.len());
    for task in tasks {
        let judged = platform.answers.judge(Asked::of(run, plan, task)).await;
        match judged.map_err(|error| unreadable(&error))? {
            Judgement::Unchanged(..) => {}
            Judgement::Run(work, _) => {
                run.tasks[task].work = work.map(Box::new);
                undone.push(task);
            }
        }
    }
    Ok(undone)
}

/// The succeeded tasks of a run that are not true any more.
///
/// # Errors
/// If earlier runs cannot be read.
pub(super) async fn untrue(platform: &Platform, run: &Run) -> Result<Vec<(usize, Why)>, Failure> {
    let stored = platform.answers.run(&run.id);
    let Some((run, plan)) = stored.map_err(|error| unreadable(&error))? else {
        return Ok(Vec::new());
    };
    let untrue = platform.answers.untrue(&run, &plan).await;
    untrue.map_err(|error| unreadable(&error))
}

/// Lets those tasks of a run that goes on be done again whose results are not true any more. Of one
/// that was cancelled, that is for whoever resumes it.
///
/// # Errors
/// If earlier runs cannot be read, or the change cannot be made durable.
pub(super) async fn reopen(
    update: Update,
    platform: &Platform,
    preparation: &Preparation<'_>,
    lock: &Lock,
) -> Result<Update, Failure> {
    if !update.run.state.starts_tasks() {
        return Ok(update);
    }
    let untrue = platform.answers.untrue(&update.run, &update.plan).await;
    let untrue = untrue.map_err(|error| unreadable(&error))?;
    if untrue.is_empty() {
        return Ok(update);
    }
    for (task, why) in &untrue {
        let name = update.run.tasks[*task].name();
        let reporter = preparation.reporter;
        reporter.note(&format!("{name} is done again: {why}"));
    }
    let (permit, rules) = preparation
        .decide(platform, Action::Resume, lock, Some(&update.run.id))
        .await?;
    let tasks = untrue.into_iter().map(|(task, _)| task).collect();
    let reopened = platform
        .control
        .reopen(&update.run.id, tasks, &permit, json!(rules))
        .await;
    reopened.map_err(|error| command_failure(&error))
}

pub(super) fn unreadable(error: &AnswersError) -> Failure {
    Failure::from_error(Status::Unavailable, error)
        .with_code("BC0804")
        .with_help("Make the state folder readable, or name another one with `--state`.")
}
