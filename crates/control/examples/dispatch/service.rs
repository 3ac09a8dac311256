//! The control plane behind a socket, with a runner that succeeds at once and a ledger.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use barecount_control::{
    Authorised, Control, Entries, EntryQueue, Fenced, LedgerPort, Submission, Submitted,
    clock::SystemClock,
    governance::{
        Action, Allowed, EnvironmentFacts, EnvironmentKind, Governance, Isolation, Matrix,
        MatrixRow, Permit, PipelineFacts, Question, StageFacts, Verdict,
    },
    reconcile::Report,
};
use barecount_ledger::{
    integrate::Integrator,
    note::SigningKey,
    storage::{DirBlobs, DirCheckpoint},
};
use barecount_model::{
    class::{NetworkProfile, Phase, RunnerClass, Size},
    id::{RunId, TaskId},
    manifest::EgressMode,
    plan::{EgressLimits, Pin, Plan, Resources, StagePlan, WorkPlan},
    run::{
        RetryBudget, Run, RunState, Task, TaskState,
        outcome::{AttemptResult, Metrics, Outcome, Staged, Timeline},
    },
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
};

use crate::Failure;

#[derive(Deserialize)]
struct Request {
    tokens: Vec<String>,
}

#[derive(Serialize)]
struct Answer {
    states: Vec<RunState>,
}

/// A running control plane.
pub(crate) struct Service {
    control: Control,
    socket: PathBuf,
    /// The ledger's length under a durable checkpoint.
    integrated: watch::Receiver<u64>,
}

impl Service {
    /// Starts with empty state in the folder.
    pub(crate) async fn start(folder: &Path) -> Result<Self, Failure> {
        let (updates_in, mut updates) = mpsc::unbounded_channel();
        let (entries_in, entries) = mpsc::unbounded_channel();
        let state = folder.join("state");
        std::fs::create_dir(&state)?;
        let control = Control::open(
            crate::held(&state)?,
            Arc::new(SystemClock),
            updates_in,
            entries_in,
        )?;
        // What follows from a change is done by whoever submitted the run, who is told as well.
        tokio::spawn(async move { while updates.recv().await.is_some() {} });
        let integrated = integrate(folder, control.ledger_port(), entries)?;
        let socket = folder.join("socket");
        let listener = UnixListener::bind(&socket)?;
        let dispatcher = Dispatcher {
            control: control.clone(),
            governance: Arc::new(Decider::new()?),
            next: Arc::new(AtomicU64::new(0)),
        };
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(dispatcher.clone().serve(connection));
            }
        });
        Ok(Self {
            control,
            socket,
            integrated,
        })
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until a durable checkpoint covers every entry, and gives their number.
    pub(crate) async fn integrated(mut self) -> Result<u64, Failure> {
        let length = *self.control.ledger_length().borrow();
        self.integrated.wait_for(|&size| size >= length).await?;
        Ok(length)
    }
}

/// Integrates what becomes durable, on a thread of its own.
fn integrate(
    folder: &Path,
    control: LedgerPort,
    entries: mpsc::UnboundedReceiver<Entries>,
) -> Result<watch::Receiver<u64>, Failure> {
    let folder = folder.join("ledger");
    std::fs::create_dir(&folder)?;
    let (blobs, checkpoint) = (DirBlobs::new(&folder), DirCheckpoint::new(&folder));
    let key = SigningKey::generate("example.com/dispatch")?;
    let mut log = Integrator::open(blobs, checkpoint, key, &[])?;
    let (size, watcher) = watch::channel(0);
    let runtime = tokio::runtime::Handle::current();
    thread::spawn(move || {
        let mut queue = EntryQueue::new(entries);
        while let Some(Entries { first, bytes }) = queue.take() {
            // Without the ledger the measurement is void: the sender goes, whoever waits hears it.
            let Ok(signed) = log.integrate(first, &bytes) else {
                return;
            };
            let length = signed.checkpoint().size;
            size.send_replace(length);
            let control = control.clone();
            runtime.spawn(async move { control.integrated(length).await });
        }
    });
    Ok(watcher)
}

