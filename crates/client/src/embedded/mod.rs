//! The embedded platform: control plane, agent, runners and ledger of one state folder, in this
//! process.

mod acceptance;
mod again;
pub(crate) mod answers;
mod approving;
mod artifacts;
mod blocking;
mod boundaries;
pub(crate) mod build;
mod change;
mod checking;
mod checkpoints;
mod data;
mod datasets;
mod dead_letters;
mod decoding;
pub(crate) mod driver;
mod dry;
pub mod ending;
mod engine;
mod evidence;
pub(crate) mod evolution;
mod failures;
mod feasible;
mod files;
mod gc;
pub(crate) mod high_water;
pub mod hold;
pub(crate) mod imports;
mod interrupts;
pub(crate) mod keeping;
pub(crate) mod layout;
pub(crate) mod ledger;
mod leftovers;
mod letters;
pub(crate) mod lock;
mod networks;
mod outputs;
pub(crate) mod owners;
mod path_gate;
pub(crate) mod policy;
mod private_folder;
mod recorder;
mod records;
mod run;
mod runners;
pub(crate) mod runs;
mod schema;
pub(crate) mod script;
mod secrets;
mod settled;
pub(crate) mod submission;
mod trace;
mod tunnel;
mod working;

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use barecount_agent::{
    Agent, AgentConfig, Disk, IdentityVerifier, SecretsService, StagingFolders,
    link::{self, LocalOrders},
};
use barecount_api::activity::Activity;
use barecount_artifact::Store;
use barecount_control::{
    Control, EndAt, Entries, Update,
    clock::{Clock, SystemClock},
    reconcile::{Caps, Reconciler},
    store::{OpenError, Sealing, StoreError, lock::FolderLock},
};
use barecount_dataset::table::StateTables;
use barecount_model::{
    codes,
    environment::Environment,
    id::RunId,
    plan::{Plan, StagePlan},
    run::{Run, TaskState},
    seal::SealKey,
    text::SecretName,
};
use barecount_runner::{Recovered, launch::AttemptToken};
use barecount_sandbox::{ForkedLauncher, LauncherConfig, StartError};
use barecount_secrets::MemoryFolder;
use rustix::fs::Mode;
use tokio::sync::{mpsc, watch};

pub use barecount_sandbox::fail_beyond_file_size;

pub(crate) use self::private_folder::state_folder;
use self::{
    answers::Answers,
    artifacts::StoredArtifacts,
    boundaries::Boundaries,
    checkpoints::Checkpoints,
    data::StateData,
    driver::{Committer, Driver, Followed, Gates, Inbox, Notice},
    engine::Engine,
    high_water::HighWater,
    hold::{Purpose, Wait},
    ledger::Progress,
    path_gate::PathGate,
    runners::Runners,
    working::Working,
};
use crate::{
    environment::Found,
    failure::{Failure, Status, chain},
    reporter::Reporter,
};

/// What answers in this process, over a state folder.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The state folder, as it was named.
    pub state: PathBuf,
    /// The environment that was named, if one was.
    pub environment: Option<String>,
    /// How long it waits for another process.
    pub wait: Wait,
}

impl Embedded {
    /// Has the state folder to itself from here on. Starts a thread where it has to wait: the
    /// launcher is started before.
    ///
    /// # Errors
    /// If another process has it for longer than this waits.
    pub(crate) fn hold(
        &self,
        folder: &Path,
        purpose: Purpose<'_>,
        reporter: &dyn Reporter,
    ) -> Result<FolderLock, Failure> {
        hold::take(folder, purpose, self.wait, reporter)
    }

    /// The tables of a state folder, for who reads them: their logs are held against their seals by who
    /// has the key, and believed by who has not.
    pub(crate) fn tables_of(&self, folder: PathBuf) -> StateTables {
        let found = crate::environment::of_run(self.environment.as_deref(), &folder);
        let configured = found.map(|found| found.signing_key());
        let key = configured
            .ok()
            .and_then(|key| ledger::table_seals(&folder, key.as_deref()));
        let tables = StateTables::new(folder);
        match key {
            Some(key) => tables.sealed(key),
            None => tables,
        }
    }
}

/// Forks the launcher off this process, which must have one thread still.
///
/// Sandboxes run as somebody else, who must be able to read what they are given: what this process
/// makes is readable by all from here on, inside a state folder that is not.
pub(crate) fn fork_launcher(state: &Path) -> Result<ForkedLauncher, Failure> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    ForkedLauncher::fork(LauncherConfig::new(host_name(state))).map_err(|error| no_launcher(&error))
}

