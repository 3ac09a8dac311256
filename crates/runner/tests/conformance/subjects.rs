//! The backends under test.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use barecount_model::{
    class::{RunnerClass, Size},
    id::TaskId,
};
use barecount_runner::{
    Runner,
    clock::{Clock, SystemClock},
    conformance::{Behaviour, IGNORING, INPUT_CONTENTS, INPUT_FILE, Subject},
    container::Container,
    dedicated_compute::DedicatedCompute,
    fake::{Fake, Playbook, Script},
    launch::{AttemptToken, End, Isolation, Launch, Limits, Places, ReuseKey, Root, Work},
    local::{Class, Host, Local},
    managed_etl::{EngineProgram, ManagedEtl},
    serverless::{PoolLimits, Serverless},
};
use barecount_sandbox::Launcher;
use tempfile::TempDir;

use crate::payload::{APP, COMMAND, ENGINE, LOADER};

/// What all tests of this binary share.
pub(crate) struct Shared {
    pub(crate) runtime: tokio::runtime::Runtime,
    launcher: Arc<Launcher>,
    clock: Arc<dyn Clock>,
    /// An image with this binary as `/payload`, and a package with it and its loader.
    pub(crate) files: PathBuf,
    _temporary: Option<TempDir>,
    subjects: AtomicU64,
}

impl Shared {
    pub(crate) fn new(launcher: Launcher, runtime: tokio::runtime::Runtime) -> io::Result<Self> {
        let files = tempfile::tempdir()?;
        open_to_all(files.path())?;
        make_image(&files.path().join("image"))?;
        make_package(&files.path().join("package"))?;
        let path = files.path().to_owned();
        Ok(Self {
            _temporary: Some(files),
            ..Self::on(launcher, runtime, path)
        })
    }

    /// With the files that another process made.
    pub(crate) fn on(launcher: Launcher, runtime: tokio::runtime::Runtime, files: PathBuf) -> Self {
        let clock = {
            let _inside = runtime.enter();
            SystemClock::start()
        };
        Self {
            runtime,
            launcher: Arc::new(launcher),
            clock: Arc::new(clock),
            files,
            _temporary: None,
            subjects: AtomicU64::new(0),
        }
    }

    pub(crate) fn host(&self) -> Host {
        Host {
            launcher: self.launcher.clone(),
            clock: self.clock.clone(),
            weakest: Isolation::Sandbox,
        }
    }
}

/// A root file system with this binary as `/payload` and the libraries that it has mapped.
fn make_image(image: &Path) -> io::Result<()> {
    fs_err::create_dir_all(image)?;
    fs_err::copy(std::env::current_exe()?, image.join("payload"))?;
    for library in libraries()? {
        let target = image.join(library.strip_prefix("/").unwrap_or(&library));
        if let Some(folder) = target.parent() {
            fs_err::create_dir_all(folder)?;
        }
        fs_err::copy(&library, &target)?;
    }
    // The program names its loader by the path that the architecture's ABI fixes.
    for (link, loader) in [("lib64", "usr/lib64"), ("lib", "usr/lib")] {
        let link = image.join(link);
        if !link.exists() && image.join(loader).exists() {
            fs_err::os::unix::fs::symlink(loader, link)?;
        }
    }
    if let Some(loader) = libraries()?
        .iter()
        .find(|path| path.to_string_lossy().contains("/ld-linux"))
        && !image.join("lib64").exists()
        && let Some(name) = loader.file_name()
    {
        fs_err::create_dir_all(image.join("lib64"))?;
        fs_err::copy(loader, image.join("lib64").join(name))?;
    }
    Ok(())
}

/// A package with this binary as `bootstrap`, its libraries, and the `loader` that a root without
/// anything else lacks.
fn make_package(package: &Path) -> io::Result<()> {
    fs_err::create_dir_all(package)?;
    fs_err::copy(std::env::current_exe()?, package.join("bootstrap"))?;
    for library in libraries()? {
        let name = library.file_name().unwrap_or_default();
        let loader = name.to_string_lossy().starts_with("ld-linux");
        let target = if loader {
            package.join("loader")
        } else {
            package.join(name)
        };
        fs_err::copy(&library, target)?;
    }
    Ok(())
}

