//! A process in a sandbox: started, watched, stopped.

use std::{
    io::{self, Seek, Write},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use barecount_network::{policy::Policy, record::FlowLog};
use barecount_sandbox::{
    Brokered, Enforcement, Exit, ExitStatus, Meter, Sandbox, SandboxName, Signal, Spec, Stdio,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpListener,
    sync::watch,
};

use super::{
    attempt::{Order, Orders, Shared},
    host::{Host, failure, launch_failure},
    log::{LogPipe, LogTarget},
    network::Network,
    records::blocking,
};
use crate::{
    RunnerError,
    launch::{self, AttemptToken, End, Ended, Launch, LogSummary},
};

/// A running sandbox and its log. Dropping it ends the sandbox.
pub(crate) struct Process {
    sandbox: Arc<Sandbox>,
    listeners: Mutex<Vec<OwnedFd>>,
    meter: Mutex<Option<Meter>>,
    network: Option<Network>,
    /// Where its two streams go.
    pub(crate) log: LogPipe,
    enforcement: serde_json::Value,
    exit: watch::Receiver<Option<Result<Exit, Shared>>>,
    watcher: tokio::task::JoinHandle<()>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    /// Whether it had been asked to stop before.
    pub(crate) stopped: bool,
}

/// What a process finds on its standard input.
pub(crate) enum Input {
    Nothing,
    Text(Vec<u8>),
}

impl Process {
    /// Starts a process whose log is that of `launch`, from its first byte. Blocks nothing but a
    /// thread of the pool; when dropped half-way, the sandbox ends as soon as it has started.
    pub(crate) async fn start(
        host: &Host,
        launch: &Launch,
        mut spec: Spec,
        input: Input,
    ) -> Result<Self, RunnerError> {
        let policy = launch.network.clone();
        let policy = policy.filter(|_| launch.isolation == launch::Isolation::Sandbox);
        if let Some(policy) = &policy {
            let declared_ports = policy.ports().into_iter().collect();
            spec.network = barecount_sandbox::Network::Brokered(Brokered { declared_ports });
        }
        let (log, writer) = LogPipe::open().map_err(|error| failure("open a log pipe", error))?;
        log.attach(LogTarget::of(launch))
            .await
            .map_err(|error| failure("open the log", error))?;
        let launcher = host.launcher.clone();
        let launched = tokio::task::spawn_blocking(move || {
            let stdio = stdio(input, writer).map_err(|error| failure("open the streams", error))?;
            launcher.launch(&spec, stdio).map_err(launch_failure)
        });
        let sandbox = launched
            .await
            .map_err(|error| failure("start a sandbox", error))??;
        Self::watch(sandbox, log, host, policy)
    }

    fn watch(
        mut sandbox: Sandbox,
        log: LogPipe,
        host: &Host,
        policy: Option<Policy>,
    ) -> Result<Self, RunnerError> {
        let network = sandbox
            .take_intercepted()
            .zip(policy)
            .map(|(intercepted, policy)| Network::serve(intercepted, host.paths.clone(), policy))
            .transpose()?;
        let enforcement = evidence(sandbox.enforcement());
        let listeners = Mutex::new(sandbox.take_listeners());
        let meter = Mutex::new(sandbox.take_meter());
        let exit_fd = sandbox
            .exit_fd()
            .try_clone_to_owned()
            .and_then(readiness)
            .map_err(|error| failure("watch a sandbox", error))?;
        let sandbox = Arc::new(sandbox);
        let (sender, exit) = watch::channel(None);
        let watched = sandbox.clone();
        let watcher = tokio::spawn(async move {
            let exit = exit_of(&watched, exit_fd).await;
            sender.send_replace(Some(exit));
        });
        Ok(Self {
            sandbox,
            listeners,
            meter,
            network,
            log,
            enforcement,
            exit,
            watcher,
        })
    }

    /// The listening sockets that were opened inside.
    pub(crate) fn take_listeners(&self) -> Result<Vec<TcpListener>, RunnerError> {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *listeners)
            .into_iter()
            .map(|listener| TcpListener::from_std(listener.into()))
            .collect::<io::Result<_>>()
            .map_err(|error| failure("take a listening socket", error))
    }

    /// Lets another attempt's connections through, as its policy says.
    pub(crate) fn admit(&self, policy: Option<Policy>) -> Result<(), RunnerError> {
        match (&self.network, policy) {
            (Some(network), Some(policy)) => network.begin(policy),
            _ => Ok(()),
        }
    }

    /// Ends what the attempt has open, and says what it reached and was refused; `None` without a
    /// broker.
    pub(crate) async fn flows(&self) -> Option<FlowLog> {
        match &self.network {
            Some(network) => network.end().await,
            None => None,
        }
    }

    /// Which parts of the boundary hold.
    pub(crate) fn enforcement(&self) -> &serde_json::Value {
        &self.enforcement
    }

    /// What it has used since this was last asked, or since it started; nothing is known without a
    /// control group.
    pub(crate) fn lap(&self) -> launch::Usage {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter
            .as_mut()
            .map(Meter::lap)
            .as_ref()
            .map_or_else(launch::Usage::default, usage)
    }

    /// The same at its end.
    pub(crate) fn last_lap(&self, exit: &Exit) -> launch::Usage {
        let meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        match &*meter {
            Some(meter) => usage(&meter.last(&exit.usage)),
            None => launch::Usage::default(),
        }
    }

    /// The first process of the sandbox, as this host counts.
    pub(crate) fn pid(&self) -> i32 {
        self.sandbox.pid()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Resolves when the sandbox has ended. Cancel-safe.
    pub(crate) async fn exited(&self) -> Result<Exit, RunnerError> {
        let mut exit = self.exit.clone();
        let result = match exit.wait_for(Option::is_some).await {
            Ok(result) => result.clone(),
            Err(_) => None,
        };
        match result {
            Some(Ok(exit)) => Ok(exit),
            Some(Err(error)) => Err(failure("hear of a sandbox's end", error)),
            None => Err(failure("hear of a sandbox's end", "its watcher is gone")),
        }
    }

    /// Asks the payload to stop. What has ended meanwhile needs no asking.
    pub(crate) fn terminate(&self) {
        drop(self.sandbox.signal(Signal::TERM));
    }

    /// Ends the whole tree. What has ended meanwhile needs no ending.
    pub(crate) fn kill(&self) {
        drop(self.sandbox.kill());
    }

    /// Resolves when it has ended, of itself or as ordered.
    pub(crate) async fn run(&self, host: &Host, orders: &mut Orders) -> Result<Ran, RunnerError> {
        tokio::select! {
            biased;
            exit = self.exited() => return Ok(Ran { exit: exit?, stopped: false }),
            _ = orders.not_to_go_on() => {}
        }
        let exit = self.end(host, orders).await?;
        Ok(Ran {
            exit,
            stopped: true,
        })
    }

    /// Ends it as ordered: at once, or with a grace.
    pub(crate) async fn end(&self, host: &Host, orders: &mut Orders) -> Result<Exit, RunnerError> {
        if let Order::Stop { grace } = orders.current() {
            self.terminate();
            tokio::select! {
                biased;
                exit = self.exited() => return exit,
                () = orders.destroyed() => {}
                () = host.clock.sleep(grace) => {}
            }
        }
        self.kill();
        self.exited().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watcher holds the sandbox too: with it gone, the last holder ends the sandbox.
        self.watcher.abort();
        self.kill();
    }
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe, and asks for what an owned descriptor keeps by its type: \
              that it stays open and the same"
)]
fn readiness(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

async fn exit_of(sandbox: &Sandbox, exit_fd: AsyncFd<OwnedFd>) -> Result<Exit, Shared> {
    loop {
        let mut ready = exit_fd.readable().await.map_err(Shared::new)?;
        match sandbox.try_wait().map_err(Shared::new)? {
            Some(exit) => return Ok(exit),
            None => ready.clear_ready(),
        }
    }
}

fn stdio(input: Input, writer: OwnedFd) -> io::Result<Stdio> {
    let mut stdio = Stdio::null()?;
    stdio.stdout = writer.try_clone()?;
    stdio.stderr = writer;
    if let Input::Text(text) = input {
        // A file rather than a pipe: whoever does not read it blocks nobody.
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = std::fs::File::from(rustix::fs::memfd_create("input", flags)?);
        file.write_all(&text)?;
        file.rewind()?;
        stdio.stdin = file.into();
    }
    Ok(stdio)
}

fn evidence(enforcement: &Enforcement) -> serde_json::Value {
    // A map with text keys always has a JSON form.
    serde_json::to_value(enforcement).unwrap_or_default()
}

/// The sandbox of an attempt that has one to itself.
pub(crate) fn name(token: &AttemptToken) -> Result<SandboxName, RunnerError> {
    SandboxName::new(token.to_string()).map_err(|error| failure("name a sandbox", error))
}

/// The limits of a launch, as the sandbox takes them.
pub(crate) fn limits(limits: &launch::Limits) -> barecount_sandbox::Limits {
    barecount_sandbox::Limits {
        memory_bytes: Some(limits.memory_bytes),
        cpu_millis: Some(limits.cpu_millis),
        cpus: None,
        pids: Some(limits.pids),
        open_files: Some(limits.open_files.into()),
        file_size_bytes: limits.file_bytes,
        tmp_bytes: Some(limits.scratch_bytes),
    }
}

/// The boundary of a launch, as the sandbox takes it.
pub(crate) fn isolation(isolation: launch::Isolation) -> barecount_sandbox::Isolation {
    match isolation {
        launch::Isolation::Sandbox => barecount_sandbox::Isolation::Sandbox,
        launch::Isolation::Process => barecount_sandbox::Isolation::Process,
    }
}

/// What a sandbox used, as evidence has it.
pub(crate) fn usage(usage: &barecount_sandbox::Usage) -> launch::Usage {
    launch::Usage {
        cpu_micros: usage.cpu_micros,
        memory_peak_bytes: usage.memory_peak_bytes,
        io_read_bytes: usage.io_read_bytes,
        io_write_bytes: usage.io_write_bytes,
    }
}

/// The status of a program that was told to stop and has saved its checkpoint: `EX_TEMPFAIL`.
pub(crate) const SAVED: i32 = 75;

/// How work ended whose process ended so.
///
/// After a stop every end is a stop: a program that leaves with status 0 when asked to has not
/// finished what it was to do.
pub(crate) fn end(ran: &Ran) -> End {
    match ran.exit.status {
        _ if ran.stopped => End::Stopped,
        _ if ran.exit.oom_killed => End::OutOfMemory,
        ExitStatus::Code(code) => End::Exited { code },
        ExitStatus::Signal(signal) => End::Signalled { signal },
    }
}

/// Runs an attempt that has a sandbox to itself, from its log's opening to its end.
pub(crate) async fn one_process(
    host: Host,
    launch: &Launch,
    mut orders: Orders,
    spec: Spec,
    input: Input,
) -> Result<super::Started, RunnerError> {
    let process = Process::start(&host, launch, spec, input).await?;
    Ok(super::Started {
        native: launch.token.to_string(),
        ended: Box::pin(async move {
            let ran = process.run(&host, &mut orders).await?;
            let log = process.log.detach().await;
            let flows = process.flows().await;
            Ok(ended(&ran, &process, log, flows))
        }),
    })
}

fn ended(ran: &Ran, process: &Process, log: LogSummary, flows: Option<FlowLog>) -> Ended {
    Ended {
        flows,
        end: end(ran),
        saved: ran.stopped && ran.exit.status == ExitStatus::Code(SAVED),
        usage: usage(&ran.exit.usage),
        metered: Vec::new(),
        enforcement: process.enforcement().clone(),
        log,
        warm: false,
    }
}

/// Nothing of an attempt outlives the agent but control groups, which are swept for all together.
pub(crate) async fn sweep(host: &Host) -> Result<(), RunnerError> {
    let launcher = host.launcher.clone();
    blocking(move || launcher.sweep().map_err(io::Error::other))
        .await
        .map(drop)
        .map_err(|error| failure("sweep what was left behind", error))
}