fn no_launcher(error: &StartError) -> Failure {
    let failure = Failure::new(
        Status::Unavailable,
        "the sandbox launcher cannot be started",
    );
    let failure = failure.because(error).with_code("BC0613");
    match error.remedy() {
        Some(remedy) => failure.with_help(remedy),
        None => failure,
    }
}

/// What belongs to a state folder is called outside of it, on the whole host. By which folder it is
/// and not by its path, which means another one in another mount namespace.
fn host_name(state: &Path) -> String {
    let identity = match std::fs::metadata(state) {
        Ok(found) => [found.dev().to_le_bytes(), found.ino().to_le_bytes()].concat(),
        // It is gone, and whatever needs it says so.
        Err(_) => state.as_os_str().as_encoded_bytes().to_vec(),
    };
    let name = barecount_model::digest::Digest::of(&identity).hex();
    format!("barecount-{}", &name[..16])
}

/// A running embedded platform.
pub(crate) struct Platform {
    /// The control plane.
    pub(crate) control: Control,
    /// The artifacts.
    pub(crate) artifacts: Store,
    /// What earlier runs answer.
    pub(crate) answers: Arc<Answers>,
    /// What happens.
    pub(crate) notices: mpsc::UnboundedReceiver<Notice>,
    /// How far the ledger is integrated.
    pub(crate) ledger: watch::Receiver<Progress>,
    /// How many attempts may be under way at once.
    pub(crate) caps: Caps,
    /// What makes commit decisions versions of tables.
    pub(crate) committer: Arc<dyn Committer>,
    follow: mpsc::UnboundedSender<Followed>,
    working: Mutex<Working>,
    agent: Agent,
    /// Where what the agent is told goes.
    orders: LocalOrders,
    runners: Runners,
    /// What attempts had their secrets from.
    secrets: Option<SecretsService>,
}

impl Platform {
    /// Opens the platform of a state folder that is held. What an earlier process had staged and not
    /// decided for is removed, or told of where it cannot be.
    pub(crate) async fn open(
        launcher: ForkedLauncher,
        lock: FolderLock,
        found: &Found,
        tables: StateTables,
        reporter: &dyn Reporter,
    ) -> Result<Self, Failure> {
        let state = &lock.folder().to_owned();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (updates_tx, mut updates) = mpsc::unbounded_channel();
        let (entries_tx, entries) = mpsc::unbounded_channel();
        let lock = layout::bring_held_up_to_date(lock)?;
        let ledger = OpenLedger::open(state, found)?;
        let tables = tables.sealed(ledger.table_seals());
        let notes = ledger.notes()?;
        let held = (lock, ledger.sealing());
        let opened = Control::open_until(held, clock.clone(), (updates_tx, entries_tx), end_at()?);
        let control = opened.map_err(|error| open_failure(&error))?;
        let working = working(state)?;
        let folders = StagingFolders::new(state);
        let artifacts = artifacts(state)?.sealed(ledger.trees());
        let ledger = ledger.start(&control, entries)?;
        let (gate, runners) = runners(launcher, state, found, reporter).await?;
        sweep(&folders, &runners, &mut updates, reporter).await?;
        let (data, answers) = datasets(state, tables, &artifacts, &runners, notes);
        let secrets = secrets::locate(found, state)?.map(|location| location.service(state));
        let (events_tx, told) = mpsc::unbounded_channel();
        let config = agent_config(
            &runners,
            &data,
            &artifacts,
            folders,
            secrets.clone(),
            &control,
        );
        let agent = Agent::new(config, events_tx);
        let (end, link) = link::local();
        let orders = end.orders.clone();
        tokio::spawn(link::serve(agent.clone(), told, Arc::new(link)));
        let (follow, followed) = mpsc::unbounded_channel();
        let caps = caps(&found.environment);
        let notices = Driver::spawn(
            control.clone(),
            end,
            Arc::clone(&data) as Arc<dyn Committer>,
            Gates::new(gate, &answers, runners.registry.clone()),
            clock,
            Reconciler::new(caps.clone()),
            Inbox { updates, followed },
        );
        Ok(Self {
            control,
            artifacts,
            answers,
            notices,
            ledger,
            caps,
            committer: data,
            follow,
            working: Mutex::new(working),
            agent,
            orders,
            runners,
            secrets,
        })
    }

