//! Histories of a run under every interleaving of reports, duplicates, crashes and cancellations.

use std::collections::{BTreeMap, BTreeSet};

use barecount_model::{
    class::{NetworkProfile, RunnerClass, Size},
    id::{RunId, TaskId},
    run::{
        Abandonment, AttemptState, Moment, Pending, Record, RetryBudget, Run, RunState, Task,
        TaskState, WaitingReason,
        outcome::{
            AttemptResult, Failure, FailureKind, Metrics, Outcome, Staged, StagedDataset, Timeline,
        },
    },
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::Value;

fn task(index: usize, needs: Vec<usize>) -> Task {
    Task {
        id: TaskId::from_bytes([u8::try_from(index).expect("few tasks"); 16]),
        stage: (&*format!("stage-{index}")).into(),
        partition: None,
        class: RunnerClass::Container,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
        needs,
        state: TaskState::Waiting,
        budget: RetryBudget {
            application: 2,
            infrastructure: 3,
            interruptions: 100,
            initial_backoff_ms: 100,
            max_backoff_ms: 1_000,
            application_spent: 0,
            infrastructure_spent: 0,
            interruptions_spent: 0,
        },
        not_before: None,
        held: None,
        work: None,
        answered: None,
        attempts: Vec::new(),
    }
}

/// A diamond and a stage beside it: `0 → {1, 2} → 3`, and `4`.
fn diamond() -> Run {
    Run {
        id: RunId::from_bytes([7; 16]),
        token: "token".into(),
        tenant: "demo".into(),
        pipeline: "diamond".into(),
        version: "sha256:00".into(),
        environment: "local".into(),
        window: None,
        state: RunState::Waiting,
        cancel_requested: false,
        submitted_at: Timestamp::UNIX_EPOCH,
        ended_at: None,
        tasks: vec![
            task(0, vec![]),
            task(1, vec![0]),
            task(2, vec![0]),
            task(3, vec![1, 2]),
            task(4, vec![]),
        ],
    }
}

fn outcome(result: AttemptResult) -> Outcome {
    Outcome {
        timeline: Timeline::default(),
        result,
        exit_code: None,
        metrics: Metrics::default(),
        detail: Value::Null,
    }
}

fn failed(kind: FailureKind) -> AttemptResult {
    AttemptResult::Failed(Failure {
        kind,
        code: "BC0000".into(),
        message: "planted".into(),
    })
}

/// What an adversary may do next. Attempts are named by how far back they are, so that stale and
/// repeated reports are as likely as current ones.
#[derive(Debug, Clone)]
enum Event {
    Place(usize),
    Hold(usize),
    Started(usize, u32),
    Report(usize, u32, u8),
    Committed(usize, u32),
    Lost(usize, u32),
    Cancel,
    Abandon,
    Resume,
    Reopen(usize),
    Wait,
}

fn event() -> impl Strategy<Value = Event> {
    let (task, back) = (0..6usize, 0..3u32);
    prop_oneof![
        6 => task.clone().prop_map(Event::Place),
        2 => task.clone().prop_map(Event::Hold),
        4 => (task.clone(), back.clone()).prop_map(|(task, back)| Event::Started(task, back)),
        8 => (task.clone(), back.clone(), any::<u8>())
            .prop_map(|(task, back, result)| Event::Report(task, back, result)),
        6 => (task.clone(), back.clone()).prop_map(|(task, back)| Event::Committed(task, back)),
        2 => (task.clone(), back).prop_map(|(task, back)| Event::Lost(task, back)),
        1 => task.prop_map(Event::Reopen),
        1 => Just(Event::Cancel),
        1 => Just(Event::Abandon),
        1 => Just(Event::Resume),
        3 => Just(Event::Wait),
    ]
}

fn result(choice: u8) -> AttemptResult {
    match choice % 8 {
        0 => failed(FailureKind::Application),
        1 => failed(FailureKind::Infrastructure),
        2 => failed(FailureKind::Data),
        3 => AttemptResult::Stopped,
        // What staged nothing is done with its report.
        4 => AttemptResult::Done(Staged::default()),
        _ => AttemptResult::Done(staged()),
    }
}

fn abandonment() -> Abandonment {
    Abandonment {
        by: "ada".to_owned(),
        reason: "planted".to_owned(),
        standing: Vec::new(),
    }
}

fn path_down() -> WaitingReason {
    WaitingReason::PathDown {
        profile: NetworkProfile::Vpn,
        found: "planted".into(),
    }
}

fn staged() -> Staged {
    Staged {
        datasets: vec![StagedDataset {
            dataset: "raw.example".to_owned(),
            rows: 3,
            bytes: 30,
            digest: "lthash:00".to_owned(),
            commit: Value::Null,
        }],
        ..Staged::default()
    }
}

/// Follows a history beside the machine: what must hold of it whatever happens.
#[derive(Default)]
struct Witness {
    decided: BTreeSet<(usize, u32)>,
    committed: BTreeSet<usize>,
    /// Tasks that were committed, and were to be decided on anew, as often.
    superseded: BTreeMap<usize, usize>,
}

impl Witness {
    fn check(&mut self, run: &Run, records: &[Record]) {
        for record in records {
            match record {
                Record::AttemptEnded { task, number } => {
                    let fresh = self.decided.insert((*task, *number));
                    assert!(fresh, "attempt {number} of task {task} ended twice");
                }
                Record::TaskCommitted { task } => {
                    assert!(
                        self.committed.insert(*task),
                        "task {task} was committed twice"
                    );
                }
                Record::RunAbandoned { struck, .. } => {
                    for (task, number) in struck {
                        assert!(
                            self.decided.contains(&(*task, *number)),
                            "what is struck was decided for"
                        );
                        assert_eq!(run.tasks[*task].state, TaskState::Failed);
                    }
                    let committing = |task: &Task| task.state == TaskState::Committing;
                    assert!(!run.tasks.iter().any(committing), "no decision is left");
                }
                _ => {}
            }
        }
        for (index, task) in run.tasks.iter().enumerate() {
            self.check_task(index, task);
        }
        if run.cancel_requested {
            let starts = |task: &Task| matches!(task.state, TaskState::Waiting | TaskState::Ready);
            assert!(
                !run.tasks.iter().any(starts),
                "nothing starts of it any more"
            );
        }
        let all_final = run.tasks.iter().all(|task| task.state.is_final());
        assert_eq!(
            all_final,
            run.state.is_final(),
            "a run ends with its last task"
        );
    }

    /// What was committed of these tasks, and of what needs them, does not count any more.
    fn reopened(&mut self, run: &Run, task: usize) {
        let mut open = BTreeSet::from([task]);
        for (index, task) in run.tasks.iter().enumerate() {
            if task.needs.iter().any(|need| open.contains(need)) {
                open.insert(index);
            }
            if open.contains(&index) && self.committed.remove(&index) {
                *self.superseded.entry(index).or_default() += 1;
            }
        }
    }

    fn check_task(&self, index: usize, task: &Task) {
        let numbers: Vec<u32> = task.attempts.iter().map(|attempt| attempt.number).collect();
        let grows = numbers.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(grows, "attempt numbers only grow");
        let open = task
            .attempts
            .iter()
            .filter(|attempt| attempt.state.is_open())
            .count();
        assert!(open <= 1, "at most one attempt of a task is open");
        assert_eq!(
            open == 1,
            task.state == TaskState::Active,
            "open attempts are active tasks"
        );
        assert_eq!(
            self.committed.contains(&index),
            task.state == TaskState::Succeeded,
            "what is committed stays, and nothing else has succeeded"
        );
        let held = task.held.is_some();
        assert!(
            !held || task.state == TaskState::Ready,
            "held while {:?}",
            task.state
        );
        let succeeded = task
            .attempts
            .iter()
            .filter(|attempt| attempt.state == AttemptState::Succeeded);
        let superseded = |task| self.superseded.get(&task).copied().unwrap_or(0);
        assert!(
            succeeded.count() <= 1 + superseded(index),
            "at most one attempt of a task is decided for"
        );
        if !task.attempts.is_empty() {
            let was = |need: &usize| self.committed.contains(need) || superseded(*need) > 0;
            let met = task.needs.iter().all(was);
            assert!(
                met,
                "task {index} was tried before what it needs was committed"
            );
        }
    }
}

fn number(run: &Run, task: usize, back: u32) -> u32 {
    let current = run
        .tasks
        .get(task)
        .and_then(Task::current)
        .map_or(0, |attempt| attempt.number);
    current.saturating_sub(back)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_history_commits_twice_or_skips_a_need(events in prop::collection::vec(event(), 0..200)) {
        let mut run = diamond();
        let mut moment = Moment { now: Timestamp::UNIX_EPOCH, entropy: 1 };
        let mut witness = Witness::default();
        let first = run.submit(&moment).expect("a diamond is ordered");
        witness.check(&run, &first.records);
        for event in events {
            moment.entropy = moment.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let before = run.clone();
            let reopens = match event {
                Event::Reopen(task) => Some(task),
                _ => None,
            };
            let effects = match event {
                Event::Place(task) => run.place(task, &moment),
                Event::Hold(task) => run.hold(task, path_down(), &moment),
                Event::Started(task, back) => {
                    let number = number(&run, task, back);
                    run.started(task, number, "runner", &moment)
                }
                Event::Report(task, back, choice) => {
                    let number = number(&run, task, back);
                    run.report(task, number, outcome(result(choice)), &moment)
                }
                Event::Committed(task, back) => {
                    let number = number(&run, task, back);
                    run.committed(task, number, &moment)
                }
                Event::Lost(task, back) => {
                    let number = number(&run, task, back);
                    run.lost(task, number, &moment)
                }
                Event::Cancel => run.cancel(&moment),
                Event::Abandon => run.abandon(abandonment(), &moment),
                Event::Resume => run.resume(Value::Null, &moment),
                Event::Reopen(task) => run.reopen(&[task], Value::Null, &moment),
                Event::Wait => {
                    moment.now = moment.now.checked_add(SignedDuration::from_secs(2)).expect("in range");
                    continue;
                }
            };
            match effects {
                Ok(effects) => {
                    if let Some(task) = reopens {
                        witness.reopened(&run, task);
                    }
                    witness.check(&run, &effects.records);
                }
                Err(_) => prop_assert_eq!(&before, &run, "a rejected command changed something"),
            }
        }
    }

    #[test]
    fn doing_what_is_pending_always_ends_the_run(choices in prop::collection::vec(any::<u8>(), 256)) {
        let mut run = diamond();
        let mut moment = Moment { now: Timestamp::UNIX_EPOCH, entropy: 3 };
        run.submit(&moment).expect("a diamond is ordered");
        let mut choices = choices.into_iter();
        let mut turns = choices.next().unwrap_or(7) % 16;
        for _ in 0..200 {
            // Cancelled or not, and what is true or not: it ends.
            turns = turns.saturating_sub(1);
            if turns == 1 && run.cancel(&moment).is_ok() || turns == 2 {
                let task = usize::from(choices.next().unwrap_or(7) % 5);
                let _ = run.reopen(&[task], Value::Null, &moment);
            }
            if run.state.is_final() {
                return Ok(());
            }
            let due: Vec<usize> = run.placeable(moment.now).collect();
            for task in due {
                run.place(task, &moment).expect("placeable");
            }
            for pending in run.pending() {
                let done = match pending {
                    Pending::Launch { task, number } => run.started(task, number, "runner", &moment),
                    Pending::Await { task, number } => {
                        let choice = choices.next().unwrap_or(7);
                        run.report(task, number, outcome(result(choice)), &moment)
                    }
                    Pending::Stop { task, number } => {
                        run.report(task, number, outcome(AttemptResult::Stopped), &moment)
                    }
                    Pending::RollForward { task, number } => run.committed(task, number, &moment),
                };
                done.expect("what is pending applies");
            }
            if run.state.is_final() {
                return Ok(());
            }
            if let Some(due) = run.next_due() {
                moment.now = moment.now.max(due);
            }
        }
        prop_assert!(false, "the run did not end: {:?}", run.state);
    }
}

#[test]
fn a_held_task_is_looked_at_again_and_its_attempt_tells_what_it_waited_for() {
    let mut run = diamond();
    let mut moment = Moment {
        now: Timestamp::UNIX_EPOCH,
        entropy: 0,
    };
    run.submit(&moment).expect("ordered");
    for _ in 0..10 {
        run.hold(0, path_down(), &moment).expect("due");
        run.place(0, &moment).expect_err("held");
        let due = run.tasks[0].not_before.expect("it is looked at again");
        let delay = due.duration_since(moment.now);
        assert!(delay <= SignedDuration::from_secs(30), "{delay}");
        moment.now = due;
    }
    run.place(0, &moment).expect("due");
    let attempt = run.tasks[0].current().expect("placed");
    let held = attempt.held.as_ref().expect("it was held");
    assert_eq!((held.since, held.times), (Timestamp::UNIX_EPOCH, 10));
    assert_eq!(held.reason, path_down());
    assert_eq!(run.tasks[0].held, None);
    assert_eq!(
        run.tasks[0].budget,
        diamond().tasks[0].budget,
        "nothing was spent"
    );
}

#[test]
fn a_report_of_an_earlier_attempt_is_refused() {
    let mut run = diamond();
    let moment = Moment {
        now: Timestamp::UNIX_EPOCH,
        entropy: 0,
    };
    run.submit(&moment).expect("ordered");
    run.place(0, &moment).expect("ready");
    run.lost(0, 1, &moment).expect("open");
    run.place(0, &moment).expect("ready again");
    let late = run.report(
        0,
        1,
        outcome(AttemptResult::Done(Staged::default())),
        &moment,
    );
    assert_eq!(
        late.expect_err("fenced").to_string(),
        format!(
            "attempt 1 of {} is not its current one (2)",
            run.tasks[0].id
        )
    );
}

#[test]
fn retries_end_with_their_budget_and_budgets_are_kept_apart() {
    let mut run = diamond();
    let mut moment = Moment {
        now: Timestamp::UNIX_EPOCH,
        entropy: 0,
    };
    run.submit(&moment).expect("ordered");
    let kinds = [
        FailureKind::Infrastructure,
        FailureKind::Application,
        FailureKind::Infrastructure,
        FailureKind::Timeout,
        FailureKind::Infrastructure,
    ];
    for (tries, kind) in (1u32..).zip(kinds) {
        run.place(0, &moment).expect("ready");
        run.report(0, tries, outcome(failed(kind)), &moment)
            .expect("open");
        assert_eq!(
            run.tasks[0].state,
            TaskState::Ready,
            "after {tries} failures"
        );
        moment.now = run.tasks[0].not_before.expect("a retry is delayed");
    }
    run.place(0, &moment).expect("ready");
    run.report(0, 6, outcome(failed(FailureKind::Application)), &moment)
        .expect("open");
    assert_eq!(run.tasks[0].state, TaskState::Failed);
    assert_eq!(
        run.tasks[3].state,
        TaskState::Skipped,
        "what needs it is skipped"
    );
    assert_eq!(
        run.tasks[4].state,
        TaskState::Ready,
        "what does not goes on"
    );
}

#[test]
fn a_decision_that_was_given_up_is_never_rolled_forward_and_the_work_can_be_done_again() {
    let mut run = diamond();
    let moment = Moment {
        now: Timestamp::UNIX_EPOCH,
        entropy: 0,
    };
    run.submit(&moment).expect("ordered");
    run.place(0, &moment).expect("ready");
    run.place(4, &moment).expect("ready");
    let done = outcome(AttemptResult::Done(staged()));
    run.report(0, 1, done.clone(), &moment).expect("open");
    let effects = run
        .abandon(abandonment(), &moment)
        .expect("it is under way");
    let record = Record::RunAbandoned {
        struck: vec![(0, 1)],
        abandonment: abandonment(),
    };
    assert_eq!(effects.records, [record]);
    run.committed(0, 1, &moment).expect_err("it was struck");
    // What was under way is stopped first.
    assert_eq!(run.pending(), [Pending::Stop { task: 4, number: 1 }]);
    run.report(4, 1, outcome(AttemptResult::Stopped), &moment)
        .expect("open");
    assert_eq!(run.state, RunState::Failed);
    run.abandon(abandonment(), &moment)
        .expect_err("it has ended");
    run.resume(Value::Null, &moment).expect("it failed");
    run.place(0, &moment).expect("ready");
    run.report(0, 2, done, &moment).expect("open");
    run.committed(0, 2, &moment).expect("decided for");
    assert_eq!(run.tasks[0].state, TaskState::Succeeded);
}
