//! Making durable what attempts told, and rolling decisions forward: each is tried again while what
//! it needs fails.

use std::time::Duration;

use barecount_agent::{DataError, Event, SetAside};
use barecount_control::{CommandError, Control, clock::Clock, store::DeadLetter};
use barecount_model::run::outcome::{CommittedDataset, Staged};

use super::driver::{Committer, fenced};
use crate::failure::chain;

/// Tries of one roll-forward before the process gives up; the decision stands all the same.
const ROLL_FORWARD_TRIES: u32 = 5;

/// Tries to make durable what an attempt told, for about half a minute, before the process gives up.
/// The agent keeps it all the same.
const STORE_TRIES: u32 = 10;
/// The first pause between two of these tries is twice as long; each is twice the one before, up to
/// 64 times this.
const FIRST_STORE_PAUSE: Duration = Duration::from_millis(80);

/// Tells the control plane what became of an attempt.
pub(super) async fn report(control: Control, event: Event) -> Result<(), CommandError> {
    let result = match event {
        Event::Started { attempt, runner } => control.started(&fenced(&attempt), &runner).await,
        Event::Ended {
            attempt,
            outcome,
            set_aside,
        } => {
            let letters = set_aside.into_iter().map(letter).collect();
            control.report(&fenced(&attempt), *outcome, letters).await
        }
        Event::Lost { attempt } => control.lost(&fenced(&attempt)).await,
    };
    result.map(drop)
}

/// Repeats a command while the store fails, which passes or does not.
pub(super) async fn durably<F>(
    clock: &dyn Clock,
    command: impl Fn() -> F,
) -> Result<(), CommandError>
where
    F: Future<Output = Result<(), CommandError>>,
{
    let mut tries = 1;
    loop {
        match command().await {
            Err(CommandError::Store(error)) if tries < STORE_TRIES => {
                let error = chain(&*error);
                tracing::warn!(error, tries, "what an attempt told is not durable yet");
                let pause = FIRST_STORE_PAUSE.saturating_mul(1 << tries.min(6));
                if let Ok(instant) = clock.now().checked_add(pause) {
                    clock.sleep_until(instant).await;
                }
                tries += 1;
            }
            result => return result,
        }
    }
}

pub(super) async fn roll_forward(
    committer: &dyn Committer,
    tenant: &str,
    staged: &Staged,
    decided_at_ms: i64,
    clock: &dyn Clock,
) -> Result<Vec<CommittedDataset>, DataError> {
    let mut tries = 1;
    loop {
        match committer.roll_forward(tenant, staged, decided_at_ms).await {
            Err(error) if tries < ROLL_FORWARD_TRIES => {
                tracing::warn!(%error, tries, "a commit decision was not rolled forward");
                let pause = Duration::from_millis(100 << tries);
                if let Ok(instant) = clock.now().checked_add(pause) {
                    clock.sleep_until(instant).await;
                }
                tries += 1;
            }
            result => return result,
        }
    }
}

fn letter(record: SetAside) -> DeadLetter {
    DeadLetter {
        dataset: record.dataset,
        record: record.record,
        error: record.error,
        schema_hash: record.schema_hash,
    }
}