/// The shared libraries of this process, loader included.
fn libraries() -> io::Result<Vec<PathBuf>> {
    let maps = fs_err::read_to_string("/proc/self/maps")?;
    let mut found: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(5))
        .filter(|path| path.contains(".so"))
        .map(PathBuf::from)
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Work of an unprivileged user of the host passes through here.
fn open_to_all(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs_err::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

/// A backend under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Under {
    Fake,
    Container,
    Package,
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
            reuse: (self == Self::WarmServerless).then(|| ReuseKey("key".to_owned())),
            open: tokio::sync::Mutex::new(None),
            ground,
        }
    }

    fn make(self, shared: &Shared) -> Make {
        let host = shared.host();
        match self {
            Self::DedicatedCompute => Box::new(move |state| {
                let leases = state.join("leases");
                opened(DedicatedCompute::new(host.clone(), vec![0], leases), state)
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
            _ => Box::new(move |state| opened(Container::new(host.clone()), state)),
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
                package: package.clone(),
                event: serde_json::to_value(behaviour).expect("a behaviour has a JSON form"),
            }),
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

/// The folders of one subject, and a task id that nothing else has.
pub(crate) struct Ground {
    pub(crate) folder: PathBuf,
    pub(crate) task: TaskId,
    _temporary: Option<TempDir>,
}

impl Ground {
    pub(crate) fn new(shared: &Shared) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        open_to_all(folder.path())?;
        let number = shared.subjects.fetch_add(1, Ordering::SeqCst);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        Ok(Self {
            folder: folder.path().to_owned(),
            task: TaskId::from_bytes(bytes),
            _temporary: Some(folder),
        })
    }

    /// The ground of another process.
    pub(crate) fn of(folder: PathBuf, task: TaskId) -> Self {
        Self {
            folder,
            task,
            _temporary: None,
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub(crate) fn launch(&self, number: u32, work: Work) -> Launch {
        let attempt = self.folder.join(number.to_string());
        let place = |name: &str| attempt.join(name);
        let made = || {
            for name in ["input/rates", "output", "checkpoint"] {
                fs_err::create_dir_all(place(name))?;
            }
            fs_err::write(place("input").join(INPUT_FILE), INPUT_CONTENTS)
        };
        made().expect("the temporary folder can be written");
        let stage = ("BARECOUNT_STAGE".to_owned(), "under-test".to_owned());
        let mark = ("SUBJECT_UNDER_TEST".to_owned(), self.task.to_string());
        Launch {
            token: AttemptToken {
                task: self.task.clone(),
                number,
            },
            size: Size::Small,
            work,
            limits: Limits {
                memory_bytes: 96 << 20,
                cpu_millis: 1000,
                pids: 32,
                open_files: 256,
                scratch_bytes: 16 << 20,
                log_bytes: 1 << 20,
            },
            places: Places {
                input: place("input"),
                output: place("output"),
                checkpoint: place("checkpoint"),
                cache: None,
                drivers: BTreeMap::new(),
            },
            env: BTreeMap::from([stage, mark]),
            isolation: Isolation::Sandbox,
            reuse: None,
            timeout: Duration::from_secs(60),
            log: place("log"),
        }
    }

    /// Records, folders, processes and mounts of this subject's attempts. What is ended is given a
    /// moment to be gone.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        let mut tries = tokio::time::interval(Duration::from_millis(20));
        let mut left = Vec::new();
        for _ in 0..250 {
            left = self
                .left_now()
                .unwrap_or_else(|error| vec![error.to_string()]);
            if left.is_empty() {
                break;
            }
            tries.tick().await;
        }
        left
    }

    fn left_now(&self) -> io::Result<Vec<String>> {
        let mut left = Vec::new();
        for folder in ["ends", "workers"] {
            let folder = self.state().join(folder);
            if folder.exists() {
                for entry in fs_err::read_dir(folder)? {
                    left.push(entry?.path().display().to_string());
                }
            }
        }
        for process in self.processes()? {
            left.push(format!("process {process}"));
        }
        let mounts = fs_err::read_to_string("/proc/self/mountinfo")?;
        let ours = self.folder.to_string_lossy();
        left.extend(
            mounts
                .lines()
                .filter(|mount| mount.contains(&*ours))
                .map(|mount| format!("mount {mount}")),
        );
        Ok(left)
    }

    /// The processes of this subject's attempts.
    pub(crate) fn processes(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs_err::read_dir("/proc")? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with(|c: char| c.is_ascii_digit()) {
                continue;
            }
            // A process may be gone by now, which is what we hope for.
            let environment = fs_err::read(entry.path().join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environment).contains(self.task.as_str()) {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// The control groups, as folders, that the launcher made for this subject's attempts.
    pub(crate) fn control_groups(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for process in self.processes()? {
            let groups = fs_err::read_to_string(format!("/proc/{process}/cgroup"));
            for line in groups.unwrap_or_default().lines() {
                let mut fields = line.splitn(3, ':');
                let (_, controllers, path) = (fields.next(), fields.next(), fields.next());
                let (Some(controllers), Some(path)) = (controllers, path) else {
                    continue;
                };
                if path.contains(CGROUP_PREFIX) {
                    found.extend(mounted(controllers)?.map(|root| below(&root, path)));
                }
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// Begins the names of this binary's control groups.
pub(crate) const CGROUP_PREFIX: &str = "barecount-runner-test";

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Where the hierarchy of these controllers is mounted; none of them: version 2.
fn mounted(controllers: &str) -> io::Result<Option<PathBuf>> {
    let mounts = fs_err::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind, options) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let named = |option: &str| controllers.split(',').any(|name| name == option);
        let this = match kind {
            "cgroup" => options.split(',').any(named),
            "cgroup2" => controllers.is_empty(),
            _ => false,
        };
        this.then(|| PathBuf::from(place))
    });
    Ok(found)
}

/// Those of these folders that are still there after a moment.
pub(crate) async fn remaining(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut tries = tokio::time::interval(Duration::from_millis(20));
    let mut left = folders.to_vec();
    for _ in 0..250 {
        left.retain(|folder| folder.exists());
        if left.is_empty() {
            break;
        }
        tries.tick().await;
    }
    left
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
