//! What the writer holds to when its storage fails at any append, or is taken over.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use barecount_model::{
    class::{NetworkProfile, RunnerClass, Size},
    evidence::EvidenceKind,
    id::{RunId, TaskId},
    plan::Plan,
    run::{
        RetryBudget, Run, RunState, Task, TaskState,
        outcome::{AttemptResult, Failure, FailureKind, Metrics, Outcome, Staged, Timeline},
    },
};
use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    CommandError, Entries, Fenced, Submission, Update,
    authority::{Authorised, Authority, PlanRecord},
    clock::SystemClock,
    desk::{Fault, Memory},
    governance::{Action, EnvironmentFacts, EnvironmentKind, Explanation},
    identity::Issuer,
    journal::memory::Views,
    seat::Commands,
    shard::{Command, Verb},
    writer::{self, Answer, Listeners, Writer},
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// A writer that is called without a thread, and those who listen to it.
struct Owner {
    writer: Writer,
    issuer: Arc<Issuer>,
    length: watch::Receiver<u64>,
    updates: mpsc::UnboundedReceiver<Update>,
    entries: mpsc::UnboundedReceiver<Entries>,
}

impl Owner {
    fn new(memory: &Memory) -> Result<Self, Box<dyn std::error::Error>> {
        let (updates_in, updates) = mpsc::unbounded_channel();
        let (entries_in, entries) = mpsc::unbounded_channel();
        let listeners = Listeners {
            updates: updates_in,
            entries: entries_in,
        };
        let issuer = Arc::new(Issuer::with(SigningKey::from_bytes(&[7; 32])));
        let storage = Box::new(memory.take_over());
        let (writer, length) = Writer::new(
            storage,
            Arc::new(SystemClock),
            Arc::clone(&issuer),
            listeners,
            1,
        )?;
        Ok(Self {
            writer,
            issuer,
            length,
            updates,
            entries,
        })
    }

    fn call(&mut self, command: Command) -> Answer {
        let (reply, mut answer) = oneshot::channel();
        self.writer.commit(vec![(vec![command], reply)]);
        let answer = answer.try_recv().ok().and_then(|mut answers| answers.pop());
        answer.unwrap_or(Err(CommandError::Closed))
    }
}

pub(crate) fn explanation(action: Action) -> Arc<Explanation> {
    Arc::new(Explanation {
        action,
        tenant: "demo".into(),
        environment: EnvironmentFacts {
            name: "local".into(),
            kind: EnvironmentKind::Development,
        },
        pipeline: "example".into(),
        version: "sha256:aa".into(),
        requester: "tester".into(),
        approval: None,
        decided_at: Timestamp::UNIX_EPOCH,
        decisions: vec![],
        policies_digest: "sha256:00".into(),
    })
}

pub(crate) fn plan() -> Authorised {
    let plan = Plan {
        pipeline: "example".into(),
        tenant: "demo".into(),
        owner: "owner@example.com".into(),
        version: "sha256:aa".into(),
        manifest_digest: "sha256:01".into(),
        lock_digest: "sha256:02".into(),
        environment: "local".into(),
        classification: "public".into(),
        requester: "tester".into(),
        decision: Value::Null,
        event: None,
        named: None,
        forced: vec![],
        stages: vec![],
    };
    let record = PlanRecord::new(plan).expect("a plan is JSON");
    let explanation = explanation(Action::Run);
    let authority = Authority::new(&explanation, &record.digest).expect("a decision is JSON");
    Authorised {
        record: Arc::new(record),
        authority: Arc::new(authority),
        explanation,
    }
}

pub(crate) fn task(id: [u8; 16], needs: Vec<usize>) -> Task {
    Task {
        id: TaskId::from_bytes(id),
        stage: "only".into(),
        partition: None,
        class: RunnerClass::Container,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
        needs,
        state: TaskState::Waiting,
        budget: RetryBudget {
            application: 0,
            infrastructure: 2,
            interruptions: 2,
            initial_backoff_ms: 0,
            max_backoff_ms: 0,
            application_spent: 0,
            infrastructure_spent: 0,
            interruptions_spent: 0,
        },
        not_before: None,
        held: None,
        work: None,
        answered: None,
        attempts: vec![],
    }
}

/// A run of two tasks, the second of which needs the first.
pub(crate) fn run_of(id: u64, token: &str) -> Run {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&id.to_be_bytes());
    let mut second = bytes;
    second[0] = 1;
    Run {
        id: RunId::from_bytes(bytes),
        token: token.into(),
        tenant: "demo".into(),
        pipeline: "example".into(),
        version: "sha256:aa".into(),
        environment: "local".into(),
        window: None,
        state: RunState::Waiting,
        cancel_requested: false,
        submitted_at: Timestamp::UNIX_EPOCH,
        ended_at: None,
        tasks: vec![task(bytes, vec![]), task(second, vec![0])],
    }
}

