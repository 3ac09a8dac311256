//! What an attempt's report brings: its outcome, held against the plan, and its dead letters.

use std::sync::Arc;

use barecount_model::{
    plan::Plan,
    run::{
        Effects, Moment, Run,
        outcome::{AttemptResult, FailureKind, Outcome},
    },
    untrusted::Sample,
};

use super::Active;
use crate::{
    error::CommandError,
    journal::{Batch, SetAside},
    store::DeadLetter,
};

/// Takes an outcome and the letters that came with it.
pub(super) fn report(
    active: &mut Active,
    task: usize,
    number: u32,
    outcome: Outcome,
    mut letters: Vec<DeadLetter>,
    moment: &Moment,
    batch: &mut Batch,
) -> Result<Effects, CommandError> {
    within_plan(&active.plan.plan, &active.run, task, &outcome)?;
    letters.extend(letter_of_failure(&outcome));
    let run = Arc::make_mut(&mut active.run);
    let effects = run.report(task, number, outcome, moment)?;
    if !letters.is_empty() {
        let run = run.id.clone();
        batch.dead_letters.push(SetAside {
            run,
            task,
            number,
            letters,
        });
    }
    Ok(effects)
}

/// Bad data that fails a whole attempt is a dead letter of its own: there is no record to show.
fn letter_of_failure(outcome: &Outcome) -> Option<DeadLetter> {
    match &outcome.result {
        AttemptResult::Failed(failure) if failure.kind == FailureKind::Data => Some(DeadLetter {
            dataset: None,
            reason: format!("the whole attempt failed [{}]", failure.code).into(),
            count: 1,
            record: Sample::default(),
            error: failure.message.raw().into(),
            schema_hash: None,
            digest: None,
        }),
        _ => None,
    }
}

/// Whether a report hands over nothing but what the task's stage writes by the plan that was
/// permitted: what is accepted here becomes visible.
fn within_plan(plan: &Plan, run: &Run, task: usize, outcome: &Outcome) -> Result<(), CommandError> {
    let AttemptResult::Done(staged) = &outcome.result else {
        return Ok(());
    };
    let placed = run.tasks.get(task);
    let stage = placed.and_then(|task| plan.stage(&task.stage));
    let outputs = || stage.into_iter().flat_map(|stage| &stage.outputs);
    let foreign = staged
        .datasets
        .iter()
        .find(|staged| !outputs().any(|output| output.dataset.as_str() == staged.dataset));
    match foreign {
        None => Ok(()),
        Some(staged) => Err(CommandError::OutOfPlan {
            run: run.id.clone(),
            dataset: staged.dataset.clone(),
        }),
    }
}