    /// Says to whoever looks that a run is worked on, before it is followed.
    ///
    /// # Errors
    /// If that cannot be written down.
    pub(crate) fn work_on(&self, run: &RunId) -> Result<(), Failure> {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        let told = working.on(run);
        told.map_err(|error| unusable("nobody could be told what is worked on", &error))
    }

    /// The tasks of a new run that may be placed with its submission: their backends take work.
    ///
    /// # Errors
    /// If there is a stage that no backend here can carry out.
    pub(crate) async fn first(&self, run: &Run, plan: &Plan) -> Result<Vec<usize>, Failure> {
        for stage in &plan.stages {
            if let Err(unfit) = self.runners.registry.fit(stage) {
                let what = format!("stage `{}`: {unfit}", stage.name);
                return Err(Failure::new(Status::Usage, what)
                    .with_code(unfit.code().id)
                    .with_help(unfit.remedy()));
            }
        }
        let mut first = self.caps.first(run, plan);
        for stage in &plan.stages {
            if self.runners.registry.takes(stage).await.is_err() {
                first.retain(|task| *run.tasks[*task].stage != *stage.name);
            }
        }
        Ok(first)
    }

    /// Works on a run from now on. Runs that nobody follows stand still, whatever their state.
    pub(crate) fn follow(&self, run: Followed) {
        // The loop ends only with the platform.
        let _ = self.follow.send(run);
    }

    /// What attempts that are under way do now.
    pub(crate) fn activities(&self) -> Vec<Activity> {
        self.agent.activities()
    }

    /// What a person is to know of limits that this host gives in part.
    pub(crate) fn host_hint(&self) -> Option<&str> {
        self.runners.host_hint.as_deref()
    }

    /// What a person is to know of how secrets were given since this was asked last.
    pub(crate) fn hints(&self) -> Vec<String> {
        let service = self.secrets.as_ref();
        service
            .map(|service| service.hints.take())
            .unwrap_or_default()
    }

    /// Waits until what runs have left behind is cleaned up and their evidence is in the ledger,
    /// and ends everything that is kept warm.
    pub(crate) async fn close(self) -> Result<Progress, Failure> {
        self.orders.taken().await;
        self.agent.idle().await;
        self.runners.shut_down().await;
        let memory = self.secrets.as_ref().map(|service| &service.memory);
        if let Some(Err(error)) = memory.map(MemoryFolder::close) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "something is left of secrets; the next start removes it"
            );
        }
        recorder::close(self.control, self.ledger).await
    }

    /// Waits until all that is on record is signed, or never will be by this process.
    pub(crate) async fn signed(&self) {
        // Where the thread has ended, whoever needs a signature finds none.
        let _ = recorder::signed(&self.control, self.ledger.clone()).await;
    }
}

/// What the agent of a state folder works with.
fn agent_config(
    runners: &Runners,
    data: &Arc<StateData>,
    artifacts: &Store,
    folders: StagingFolders,
    secrets: Option<SecretsService>,
    control: &Control,
) -> AgentConfig {
    AgentConfig {
        runners: runners.registry.clone(),
        data: Arc::clone(data) as Arc<dyn barecount_agent::DataPlane>,
        artifacts: Arc::new(StoredArtifacts::new(artifacts.clone())),
        folders,
        secrets,
        identities: IdentityVerifier::new(control.identity_key()),
        clock: Arc::new(barecount_runner::clock::SystemClock::start()),
        disk: Disk::Threads,
    }
}

/// The append at which a build for tests ends, if it is told to by `BARECOUNT_END_AT_APPEND`.
fn end_at() -> Result<Option<EndAt>, Failure> {
    if !cfg!(debug_assertions) {
        return Ok(None);
    }
    let Ok(text) = std::env::var("BARECOUNT_END_AT_APPEND") else {
        return Ok(None);
    };
    let at: Result<EndAt, _> = text.parse();
    at.map(Some)
        .map_err(|error| Failure::from_error(Status::Usage, &error))
}

/// Tells whoever looks at the state folder that this process works in it.
fn working(state: &Path) -> Result<Working, Failure> {
    Working::begin(state).map_err(|error| unusable("nobody could be told who works here", &error))
}

fn artifacts(state: &Path) -> Result<Store, Failure> {
    Store::open(&state.join("artifacts"))
        .map_err(|error| unusable("the artifact store cannot be opened", &error))
}

