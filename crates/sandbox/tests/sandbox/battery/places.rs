//! The places in which the battery is run, all with the same root file system and mounts.

use std::{
    fs,
    io::{BufRead, Write},
    net::{Ipv6Addr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, PermissionsExt, chown, symlink},
            net::{SocketAddr as UnixAddr, UnixListener},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    thread,
};

use barecount_sandbox::{Brokered, Launcher, LauncherConfig, Limits, Mount, Network, Root, Spec};
use rustix::event::{PollFd, PollFlags};
use tempfile::TempDir;

use super::{
    Environment, Line, Outcomes,
    call::{Word, call, system_call},
    files::CANARY,
    mounts::path,
    network::GREETING,
    privileges::RAISED,
    shared::HeldOutside,
};
use crate::launched::{bind, fresh_name, hold_by, own_program};

type Error = Box<dyn std::error::Error>;

/// Whom the ordinary user is.
pub(super) const USER: u32 = 54_321;
/// To whom the set-user-id program belongs.
const PROGRAM_USER: u32 = 12_345;
/// Where the mounts of an attempt are inside.
pub(super) const INPUT: &str = "/barecount/input";
pub(super) const OUTPUT: &str = "/barecount/output";
/// Where the dynamic linker is by the platform's convention.
#[cfg(target_arch = "x86_64")]
const LINKER: &str = "/lib64/ld-linux-x86-64.so.2";
#[cfg(target_arch = "aarch64")]
const LINKER: &str = "/lib/ld-linux-aarch64.so.1";

/// What is outside: the things to be reached, and the root file system that every place gets.
pub(super) struct Outside {
    folder: TempDir,
    process: Child,
    segment: i64,
    shared_file: PathBuf,
    queue: String,
    port: u16,
    abstract_name: String,
    _held: HeldOutside,
}

impl Outside {
    pub(super) fn set_up() -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        open_to_all(folder.path(), 0o755)?;
        let name = format!("battery-{}", std::process::id());
        for (what, mode) in [("input", 0o755), ("output", 0o777), ("root", 0o755)] {
            fs::create_dir(folder.path().join(what))?;
            open_to_all(&folder.path().join(what), mode)?;
        }
        for (file, text) in [("input/given", "given"), ("canary", CANARY)] {
            fs::write(folder.path().join(file), text)?;
            open_to_all(&folder.path().join(file), 0o644)?;
        }
        root_file_system(&folder.path().join("root"))?;
        let held = HeldOutside::hold(folder.path())?;
        let shared_file = Path::new("/dev/shm").join(&name);
        fs::write(&shared_file, CANARY)?;
        let segment = call!(SYS_shmget, libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o666);
        let queue = std::ffi::CString::new(name.as_str())?;
        let flags = libc::O_CREAT | libc::O_RDWR;
        system_call(
            libc::SYS_mq_open,
            &mut [Word::Text(&queue), flags.into(), 0o666.into(), 0.into()],
        )
        .map_err(errno)?;
        // Takes connections of both kinds.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        let port = listener.local_addr()?.port();
        let by_name = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name)?)?;
        let socket = folder.path().join("socket");
        let by_path = UnixListener::bind(&socket)?;
        open_to_all(&socket, 0o777)?;
        greet(listener, |listener| Ok(listener.accept()?.0));
        greet(by_name, |listener| Ok(listener.accept()?.0));
        greet(by_path, |listener| Ok(listener.accept()?.0));
        Ok(Self {
            folder,
            process: Command::new("sleep").arg("1000").spawn()?,
            segment: segment.map_err(errno)?,
            shared_file,
            queue: name.clone(),
            port,
            abstract_name: name,
            _held: held,
        })
    }

    /// What the probes on the host are told.
    fn on_host(&self) -> Result<Environment, Error> {
        let at = |what| self.folder.path().join(what);
        Ok(Environment {
            on_host: true,
            programs: at("root/bin"),
            output: at("output"),
            input: at("input"),
            canary: at("canary"),
            socket: at("socket"),
            abstract_name: self.abstract_name.clone(),
            port: self.port,
            pid: i32::try_from(self.process.id())?,
            segment: i32::try_from(self.segment)?,
            shared_file: self.queue.clone(),
            queue: self.queue.clone(),
            disk: fs::metadata("/")?.dev(),
        })
    }

    /// What the probes inside are told.
    pub(super) fn inside(&self) -> Result<Environment, Error> {
        Ok(Environment {
            on_host: false,
            programs: "/bin".into(),
            output: OUTPUT.into(),
            input: INPUT.into(),
            ..self.on_host()?
        })
    }

    /// The root file system, and the folders that are mounted into it.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The probes with all privileges and without a boundary.
    pub(super) fn control(&self) -> Result<Outcomes, Error> {
        let environment = serde_json::to_string(&self.on_host()?)?;
        outcomes(Command::new(own_program()).args(["--battery", &environment]))
    }

    /// The probes in a sandbox.
    pub(super) fn ours(&self, launcher: &Launcher) -> Result<Outcomes, Error> {
        lines(&run(launcher, self.folder(), &self.inside()?)?)
    }

    /// The probes in a sandbox that an ordinary user starts.
    pub(super) fn ours_of_ordinary_user(&self) -> Result<Outcomes, Error> {
        let environment = serde_json::to_string(&self.inside()?)?;
        let program = self.folder().join("root/bin/battery");
        outcomes(
            Command::new(program)
                .arg("--battery-agent")
                .arg(self.folder())
                .arg(environment)
                .uid(USER)
                .gid(USER)
                .current_dir("/")
                .env_clear(),
        )
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // What of it is gone already needs no removing.
        _ = self.process.kill();
        _ = self.process.wait();
        _ = call!(SYS_shmctl, self.segment, libc::IPC_RMID, 0);
        _ = fs::remove_file(&self.shared_file);
        if let Ok(queue) = std::ffi::CString::new(self.queue.as_str()) {
            _ = call!(SYS_mq_unlink, queue.as_c_str());
        }
    }
}

