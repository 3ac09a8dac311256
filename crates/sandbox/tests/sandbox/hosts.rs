//! Hosts that refuse something: an agent in a process of its own, to which less is given.
#![expect(clippy::print_stdout, reason = "it speaks to the test by its output")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

use barecount_sandbox::{Launcher, LauncherConfig};
use serde_json::{Value, json};

use crate::launched::{hold_by, own_program, shell};
use crate::{TestResult, launcher};

tests!(
    root_of_a_user_namespace_without_ids_has_its_own_for_all,
    root_of_a_user_namespace_gives_each_sandbox_one_of_its_ids,
    mounts_of_another_user_namespace_are_told,
    a_proc_of_another_process_namespace_is_told,
);

/// An ordinary user has no ids to map.
pub(crate) const AS_ROOT: &[&str] = &[
    "root_of_a_user_namespace_gives_each_sandbox_one_of_its_ids",
    "mounts_of_another_user_namespace_are_told",
];

type Error = Box<dyn std::error::Error>;

/// Starts two sandboxes, and prints what came of it as JSON.
pub(crate) fn main() -> ExitCode {
    println!("{}", tried());
    ExitCode::SUCCESS
}

fn tried() -> Value {
    let prefix = format!("barecount-host-{}", std::process::id());
    let launcher = match Launcher::start(LauncherConfig::new(prefix)) {
        Ok(launcher) => launcher,
        Err(error) => return json!({ "no launcher": chain(&error) }),
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
            Err::<_, Error>(error) => told["failure"] = chain(&*error).into(),
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
    let mut words: Vec<&str> = before.to_vec();
    let program = own_program();
    words.extend([program.to_str().ok_or("a path of text")?, "--host"]);
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
