//! The backends under test.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use barecount_model::class::RunnerClass;
use barecount_runner::{
    Runner,
    conformance::{Behaviour, IGNORING, Subject},
    container::Container,
    dedicated_compute::DedicatedCompute,
    fake::{Fake, Playbook, Script},
    handler::PoolLimits,
    launch::{End, HandlerProgram, Launch, ReuseKey, Root, Work},
    local::{Class, Host, Local},
    managed_etl::{EngineProgram, ManagedEtl},
    serverless::Serverless,
};

use crate::{
    ground::Ground,
    payload::{APP, COMMAND, ENGINE, HANDLER, LOADER},
    shared::Shared,
};

/// A backend under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Under {
    Fake,
    Container,
    Package,
    ContainerHandler,
    WarmContainer,
    DedicatedCompute,
    ManagedEtl,
    Serverless,
    WarmServerless,
}

impl Under {
    pub(crate) const ALL: &'static [Self] = &[
        Self::Fake,
        Self::Container,
        Self::Package,
        Self::ContainerHandler,
        Self::WarmContainer,
        Self::DedicatedCompute,
        Self::ManagedEtl,
        Self::Serverless,
        Self::WarmServerless,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fake => "fake",
            Self::Container => "container",
            Self::Package => "container_package",
            Self::ContainerHandler => "container_handler",
            Self::WarmContainer => "container_warm",
            Self::DedicatedCompute => "dedicated_compute",
            Self::ManagedEtl => "managed_etl",
            Self::Serverless => "serverless",
            Self::WarmServerless => "serverless_warm",
        }
    }

    /// Checks that make no sense of a backend, each with a reason to be found in the code.
    pub(crate) fn declines(self, check: &str) -> bool {
        // It runs nothing that could try to.
        self == Self::Fake
            && (check == "inputs_can_be_read_and_not_changed"
                || check == "scratch_is_empty_for_every_attempt"
                || check == "a_process_left_in_the_background_does_not_outlive_the_attempt")
    }

    pub(crate) fn subject(self, shared: &Shared) -> io::Result<Arc<dyn Subject>> {
        if self == Self::Fake {
            let clock = shared.clock.clone();
            return Ok(Arc::new(FakeSubject {
                fake: Fake::new(RunnerClass::Container, clock, Playbook::default()),
                opened: Mutex::new(false),
                ground: Ground::new(shared)?,
            }));
        }
        Ok(Arc::new(self.local(shared, Ground::new(shared)?)))
    }

    /// An embedded backend on a ground.
    pub(crate) fn local(self, shared: &Shared, ground: Ground) -> LocalSubject {
        LocalSubject {
            make: self.make(shared),
            work: self.work(shared),
            reuse: matches!(self, Self::WarmServerless | Self::WarmContainer)
                .then(|| ReuseKey::of_any_run("key")),
            open: tokio::sync::Mutex::new(None),
            ground,
        }
    }

    fn make(self, shared: &Shared) -> Make {
        let host = shared.host();
        match self {
            Self::DedicatedCompute => Box::new(move |state| {
                let leases = state.join("leases");
                opened(
                    DedicatedCompute::new(host.clone(), vec![0], Ok(leases)),
                    state,
                )
            }),
            Self::ManagedEtl => {
                let engine = EngineProgram {
                    path: shared.files.join("image/payload"),
                    args: vec![ENGINE.to_owned()],
                };
                Box::new(move |state| opened(ManagedEtl::new(host.clone(), engine.clone()), state))
            }
            Self::Serverless | Self::WarmServerless => Box::new(move |state| {
                let class = serverless(host.clone(), Duration::from_secs(60), state);
                opened(class.expect("the temporary folder can be written"), state)
            }),
            _ => Box::new(move |state| {
                let class = container(host.clone(), Duration::from_secs(60), state);
                opened(class.expect("the temporary folder can be written"), state)
            }),
        }
    }

    fn work(self, shared: &Shared) -> Box<dyn Fn(&Behaviour) -> Work + Send + Sync> {
        let image = shared.files.join("image");
        let package = shared.files.join("package");
        let json = |behaviour: &Behaviour| {
            serde_json::to_string(behaviour).expect("a behaviour has a JSON form")
        };
        match self {
            Self::ManagedEtl => Box::new(|behaviour| Work::Job {
                spec: serde_json::to_value(behaviour).expect("a behaviour has a JSON form"),
            }),
            Self::Serverless | Self::WarmServerless => Box::new(move |behaviour| Work::Handler {
                program: HandlerProgram::Package(package.clone()),
                event: serde_json::to_value(behaviour).expect("a behaviour has a JSON form"),
            }),
            Self::ContainerHandler | Self::WarmContainer => {
                Box::new(move |behaviour| Work::Handler {
                    program: image_handler(&image),
                    event: serde_json::to_value(behaviour).expect("a behaviour has a JSON form"),
                })
            }
            Self::Package => Box::new(move |behaviour| Work::Command {
                root: Root::Package(package.clone()),
                argv: [
                    LOADER,
                    "--library-path",
                    APP,
                    "/app/bootstrap",
                    COMMAND,
                    &json(behaviour),
                ]
                .map(str::to_owned)
                .to_vec(),
                working_dir: PathBuf::from("/app"),
            }),
            _ => Box::new(move |behaviour| Work::Command {
                root: Root::Image(image.clone()),
                argv: vec!["/payload".to_owned(), COMMAND.to_owned(), json(behaviour)],
                working_dir: PathBuf::from("/"),
            }),
        }
    }
}

