//! Hosts that refuse something: an agent in a process of its own, to which less is given.
#![expect(clippy::print_stdout, reason = "it speaks to the test by its output")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

use barecount_sandbox::{LaunchError, Launcher, LauncherConfig};
use serde_json::{Value, json};

use crate::launched::{hold_by, own_program, shell};
use crate::{TestResult, launcher};

tests!(
    root_of_a_user_namespace_without_ids_has_its_own_for_all,
    root_of_a_user_namespace_gives_each_sandbox_one_of_its_ids,
    mounts_of_another_user_namespace_are_told,
    a_proc_of_another_process_namespace_is_told,
    a_limit_of_namespaces_is_told_by_its_name,
    who_has_no_id_of_his_own_is_told_so,
    a_filter_that_does_not_know_clone3_is_no_obstacle,
    what_a_filter_refuses_is_told_with_the_remedy,
    who_may_queue_no_signals_runs_sandboxes,
    root_without_control_groups_is_not_told_to_be_root,
);

/// An ordinary user has no ids to map.
pub(crate) const AS_ROOT: &[&str] = &[
    "root_of_a_user_namespace_gives_each_sandbox_one_of_its_ids",
    "mounts_of_another_user_namespace_are_told",
    "root_without_control_groups_is_not_told_to_be_root",
];

type Error = Box<dyn std::error::Error>;

/// Starts two sandboxes, and prints what came of it as JSON. With a number of an error and numbers of
/// system calls, those fail with it from here on.
pub(crate) fn main(words: &[String]) -> ExitCode {
    let numbers = words.iter().map(|word| word.parse());
    let numbers: Vec<u32> = numbers.collect::<Result<_, _>>().expect("they are numbers");
    if let Some((errno, calls)) = numbers.split_first() {
        refuse(*errno, calls);
    }
    println!("{}", tried());
    ExitCode::SUCCESS
}

/// Puts this process under a filter that answers some system calls with an error, as a container's.
fn refuse(errno: u32, calls: &[u32]) {
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    // The number comes first in what a filter is shown.
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in calls {
        program.push(step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            *call,
        ));
        program.push(step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | errno,
        ));
    }
    program.push(step(
        libc::BPF_RET | libc::BPF_K,
        0,
        0,
        libc::SECCOMP_RET_ALLOW,
    ));
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: integers; then the kernel copies the program, which is valid for its length.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    assert_eq!(refused, 0, "{}", std::io::Error::last_os_error());
}

fn tried() -> Value {
    let prefix = format!("barecount-host-{}", std::process::id());
    let launcher = match Launcher::start(LauncherConfig::new(prefix)) {
        Ok(launcher) => launcher,
        Err(error) => {
            return json!({ "no launcher": chain(&error), "remedy": error.remedy() });
        }
    };
    let run = || {
        let held = hold_by(&launcher, &shell("cat /proc/self/uid_map; id -u; echo ran"))?;
        let enforcement = json!(held.sandbox.enforcement());
        Ok((enforcement, held.finish()?.stdout))
    };
    let mut told = json!({ "host": launcher.host() });
    let mut texts = Vec::new();
    for _ in 0..2 {
        match run() {
            Ok((enforcement, text)) => {
                told["controls"] = enforcement["controls"].clone();
                texts.push(text);
            }
            Err::<_, Error>(error) => {
                told["failure"] = chain(&*error).into();
                told["remedy"] = match error.downcast_ref() {
                    Some(
                        LaunchError::Refused { remedy, .. }
                        | LaunchError::UserNamespaces { remedy, .. },
                    ) => remedy.as_str().into(),
                    _ => Value::Null,
                };
            }
        }
    }
    told["texts"] = json!(texts);
    told
}

fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = sources.map(ToString::to_string).collect();
    texts.join(": ")
}

/// What came of it, behind a command that leads to it.
fn told_behind(before: &[&str]) -> Result<Value, Error> {
    told_by(before, &[])
}

/// What came of it under a filter.
fn told_under(errno: i32, calls: &[libc::c_long]) -> Result<Value, Error> {
    let mut numbers = vec![errno.to_string()];
    numbers.extend(calls.iter().map(ToString::to_string));
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    told_by(&[], &numbers)
}

fn told_by(before: &[&str], numbers: &[&str]) -> Result<Value, Error> {
    let mut words: Vec<&str> = before.to_vec();
    let program = own_program();
    words.extend([program.to_str().ok_or("a path of text")?, "--host"]);
    words.extend(numbers);
    let output = Command::new(words[0]).args(&words[1..]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let wrong = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}{wrong}").into())
}