pub(crate) fn submit(plan: &Authorised, id: u64, token: &str) -> Command {
    Command::Submit(Box::new(Submission {
        run: run_of(id, token),
        plan: plan.clone(),
        place: vec![],
    }))
}

pub(crate) fn outcome(result: AttemptResult) -> Box<Outcome> {
    Box::new(Outcome {
        result,
        exit_code: Some(0),
        metrics: Metrics::default(),
        timeline: Timeline::default(),
        detail: Value::Null,
    })
}

#[test]
fn a_batch_that_failed_but_persisted_is_answered_and_announced_like_any_other() -> TestResult {
    let memory = Memory::new();
    let mut owner = Owner::new(&memory)?;
    let plan = plan();
    memory.fail_next(Fault::FailedButPersisted, 0);
    let update = owner
        .call(submit(&plan, 1, "one"))?
        .ok_or("it is answered")?;
    assert_eq!(owner.updates.try_recv()?.run.id, update.run.id);
    owner.entries.try_recv()?;
    let entries = owner.entries.try_recv()?;
    assert_eq!((entries.first, entries.bytes.len()), (0, 1));
    assert_eq!(
        *owner.length.borrow(),
        1,
        "who waits for the ledger sees it"
    );
    Ok(())
}

#[test]
fn what_nobody_could_tell_is_announced_once_it_can_be_read() -> TestResult {
    let memory = Memory::new();
    let mut owner = Owner::new(&memory)?;
    let plan = plan();
    owner.entries.try_recv()?;
    memory.fail_next(Fault::FailedButPersisted, 1);
    let answer = owner.call(submit(&plan, 1, "one"));
    assert!(
        matches!(answer, Err(CommandError::Unknown(_))),
        "{answer:?}"
    );
    assert!(owner.updates.try_recv().is_err(), "nothing is told yet");
    let update = owner
        .call(submit(&plan, 2, "one"))?
        .ok_or("it is answered")?;
    let first = owner.updates.try_recv()?;
    assert_eq!(first.run.id, update.run.id, "the token is the first run's");
    assert_eq!(owner.entries.try_recv()?.first, 0);
    assert_eq!(*owner.length.borrow(), 1);
    Ok(())
}

#[test]
fn what_is_in_doubt_is_announced_though_nobody_asks_for_anything_else() -> TestResult {
    let memory = Memory::new();
    let Owner {
        writer,
        mut updates,
        ..
    } = Owner::new(&memory)?;
    memory.fail_next(Fault::FailedButPersisted, 2);
    let (commands, queue) = mpsc::channel(1);
    let (seat, thread) = writer::spawn(writer, queue)?;
    let commands = Commands::new(commands, seat);
    let patience = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let asked = commands.all(vec![submit(&plan(), 1, "one")]);
    let answer = patience.block_on(asked)?.pop();
    assert!(
        matches!(answer, Some(Err(CommandError::Unknown(_)))),
        "{answer:?}"
    );
    let told = async { timeout(Duration::from_secs(30), updates.recv()).await };
    let told = patience.block_on(told)?.ok_or("it is told")?;
    assert_eq!(told.run.token, "one");
    drop(commands);
    thread.join().map_err(|_| "the writer panicked")?;
    Ok(())
}

