//! Two sandboxes that see the same files and devices, and try to meet there.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use barecount_sandbox::{Control, HostIdentity, LauncherConfig, Level, Mount, Root, Spec, Stdio};
use tempfile::TempDir;

use crate::launched::{Held, bind, hold, output_of, own_program, probing, shell, spec};
use crate::meeting::KINDS;
use crate::roots::system_binds;
use crate::{TestResult, launcher};

tests!(
    two_sandboxes_meet_by_no_lock_lease_or_watch,
    two_sandboxes_of_one_image_meet_by_no_lock_lease_or_watch,
    who_takes_all_the_watches_it_gets_leaves_some_to_others,
    who_queues_all_the_signals_it_can_leaves_some_to_others,
    who_opens_all_the_terminals_it_can_leaves_some_to_others,
    what_is_counted_for_a_user_is_each_sandboxs_own,
    a_folder_that_stays_is_one_users_in_all_its_sandboxes,
    what_can_be_no_layer_is_bound_and_named,
    no_stream_is_the_hosts_null_device,
    locks_of_others_are_not_listed,
    programs_lock_and_watch_what_is_their_own,
    reading_leaves_no_trace_at_the_file,
);

/// What an ordinary user has for all sandboxes together.
pub(crate) const AS_ROOT: &[&str] = &[
    "what_is_counted_for_a_user_is_each_sandboxs_own",
    "a_folder_that_stays_is_one_users_in_all_its_sandboxes",
];

type Error = Box<dyn std::error::Error>;

/// Devices, with one that hides a kernel path.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/proc/keys",
];
/// What is there in every sandbox, and is not a device.
const PLACES: [&str; 11] = [
    "/",
    "/dev",
    "/dev/pts",
    "/dev/shm",
    "/etc",
    "/proc",
    "/proc/sys",
    "/proc/version",
    "/proc/self/ns/time",
    "/proc/self/ns/time_for_children",
    "/tmp",
];
/// What the host's system gives.
const SYSTEM: [&str; 5] = [
    "/usr",
    "/usr/bin",
    "/usr/bin/env",
    "/etc/ld.so.cache",
    "/etc/ssl/certs",
];
/// What is mounted for an attempt.
const MOUNTED: [&str; 7] = [
    "/barecount/input",
    "/barecount/input/given",
    "/app",
    "/app/main",
    "/barecount/drivers/one",
    "/barecount/drivers/one/library",
    "/engine",
];

/// Whose the shared files are, and the payloads that have them, so that a lease on them is theirs to
/// take.
fn owner() -> Option<HostIdentity> {
    let payload = LauncherConfig::new("x").payload_identity;
    launcher().host().root.then_some(payload)
}

/// Inputs, a package, a driver and a program, which belong to the payload's user.
struct Shared(TempDir);

impl Shared {
    fn make() -> std::io::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        for (place, file) in [
            ("input", "given"),
            ("package", "main"),
            ("driver", "library"),
            ("programs", "engine"),
            ("image/var", "file"),
        ] {
            fs::create_dir_all(folder.path().join(place))?;
            let file = folder.path().join(place).join(file);
            fs::write(&file, "more than eight bytes")?;
            if let Some(payload) = owner() {
                chown(&file, Some(payload.uid), Some(payload.gid))?;
            }
        }
        Ok(Self(folder))
    }

    fn at(&self, place: &str) -> PathBuf {
        self.0.path().join(place)
    }

    /// As a runner mounts them.
    fn mounts(&self) -> Vec<Mount> {
        let run = |source: &str, target: &str| Mount::Bind {
            source: self.at(source),
            target: target.into(),
            read_only: true,
            executable: true,
            changes: false,
        };
        vec![
            bind(&self.at("input"), "/barecount/input", true),
            run("package", "/app"),
            run("driver", "/barecount/drivers/one"),
            run("programs/engine", "/engine"),
        ]
    }
}

/// One that is told what to try, and says what it noticed.
struct Neighbour(Held);

impl Neighbour {
    fn start(spec: &Spec) -> Result<Self, Error> {
        let mut spec = spec.clone();
        spec.name = crate::launched::fresh_name();
        hold(&spec).map(Self)
    }

