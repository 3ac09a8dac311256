//! Times cold starts of `/bin/true`, with all namespaces, limits and the system call filter, beside
//! `unshare` with the same namespaces (and `crun run` where it is installed). Prints JSON lines.
//!
//! `cargo run --release --example cold_start [-- COUNT]`
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::process::{Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use barecount_sandbox::{Launcher, LauncherConfig, Limits, SandboxName, Spec, Stdio};

fn main() -> Result<(), Box<dyn Error>> {
    let launcher = Launcher::start(LauncherConfig::new("barecount-cold-start"))?;
    let count: usize = std::env::args()
        .nth(1)
        .map_or(Ok(300), |text| text.parse())?;
    // Taken in turn, so that what else the machine does falls on all alike.
    let (mut ours, mut until_exec, mut unshare, mut plain) = (vec![], vec![], vec![], vec![]);
    let mut crun = vec![];
    let bundle = Bundle::new()?.filter(|bundle| match bundle.run(count) {
        Ok(_) => true,
        Err(error) => {
            println!("{{\"bench\":\"cold_start\",\"what\":\"crun run\",\"absent\":\"{error}\"}}");
            false
        }
    });
    for number in 0..count {
        let (started, ended) = sandboxed(&launcher, number)?;
        until_exec.push(started);
        ours.push(ended);
        unshare.push(command(
            "unshare",
            &["-Urmpiun", "--fork", "--mount-proc", "/bin/true"],
        )?);
        plain.push(command("/bin/true", &[])?);
        // A tenth as many, as it takes ten times as long.
        if let Some(bundle) = bundle.as_ref().filter(|_| number % 10 == 0) {
            crun.push(bundle.run(number)?);
        }
    }
    print("sandbox until the program runs", &mut until_exec);
    print("sandbox until it has ended", &mut ours);
    print("unshare -Urmpiun --fork --mount-proc", &mut unshare);
    print("fork and exec", &mut plain);
    if bundle.is_some() {
        print("crun run", &mut crun);
    }
    let ratio = |other: &[Duration]| {
        let other = middle(other).as_secs_f64();
        if other > 0.0 {
            (middle(&ours).as_secs_f64() / other).to_string()
        } else {
            "null".into()
        }
    };
    println!(
        "{{\"bench\":\"cold_start\",\"p50_to_unshare\":{},\"p50_to_crun\":{}}}",
        ratio(&unshare),
        ratio(&crun)
    );
    Ok(())
}

fn sandboxed(launcher: &Launcher, number: usize) -> Result<(Duration, Duration), Box<dyn Error>> {
    let name = SandboxName::new(format!("cold-{number}"))?;
    let mut spec = Spec::new(name, vec!["/bin/true".to_owned()]);
    spec.limits = Limits {
        memory_bytes: Some(256 << 20),
        cpu_millis: Some(1000),
        pids: Some(64),
        ..Limits::default()
    };
    let stdio = Stdio::null()?;
    let begun = Instant::now();
    let sandbox = launcher.launch(&spec, stdio)?;
    let started = begun.elapsed();
    let exit = sandbox.wait()?;
    let ended = begun.elapsed();
    if !exit.status.success() {
        return Err(format!("it ended with {exit:?}").into());
    }
    Ok((started, ended))
}

/// An OCI bundle that runs the same program, for `crun`.
struct Bundle {
    folder: tempfile::TempDir,
}

impl Bundle {
    /// `None` where `crun` is not installed.
    fn new() -> Result<Option<Self>, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        match Command::new("crun")
            .arg("spec")
            .current_dir(folder.path())
            .status()
        {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            status => status?,
        };
        let root = folder.path().join("rootfs");
        std::fs::create_dir_all(root.join("usr"))?;
        for name in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
        }
        let path = folder.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        config["process"]["args"] = serde_json::json!(["/bin/true"]);
        config["process"]["terminal"] = false.into();
        let limits = serde_json::json!({
            "memory": {"limit": 256 << 20},
            "cpu": {"quota": 100_000, "period": 100_000},
            "pids": {"limit": 64},
        });
        config["linux"]["resources"] = limits;
        let usr = serde_json::json!({
            "destination": "/usr", "type": "bind", "source": "/usr",
            "options": ["rbind", "ro", "nosuid", "nodev"],
        });
        config["mounts"]
            .as_array_mut()
            .ok_or("no mounts")?
            .push(usr);
        std::fs::write(&path, serde_json::to_vec(&config)?)?;
        Ok(Some(Self { folder }))
    }

    fn run(&self, number: usize) -> Result<Duration, Box<dyn Error>> {
        let folder = self
            .folder
            .path()
            .to_str()
            .ok_or("the temporary folder is not UTF-8")?;
        let name = format!("cold-start-{}-{number}", std::process::id());
        command(
            "crun",
            &[
                "--cgroup-manager=cgroupfs",
                "run",
                "--bundle",
                folder,
                &name,
            ],
        )
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<Duration, Box<dyn Error>> {
    let begun = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::null())
        .stderr(ProcessStdio::null())
        .status()?;
    let took = begun.elapsed();
    if status.success() {
        Ok(took)
    } else {
        Err(format!("{program} ended with {status}").into())
    }
}

fn middle(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let micros = |part: f64| {
        let index = ((times.len() as f64 - 1.0) * part) as usize;
        times.get(index).copied().unwrap_or_default().as_micros()
    };
    println!(
        "{{\"bench\":\"cold_start\",\"what\":\"{what}\",\"count\":{},\"min_us\":{},\"p50_us\":{},\
         \"p90_us\":{},\"p99_us\":{}}}",
        times.len(),
        micros(0.0),
        micros(0.5),
        micros(0.9),
        micros(0.99)
    );
}