fn errno(number: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(number)
}

fn open_to_all(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Answers everybody with the greeting, for as long as this process lives.
fn greet<L: Send + 'static, S: Write>(
    listener: L,
    accept: impl Fn(&L) -> std::io::Result<S> + Send + 'static,
) {
    thread::spawn(move || {
        while let Ok(mut stream) = accept(&listener) {
            // Who has left needs no greeting.
            _ = stream.write_all(GREETING);
        }
    });
}

/// This very program with what it is linked to, and nothing else.
fn root_file_system(root: &Path) -> Result<(), Error> {
    for folder in [
        "bin",
        "dev",
        "etc",
        "proc",
        "run",
        "sys",
        "tmp",
        "usr",
        "barecount/input",
        "barecount/output",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    for name in ["lib", "lib64"] {
        match fs::read_link(Path::new("/").join(name)) {
            Ok(target) => symlink(target, root.join(name))?,
            Err(_) => fs::create_dir_all(root.join(name))?,
        }
    }
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for library in linked()? {
        let place = inside(&library);
        fs::create_dir_all(place.parent().ok_or("a library has a folder")?)?;
        fs::copy(&library, place)?;
    }
    let linker = fs::canonicalize(LINKER)?;
    fs::create_dir_all(inside(&linker).parent().ok_or("the linker has a folder")?)?;
    fs::copy(&linker, inside(&linker))?;
    // Where programs look for it, which leads there on most systems by links.
    let usual = Path::new(LINKER);
    let folder = fs::canonicalize(usual.parent().ok_or("the linker has a folder")?)?;
    fs::create_dir_all(inside(&folder))?;
    if !inside(usual).exists() {
        symlink(&linker, inside(usual))?;
    }
    for name in ["battery", "as-another-user", "with-capabilities"] {
        let program = root.join("bin").join(name);
        fs::copy(own_program(), &program)?;
        open_to_all(&program, 0o755)?;
    }
    let program = root.join("bin/as-another-user");
    if rustix::process::geteuid().is_root() {
        chown(&program, Some(PROGRAM_USER), None)?;
        give_capabilities(&root.join("bin/with-capabilities"))?;
    }
    open_to_all(&program, 0o4755)?;
    Ok(())
}

/// Permitted, and effective at once: `vfs_cap_data`, second revision.
fn give_capabilities(program: &Path) -> Result<(), Error> {
    let program = path(program);
    let mut data = [0x0200_0001 | (RAISED << 32), 0, 0];
    call!(
        SYS_setxattr,
        program.as_c_str(),
        c"security.capability",
        &mut data,
        20,
        0
    )
    .map_err(errno)?;
    Ok(())
}

/// The libraries that this process runs on.
fn linked() -> Result<Vec<PathBuf>, Error> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut found: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])))
        .filter(|path| path.to_string_lossy().contains(".so"))
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// A launch as the runner makes one for a container: an image, its places, its limits, the broker.
fn spec(folder: &Path, environment: &Environment) -> Result<Spec, Error> {
    let argv = [
        "/bin/battery",
        "--battery",
        &serde_json::to_string(environment)?,
    ];
    let mut spec = Spec::new(fresh_name(), argv.map(str::to_owned).to_vec());
    spec.env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    spec.root = Root::Directory(folder.join("root"));
    spec.mounts = vec![
        bind(&folder.join("input"), INPUT, true),
        bind(&folder.join("output"), OUTPUT, false),
        Mount::Tmpfs {
            target: "/run/secrets".into(),
            size_bytes: 1 << 20,
        },
    ];
    spec.limits = Limits {
        memory_bytes: Some(512 << 20),
        cpu_millis: Some(1000),
        pids: Some(64),
        open_files: Some(1024),
        tmp_bytes: Some(64 << 20),
        ..Limits::default()
    };
    spec.network = Network::Brokered(Brokered::default());
    Ok(spec)
}