    fn ask(&mut self, order: &str) -> Result<String, Error> {
        writeln!(self.0.stdin, "{order}")?;
        match self.0.line()? {
            answer if answer.is_empty() => Err(format!("it ended at {order}").into()),
            answer => Ok(answer),
        }
    }
}

/// Every way by which two sandboxes of a specification meet, each with its path.
fn meetings(spec: &Spec, paths: &[&str]) -> Result<BTreeSet<String>, Error> {
    let mut one = Neighbour::start(spec)?;
    let mut other = Neighbour::start(spec)?;
    let mut found = BTreeSet::new();
    for path in paths {
        for kind in KINDS {
            let prepared = one.ask(&format!("prepare {kind} {path}"))?;
            let acted = other.ask(&format!("act {kind} {path}"))?;
            let told = one.ask("tell")?;
            if [&acted, &told].contains(&&"met".to_owned()) {
                found.insert(format!("{kind} {path}"));
            }
            // What cannot even be tried would prove nothing of what can.
            let always = ["flock", "record", "open-description", "watch"].contains(&kind);
            let terminal = *path == "/dev/tty";
            if always && !terminal && (prepared != "alone" || acted.starts_with("refused")) {
                return Err(format!("{kind} {path}: {prepared}, {acted}").into());
            }
        }
    }
    one.0.finish()?;
    other.0.finish()?;
    Ok(found)
}

/// What two sandboxes meet by all the same: pages of a file are those of the file below, and a futex
/// is known by its page. An ordinary user makes no devices.
fn expected(paths: &[&str]) -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    for path in paths {
        let own = PLACES.contains(path);
        let file = Path::new(path).file_name().is_some_and(|name| {
            [
                "env",
                "ld.so.cache",
                "given",
                "main",
                "library",
                "engine",
                "file",
            ]
            .contains(&name.to_str().unwrap_or_default())
        });
        if file && !own {
            expected.insert(format!("futex {path}"));
        }
        if DEVICES.contains(path) && *path != "/dev/tty" && !launcher().host().root {
            for kind in ["flock", "record", "open-description", "watch"] {
                expected.insert(format!("{kind} {path}"));
            }
        }
    }
    expected
}