/// The ids outside, inside the agent's namespace, of the payloads of both sandboxes.
fn outside(told: &Value) -> Result<Vec<u32>, Error> {
    let texts = told["texts"].as_array().ok_or("no texts")?;
    let id = |text: &Value| {
        let text = text.as_str()?;
        let complete = text.ends_with("ran\n");
        complete.then(|| text.split_ascii_whitespace().nth(1)?.parse().ok())?
    };
    let ids: Option<Vec<u32>> = texts.iter().map(id).collect();
    match ids {
        Some(ids) if ids.len() == 2 => Ok(ids),
        _ => Err(told.to_string().into()),
    }
}

/// As `unshare` alone makes it, with one id.
fn root_of_a_user_namespace_without_ids_has_its_own_for_all() -> TestResult {
    let told = told_behind(&["unshare", "--user", "--map-root-user"])?;
    // Who reads a map in the namespace that it is of is told the ids of the one above, in which the
    // agent is 0.
    assert_eq!(outside(&told)?, [0, 0], "{told}");
    let users = &told["controls"]["users"];
    assert_eq!(users["level"], "degraded", "{told}");
    let reason = users["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("has 1 ids, too few"), "{reason}");
    let remedy = users["remedy"].as_str().unwrap_or_default();
    assert!(remedy.contains("/etc/subuid"), "{remedy}");
    for control in ["namespaces", "privileges", "root_file_system", "seccomp"] {
        let level = &told["controls"][control]["level"];
        assert_eq!(level, "enforced", "{control}: {told}");
    }
    Ok(())
}

/// Waits in a new user namespace, with those more, until ids are mapped.
fn waiting(more: &[&str]) -> Result<Child, Error> {
    let script = "echo; read go; exec \"$0\" --host";
    let mut command = Command::new("unshare");
    command.arg("--user").args(more);
    command.args(["sh", "-c", script]).arg(own_program());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command.process_group(0).spawn()?)
}

/// As a container's engine makes them: its own user, and 65,535 more.
fn with_many_ids(more: &[&str]) -> Result<Value, Error> {
    let mut child = waiting(more)?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or("it is piped")?);
    stdout.read_line(&mut String::new())?;
    for map in ["uid_map", "gid_map"] {
        let ids = "0 0 1\n1 100000 65535\n";
        std::fs::write(format!("/proc/{}/{map}", child.id()), ids)?;
    }
    child
        .stdin
        .take()
        .ok_or("it is piped")?
        .write_all(b"go\n")?;
    let mut text = String::new();
    stdout.read_to_string(&mut text)?;
    child.wait()?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}").into())
}

fn root_of_a_user_namespace_gives_each_sandbox_one_of_its_ids() -> TestResult {
    let told = with_many_ids(&["--mount"])?;
    let ids = outside(&told)?;
    assert_ne!(ids[0], ids[1], "{told}");
    for id in ids {
        assert!((20_000..60_000).contains(&id), "{told}");
    }
    for control in ["users", "supplementary_groups"] {
        let level = &told["controls"][control]["level"];
        assert_eq!(level, "enforced", "{control}: {told}");
    }
    // Nodes are not made by root of a namespace.
    assert_eq!(told["controls"]["inodes"]["level"], "degraded", "{told}");
    Ok(())
}

fn mounts_of_another_user_namespace_are_told() -> TestResult {
    let told = with_many_ids(&[])?;
    assert_eq!(outside(&told)?, [0, 0], "{told}");
    let users = told["controls"]["users"].to_string();
    assert!(
        users.contains("mounts belong to another user namespace"),
        "{users}"
    );
    Ok(())
}

fn a_proc_of_another_process_namespace_is_told() -> TestResult {
    let namespaces: &[&str] = match launcher().host().root {
        true => &["unshare", "--pid", "--fork"],
        false => &["unshare", "--user", "--map-root-user", "--pid", "--fork"],
    };
    let told = told_behind(namespaces)?;
    let lack = told["host"]["user_namespaces"].to_string();
    assert!(lack.contains("of another process namespace"), "{told}");
    assert!(lack.contains("mount -t proc"), "{told}");
    assert_eq!(outside(&told).ok(), None, "{told}");
    Ok(())
}

/// In a user namespace of the test's own, whose limits are its own, too.
fn told_at(limit: &str) -> Result<Value, Error> {
    let script = format!("echo 0 > /proc/sys/user/{limit}; exec \"$0\" \"$@\"");
    told_behind(&["unshare", "--user", "--map-root-user", "sh", "-c", &script])
}