/// Opens the paths of the environment's networks, and the runners whose work leaves by them.
async fn runners(
    launcher: ForkedLauncher,
    state: &Path,
    found: &Found,
    reporter: &dyn Reporter,
) -> Result<(Arc<PathGate>, Runners), Failure> {
    leftovers::of_runners(state, reporter).await?;
    let launcher = launcher.start().map_err(|error| no_launcher(&error))?;
    let keys = |name: &SecretName| secrets::of_environment(found, state, name);
    let tunnel = tunnel::open(&found.environment, &launcher, keys)?;
    let paths = networks::paths(&found.environment, tunnel)?;
    let gate = PathGate::new(paths.clone());
    let runners = Runners::open(launcher, state, &found.environment, paths)
        .map_err(|error| unusable("the runners' folders cannot be made", &error))?;
    Ok((Arc::new(gate), runners))
}

/// The datasets of the state folder, and what earlier runs answer by what stands in them.
fn datasets(
    state: &Path,
    tables: StateTables,
    artifacts: &Store,
    runners: &Runners,
    notes: (Checkpoints, Boundaries),
) -> (Arc<StateData>, Arc<Answers>) {
    let engine = Engine::new(
        Arc::clone(&runners.tests),
        state.join("runners/acceptance/files"),
        Arc::new(barecount_runner::clock::SystemClock::start()),
    );
    let answers = Answers::new(state.to_owned(), tables.clone());
    let data = StateData::new(state.to_owned(), tables, artifacts.clone(), engine, notes);
    (data, answers)
}

/// A ledger that is open, and held against what was signed before.
pub(crate) struct OpenLedger {
    state: PathBuf,
    log: ledger::Log,
    mark: Option<HighWater>,
}

impl OpenLedger {
    /// Opens the ledger of a state folder, with the key of the environment or of the user.
    ///
    /// # Errors
    /// If the key cannot be used, or the ledger is not the one that was signed.
    pub(crate) fn open(state: &Path, found: &Found) -> Result<Self, Failure> {
        let key_file = ledger::key_file(state, found.signing_key().as_deref())?;
        ledger::refuse_open_key(&key_file)?;
        let log = ledger::open(state, &key_file).map_err(|error| {
            let (code, help) = error.code_and_help();
            Failure::from_error(Status::Unavailable, &error)
                .with_code(code)
                .with_help(help)
        })?;
        let mark = HighWater::of(state);
        if mark.is_none() {
            tracing::warn!(
                "there is no folder for this user's keys: it would not be noticed if the state \
                 folder were put back to an older copy; set HOME"
            );
        }
        Ok(Self {
            state: state.to_owned(),
            log,
            mark,
        })
    }

    /// What tells the entries that wait for this ledger from any that somebody else put there.
    pub(crate) fn sealing(&self) -> Sealing {
        Sealing::new(SealKey::new(self.log.derived_key(SEALS)), self.log.size())
    }

    /// What is noted of checkpoints and of boundaries. The first time that a folder is opened by a
    /// program that seals them, those that are there are sealed as they are; that it was is kept with
    /// the keys, lest somebody has them sealed once more.
    fn notes(&self) -> Result<(Checkpoints, Boundaries), Failure> {
        let key = SealKey::new(self.log.derived_key(NOTES));
        let checkpoints = Checkpoints::new(self.state.clone(), key.clone());
        let boundaries = Boundaries::new(self.state.join("boundaries")).sealed(key);
        let Ok(done) = ledger::user_key(&self.state, "sealed") else {
            // Without a place for keys there is none to keep it either: what has no seal stays so.
            return Ok((checkpoints, boundaries));
        };
        let first = || -> std::io::Result<()> {
            if done.try_exists()? {
                return Ok(());
            }
            checkpoints.seal_all()?;
            boundaries.seal_all()?;
            private_folder::make(done.parent().unwrap_or(Path::new(".")))?;
            std::fs::File::create(&done)?.sync_all()
        };
        first().map_err(|error| unusable("checkpoints and boundaries cannot be sealed", &error))?;
        Ok((checkpoints, boundaries))
    }

    /// What tells what this program wrote into tables' logs from what somebody else put there.
    fn table_seals(&self) -> SealKey {
        SealKey::new(self.log.derived_key(ledger::TABLE_SEALS))
    }

    /// What tells the lists of what was unpacked from any that somebody else wrote.
    fn trees(&self) -> SealKey {
        SealKey::new(self.log.derived_key(TREES))
    }

    /// Integrates what the control plane queues.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub(crate) fn start(
        self,
        control: &Control,
        entries: mpsc::UnboundedReceiver<Entries>,
    ) -> Result<watch::Receiver<Progress>, Failure> {
        let runtime = tokio::runtime::Handle::current();
        let log = (self.state, self.log);
        ledger::spawn(log, self.mark, control.ledger_port(), entries, runtime)
            .map_err(|error| unusable("the ledger's thread cannot be started", &error))
    }
}

