//! What people ask for: runs, their end, that they are taken up again or given up.

use std::sync::Arc;

use barecount_control::{
    CommandError, Fenced, Update,
    desk::Ask,
    reconcile::{Input, Report},
};
use barecount_model::{
    id::RunId,
    run::{Abandonment, TaskState, outcome::Staged},
};
use barecount_runner::launch::AttemptToken;

use super::{Happening, World};
use crate::{
    control::{Answer, For},
    data::Unrolled,
    plans::{self, Shape},
};

/// A task's decision: its index, and the attempt with what it staged.
type Decided = (usize, u32, AttemptToken, Staged);

impl World {
    pub(super) fn submit(&mut self, client: usize) {
        let token = format!("token-{client}");
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.dice.bits().to_be_bytes());
        id[1] = u8::try_from(client).unwrap_or(u8::MAX);
        let caps = plans::caps();
        let Some(control) = &mut self.control else {
            self.soon(3_000, Happening::Submit { client });
            return;
        };
        let alone = self.clients.len() == 1 && control.reconciler.runs().next().is_none();
        let shape = &plans::PLANS[self.clients[client].shape];
        let caps = alone.then_some(&caps);
        let submission = plans::submission(shape, id, &token, caps);
        let run = submission.run.id.clone();
        self.clients[client].tries = self.clients[client].tries.saturating_add(1);
        let life = control.id;
        self.note(|| format!("client {client} submits {run}"));
        let ask = Ask::Submit(Box::new(submission));
        self.ask(life, ask, For::Client { client, run });
        if alone {
            // What is placed with a submission counts from that moment on.
            self.flush(life);
        }
    }

    pub(super) fn cancel(&mut self, client: usize) {
        let (Some(run), Some(control)) = (&self.clients[client].run, &self.control) else {
            return;
        };
        let (run, life) = (run.clone(), control.id);
        let permit = Arc::clone(&plans::PLANS[self.clients[client].shape].cancel);
        self.note(|| format!("client {client} cancels {run}"));
        self.ask(life, Ask::Cancel { run, permit }, For::Nobody);
    }

    /// A client sees that its run did not succeed.
    pub(super) fn may_resume(&mut self, run: &RunId) {
        let of = |client: &super::Client| client.run.as_ref() == Some(run);
        let Some(client) = self.clients.iter().position(of) else {
            return;
        };
        if self.clients[client].resumes > 0 && self.dice.chance(600) {
            self.clients[client].resumes -= 1;
            self.soon(8_000, Happening::Resume { client });
        }
    }

    pub(super) fn resume(&mut self, client: usize) {
        let Some(control) = &self.control else {
            self.soon(3_000, Happening::Resume { client });
            return;
        };
        let Some(run) = self.clients[client].run.clone() else {
            return;
        };
        let life = control.id;
        let permit = Arc::clone(&plans::PLANS[self.clients[client].shape].resume);
        self.note(|| format!("client {client} takes {run} up again"));
        self.ask(life, Ask::Resume { run, permit }, For::Resumed { client });
    }

    /// Whoever takes an open run up may find that what a task came to is not true any more: it is
    /// decided on anew, with all that needs it, and the run is followed from then on.
    pub(super) fn may_reopen(&mut self, life: u64, update: &Update) -> bool {
        let run = &update.run;
        let tasks = run.tasks.iter().enumerate();
        let succeeded = tasks.filter(|(_, task)| task.state == TaskState::Succeeded);
        let succeeded: Vec<usize> = succeeded.map(|(index, _)| index).collect();
        let shape = plans::of(&run.pipeline).filter(|_| run.state.starts_tasks());
        let (Some(shape), false) = (shape, succeeded.is_empty()) else {
            return false;
        };
        if self.healed || !self.dice.chance(250) {
            return false;
        }
        let task = succeeded[self.dice.below(succeeded.len() as u64) as usize];
        self.note(|| format!("task {task} of {} is not true any more", run.id));
        self.witness.reopens(run, task);
        let ask = Ask::Reopen {
            run: run.id.clone(),
            tasks: vec![task],
            permit: Arc::clone(&shape.resume),
        };
        self.ask(life, ask, For::Reopened);
        true
    }

    /// Gives a run up, once it is known that what was decided for cannot be committed: what can be,
    /// is before.
    pub(super) fn give_up(&mut self, run: &RunId) -> Result<(), String> {
        let Some(control) = self
            .control
            .as_ref()
            .filter(|c| c.paused_until <= self.now())
        else {
            let run = run.clone();
            self.soon(3_000, Happening::GiveUp { run });
            return Ok(());
        };
        let life = control.id;
        self.giving_up.remove(run);
        let (shape, decided) = self.decided(run)?;
        let Some(shape) = shape.filter(|_| !decided.is_empty()) else {
            return Ok(());
        };
        self.note(|| format!("{run} is given up"));
        for (task, number, token, staged) in decided {
            let site = self.carrier(run, &token);
            match self.tables.roll_forward(&self.sites[site], &token, &staged) {
                Ok(outputs) => {
                    let run = run.clone();
                    let attempt = Fenced { run, task, number };
                    let report = Report::Committed(outputs);
                    self.ask(life, Ask::Tell { attempt, report }, For::Nobody);
                }
                // Whether it was committed before cannot be told: nothing is given up.
                Err(Unrolled::Failed(_)) => {
                    self.will_give_up(run);
                    return Ok(());
                }
                Err(Unrolled::Stuck | Unrolled::Gone(_)) => {}
            }
        }
        let ask = Ask::Abandon {
            run: run.clone(),
            abandonment: Abandonment {
                by: "an operator".to_owned(),
                reason: "it cannot be committed".to_owned(),
                standing: Vec::new(),
            },
            permit: Arc::clone(&shape.cancel),
        };
        self.ask(life, ask, For::Abandoned { run: run.clone() });
        // Nothing else is rolled forward meanwhile.
        self.flush(life);
        Ok(())
    }

    /// What a run is one of, and what of it is decided for and not carried out.
    fn decided(&self, run: &RunId) -> Result<(Option<&'static Shape>, Vec<Decided>), String> {
        let mut decided = Vec::new();
        let mut shape = None;
        self.memory.each_run(|found, _| {
            if found.id != *run {
                return Ok(());
            }
            shape = plans::of(&found.pipeline);
            for (index, task) in found.tasks.iter().enumerate() {
                let attempt = task
                    .current()
                    .filter(|_| task.state == TaskState::Committing);
                if let Some(attempt) = attempt
                    && let Some(staged) = attempt.staged.clone()
                {
                    let token = AttemptToken {
                        task: task.id.clone(),
                        number: attempt.number,
                    };
                    decided.push((index, attempt.number, token, staged));
                }
            }
            Ok::<(), String>(())
        })?;
        Ok((shape, decided))
    }

    pub(super) fn ask(&mut self, life: u64, ask: Ask, of: For) {
        let Some(control) = self.life(life) else {
            return;
        };
        if control.ask(ask, of) {
            self.soon(4, Happening::Flush { life });
        }
    }

    /// Hands on what came of a batch.
    pub(super) fn answer(&mut self, life: u64, answers: Vec<Answer>) {
        for answer in answers {
            match answer {
                Answer::Input(input) => {
                    let lost = self.faults.process && !self.healed && self.dice.chance(20);
                    if !lost {
                        self.soon(3, Happening::Back { life, input });
                    }
                }
                Answer::Client {
                    client,
                    run,
                    result,
                } => self.answer_client(life, client, &run, result),
                Answer::Resumed { client, result } => match result {
                    Ok(update) => {
                        self.tally.resumed += 1;
                        self.follow(life, update, false);
                    }
                    // Whether it goes on is found out by asking for it under its token.
                    Err(_) => self.soon(5_000, Happening::Submit { client }),
                },
                Answer::Reopened { result } => match result {
                    Ok(update) => {
                        self.tally.reopened += 1;
                        self.reopened.push(update);
                    }
                    // The process tells why it cannot go on, and ends.
                    Err(_) => self.soon(1, Happening::ControlDies),
                },
                Answer::Abandoned { run, result } => match result {
                    Ok(_) => self.tally.abandoned += 1,
                    Err(CommandError::Rejected(_)) => {}
                    Err(_) => self.will_give_up(&run),
                },
            }
        }
    }

    fn answer_client(
        &mut self,
        life: u64,
        client: usize,
        run: &RunId,
        result: Result<Update, CommandError>,
    ) {
        match result {
            Ok(update) => {
                self.clients[client].run = Some(update.run.id.clone());
                let new = update.run.id == *run;
                self.follow(life, update, new);
            }
            Err(_) => self.soon(5_000, Happening::Submit { client }),
        }
    }

    fn follow(&mut self, life: u64, update: Update, new: bool) {
        if !update.run.state.is_final() {
            let runs = vec![update];
            self.tell(life, Input::Followed { runs, new });
        }
    }

    pub(super) fn will_give_up(&mut self, run: &RunId) {
        if self.giving_up.insert(run.clone()) {
            let run = run.clone();
            self.soon(15_000, Happening::GiveUp { run });
        }
    }
}