#[derive(Clone)]
struct Dispatcher {
    control: Control,
    governance: Arc<Decider>,
    next: Arc<AtomicU64>,
}

impl Dispatcher {
    /// Answers one connection's requests in turn. A failure ends the connection, which its client
    /// takes for one.
    async fn serve(self, connection: UnixStream) -> Result<(), Failure> {
        let (read, mut write) = connection.into_split();
        let mut requests = BufReader::new(read).lines();
        while let Some(line) = requests.next_line().await? {
            let Request { tokens } = serde_json::from_str(&line)?;
            let states = self.carry_out(tokens).await?;
            let mut answer = serde_json::to_vec(&Answer { states })?;
            answer.push(b'\n');
            write.write_all(&answer).await?;
        }
        Ok(())
    }

    /// Runs from their submission to their end, with the reports of a runner whose work is done as
    /// soon as it is launched. Those of one call are handed over together; governance is asked for
    /// each of them.
    async fn carry_out(&self, tokens: Vec<String>) -> Result<Vec<RunState>, Failure> {
        let mut submissions = Vec::with_capacity(tokens.len());
        let mut reports = Vec::with_capacity(2 * tokens.len());
        for token in tokens {
            let run = run(self.next.fetch_add(1, Ordering::Relaxed), token);
            let attempt = Fenced {
                run: run.id.clone(),
                task: 0,
                number: 1,
            };
            // An agent does not wait for its first report to be durable before it makes the second.
            let runner = "fake".to_owned();
            reports.push((attempt.clone(), Report::Started { runner }));
            reports.push((attempt, ended()));
            submissions.push(Submission {
                run,
                plan: self.governance.authorise()?,
                place: vec![0],
            });
        }
        for submitted in self.control.submit_all(submissions).await? {
            let Submitted::New(_) = submitted? else {
                return Err("the token was used before".into());
            };
        }
        let updates = self.control.tell_all(reports).await?;
        let ends = updates.into_iter().skip(1).step_by(2);
        ends.map(|update| Ok(update?.run.state)).collect()
    }
}

/// A report of an attempt that did its work.
pub(crate) fn ended() -> Report {
    Report::Ended {
        outcome: Box::new(Outcome {
            timeline: Timeline::default(),
            result: AttemptResult::Done(Staged::default()),
            exit_code: Some(0),
            metrics: Metrics::default(),
            detail: Value::Null,
        }),
        dead_letters: vec![],
    }
}

/// Governance, and the one question that is put to it.
pub(crate) struct Decider {
    governance: Governance,
    question: Question,
    plan: Authorised,
}

impl Decider {
    pub(crate) fn new() -> Result<Self, Failure> {
        let row = MatrixRow {
            name: "everything".to_owned(),
            classes: Allowed::ANY,
            sizes: Allowed::ANY,
            network_profiles: Allowed::ANY,
        };
        let stage = StageFacts {
            name: "only".to_owned(),
            class: RunnerClass::Container,
            size: Size::Small,
            custom_size: None,
            network_profile: NetworkProfile::PrivateVpc,
            isolation: Isolation::Sandbox,
            classification: "public".to_owned(),
            drivers: vec![],
            has_secrets: false,
            has_secret_variables: false,
            debug_logging: false,
            residency: None,
            privately_reachable: vec![],
            crossings: vec![],
        };
        let question = Question {
            action: Action::Run,
            tenant: "demo".to_owned(),
            environment: EnvironmentFacts {
                name: "local".to_owned(),
                kind: EnvironmentKind::Development,
            },
            requester: "benchmark".to_owned(),
            pipeline: PipelineFacts {
                name: "nothing".to_owned(),
                version: "sha256:00".to_owned(),
                owner: "owner@example.com".to_owned(),
                classification: "public".to_owned(),
            },
            stages: vec![stage],
            matrix: Matrix {
                tenants: [("demo".to_owned(), vec![row])].into(),
                ..Matrix::default()
            },
            approvals: vec![],
            now: Timestamp::now(),
        };
        let governance = Governance::load(&[])?;
        let plan = Authorised::mint(plan(), &permit(&governance, &question)?)?;
        Ok(Self {
            governance,
            question,
            plan,
        })
    }

