//! The probes in runc.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

use super::{
    Outcomes,
    places::{INPUT, OUTPUT, Outside, USER, outcomes},
};

type Error = Box<dyn std::error::Error>;

/// The system calls that Docker's default profile lets a container make that has none of the
/// capabilities which widen it.
const DOCKER_CALLS: &str = include_str!("../../../src/seccomp/docker.txt");

/// How runc is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// With its default specification, which has no filter of system calls.
    Default,
    /// With Docker's filter beside that.
    Filtered,
    /// By an ordinary user, with the default specification for that.
    Rootless,
}

/// Runs the probes by `runc run`, with the default specification but for the program, the mounts of
/// an attempt, and the filter.
pub(super) fn run(outside: &Outside, way: Way) -> Result<Outcomes, Error> {
    let name = format!("battery-{}-{way:?}", std::process::id()).to_lowercase();
    let bundle = outside.folder().join(&name);
    fs::create_dir(&bundle)?;
    specify(&bundle, way)?;
    let file = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let environment = serde_json::to_string(&outside.inside()?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/battery", "--battery", environment]);
    config["root"]["path"] = json!(outside.folder().join("root"));
    let mounts = config["mounts"].as_array_mut().ok_or("it has mounts")?;
    for (source, target, access) in [("input", INPUT, "ro"), ("output", OUTPUT, "rw")] {
        mounts.push(json!({
            "destination": target,
            "type": "bind",
            "source": outside.folder().join(source),
            "options": ["rbind", "nosuid", "nodev", access],
        }));
    }
    if way == Way::Filtered {
        config["linux"]["seccomp"] = docker();
    }
    fs::write(&file, serde_json::to_vec(&config)?)?;
    let mut command = runc(way);
    command.env("XDG_RUNTIME_DIR", &bundle);
    command.arg("--root").arg(bundle.join("state"));
    outcomes(command.args(["run", "--bundle"]).arg(&bundle).arg(&name))
}

fn runc(way: Way) -> Command {
    let mut command = Command::new("runc");
    if way == Way::Rootless {
        command.uid(USER).gid(USER).current_dir("/");
    }
    command
}

fn specify(bundle: &Path, way: Way) -> Result<(), Error> {
    let mut command = runc(way);
    command.args(["spec", "--bundle"]).arg(bundle);
    if way == Way::Rootless {
        chown(bundle, Some(USER), Some(USER))?;
        command.arg("--rootless");
    }
    let made = command
        .output()
        .map_err(|error| format!("runc cannot be run ({error}): cargo xtask test setup"))?;
    if made.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&made.stderr).into_owned().into())
    }
}

/// The filter in the form of the OCI runtime specification.
fn docker() -> Value {
    let allow = |names: Vec<&str>, arguments: Value| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": arguments});
    let argument =
        |index: u32, value: u64, test: &str| json!([{"index": index, "value": value, "op": test}]);
    let names = DOCKER_CALLS.lines().filter(|line| !line.starts_with('#'));
    // Every family but that of virtual machines; no namespace; the kinds of Linux programs.
    let mut calls = vec![
        allow(names.collect(), json!([])),
        allow(vec!["socket"], argument(0, 40, "SCMP_CMP_NE")),
        allow(
            vec!["clone"],
            json!([{
                "index": 0, "value": 0x7e02_0000_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ",
            }]),
        ),
    ];
    for kind in [0, 8, 0x2_0000, 0x2_0008, u64::from(u32::MAX)] {
        calls.push(allow(vec!["personality"], argument(0, kind, "SCMP_CMP_EQ")));
    }
    calls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    let machines: &[&str] = if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": machines,
        "syscalls": calls,
    })
}
