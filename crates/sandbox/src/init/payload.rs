//! Starting the payload: from the init to the program, the last of the restrictions on the way.

use std::ffi::{CString, c_int, c_void};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

use super::host::SHARE;
use super::{Plan, devices};
use crate::error::{Failure, InStep, Step};
use crate::spec::{Isolation, Limits, OWN_PIDS};
use crate::sys;

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Makes the kernel choose the payload before the init, and before the host's own processes.
const OOM_SCORE_ADJUSTMENT: &[u8] = b"500";
/// How large a dump of its memory may be. Not 0: that keeps the kernel from writing a file, but not
/// from piping the memory to a program of the host that `core_pattern` names. From 1 it takes that
/// the dumping program itself is being dumped, and does neither (`do_coredump`; core(5)).
const CORE_BYTES: u64 = 1;

/// Everything that the child needs, allocated before it starts: it runs on our memory.
struct Payload<'a> {
    candidates: Vec<CString>,
    argv: sys::StringList,
    env: sys::StringList,
    cwd: CString,
    streams: [BorrowedFd<'a>; 3],
    limits: Vec<(Resource, Rlimit)>,
    cpus: Option<CpuSet>,
    ruleset: Option<BorrowedFd<'a>>,
    filter: &'a [sys::Instruction],
    isolation: Isolation,
    /// Why it did not come to run the program.
    failure: Option<(Step, Errno)>,
}

/// Starts the payload and returns once it runs its program.
pub(super) fn spawn(plan: &Plan<'_>, ruleset: Option<&OwnedFd>) -> Result<Pid, Failure> {
    let spec = plan.spec;
    let streams = [&plan.stdio.stdin, &plan.stdio.stdout, &plan.stdio.stderr];
    let own = streams.map(|stream| own_stream(stream, spec.isolation));
    let [stdin, stdout, stderr] = own;
    let own = [stdin?, stdout?, stderr?];
    let mut payload = Payload {
        candidates: candidates(plan)?,
        argv: sys::StringList::new(strings(spec.argv.iter().cloned())?),
        env: sys::StringList::new(strings(
            spec.env.iter().map(|(key, value)| format!("{key}={value}")),
        )?),
        cwd: string(spec.cwd.as_os_str().as_encoded_bytes())?,
        streams: std::array::from_fn(|at| own[at].as_ref().unwrap_or(streams[at]).as_fd()),
        limits: resource_limits(plan),
        cpus: spec.limits.cpus.as_ref().map(|cpus| cpu_set(cpus)),
        ruleset: ruleset.map(AsFd::as_fd),
        filter: plan.filter,
        isolation: spec.isolation,
        failure: None,
    };
    if spec.isolation == Isolation::Sandbox {
        // The identity changed, so our own files in /proc are root's; the child needs one of them.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).step(Step::Fork)?;
    }
    // SAFETY: `run` ends in `execve` or `_exit`, does not unwind, and changes only `failure` of what
    // we share.
    let spawned = unsafe { sys::spawn_sharing_memory(run, &mut payload) };
    let pid = spawned.step(Step::Fork)?;
    match payload.failure {
        None => Ok(pid),
        Some((step @ Step::Execute, errno)) => Err(Failure::at(step, &spec.argv[0], errno)),
        Some((step @ Step::WorkingDirectory, errno)) => Err(Failure::at(step, &spec.cwd, errno)),
        Some((step, errno)) => Err(Failure::new(step, errno)),
    }
}

/// What a stream is replaced by: the null device of the host by the sandbox's own.
fn own_stream(stream: &OwnedFd, isolation: Isolation) -> Result<Option<OwnedFd>, Failure> {
    match isolation {
        Isolation::Sandbox => devices::own_null(stream).step(Step::Streams),
        Isolation::Process => Ok(None),
    }
}

