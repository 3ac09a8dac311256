//! One life of the control plane: the real writer and the real reconciler.

use barecount_api::{
    assignment::{Assignment, Order},
    attempt::AttemptRef,
};
use barecount_control::{
    CommandError, Fenced, Update,
    desk::{Ask, Desk, Memory},
    reconcile::{Input, Reconciler, ReportKind},
};
use barecount_model::{id::RunId, identity::SignedIdentity};

use crate::{clock::HostClock, plans};

/// The seed of the key of identities, which outlives every life.
pub(crate) const KEY: [u8; 32] = [7; 32];

/// It ends when this is dropped, wherever it is then.
pub(crate) struct ControlLife {
    pub(crate) id: u64,
    pub(crate) desk: Desk,
    pub(crate) reconciler: Reconciler,
    /// What goes into its next batch.
    asked: Vec<(Ask, For)>,
    /// When it is woken next.
    pub(crate) alarm: Option<u64>,
    /// Its connections to the agents: orders of older ones reach nobody.
    pub(crate) sessions: Vec<u64>,
    pub(crate) clock: HostClock,
    /// It does nothing until then.
    pub(crate) paused_until: u64,
}

/// What an answer is for.
#[derive(Debug, Clone)]
pub(crate) enum For {
    Decision { run: RunId, task: usize },
    Record { attempt: Fenced, kind: ReportKind },
    Client { client: usize, run: RunId },
    Resumed { client: usize },
    Reopened,
    Abandoned { run: RunId },
    Nobody,
}

/// What comes of a batch.
pub(crate) enum Answer {
    Input(Box<Input>),
    /// A client's submission.
    Client {
        client: usize,
        run: RunId,
        result: Result<Update, CommandError>,
    },
    /// Of whoever takes a run up again.
    Resumed {
        client: usize,
        result: Result<Update, CommandError>,
    },
    /// Of whoever takes up an open run of which something is not true any more.
    Reopened {
        result: Result<Update, CommandError>,
    },
    /// Of whoever gives a run up.
    Abandoned {
        run: RunId,
        result: Result<Update, CommandError>,
    },
}

impl ControlLife {
    pub(crate) fn begin(
        id: u64,
        memory: &Memory,
        clock: HostClock,
        entropy: u64,
    ) -> Result<Self, String> {
        let desk = Desk::open(memory, KEY, std::sync::Arc::new(clock.clone()), entropy);
        Ok(Self {
            id,
            desk: desk.map_err(|error| error.to_string())?,
            reconciler: Reconciler::new(plans::caps()),
            asked: Vec::new(),
            alarm: None,
            sessions: Vec::new(),
            clock,
            paused_until: 0,
        })
    }

    /// True where nothing was waiting before.
    pub(crate) fn ask(&mut self, ask: Ask, of: For) -> bool {
        self.asked.push((ask, of));
        self.asked.len() == 1
    }

    /// Has one batch made of everything that was asked.
    pub(crate) fn flush(&mut self) -> Vec<Answer> {
        let (asked, of): (Vec<_>, Vec<_>) = std::mem::take(&mut self.asked).into_iter().unzip();
        let answers = self.desk.commit(asked).into_iter().zip(of);
        answers
            .filter_map(|(result, of)| {
                let result = result.and_then(|update| update.ok_or(CommandError::Closed));
                Some(match of {
                    For::Decision { run, task } => {
                        Answer::Input(Box::new(Input::Decided { run, task, result }))
                    }
                    For::Record { attempt, kind } => Answer::Input(Box::new(Input::Recorded {
                        attempt,
                        kind,
                        result: result.map(drop),
                    })),
                    For::Client { client, run } => Answer::Client {
                        client,
                        run,
                        result,
                    },
                    For::Resumed { client } => Answer::Resumed { client, result },
                    For::Reopened => Answer::Reopened { result },
                    For::Abandoned { run } => Answer::Abandoned { run, result },
                    For::Nobody => return None,
                })
            })
            .collect()
    }

    pub(crate) fn attempt(&self, fenced: &Fenced) -> Option<AttemptRef> {
        self.reconciler.run(&fenced.run)?.attempt(fenced)
    }

    pub(crate) fn sweep(&self, fenced: &Fenced) -> Option<Order> {
        self.reconciler.run(&fenced.run)?.sweep(fenced)
    }

    pub(crate) fn assignment(
        &self,
        fenced: &Fenced,
        identity: SignedIdentity,
    ) -> Option<Box<Assignment>> {
        let update = self.reconciler.run(&fenced.run)?;
        update.assignment(fenced, identity).map(Box::new)
    }
}