    /// Governance is asked for every run, as it would be in earnest.
    pub(crate) fn authorise(&self) -> Result<Authorised, Failure> {
        let permit = permit(&self.governance, &self.question)?;
        Ok(self.plan.again(&permit)?)
    }
}

fn permit(governance: &Governance, question: &Question) -> Result<Permit, Failure> {
    match governance.decide(question) {
        Verdict::Permitted(permit) => Ok(permit),
        Verdict::Refused(refusal) => Err(refusal.into()),
    }
}

fn plan() -> Plan {
    Plan {
        pipeline: "nothing".into(),
        tenant: "demo".into(),
        owner: "owner@example.com".into(),
        version: "sha256:00".into(),
        manifest_digest: "sha256:01".into(),
        lock_digest: "sha256:02".into(),
        environment: "local".into(),
        classification: "public".into(),
        requester: "benchmark".into(),
        decision: Value::Null,
        event: None,
        named: None,
        forced: vec![],
        stages: vec![stage()],
    }
}

fn stage() -> StagePlan {
    StagePlan {
        name: "only".into(),
        phase: Phase::Utility,
        class: RunnerClass::Container,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
        egress: vec![],
        egress_mode: EgressMode::Enforce,
        egress_limits: EgressLimits::default(),
        boundary: None,
        secrets: BTreeMap::new(),
        crossings: vec![],
        backend: "local".into(),
        isolation: "sandbox".into(),
        resources: Resources {
            cpu_millis: 1_000,
            memory_bytes: 1 << 30,
            pids: 64,
            open_files: 1_024,
            scratch_bytes: 1 << 30,
            disk_bytes: None,
            log_bytes: 1 << 20,
            workers: 1,
        },
        concurrency_limit: 1,
        work: WorkPlan::Package {
            package: Pin {
                name: "nothing".into(),
                digest: "sha256:00".into(),
            },
            command: vec![],
        },
        drivers: vec![],
        inputs: vec![],
        outputs: vec![],
        needs: vec![],
        partition_column: None,
        partitions: vec![],
        application_retries: 3,
        infrastructure_retries: 3,
        initial_backoff_ms: 1_000,
        max_backoff_ms: 60_000,
        timeout_ms: 60_000,
        grace_ms: 1_000,
        env: BTreeMap::new(),
    }
}

/// A run of one task.
pub(crate) fn run(number: u64, token: String) -> Run {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let task = Task {
        id: TaskId::from_bytes(id),
        stage: "only".into(),
        partition: None,
        class: RunnerClass::Container,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
        needs: vec![],
        state: TaskState::Waiting,
        budget: RetryBudget {
            application: 3,
            infrastructure: 3,
            interruptions: 3,
            initial_backoff_ms: 1000,
            max_backoff_ms: 60_000,
            application_spent: 0,
            infrastructure_spent: 0,
            interruptions_spent: 0,
        },
        not_before: None,
        held: None,
        work: None,
        answered: None,
        attempts: vec![],
    };
    Run {
        id: RunId::from_bytes(id),
        token,
        tenant: "demo".into(),
        pipeline: "nothing".into(),
        version: "sha256:00".into(),
        environment: "local".into(),
        window: None,
        state: RunState::Waiting,
        cancel_requested: false,
        submitted_at: Timestamp::UNIX_EPOCH,
        ended_at: None,
        tasks: vec![task],
    }
}