fn a_limit_of_namespaces_is_told_by_its_name() -> TestResult {
    for kind in ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup", "time"] {
        let limit = format!("max_{kind}_namespaces");
        let told = told_at(&limit)?;
        let lack = &told["host"]["user_namespaces"]["unavailable"];
        assert_eq!(lack["reason"], format!("user.{limit} is 0."), "{told}");
        let remedy = format!("Run sysctl user.{limit}=10000 as root.");
        assert_eq!(lack["remedy"], remedy, "{told}");
        assert_eq!(told["remedy"], remedy, "{told}");
    }
    Ok(())
}

fn who_has_no_id_of_his_own_is_told_so() -> TestResult {
    let told = told_behind(&["unshare", "--user"])?;
    let reason = told["host"]["user_namespaces"]["unavailable"]["reason"].to_string();
    assert!(
        reason.contains("have no ids in the user namespace"),
        "{told}"
    );
    Ok(())
}

/// Container engines answer so where they cannot look at its arguments.
fn a_filter_that_does_not_know_clone3_is_no_obstacle() -> TestResult {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let told = told_under(errno, &[libc::SYS_clone3])?;
        assert_eq!(outside(&told)?.len(), 2, "{told}");
        let by_all = launcher().host().controllers[&barecount_sandbox::Controller::Memory].clone();
        let memory = &told["host"]["controllers"]["memory"];
        assert_eq!(*memory, json!(by_all), "{told}");
    }
    Ok(())
}

/// The number of an error, which system calls fail with it, and the step that is told.
type Refusal = (i32, &'static [libc::c_long], &'static str);

const NEW_MOUNTS: &[libc::c_long] = &[libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount];

fn refusals() -> [Refusal; 14] {
    [
        (libc::EPERM, &[libc::SYS_unshare], "create the namespaces"),
        (
            libc::EPERM,
            &[libc::SYS_clone, libc::SYS_clone3],
            "fork the launcher",
        ),
        (
            libc::EPERM,
            &[libc::SYS_mount, libc::SYS_umount2],
            "make the root file system",
        ),
        (libc::ENOSYS, NEW_MOUNTS, "make the root file system"),
        (libc::EPERM, NEW_MOUNTS, "make the root file system"),
        (
            libc::EPERM,
            &[libc::SYS_move_mount],
            "make the root file system",
        ),
        (libc::EPERM, &[libc::SYS_open_tree], "open the mount source"),
        (libc::ENOSYS, &[libc::SYS_openat2], "make /dev"),
        (libc::ENOSYS, &[libc::SYS_statx], "change the root"),
        (libc::EPERM, &[libc::SYS_pivot_root], "change the root"),
        (
            libc::EPERM,
            &[libc::SYS_seccomp],
            "install the system call filter",
        ),
        (
            libc::EPERM,
            &[libc::SYS_prctl],
            "keep its memory from being read",
        ),
        (
            libc::EPERM,
            &[libc::SYS_socket],
            "bring up the loopback device",
        ),
        (
            libc::EAFNOSUPPORT,
            &[libc::SYS_socket],
            "bring up the loopback device",
        ),
    ]
}

fn what_a_filter_refuses_is_told_with_the_remedy() -> TestResult {
    for (errno, calls, step) in refusals() {
        let told = told_under(errno, calls)?;
        let failure = match &told["no launcher"] {
            Value::Null => &told["failure"],
            failure => failure,
        };
        let failure = failure.as_str().unwrap_or_default();
        assert!(failure.contains(step), "{calls:?}: {told}");
        let remedy = told["remedy"].as_str().unwrap_or_default();
        assert!(remedy.contains("Seccomp: 2"), "{calls:?}: {told}");
    }
    Ok(())
}

fn who_may_queue_no_signals_runs_sandboxes() -> TestResult {
    for limit in ["--sigpending=0", "--sigpending=1"] {
        let told = told_behind(&["prlimit", limit])?;
        assert_eq!(outside(&told)?.len(), 2, "{limit}: {told}");
    }
    Ok(())
}

fn root_without_control_groups_is_not_told_to_be_root() -> TestResult {
    let script = "mount -t tmpfs none /sys/fs/cgroup; exec \"$0\" \"$@\"";
    let told = told_behind(&["unshare", "--mount", "sh", "-c", script])?;
    let lack = told["host"]["controllers"]["memory"]["unavailable"].clone();
    let remedy = lack["remedy"].as_str().unwrap_or_default();
    assert!(!remedy.contains("Run as root"), "{told}");
    assert!(remedy.contains("docker run --privileged"), "{told}");
    Ok(())
}
