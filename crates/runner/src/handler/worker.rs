//! One handler's process in its sandbox, and one attempt after the other on it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use barecount_sandbox::{Exit, ExitStatus, Root, Spec};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    http, payload,
    pool::{Key, Permit},
    processes::Rest,
    protocol::{Conversation, Outcome},
    secrets::SecretsFolder,
    slots::{Placed, Replaced, Slots},
};
use crate::{
    RunnerError,
    launch::{End, Ended, HandlerProgram, Launch, LogSummary, Usage},
    local::{
        Host, Orders,
        host::failure,
        log::LogTarget,
        places::{self, Access},
        records::blocking,
        sandboxed::{self, Input, Process},
    },
};

/// Where a function finds the Runtime API.
const RUNTIME_API: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9001);
/// How long a function that has answered may take to ask for the next event, if it is to be used
/// again.
const SETTLE: Duration = Duration::from_millis(200);

/// What a handler's error is called that says that its checkpoint is whole: status 75 by name.
const SAVED: &str = "EX_TEMPFAIL";

/// A handler's process. Dropping it ends it.
pub(super) struct Worker {
    pub(super) key: Arc<Key>,
    pub(super) name: String,
    process: Process,
    conversation: Arc<Conversation>,
    server: JoinHandle<()>,
    slots: Slots,
    secrets: Option<SecretsFolder>,
    rest: Option<Rest>,
    served: u64,
    /// Given back last: until then the sandbox counts.
    _permit: Permit,
}

/// What came of an attempt on a worker.
pub(super) enum Served {
    Ended(Box<Ended>),
    /// The process died before it took the event: the attempt has not begun.
    NotBegun,
}

/// What happened to an invocation.
enum Happened {
    Settled(Outcome),
    Exited(Exit),
    Stopped { saved: bool },
    NotBegun,
}