/// Whoever asks alone has its commands carried out by its own thread, and the writer's thread finds
/// out what that left in doubt.
#[test]
fn what_a_caller_of_its_own_left_in_doubt_is_announced_as_well() -> TestResult {
    let memory = Memory::new();
    let Owner {
        writer,
        mut updates,
        ..
    } = Owner::new(&memory)?;
    let (commands, queue) = mpsc::channel(1);
    let (seat, thread) = writer::spawn(writer, queue)?;
    let commands = Commands::new(commands, Arc::clone(&seat));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()?;
    runtime.block_on(async {
        commands.all(vec![submit(&plan(), 1, "one")]).await?;
        updates.recv().await.ok_or("it is told")?;
        // The thread has answered, and is about to give the seat back.
        timeout(Duration::from_secs(30), seat.until_free()).await?;
        memory.fail_next(Fault::FailedButPersisted, 2);
        let answer = commands.all(vec![submit(&plan(), 2, "two")]).await?.pop();
        assert!(
            matches!(answer, Some(Err(CommandError::Unknown(_)))),
            "{answer:?}"
        );
        let told = timeout(Duration::from_secs(30), updates.recv()).await?;
        assert_eq!(told.ok_or("it is told")?.run.token, "two");
        let answer = commands.all(vec![submit(&plan(), 3, "two")]).await?.pop();
        let known = answer.ok_or("it is answered")??.ok_or("it is a run")?;
        assert_ne!(known.run.id, RunId::from_bytes([3; 16]));
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    drop(commands);
    thread.join().map_err(|_| "the writer panicked")?;
    Ok(())
}

#[test]
fn a_batch_that_failed_has_not_happened() -> TestResult {
    for fault in [Fault::Failed, Fault::FailedAtTheEnd] {
        let memory = Memory::new();
        let mut owner = Owner::new(&memory)?;
        owner.entries.try_recv()?;
        let plan = plan();
        memory.fail_next(fault, 0);
        let answer = owner.call(submit(&plan, 1, "one"));
        assert!(matches!(answer, Err(CommandError::Store(_))), "{answer:?}");
        assert!(owner.updates.try_recv().is_err());
        let update = owner
            .call(submit(&plan, 2, "one"))?
            .ok_or("it is answered")?;
        let Command::Submit(second) = submit(&plan, 2, "one") else {
            return Err("it is a submission".into());
        };
        assert_eq!(update.run.id, second.run.id);
        assert_eq!(owner.entries.try_recv()?.first, 0, "there is no gap");
    }
    Ok(())
}

#[test]
fn an_owner_that_was_succeeded_changes_nothing_any_more() -> TestResult {
    let memory = Memory::new();
    let mut former = Owner::new(&memory)?;
    let plan = plan();
    former.call(submit(&plan, 1, "one"))?;
    let mut owner = Owner::new(&memory)?;
    for id in [2, 3] {
        let answer = former.call(submit(&plan, id, "two"));
        assert!(matches!(answer, Err(CommandError::NotOwner)), "{answer:?}");
    }
    owner.call(submit(&plan, 4, "two"))?;
    assert_eq!(memory.durable().views.runs.len(), 2);
    Ok(())
}

#[test]
fn who_hears_of_a_run_can_launch_it() -> TestResult {
    let memory = Memory::new();
    let mut owner = Owner::new(&memory)?;
    memory.fail_next(Fault::FailedButPersisted, 0);
    owner.call(submit(&plan(), 1, "one"))?;
    let again = Owner::new(&memory)?;
    for (issuer, mut updates) in [(owner.issuer, owner.updates), (again.issuer, again.updates)] {
        let heard = updates.try_recv()?;
        let attempt = Fenced {
            run: heard.run.id.clone(),
            task: 0,
            number: 1,
        };
        // Its plan has no stage; that it is looked for says that the permit is known.
        let identity = issuer.mint(&attempt, Timestamp::UNIX_EPOCH);
        assert!(
            matches!(identity, Err(crate::IdentityError::NoSuchTask { .. })),
            "{identity:?}"
        );
    }
    Ok(())
}

/// Random numbers from a seed (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }
}

/// One history: commands, faults, and changes of owner, from a seed.
struct History {
    random: Random,
    memory: Memory,
    owner: Owner,
    /// Entries as the ledger has heard them.
    ledger: BTreeMap<u64, Vec<u8>>,
    /// Runs that were answered for a token.
    answered: HashMap<String, RunId>,
    plan: Authorised,
    next: u64,
}

impl History {
    fn new(seed: u64, plan: &Authorised) -> Result<Self, Box<dyn std::error::Error>> {
        let memory = Memory::new();
        Ok(Self {
            random: Random(seed),
            owner: Owner::new(&memory)?,
            memory,
            ledger: BTreeMap::new(),
            answered: HashMap::new(),
            plan: plan.clone(),
            next: 0,
        })
    }

    fn command(&mut self) -> Command {
        let ids: Vec<RunId> = self.answered.values().cloned().collect();
        let pick = self.random.below(10);
        if ids.is_empty() || pick < 2 {
            self.next += 1;
            let token = format!("token-{}", self.random.below(4));
            return submit(&self.plan, self.next, &token);
        }
        let run = ids[self.random.below(ids.len() as u64) as usize].clone();
        let (task, number) = (
            self.random.below(2) as usize,
            1 + self.random.below(3) as u32,
        );
        let verb = match pick {
            2 | 3 => Verb::Place { task, work: None },
            4 => Verb::Started {
                task,
                number,
                runner: "fake".into(),
            },
            5 | 6 => Verb::Report {
                task,
                number,
                outcome: outcome(AttemptResult::Done(Staged::default())),
                dead_letters: vec![],
            },
            7 => Verb::Report {
                task,
                number,
                outcome: outcome(AttemptResult::Failed(Failure {
                    kind: FailureKind::Infrastructure,
                    code: "BC0000".into(),
                    message: "it failed".into(),
                })),
                dead_letters: vec![],
            },
            8 => Verb::Cancel {
                by: explanation(Action::Cancel),
            },
            _ => Verb::Resume {
                by: explanation(Action::Resume),
                rules: Value::Null,
            },
        };
        Command::Apply { run, verb }
    }

    fn turn(&mut self) -> TestResult {
        match self.random.below(12) {
            0 => self.memory.fail_next(Fault::Failed, 0),
            1 => self.memory.fail_next(Fault::FailedAtTheEnd, 0),
            2 => self.memory.fail_next(Fault::FailedButPersisted, 0),
            3 => {
                let unreadable = 1 + self.random.below(3) as u32;
                self.memory.fail_next(Fault::FailedButPersisted, unreadable);
            }
            4 => {
                self.hear()?;
                self.memory.durable().unreadable = 0;
                let next = Owner::new(&self.memory)?;
                let mut former = std::mem::replace(&mut self.owner, next);
                let command = self.command();
                let late = former.call(command);
                assert!(late.is_err() || matches!(late, Ok(Some(_))), "{late:?}");
                self.hear_of(&mut former)?;
            }
            _ => {}
        }
        let command = self.command();
        let token = match &command {
            Command::Submit(submission) => Some(submission.run.token.clone()),
            _ => None,
        };
        let answer = self.owner.call(command);
        if let (Some(token), Ok(Some(update))) = (token, &answer) {
            let before = self.answered.insert(token, update.run.id.clone());
            assert!(
                before.is_none_or(|before| before == update.run.id),
                "a token has one run"
            );
        }
        self.hear()
    }

    fn hear(&mut self) -> TestResult {
        let mut entries = std::mem::replace(&mut self.owner.entries, mpsc::unbounded_channel().1);
        let heard = self.enter(&mut entries);
        self.owner.entries = entries;
        heard
    }

    fn hear_of(&mut self, former: &mut Owner) -> TestResult {
        self.enter(&mut former.entries)
    }

    /// The ledger takes what it hears: the next entries, or again what it has.
    fn enter(&mut self, entries: &mut mpsc::UnboundedReceiver<Entries>) -> TestResult {
        while let Ok(Entries { first, bytes }) = entries.try_recv() {
            for (index, bytes) in (first..).zip(bytes) {
                if let Some(known) = self.ledger.get(&index) {
                    assert_eq!(*known, bytes, "entry {index} is another one");
                } else if index == self.ledger.len() as u64 {
                    self.ledger.insert(index, bytes);
                } else {
                    return Err(format!("entry {index} after {}", self.ledger.len()).into());
                }
            }
        }
        Ok(())
    }

    /// What holds of every history, once its last owner can read and has nothing in doubt.
    fn check(mut self) -> TestResult {
        self.memory.durable().unreadable = 0;
        // Settles whatever was in doubt, and may itself meet a fault that was left.
        while self
            .owner
            .call(submit(&self.plan, u64::MAX, "last"))
            .is_err()
        {}
        self.hear()?;
        let durable = self.memory.durable();
        let rebuilt = Views::rebuilt(&durable.journal);
        let views = &durable.views;
        assert_eq!(views.entries, rebuilt.entries);
        let told: Vec<Vec<u8>> = self.ledger.into_values().collect();
        assert_eq!(
            told, views.entries,
            "the ledger has heard everything, in order"
        );
        assert_eq!(*self.owner.length.borrow(), views.entries.len() as u64);
        let mut last = None;
        for batch in &durable.journal {
            assert!(last.is_none_or(|last| {
                batch.position.seq == last_seq(last) + 1 && batch.position > last
            }));
            last = Some(batch.position);
        }
        let mut tokens = BTreeMap::new();
        for (id, stored) in &views.runs {
            assert_eq!(stored.run, rebuilt.runs[id].run);
            assert!(
                tokens.insert(&stored.run.token, id).is_none(),
                "a token has one run"
            );
            for task in &stored.run.tasks {
                let decided = task.attempts.iter().filter(|a| a.staged.is_some()).count();
                assert!(decided <= 1, "a task has one committed outcome");
            }
            let commits = durable.journal.iter().flat_map(|batch| &batch.entries);
            let commits = commits
                .filter(|e| e.kind == EvidenceKind::Commit && e.run.as_ref() == Some(id))
                .count();
            let done = stored.run.tasks.iter();
            let done = done
                .filter(|task| task.state == TaskState::Succeeded)
                .count();
            assert_eq!(commits, done, "each commit is in the ledger once");
        }
        for (token, id) in &self.answered {
            assert_eq!(tokens.get(token), Some(&id), "what was answered is there");
        }
        Ok(())
    }
}

fn last_seq(position: crate::journal::Position) -> u64 {
    position.seq
}

#[test]
fn every_history_with_faults_ends_in_one_outcome_and_one_sequence() -> TestResult {
    let plan = plan();
    for seed in 0..400 {
        let mut history = History::new(seed, &plan)?;
        for _ in 0..60 {
            history
                .turn()
                .map_err(|error| format!("seed {seed}: {error}"))?;
        }
        history
            .check()
            .map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}