extern "C" fn run(argument: *mut c_void) -> c_int {
    // SAFETY: it is the `Payload` that `spawn` holds and does not touch until we are gone.
    let payload = unsafe { &mut *argument.cast::<Payload<'_>>() };
    if let Err(failure) = prepare(payload) {
        payload.failure = Some(failure);
        return 127;
    }
    let mut reason = Errno::NOENT;
    for candidate in &payload.candidates {
        match sys::execute(candidate, &payload.argv, &payload.env) {
            // Not here; perhaps in the next directory.
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => reason = Errno::ACCESS,
            other => {
                reason = other;
                break;
            }
        }
    }
    payload.failure = Some((Step::Execute, reason));
    127
}

/// The steps between fork and program. Allocates nothing: an abandoned allocation would be the
/// init's for ever.
fn prepare(payload: &Payload<'_>) -> Result<(), (Step, Errno)> {
    let step = |step| move |errno| (step, errno);
    rustix::process::setsid().map_err(step(Step::Fork))?;
    rustix::process::umask(Mode::from(0o022));
    if payload.isolation == Isolation::Process {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(step(Step::TieLife))?;
    }
    let [stdin, stdout, stderr] = payload.streams;
    rustix::stdio::dup2_stdin(stdin).map_err(step(Step::Streams))?;
    rustix::stdio::dup2_stdout(stdout).map_err(step(Step::Streams))?;
    rustix::stdio::dup2_stderr(stderr).map_err(step(Step::Streams))?;
    rustix::process::chdir(&payload.cwd).map_err(step(Step::WorkingDirectory))?;
    if let Some(cpus) = &payload.cpus {
        rustix::thread::sched_setaffinity(None, cpus).map_err(step(Step::PinCpus))?;
    }
    prefer_for_oom_kill();
    for (resource, limit) in &payload.limits {
        rustix::process::setrlimit(*resource, *limit).map_err(step(Step::ResourceLimits))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(step(Step::DropCapabilities))?;
    if payload.isolation == Isolation::Sandbox {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(step(Step::DropCapabilities))?;
    }
    if let Some(ruleset) = payload.ruleset {
        sys::landlock_restrict_self(ruleset).map_err(step(Step::Landlock))?;
    }
    sys::close_range(3, u32::MAX);
    sys::block_all_signals(false);
    if payload.isolation == Isolation::Sandbox {
        sys::install_seccomp(payload.filter).map_err(step(Step::Seccomp))?;
    }
    Ok(())
}

/// Best effort: where it fails, the kernel still kills within the limit, only not by our choice.
fn prefer_for_oom_kill() {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty());
    if let Ok(file) = opened {
        _ = rustix::io::write(file, OOM_SCORE_ADJUSTMENT);
    }
}

fn resource_limits(plan: &Plan<'_>) -> Vec<(Resource, Rlimit)> {
    let both = |value| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    let Limits {
        memory_bytes,
        pids,
        file_size_bytes,
        ..
    } = plan.spec.limits;
    let mut limits = vec![
        (Resource::Core, both(CORE_BYTES)),
        (Resource::Nofile, both(plan.spec.limits.open_files())),
    ];
    // Counted for the user who made the user namespace, too.
    let signals = rustix::process::getrlimit(Resource::Sigpending).current;
    let share = |all: u64| (all / SHARE).max(1).min(all);
    limits.extend(signals.map(|all| (Resource::Sigpending, both(share(all)))));
    limits.extend(file_size_bytes.map(|bytes| (Resource::Fsize, both(bytes))));
    if plan.memory_by_rlimit {
        limits.extend(memory_bytes.map(|bytes| (Resource::Data, both(bytes))));
    }
    if plan.pids_by_rlimit {
        limits.extend(pids.map(|pids| (Resource::Nproc, both(u64::from(pids + OWN_PIDS)))));
    }
    limits
}

fn cpu_set(cpus: &[u32]) -> CpuSet {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu as usize);
    }
    set
}

/// The paths under which the program may be found.
fn candidates(plan: &Plan<'_>) -> Result<Vec<CString>, Failure> {
    let program = &plan.spec.argv[0];
    if program.contains('/') {
        return Ok(vec![string(program.as_bytes())?]);
    }
    let path = plan.spec.env.iter().find(|(key, _)| key == "PATH");
    let path = path.map_or(DEFAULT_PATH, |(_, value)| value.as_str());
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| string(format!("{directory}/{program}").as_bytes()))
        .collect()
}

fn strings(texts: impl Iterator<Item = String>) -> Result<Vec<CString>, Failure> {
    texts.map(|text| string(text.as_bytes())).collect()
}

fn string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::new(Step::Execute, Errno::INVAL))
}
