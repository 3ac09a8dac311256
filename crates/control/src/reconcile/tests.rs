use std::{collections::HashMap, sync::Arc};

use barecount_model::run::{
    Moment, Run, RunState,
    outcome::{AttemptResult, Failure, FailureKind, Metrics, Outcome, Timeline},
};

use super::*;
use crate::{
    store::StoreError,
    tests::{plan, task},
};

/// A run whose tasks need nothing, as the control plane has it, and what it tells of it.
struct Told {
    run: Run,
    seq: u64,
}

fn moment() -> Moment {
    Moment {
        now: now(),
        entropy: 1,
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn later(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("it is in range")
}

impl Told {
    fn new(number: u8, tasks: u8) -> Self {
        let tasks = (0..tasks).map(|index| {
            let mut id = [index; 16];
            id[0] = number;
            task(id, vec![])
        });
        let mut run = Run {
            id: RunId::from_bytes([number; 16]),
            token: number.to_string(),
            tenant: "demo".into(),
            pipeline: "example".into(),
            version: "sha256:aa".into(),
            environment: "local".into(),
            window: None,
            state: RunState::Waiting,
            cancel_requested: false,
            submitted_at: now(),
            ended_at: None,
            tasks: tasks.collect(),
        };
        run.submit(&moment()).expect("its tasks need nothing");
        Self { run, seq: 1 }
    }

    fn update(&self) -> Update {
        Update {
            run: Arc::new(self.run.clone()),
            plan: Arc::clone(plan().plan()),
            ledger_length: 0,
            seq: self.seq,
        }
    }

    fn turn(&mut self, verb: impl FnOnce(&mut Run)) -> Input {
        verb(&mut self.run);
        self.seq += 1;
        Input::Changed(self.update())
    }

    fn follow(&self) -> Input {
        let (runs, new) = (vec![self.update()], true);
        Input::Followed { runs, new }
    }

    fn attempt(&self, task: usize) -> Fenced {
        let run = self.run.id.clone();
        let number = self.run.tasks[task].current().map_or(0, |a| a.number);
        Fenced { run, task, number }
    }
}

fn reconciler(total: usize) -> Reconciler {
    let class = HashMap::new();
    Reconciler::new(Caps { total, class })
}

fn place(run: &mut Run) {
    run.place(0, &moment()).expect("it can be placed");
}

fn end(run: &mut Run) {
    let outcome = Outcome {
        result: AttemptResult::Failed(Failure {
            kind: FailureKind::Data,
            code: "BC0000".into(),
            message: "it failed".into(),
        }),
        exit_code: None,
        metrics: Metrics::default(),
        timeline: Timeline::default(),
        detail: serde_json::Value::Null,
    };
    run.report(0, 1, outcome, &moment()).expect("it is open");
}

fn failing() -> CommandError {
    CommandError::Unknown(Arc::new(StoreError::Database {
        operation: "write what it was told to fail at",
        source: rusqlite::Error::InvalidQuery,
    }))
}

/// What is said, in short, but for announcements.
fn said(todo: &[Todo]) -> Vec<String> {
    let short = todo.iter().filter_map(|todo| {
        Some(match todo {
            Todo::Announce(_) => return None,
            Todo::Look { task, .. } => format!("look {task}"),
            Todo::Decide { task, .. } => format!("decide {task}"),
            Todo::Launch(of) => format!("launch {}#{}", of.task, of.number),
            Todo::Recover(of) => format!("recover {}#{}", of.task, of.number),
            Todo::Stop { attempt: of, .. } => format!("stop {}#{}", of.task, of.number),
            Todo::Sweep(of) => format!("sweep {}#{}", of.task, of.number),
            Todo::Acknowledge(of) => format!("acknowledge {}#{}", of.task, of.number),
            Todo::Release(_) => "release".to_owned(),
            Todo::Record { report, .. } => format!("record {:?}", report.kind()),
            Todo::RollForward(of) => format!("roll {}#{} forward", of.task, of.number),
            Todo::Complain(_) => "complain".to_owned(),
        })
    });
    short.collect()
}

#[test]
fn an_attempt_of_a_run_that_is_cancelled_before_it_is_launched_is_stopped_and_given_all_the_same() {
    let (mut told, mut reconciler) = (Told::new(1, 1), reconciler(9));
    reconciler.step(told.follow(), now());
    told.turn(place);
    let cancelled = told.turn(|run| {
        run.cancel(&moment()).expect("it is open");
    });
    // Its end is told by nobody who has never heard of it.
    let todo = reconciler.step(cancelled, now());
    assert_eq!(said(&todo), ["stop 0#1", "launch 0#1"]);
}

#[test]
fn an_order_that_shows_no_effect_is_said_again_and_no_sooner() {
    let (mut told, mut reconciler) = (Told::new(1, 1), reconciler(9));
    reconciler.step(told.follow(), now());
    let placed = told.turn(place);
    let todo = reconciler.step(placed, now());
    assert_eq!(said(&todo), ["launch 0#1"]);
    assert_eq!(reconciler.next_due(), Some(later(30)));
    let todo = reconciler.step(Input::Passed, later(29));
    assert_eq!(said(&todo), [""; 0]);
    let todo = reconciler.step(Input::Passed, later(30));
    assert_eq!(said(&todo), ["launch 0#1"]);
}

#[test]
fn what_is_open_when_an_agent_begins_is_looked_for_and_not_launched() {
    let (mut told, mut reconciler) = (Told::new(1, 1), reconciler(9));
    reconciler.step(told.follow(), now());
    let placed = told.turn(place);
    reconciler.step(placed, now());
    let todo = reconciler.step(Input::AgentBegan, now());
    assert_eq!(said(&todo), ["recover 0#1"]);
}

#[test]
fn a_run_that_was_overtaken_on_the_way_changes_nothing() {
    let (mut told, mut reconciler) = (Told::new(1, 1), reconciler(9));
    reconciler.step(told.follow(), now());
    let before = told.turn(place);
    let after = told.turn(end);
    reconciler.step(after, now());
    let todo = reconciler.step(before, now());
    assert_eq!(said(&todo), [""; 0]);
}

#[test]
fn what_runs_that_are_asked_for_together_have_under_way_counts_before_anything_is_placed() {
    let (first, mut second) = (Told::new(1, 2), Told::new(2, 1));
    second.turn(place);
    let mut reconciler = reconciler(2);
    let (runs, new) = (vec![first.update(), second.update()], false);
    let todo = reconciler.step(Input::Followed { runs, new }, now());
    assert_eq!(said(&todo), ["recover 0#1", "look 0"]);
}

#[test]
fn a_task_of_which_nobody_knows_whether_it_was_placed_keeps_its_place_and_is_placed_again() {
    let (told, mut reconciler) = (Told::new(1, 2), reconciler(1));
    let todo = reconciler.step(told.follow(), now());
    assert_eq!(said(&todo), ["look 0"]);
    let (run, task) = (told.run.id.clone(), 0);
    let found = Found::Clear(None);
    let looked = Input::Looked { run, task, found };
    assert_eq!(said(&reconciler.step(looked, now())), ["decide 0"]);
    let run = told.run.id.clone();
    let result = Err(failing());
    let unknown = Input::Decided { run, task, result };
    assert_eq!(said(&reconciler.step(unknown, now())), [""; 0]);
    assert_eq!(
        said(&reconciler.step(Input::Passed, later(1))),
        ["decide 0"]
    );
}

#[test]
fn an_end_is_acknowledged_when_it_is_durable_and_told_again_until_it_is() {
    let (mut told, mut reconciler) = (Told::new(1, 1), reconciler(9));
    reconciler.step(told.follow(), now());
    let placed = told.turn(place);
    reconciler.step(placed, now());
    let (attempt, kind) = (told.attempt(0), ReportKind::End);
    let lost = Input::Told {
        attempt: attempt.clone(),
        report: Report::Lost,
    };
    assert_eq!(said(&reconciler.step(lost.clone(), now())), ["record End"]);
    // What is told twice is on its way already.
    assert_eq!(said(&reconciler.step(lost, now())), [""; 0]);
    let answer = |result| Input::Recorded {
        attempt: attempt.clone(),
        kind,
        result,
    };
    let todo = reconciler.step(answer(Err(failing())), now());
    assert_eq!(said(&todo), [""; 0]);
    let todo = reconciler.step(Input::Passed, later(1));
    assert_eq!(said(&todo), ["record End"]);
    let todo = reconciler.step(answer(Ok(())), later(1));
    assert_eq!(said(&todo), ["acknowledge 0#1"]);
}

#[test]
fn a_run_that_has_ended_is_let_go_of_when_nothing_is_left_of_its_attempts() {
    let (mut told, mut reconciler) = (Told::new(1, 1), reconciler(9));
    reconciler.step(told.follow(), now());
    let placed = told.turn(place);
    reconciler.step(placed, now());
    let ended = told.turn(end);
    let todo = reconciler.step(ended, now());
    assert_eq!(said(&todo), ["sweep 0#1", "release"]);
    let todo = reconciler.step(Input::Passed, later(30));
    assert_eq!(said(&todo), ["sweep 0#1"]);
    reconciler.step(Input::Swept(told.attempt(0)), later(31));
    assert_eq!(reconciler.runs().count(), 0);
    assert_eq!(reconciler.next_due(), None);
}