fn run(launcher: &Launcher, folder: &Path, environment: &Environment) -> Result<String, Error> {
    let mut held = hold_by(launcher, &spec(folder, environment)?)?;
    let caught = held.sandbox.take_intercepted().ok_or("not intercepted")?;
    let (over, end) = std::io::pipe()?;
    let refusing = thread::spawn(move || refuse(&caught.tcp, &over));
    let output = held.finish()?;
    drop(end);
    refusing
        .join()
        .map_err(|_| "the refusing thread panicked")??;
    if output.exit.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{:?}: {}", output.exit, output.stderr).into())
    }
}

/// Takes every connection and lets it go, as the broker does where nothing is declared, until the
/// other end of the pipe is closed.
fn refuse(listeners: &[OwnedFd], over: &impl AsFd) -> std::io::Result<()> {
    loop {
        let mut waiting: Vec<PollFd<'_>> = listeners
            .iter()
            .map(|listener| PollFd::new(listener, PollFlags::IN))
            .collect();
        waiting.push(PollFd::new(over, PollFlags::IN));
        rustix::event::poll(&mut waiting, None)?;
        let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready.last() == Some(&true) {
            return Ok(());
        }
        for (listener, _) in listeners.iter().zip(ready).filter(|(_, ready)| *ready) {
            // Who has left meanwhile is gone.
            _ = rustix::net::accept(listener);
        }
    }
}

/// An agent of its own, which an ordinary user runs.
#[expect(clippy::print_stdout, reason = "it speaks to the test by its output")]
pub(crate) fn agent(words: &[String]) -> ExitCode {
    let launcher = Launcher::start(LauncherConfig::new("battery")).expect("the launcher starts");
    let environment = serde_json::from_str(&words[1]).expect("the test wrote it");
    match run(&launcher, Path::new(&words[0]), &environment) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What a command's probes came to.
pub(super) fn outcomes(command: &mut Command) -> Result<Outcomes, Error> {
    let output = command.output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&said)).into());
    }
    lines(&String::from_utf8(output.stdout)?)
}

fn lines(text: &str) -> Result<Outcomes, Error> {
    let mut found = Outcomes::new();
    for line in text.as_bytes().lines() {
        let line: Line = serde_json::from_str(&line?)?;
        let name = line.probe.clone();
        if found.insert(name.clone(), line).is_some() {
            return Err(format!("two probes have the name `{name}`").into());
        }
    }
    if found.len() == super::probes().len() {
        Ok(found)
    } else {
        Err(format!("{} probes answered: {text}", found.len()).into())
    }
}