impl Worker {
    /// Starts a process, whose log begins as that of `launch`.
    pub(super) async fn start(
        host: &Host,
        launch: &Launch,
        key: Arc<Key>,
        folder: PathBuf,
        permit: Permit,
    ) -> Result<Self, RunnerError> {
        let given = launch.secrets.clone();
        let made = blocking(move || {
            // Lent before the process starts: what initialises may need them.
            let secrets = given.as_ref().map(SecretsFolder::create).transpose()?;
            Ok((Slots::create(folder)?, secrets))
        });
        let (slots, secrets) = made
            .await
            .map_err(|error| failure("make a sandbox's folders", error))?;
        let mut spec = started(launch, &key.program)?;
        spec.mounts.extend(slots.mounts());
        let folder = secrets.as_ref().map(SecretsFolder::path);
        spec.mounts.extend(places::lasting_mounts(launch, folder));
        let process = Process::start(host, launch, spec, Input::Nothing).await?;
        let slots = blocking(move || {
            let mut slots = slots;
            slots.opened().map(|()| slots)
        })
        .await
        .map_err(|error| failure("take a sandbox's folders back", error))?;
        let conversation = Arc::new(Conversation::new());
        let server = serve(&process, &conversation)?;
        Ok(Self {
            key,
            name: launch.token.to_string(),
            process,
            conversation,
            server,
            slots,
            secrets,
            rest: None,
            served: 0,
            _permit: permit,
        })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// Carries one attempt out.
    pub(super) async fn serve(
        &mut self,
        host: &Host,
        launch: &Launch,
        event: &serde_json::Value,
        orders: &mut Orders,
    ) -> Result<Served, RunnerError> {
        let warm = self.served > 0;
        self.served += 1;
        if !warm {
            // Its log was there before its first byte.
            self.initialise(orders).await;
        }
        if warm {
            self.process.admit(launch.network.clone())?;
        }
        if warm {
            let attached = self.process.log.attach(LogTarget::of(launch)).await;
            attached.map_err(|error| failure("open the log", error))?;
        }
        let placed = self.place(launch, warm)?;
        orders.places_are(placed.slots());
        let deadline = u64::try_from(launch.timeout.as_millis()).unwrap_or(u64::MAX);
        let deadline = host.clock.unix_millis().saturating_add(deadline);
        let invocation = payload::invocation(launch, event, &placed, deadline);
        let answer = self.conversation.invoke(invocation);
        let happened = self.follow(host, answer, orders).await;
        let used = self.process.lap();
        // Whatever happened, the places go back to where they are looked for.
        let secrets = self
            .secrets
            .as_mut()
            .map_or(Ok(()), SecretsFolder::take_back);
        let replaced = self
            .slots
            .take(&placed)
            .map_err(|error| failure("take an attempt's folders", error))?;
        orders.places_are(Vec::new());
        secrets.map_err(|error| failure("take an attempt's secrets", error))?;
        let log = self.process.log.detach().await;
        let flows = self.process.flows().await;
        Ok(match happened? {
            Happened::NotBegun => Served::NotBegun,
            happened => {
                let mut ended = self.ended(happened, replaced.err(), used, log, warm);
                ended.flows = flows;
                Served::Ended(Box::new(ended))
            }
        })
    }

    async fn follow(
        &self,
        host: &Host,
        mut answer: oneshot::Receiver<Outcome>,
        orders: &mut Orders,
    ) -> Result<Happened, RunnerError> {
        let exit = tokio::select! {
            biased;
            outcome = &mut answer => match outcome {
                Ok(outcome) => return Ok(Happened::Settled(outcome)),
                // The conversation has dropped it, which it does with the process only.
                Err(_) => self.process.exited().await?,
            },
            exit = self.process.exited() => exit?,
            _ = orders.not_to_go_on() => {
                let saved = self.stop(host, answer, orders).await?;
                return Ok(Happened::Stopped { saved });
            }
        };
        // An answer that arrived before the end counts, whichever was noticed first.
        if let Ok(outcome) = answer.try_recv() {
            return Ok(Happened::Settled(outcome));
        }
        if self.served > 1 && self.conversation.withdraw() {
            return Ok(Happened::NotBegun);
        }
        Ok(Happened::Exited(exit))
    }

    /// Ends the process as ordered; whether it said first that its checkpoint is whole.
    async fn stop(
        &self,
        host: &Host,
        mut answer: oneshot::Receiver<Outcome>,
        orders: &mut Orders,
    ) -> Result<bool, RunnerError> {
        let answered = tokio::select! {
            biased;
            Ok(outcome) = &mut answer => outcome,
            exit = self.process.end(host, orders) => {
                return Ok(exit?.status == ExitStatus::Code(sandboxed::SAVED));
            }
        };
        self.process.kill();
        self.process.exited().await?;
        Ok(matches!(answered, Outcome::Failed { error_type, .. } if error_type.raw() == SAVED))
    }

    fn ended(
        &self,
        happened: Happened,
        replaced: Option<Replaced>,
        used: Usage,
        log: LogSummary,
        warm: bool,
    ) -> Ended {
        let usage = match &happened {
            Happened::Exited(exit) if !warm => sandboxed::usage(&exit.usage),
            Happened::Exited(exit) => self.process.last_lap(exit),
            Happened::Settled(_) | Happened::Stopped { .. } | Happened::NotBegun => used,
        };
        let saved = matches!(happened, Happened::Stopped { saved: true });
        let end = match (happened, replaced) {
            (Happened::Settled(Outcome::Answered(_)), Some(replaced)) => End::HandlerError {
                error_type: "Runtime.FolderReplaced".into(),
                message: replaced.to_string().into(),
            },
            (Happened::Settled(Outcome::Answered(response)), None) => End::Answered { response },
            (
                Happened::Settled(Outcome::Failed {
                    error_type,
                    message,
                }),
                _,
            ) => End::HandlerError {
                error_type,
                message,
            },
            (Happened::Exited(exit), _) => exited(&exit),
            (Happened::Stopped { .. } | Happened::NotBegun, _) => End::Stopped,
        };
        Ended {
            end,
            usage,
            metered: Vec::new(),
            enforcement: self.process.enforcement().clone(),
            log,
            warm,
            flows: None,
            saved,
        }
    }

    /// Places the attempt's folders; its secrets, too, unless it has them since the start of the
    /// process.
    ///
    /// Here and not where work may block: these are a dozen operations on names, each of some
    /// microseconds, and going there and back takes longer than all of them.
    fn place(&mut self, launch: &Launch, warm: bool) -> Result<Placed, RunnerError> {
        let mut place = || {
            if let (true, Some(folder), Some(given)) = (warm, &mut self.secrets, &launch.secrets) {
                folder.lend(given)?;
            }
            self.slots.place(&launch.places)
        };
        place().map_err(|error: std::io::Error| match error.kind() {
            std::io::ErrorKind::CrossesDevices => RunnerError::Unlaunchable {
                reason: "the attempt's folders and the runner's are on different file systems"
                    .to_owned(),
                remedy: "Keep the agent's whole state folder on one file system.".to_owned(),
            },
            _ => failure("place an attempt's folders", error),
        })
    }

    /// Whether it can serve another attempt: it waits for an event, behaved, and has left neither
    /// processes nor files behind. Waits for a moment until that is so.
    pub(super) async fn settle(&mut self, host: &Host) -> bool {
        tokio::select! {
            biased;
            () = self.conversation.waits() => {}
            _ = self.process.exited() => return false,
            () = host.clock.sleep(SETTLE) => return false,
        }
        if self.conversation.misbehaved() {
            return false;
        }
        let Some(rest) = self.rest.take() else {
            return false;
        };
        let init = self.process.pid();
        let restored = self.slots.restore();
        let restored =
            blocking(move || Ok((restored? && rest.restore(init)?).then_some(rest))).await;
        match restored {
            Ok(rest) => {
                self.rest = rest;
                self.rest.is_some()
            }
            Err(error) => {
                tracing::debug!(%error, worker = self.name, "a function's process is not used again");
                false
            }
        }
    }

    /// Waits until the function has initialised, and notes how it looks at rest. Also resolves when
    /// it never will.
    async fn initialise(&mut self, orders: &mut Orders) {
        tokio::select! {
            biased;
            () = self.conversation.initialised() => {}
            _ = self.process.exited() => return,
            _ = orders.not_to_go_on() => return,
        }
        let init = self.process.pid();
        // Without it the process serves this attempt and is not used again.
        self.rest = blocking(move || Rest::of(init)).await.ok();
    }

    /// Ends it, and resolves once nothing is left.
    pub(super) async fn retire(self) {
        self.process.kill();
        drop(self.process.exited().await);
        // What the program wrote is removed with it, which takes as long as there is much.
        if let Err(error) = blocking(move || {
            drop(self);
            Ok(())
        })
        .await
        {
            tracing::warn!(%error, "a sandbox's folders were not removed");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// How the program is started, but for the mounts of its places.
fn started(launch: &Launch, program: &HandlerProgram) -> Result<Spec, RunnerError> {
    let name = sandboxed::name(&launch.token)?;
    let mut spec = match program {
        HandlerProgram::Package(package) => {
            let bootstrap = format!("{}/bootstrap", payload::TASK_ROOT);
            let mut spec = Spec::new(name, vec![bootstrap]);
            spec.cwd = payload::TASK_ROOT.into();
            spec.mounts
                .push(places::bind(package, payload::TASK_ROOT, Access::Run));
            spec
        }
        HandlerProgram::Image {
            root,
            argv,
            working_dir,
        } => {
            let mut spec = Spec::new(name, argv.clone());
            spec.root = Root::Directory(root.clone());
            spec.cwd.clone_from(working_dir);
            spec
        }
    };
    spec.env = payload::environment(launch, program, &RUNTIME_API.to_string());
    spec.limits = sandboxed::limits(&launch.limits);
    spec.listeners = vec![RUNTIME_API];
    Ok(spec)
}

fn serve(
    process: &Process,
    conversation: &Arc<Conversation>,
) -> Result<JoinHandle<()>, RunnerError> {
    let listener = process.take_listeners()?.pop();
    let listener = listener.ok_or_else(|| failure("take a listening socket", "there is none"))?;
    Ok(tokio::spawn(http::serve(listener, conversation.clone())))
}

/// A function that ends instead of answering has failed, however it ended.
fn exited(exit: &Exit) -> End {
    match exit.status {
        _ if exit.oom_killed => End::OutOfMemory,
        ExitStatus::Code(0) => End::HandlerError {
            error_type: "Runtime.ExitError".into(),
            message: "the function exited with status 0 without answering".into(),
        },
        ExitStatus::Code(code) => End::Exited { code },
        ExitStatus::Signal(signal) => End::Signalled { signal },
    }
}
