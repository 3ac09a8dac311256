//! What attempts told: told to the control plane until it is durable, and only then acknowledged.

use std::{collections::BTreeMap, time::Duration};

use barecount_model::{
    run::outcome::{CommittedDataset, Outcome},
    untrusted::Message,
};
use jiff::Timestamp;

use super::{Reconciler, Todo, Trouble, turn::after};
use crate::{error::CommandError, shard::Verb, store::DeadLetter, told::Fenced};

/// After so many tries, which take about half a minute, those who watch are told.
const PATIENCE: u32 = 10;
/// The first pause between two tries is twice as long; each is twice the one before, up to 64 times
/// this.
const FIRST_PAUSE: Duration = Duration::from_millis(80);
/// An answer that has not come by then got lost.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What is told of an attempt.
#[derive(Debug, Clone)]
pub enum Report {
    /// A backend has it, and its work does not run yet.
    Provisioning {
        /// What the backend calls it.
        runner: String,
        /// What is waited for.
        waits_for: Message,
    },
    /// A runner has started it.
    Started {
        /// What the runner calls it.
        runner: String,
    },
    /// It has ended, and what it staged is durable.
    Ended {
        /// How.
        outcome: Box<Outcome>,
        /// Records that it set aside.
        dead_letters: Vec<DeadLetter>,
    },
    /// Nothing of it runs any more, and nobody knows how it ended.
    Lost,
    /// Its decision is rolled forward, to this.
    Committed(Vec<CommittedDataset>),
}

/// Which report of an attempt: there is one of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReportKind {
    /// Of what is waited for before its start.
    Provisioning,
    /// Of its start.
    Start,
    /// Of its end.
    End,
    /// Of its commit.
    Commit,
}

impl Report {
    /// Which it is.
    pub fn kind(&self) -> ReportKind {
        match self {
            Self::Provisioning { .. } => ReportKind::Provisioning,
            Self::Started { .. } => ReportKind::Start,
            Self::Ended { .. } | Self::Lost => ReportKind::End,
            Self::Committed(_) => ReportKind::Commit,
        }
    }

    pub(crate) fn verb(self, attempt: &Fenced) -> Verb {
        let (task, number) = (attempt.task, attempt.number);
        match self {
            Self::Provisioning { runner, waits_for } => Verb::Provisioning {
                task,
                number,
                runner,
                waits_for,
            },
            Self::Started { runner } => Verb::Started {
                task,
                number,
                runner,
            },
            Self::Ended {
                outcome,
                dead_letters,
            } => Verb::Report {
                task,
                number,
                outcome,
                dead_letters,
            },
            Self::Lost => Verb::Lost { task, number },
            Self::Committed(outputs) => Verb::Committed {
                task,
                number,
                outputs,
            },
        }
    }
}

/// Reports that are not durable yet.
#[derive(Debug, Default)]
pub(super) struct Reports(BTreeMap<(Fenced, ReportKind), Waiting>);

#[derive(Debug)]
struct Waiting {
    report: Report,
    tries: u32,
    again: Timestamp,
}

impl Reports {
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.0.values().map(|waiting| waiting.again).min()
    }

    pub(super) fn has(&self, attempt: &Fenced, kind: ReportKind) -> bool {
        self.0.contains_key(&(attempt.clone(), kind))
    }
}

impl Reconciler {
    /// Hands on what an attempt told. What is told again meanwhile is on its way already.
    pub(super) fn told(&mut self, attempt: Fenced, report: Report, now: Timestamp) {
        let key = (attempt, report.kind());
        if self.reports.0.contains_key(&key) {
            return;
        }
        let attempt = key.0.clone();
        let again = after(now, ANSWERED_WITHIN);
        let waiting = Waiting {
            report: report.clone(),
            tries: 1,
            again,
        };
        self.reports.0.insert(key, waiting);
        self.todo.push(Todo::Record { attempt, report });
    }

    /// An end may be forgotten by the agent once it is durable, or once it is known to be of an
    /// attempt that was fenced off, rightly.
    pub(super) fn recorded(
        &mut self,
        attempt: &Fenced,
        kind: ReportKind,
        result: Result<(), CommandError>,
        now: Timestamp,
    ) {
        let key = (attempt.clone(), kind);
        match result {
            Ok(()) | Err(CommandError::Rejected(_)) => {
                self.reports.0.remove(&key);
                if kind == ReportKind::End {
                    self.todo.push(Todo::Acknowledge(attempt.clone()));
                }
            }
            // The store's failure passes or does not.
            Err(error @ (CommandError::Store(_) | CommandError::Unknown(_))) => {
                if let Some(waiting) = self.reports.0.get_mut(&key) {
                    waiting.again = after(now, FIRST_PAUSE * (1 << waiting.tries.min(6)));
                    if waiting.tries == PATIENCE {
                        self.complain(Trouble::NotDurable(error));
                    }
                }
            }
            Err(error) => {
                self.reports.0.remove(&key);
                self.complain(Trouble::NotDurable(error));
            }
        }
    }

    /// Says again what is due to be.
    pub(super) fn record_again(&mut self, now: Timestamp) {
        let due = self.reports.0.iter_mut().filter(|(_, w)| w.again <= now);
        for ((attempt, _), waiting) in due {
            waiting.tries = waiting.tries.saturating_add(1);
            waiting.again = after(now, ANSWERED_WITHIN);
            self.todo.push(Todo::Record {
                attempt: attempt.clone(),
                report: waiting.report.clone(),
            });
        }
    }
}