/// The program of an image under test that takes events.
pub(crate) fn image_handler(image: &Path) -> HandlerProgram {
    HandlerProgram::Image {
        root: image.to_owned(),
        argv: vec!["/payload".to_owned(), HANDLER.to_owned()],
        working_dir: PathBuf::from("/"),
    }
}

/// Containers on this host, with the folder that warm ones need.
pub(crate) fn container(host: Host, idle: Duration, state: &Path) -> io::Result<Container> {
    let limits = PoolLimits { sandboxes: 4, idle };
    Container::new(host, limits, &state.join("workers"))
}

/// Functions on this host, with the folder that they need.
pub(crate) fn serverless(host: Host, idle: Duration, state: &Path) -> io::Result<Serverless> {
    let limits = PoolLimits { sandboxes: 4, idle };
    Serverless::new(host, limits, &state.join("workers"))
}

type Make = Box<dyn Fn(&Path) -> Opened + Send + Sync>;
type ShutDown = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A runner whose class is not known any more, and how to shut it down.
struct Opened {
    runner: Arc<dyn Runner>,
    shut_down: ShutDown,
}

fn opened<C: Class>(class: C, state: &Path) -> Opened {
    let runner = Local::open(class, state).expect("the temporary folder can be read");
    let runner = Arc::new(runner);
    Opened {
        runner: runner.clone(),
        shut_down: Box::new(move || {
            let runner = runner.clone();
            Box::pin(async move { runner.shut_down().await })
        }),
    }
}
struct FakeSubject {
    fake: Fake,
    opened: Mutex<bool>,
    ground: Ground,
}

#[async_trait]
impl Subject for FakeSubject {
    async fn open(&self) -> Arc<dyn Runner> {
        let mut opened = self
            .opened
            .lock()
            .expect("no test panics while it holds this");
        let again = std::mem::replace(&mut *opened, true);
        let fake = if again {
            self.fake.restarted()
        } else {
            self.fake.clone()
        };
        Arc::new(fake)
    }

    fn launch(&self, number: u32, behaviour: &Behaviour) -> Option<Launch> {
        let script = script(behaviour)?;
        let work = Work::Command {
            root: Root::Package(PathBuf::from("/nonexistent")),
            argv: vec!["/app/run".to_owned()],
            working_dir: PathBuf::from("/"),
        };
        let launch = self.ground.launch(number, work);
        self.fake
            .direct(|playbook| playbook.token(launch.token.clone(), script));
        Some(launch)
    }

    async fn leftovers(&self) -> Vec<String> {
        self.fake.held().iter().map(ToString::to_string).collect()
    }
}

fn script(behaviour: &Behaviour) -> Option<Script> {
    let ends = |end| Script {
        end,
        ..Script::default()
    };
    Some(match behaviour {
        Behaviour::Succeed => Script::default(),
        Behaviour::Exit(code) => Script::exits(*code),
        Behaviour::Signal(signal) => ends(End::Signalled { signal: *signal }),
        Behaviour::Hang => Script::hangs(),
        Behaviour::IgnoreStop => Script {
            prints: IGNORING.to_owned(),
            ..Script::ignores_stop()
        },
        Behaviour::UseMemory => ends(End::OutOfMemory),
        Behaviour::Burn(millis) => Script::runs_for(Duration::from_millis(*millis)),
        Behaviour::Print(bytes) => Script {
            prints: "x".repeat(usize::try_from(*bytes).ok()?),
            ..Script::default()
        },
        Behaviour::Append(name) => Script {
            output: BTreeMap::from([(name.into(), "line\n".to_owned())]),
            ..Script::default()
        },
        Behaviour::Checkpoint(text) => Script {
            checkpoint: BTreeMap::from([("state".into(), text.clone())]),
            ..Script::default()
        },
        Behaviour::KeepInput | Behaviour::LeaveProcess | Behaviour::FreshScratch => return None,
    })
}

pub(crate) struct LocalSubject {
    make: Make,
    work: Box<dyn Fn(&Behaviour) -> Work + Send + Sync>,
    reuse: Option<ReuseKey>,
    open: tokio::sync::Mutex<Option<Opened>>,
    pub(crate) ground: Ground,
}

#[async_trait]
impl Subject for LocalSubject {
    async fn open(&self) -> Arc<dyn Runner> {
        let mut open = self.open.lock().await;
        if let Some(before) = open.take() {
            (before.shut_down)().await;
        }
        let opened = (self.make)(&self.ground.state());
        let runner = opened.runner.clone();
        *open = Some(opened);
        runner
    }

    fn launch(&self, number: u32, behaviour: &Behaviour) -> Option<Launch> {
        let mut launch = self.ground.launch(number, (self.work)(behaviour));
        launch.reuse.clone_from(&self.reuse);
        Some(launch)
    }

    async fn leftovers(&self) -> Vec<String> {
        if let Some(open) = &*self.open.lock().await {
            (open.shut_down)().await;
        }
        self.ground.leftovers().await
    }
}
