//! The backends under test.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
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
    conformance::{Behaviour, INPUT_CONTENTS, INPUT_FILE, Subject},
    container::Container,
    fake::{Fake, Playbook, Script},
    launch::{AttemptToken, End, Isolation, Launch, Limits, Places, Root, Work},
    local::{Host, Local},
};
use barecount_sandbox::Launcher;
use tempfile::TempDir;

use crate::payload::COMMAND;

/// What all tests of this binary share.
pub(crate) struct Shared {
    pub(crate) runtime: tokio::runtime::Runtime,
    launcher: Arc<Launcher>,
    clock: Arc<dyn Clock>,
    /// An image with this binary as `/payload`, and a package with it and its loader.
    files: TempDir,
    subjects: AtomicU64,
}

impl Shared {
    pub(crate) fn new(launcher: Launcher, runtime: tokio::runtime::Runtime) -> io::Result<Self> {
        let files = tempfile::tempdir()?;
        open_to_all(files.path())?;
        let clock = {
            let _inside = runtime.enter();
            SystemClock::start()
        };
        make_image(&files.path().join("image"))?;
        Ok(Self {
            runtime,
            launcher: Arc::new(launcher),
            clock: Arc::new(clock),
            files,
            subjects: AtomicU64::new(0),
        })
    }

    fn host(&self) -> Host {
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
}

impl Under {
    pub(crate) const ALL: &'static [Self] = &[Self::Fake, Self::Container];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fake => "fake",
            Self::Container => "container",
        }
    }

    /// Checks that make no sense of a backend, each with a reason to be found in the code.
    pub(crate) fn declines(self, check: &str) -> bool {
        match self {
            // It runs nothing that could try to.
            Self::Fake => {
                check == "inputs_can_be_read_and_not_changed"
                    || check == "scratch_is_empty_for_every_attempt"
                    || check == "a_process_left_in_the_background_does_not_outlive_the_attempt"
            }
            Self::Container => false,
        }
    }

    pub(crate) fn subject(self, shared: &Shared) -> io::Result<Arc<dyn Subject>> {
        let ground = Ground::new(shared)?;
        Ok(match self {
            Self::Fake => Arc::new(FakeSubject {
                fake: Fake::new(
                    RunnerClass::Container,
                    shared.clock.clone(),
                    Playbook::default(),
                ),
                opened: Mutex::new(false),
                ground,
            }),
            Self::Container => Arc::new(ContainerSubject {
                host: shared.host(),
                image: shared.files.path().join("image"),
                open: tokio::sync::Mutex::new(None),
                ground,
            }),
        })
    }
}

/// The folders of one subject, and a task id that nothing else has.
struct Ground {
    folder: TempDir,
    task: TaskId,
}

impl Ground {
    fn new(shared: &Shared) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        open_to_all(folder.path())?;
        let number = shared.subjects.fetch_add(1, Ordering::SeqCst);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        Ok(Self {
            folder,
            task: TaskId::from_bytes(bytes),
        })
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn launch(&self, number: u32, work: Work) -> Launch {
        let attempt = self.folder.path().join(number.to_string());
        let place = |name: &str| attempt.join(name);
        let made = || {
            for name in ["input/rates", "output", "checkpoint"] {
                fs_err::create_dir_all(place(name))?;
            }
            fs_err::write(place("input").join(INPUT_FILE), INPUT_CONTENTS)
        };
        made().expect("the temporary folder can be written");
        let stage = ("BARECOUNT_STAGE".to_owned(), "under-test".to_owned());
        let mark = ("BARECOUNT_TASK_ID".to_owned(), self.task.to_string());
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

    /// Records, processes and control groups of this subject's attempts. What is ended is given a
    /// moment to be gone.
    async fn leftovers(&self) -> Vec<String> {
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
        let ends = self.state().join("ends");
        if ends.exists() {
            for entry in fs_err::read_dir(ends)? {
                left.push(entry?.path().display().to_string());
            }
        }
        for entry in fs_err::read_dir("/proc")? {
            let entry = entry?;
            if !entry
                .file_name()
                .to_string_lossy()
                .starts_with(|c: char| c.is_ascii_digit())
            {
                continue;
            }
            // A process may be gone by now, which is what we hope for.
            let environment = fs_err::read(entry.path().join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environment).contains(self.task.as_str()) {
                left.push(format!("process {}", entry.file_name().display()));
            }
        }
        let name = self.task.as_str().replace('_', "-");
        control_groups(Path::new("/sys/fs/cgroup"), &name, 6, &mut left);
        Ok(left)
    }
}

fn control_groups(folder: &Path, name: &str, depth: u32, left: &mut Vec<String>) {
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(name) {
            left.push(entry.path().display().to_string());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            control_groups(&entry.path(), name, depth, left);
        }
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
        Behaviour::IgnoreStop => Script::ignores_stop(),
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

struct ContainerSubject {
    host: Host,
    image: PathBuf,
    open: tokio::sync::Mutex<Option<Arc<Local<Container>>>>,
    ground: Ground,
}

#[async_trait]
impl Subject for ContainerSubject {
    async fn open(&self) -> Arc<dyn Runner> {
        let mut open = self.open.lock().await;
        if let Some(before) = open.take() {
            before.shut_down().await;
        }
        let container = Container::new(self.host.clone());
        let runner = Local::open(container, &self.ground.state());
        let runner = Arc::new(runner.expect("the temporary folder can be read"));
        *open = Some(runner.clone());
        runner
    }

    fn launch(&self, number: u32, behaviour: &Behaviour) -> Option<Launch> {
        let behaviour = serde_json::to_string(behaviour).ok()?;
        let work = Work::Command {
            root: Root::Image(self.image.clone()),
            argv: vec!["/payload".to_owned(), COMMAND.to_owned(), behaviour],
            working_dir: PathBuf::from("/"),
        };
        Some(self.ground.launch(number, work))
    }

    async fn leftovers(&self) -> Vec<String> {
        self.ground.leftovers().await
    }
}