/// What the key of a journal's seals is derived for.
const SEALS: &str = "barecount journal seals v1";
/// What the key of the seals of checkpoints and boundaries is derived for.
const NOTES: &str = "barecount notes seals v1";
/// What the key of the seals of unpacked trees is derived for.
const TREES: &str = "barecount trees seals v1";

/// Removes the staging folders that are not needed any more, and tells of what cannot be removed.
async fn sweep(
    folders: &StagingFolders,
    runners: &Runners,
    updates: &mut mpsc::UnboundedReceiver<Update>,
    reporter: &dyn Reporter,
) -> Result<(), Failure> {
    let keep = still_counts(folders, runners, updates).await;
    leftovers::of_attempts(folders, keep, reporter).await
}

/// The attempts whose staging folders are still needed: those that a commit decision names, and those
/// that an earlier process had under way if there is an end that nobody has heard of, until somebody
/// asks for their runs. Of the others nothing will ever be made, and what they left elsewhere goes
/// with them. The control plane tells all open runs first.
async fn still_counts(
    folders: &StagingFolders,
    runners: &Runners,
    updates: &mut mpsc::UnboundedReceiver<Update>,
) -> Vec<AttemptToken> {
    let mut keep = Vec::new();
    while let Ok(update) = updates.try_recv() {
        for task in &update.run.tasks {
            let Some(current) = task.current() else {
                continue;
            };
            let token = AttemptToken {
                task: task.id.clone(),
                number: current.number,
            };
            let counts = match task.state {
                TaskState::Committing => true,
                TaskState::Active => {
                    let stage = update.plan.stage(&task.stage);
                    folders.holds_end(&token) || goes_on(runners, stage, &token).await
                }
                _ => false,
            };
            keep.extend(counts.then_some(token));
        }
    }
    keep
}

/// Whether an attempt's backend knows of it still. What it does not know of is gone, and cleaned up.
async fn goes_on(runners: &Runners, stage: Option<&StagePlan>, token: &AttemptToken) -> bool {
    let found = stage.and_then(|stage| runners.registry.get(stage.class, &stage.backend));
    let Some(runner) = found else {
        return true;
    };
    // One that cannot be asked is asked again by whoever takes up the run.
    !matches!(runner.recover(token).await, Ok(Recovered::Gone))
}

fn caps(environment: &Environment) -> Caps {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let class: HashMap<_, _> = environment
        .class_concurrency
        .iter()
        .map(|(class, cap)| (*class, *cap as usize))
        .collect();
    let total = environment
        .total_concurrency
        .map_or(2 * processors.max(2), |cap| cap as usize);
    Caps { total, class }
}

pub(crate) fn open_failure(error: &OpenError) -> Failure {
    let failure = Failure::from_error(Status::Unavailable, error);
    match error {
        OpenError::Locked { .. } => failure.with_code("BC0803").with_help(
            "Wait for the other `barecount` to end, or name another state folder with `--state`.",
        ),
        OpenError::Newer { .. } => failure
            .with_code("BC0805")
            .with_help("Use the newer program that wrote it."),
        // What is in it is not what was made there.
        OpenError::Folder { source, .. } if source.kind() == std::io::ErrorKind::InvalidInput => {
            failure
                .with_code("BC0804")
                .with_help("Find out who put it there, or name another state folder with `--state`.")
        }
        OpenError::Folder { .. } | OpenError::Database { .. } => failure
            .with_code("BC0804")
            .with_help("Make it writable, or name another one with `--state`."),
        OpenError::Older { .. } => failure.with_code("BC0802").with_help(
            "Any `barecount run`, or `barecount runs ls` where no run is under way, brings it up to \
             date; nothing of it is lost.",
        ),
        OpenError::Unreadable { source, .. } => match **source {
            StoreError::Foreign { .. } => failure.with_code(codes::JOURNAL_FOREIGN.id).with_help(
                "Nothing of it is signed. Find out who can write this folder, and put back a copy \
                 of it from before.",
            ),
            StoreError::Unsigned { .. } => failure.with_code(codes::JOURNAL_FOREIGN.id).with_help(
                "Any command of the program that wrote it signs them; then this one goes on.",
            ),
            _ => failure.with_code("BC0802"),
        },
    }
}

fn unusable(what: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Status::Unavailable, format!("{what}: {}", chain(error))).with_code("BC0804")
}