fn present(paths: &[&[&'static str]]) -> Vec<&'static str> {
    let here = |path: &&str| !SYSTEM.contains(path) || Path::new(path).exists();
    paths.concat().into_iter().filter(here).collect()
}

fn two_sandboxes_meet_by_no_lock_lease_or_watch() -> TestResult {
    let shared = Shared::make()?;
    let mut spec = probing(&["meet"]);
    spec.identity.host = owner();
    spec.mounts.extend(shared.mounts());
    let paths = present(&[&DEVICES, &PLACES, &SYSTEM, &MOUNTED]);
    assert_eq!(meetings(&spec, &paths)?, expected(&paths));
    Ok(())
}

fn two_sandboxes_of_one_image_meet_by_no_lock_lease_or_watch() -> TestResult {
    let shared = Shared::make()?;
    for place in ["bin", "lib", "lib64", "usr", "etc"] {
        fs::create_dir_all(shared.at("image").join(place))?;
    }
    // With every place that something is mounted on, and without.
    for whole in [false, true] {
        if whole {
            for place in ["proc", "dev", "tmp", "app", "barecount/input"] {
                fs::create_dir_all(shared.at("image").join(place))?;
            }
            fs::create_dir_all(shared.at("image/barecount/drivers/one"))?;
            fs::write(shared.at("image/engine"), "")?;
            fs::write(shared.at("image/probe"), "")?;
        }
        let mut spec = spec(&["/probe", "--probe", "meet"]);
        spec.identity.host = owner();
        spec.root = Root::Directory(shared.at("image"));
        spec.mounts = system_binds();
        spec.mounts.extend(shared.mounts());
        spec.mounts.push(Mount::Bind {
            source: own_program(),
            target: "/probe".into(),
            read_only: true,
            executable: true,
            changes: false,
        });
        let image = ["/var", "/var/file", "/usr/bin/env"];
        let paths = present(&[&DEVICES, &PLACES, &image, &MOUNTED]);
        assert_eq!(meetings(&spec, &paths)?, expected(&paths));
    }
    Ok(())
}

/// What a sandbox gets of something, and what another gets that starts meanwhile.
fn taken(what: &str) -> Result<(Held, u64), Error> {
    let mut one = hold(&probing(&["take", what]))?;
    let first: u64 = one.line()?.parse()?;
    let mut other = hold(&probing(&["take", what]))?;
    let second: u64 = other.line()?.parse()?;
    other.finish()?;
    assert!(first > 0, "it got none");
    assert_eq!(first, second, "the second got less");
    Ok((one, first))
}

/// They are counted for the user who made the sandboxes, and not only for the one inside.
fn who_takes_all_the_watches_it_gets_leaves_some_to_others() -> TestResult {
    let (held, _) = taken("watches")?;
    // SAFETY: an integer; the descriptor ends with the test.
    let ours = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    assert!(ours >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: it is ours, and nobody else has it.
    unsafe { libc::close(ours) };
    held.finish()?;
    Ok(())
}

fn who_queues_all_the_signals_it_can_leaves_some_to_others() -> TestResult {
    let (held, count) = taken("signals")?;
    let mut most = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: it fills the struct.
    unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &raw mut most) };
    assert!(count <= most.rlim_cur / 8, "{count} of {}", most.rlim_cur);
    held.finish()?;
    Ok(())
}

/// They are counted for the whole machine.
fn who_opens_all_the_terminals_it_can_leaves_some_to_others() -> TestResult {
    let setting = |name| fs::read_to_string(Path::new("/proc/sys/kernel/pty").join(name));
    let most: u64 = setting("max")?.trim().parse()?;
    let kept: u64 = setting("reserve")?.trim().parse()?;
    let (held, count) = taken("terminals")?;
    assert!(count <= (most - kept) / 8, "{count} of {most} less {kept}");
    held.finish()?;
    Ok(())
}

/// Pages of pipes, and descriptors on their way through sockets.
fn what_is_counted_for_a_user_is_each_sandboxs_own() -> TestResult {
    for what in ["pipes", "descriptors"] {
        taken(what)?.0.finish()?;
    }
    Ok(())
}

fn a_folder_that_stays_is_one_users_in_all_its_sandboxes() -> TestResult {
    let (cache, output) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut users = BTreeSet::new();
    let mut owners = BTreeSet::new();
    for _ in 0..3 {
        let mut with_cache = shell("echo x >> /cache/kept; cat /cache/kept | wc -l");
        with_cache.mounts = vec![bind(cache.path(), "/cache", false)];
        users.insert(output_of(&with_cache)?);
        owners.insert(fs::metadata(cache.path().join("kept"))?.uid());
        let mut without = shell("echo x > /out/new");
        without.mounts = vec![bind(output.path(), "/out", false)];
        chown(output.path(), Some(0), Some(0))?;
        output_of(&without)?;
        owners.insert(fs::metadata(output.path().join("new"))?.uid());
        fs::remove_file(output.path().join("new"))?;
    }
    assert_eq!(users.len(), 3, "each added a line: {users:?}");
    assert_eq!(owners.len(), 4, "one for the cache, and three: {owners:?}");
    Ok(())
}

/// No overlay takes what the kernel makes names up for.
fn what_can_be_no_layer_is_bound_and_named() -> TestResult {
    let mut spec = shell("cat /given/ostype");
    spec.mounts = vec![bind(Path::new("/proc/sys/kernel"), "/given", true)];
    let held = hold(&spec)?;
    let level = held.sandbox.enforcement().controls[&Control::Inodes].clone();
    assert_eq!(held.finish()?.stdout, "Linux\n");
    let Level::Degraded { reason, .. } = level else {
        return Err(format!("{level:?}").into());
    };
    assert!(
        reason.contains("/proc/sys/kernel (no overlay: "),
        "{reason}"
    );
    Ok(())
}

/// A lock on it would be felt by whoever has that device open on this machine.
fn no_stream_is_the_hosts_null_device() -> TestResult {
    let null = fs::File::open("/dev/null")?;
    // SAFETY: an all-zero `flock` is a valid value; the lock goes with the descriptor.
    let locked = unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_RDLCK as i16;
        lock.l_start = 700;
        lock.l_len = 1;
        libc::fcntl(null.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock)
    };
    assert_eq!(locked, 0, "{}", std::io::Error::last_os_error());
    let script = "import fcntl, os
fcntl.lockf(0, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 700)
os.write(2, b'lost')
print(os.read(0, 1))";
    let (stdout, write) = std::io::pipe()?;
    let mut stdio = Stdio::null()?;
    stdio.stdout = write.into();
    let sandbox = launcher().launch(&spec(&["/usr/bin/python3", "-c", script]), stdio)?;
    let mut text = String::new();
    std::io::BufReader::new(stdout).read_to_string(&mut text)?;
    let own = launcher().host().root;
    assert_eq!(text, if own { "b''\n" } else { "" });
    assert_eq!(sandbox.wait()?.status.success(), own);
    Ok(())
}

/// The kernel lists locks of open file descriptions in every process namespace.
fn locks_of_others_are_not_listed() -> TestResult {
    let mut one = Neighbour::start(&probing(&["meet"]))?;
    assert_eq!(one.ask("prepare open-description /tmp")?, "alone");
    let listed = fs::read_to_string("/proc/locks")?;
    assert!(listed.contains(" 40 41"), "the host sees it: {listed}");
    assert_eq!(output_of(&shell("cat /proc/locks"))?, "");
    one.0.finish()?;
    Ok(())
}

fn programs_lock_and_watch_what_is_their_own() -> TestResult {
    const SCRIPT: &str = "
import ctypes, fcntl, multiprocessing, os, sqlite3, struct, sys
for folder in ('/tmp', '/dev/shm', '/out'):
    place = folder + '/own'
    one, other = open(place, 'w'), open(place, 'w')
    fcntl.flock(one, fcntl.LOCK_EX)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print('not locked')
    except BlockingIOError:
        fcntl.flock(one, fcntl.LOCK_UN)
    fcntl.lockf(one, fcntl.LOCK_EX)
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, folder.encode(), 0x100) > 0
    open(folder + '/new', 'w').close()
    print(folder, b'new' in os.read(watch, 4096))
    database = sqlite3.connect(folder + '/database')
    database.execute('pragma journal_mode = wal')
    database.execute('create table t (a)')
    database.execute('insert into t values (1)')
    database.commit()
    print(database.execute('select a from t').fetchall())
with multiprocessing.Pool(2) as pool:
    print(pool.map(abs, [-1, -2]))
# What is given can be locked too, which nobody else feels.
for given in ('/in/given', '/usr/bin/env'):
    fcntl.flock(open(given), fcntl.LOCK_EX)
";
    let (input, output) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for folder in [&input, &output] {
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
    }
    fs::write(input.path().join("given"), "given")?;
    let mut spec = spec(&["/usr/bin/python3", "-c", SCRIPT]);
    spec.mounts = vec![
        bind(input.path(), "/in", true),
        bind(output.path(), "/out", false),
    ];
    let own = "True\n[(1,)]\n";
    let expected = format!("/tmp {own}/dev/shm {own}/out {own}[1, 2]");
    assert_eq!(output_of(&spec)?, expected);
    Ok(())
}

/// When a file was read, another could ask; its attributes, another could look at.
fn reading_leaves_no_trace_at_the_file() -> TestResult {
    let shared = Shared::make()?;
    let file = shared.at("input/given");
    let long_ago = fs::FileTimes::new().set_accessed(std::time::SystemTime::UNIX_EPOCH);
    fs::File::open(&file)?.set_times(long_ago)?;
    let script = "import os, sys
print(open(sys.argv[1]).read())
try: os.setxattr(sys.argv[1], 'user.trace', b'1')
except OSError as error: print(error.strerror)";
    let mut spec = spec(&["/usr/bin/python3", "-c", script, "/barecount/input/given"]);
    spec.mounts = shared.mounts();
    let text = output_of(&spec)?;
    assert_eq!(text, "more than eight bytes\nRead-only file system");
    let accessed = fs::metadata(&file)?.accessed()?;
    assert_eq!(accessed, std::time::SystemTime::UNIX_EPOCH);
    Ok(())
}
