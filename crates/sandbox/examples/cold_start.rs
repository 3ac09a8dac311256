//! Times cold starts of `/bin/true`, with all namespaces, limits and the system call filter, with
//! loopback alone and with a brokered network, beside
//! `unshare` with the same namespaces (and `crun run` where it is installed). Prints JSON lines.
//!
//! `cargo run --release --example cold_start [-- COUNT]`
//!
//! `crun` refuses a host that has both versions of control groups mounted. There it is run by a
//! process of its own, in a mount namespace without the second version; its controllers are with the
//! first.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use barecount_sandbox::{
    Brokered, Launcher, LauncherConfig, Limits, Network, SandboxName, Spec, Stdio,
};

/// Where a host of both versions mounts the second.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// The argument that makes this program run `crun` whenever it reads a line.
const RUNS_CRUN: &str = "--crun";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    if let (Some(RUNS_CRUN), Some(bundle)) = (arguments.next().as_deref(), arguments.next()) {
        return run_crun_on_demand(&bundle);
    }
    let launcher = Launcher::start(LauncherConfig::new("barecount-cold-start"))?;
    let count: usize = std::env::args()
        .nth(1)
        .map_or(Ok(300), |text| text.parse())?;
    measure(&launcher, count)?.report();
    Ok(())
}

/// How long each start took, by what was started.
#[derive(Default)]
struct Times {
    until_exec: Vec<Duration>,
    ours: Vec<Duration>,
    brokered_until_exec: Vec<Duration>,
    brokered: Vec<Duration>,
    unshare: Vec<Duration>,
    plain: Vec<Duration>,
    crun: Vec<Duration>,
}

/// All are taken in turn, so that what else the machine does falls on all alike.
fn measure(launcher: &Launcher, count: usize) -> Result<Times, Box<dyn Error>> {
    let mut times = Times::default();
    let mut crun = match Crun::start() {
        Ok(crun) => Some(crun),
        Err(error) => {
            println!("{{\"bench\":\"cold_start\",\"what\":\"crun run\",\"absent\":\"{error}\"}}");
            None
        }
    };
    for number in 0..count {
        // Each kind comes first as often as second, after a program of another kind.
        for brokered in [number % 2 == 0, number % 2 == 1] {
            let (started, ended) = sandboxed(launcher, number, brokered)?;
            if brokered {
                times.brokered_until_exec.push(started);
                times.brokered.push(ended);
            } else {
                times.until_exec.push(started);
                times.ours.push(ended);
            }
        }
        times.unshare.push(command(
            "unshare",
            &["-Urmpiun", "--fork", "--mount-proc", "/bin/true"],
        )?);
        times.plain.push(command("/bin/true", &[])?);
        // A tenth as many, as it takes ten times as long.
        if let Some(crun) = crun.as_mut().filter(|_| number % 10 == 0) {
            times.crun.push(crun.run()?);
        }
    }
    Ok(times)
}

impl Times {
    fn report(mut self) {
        print("sandbox until the program runs", &mut self.until_exec);
        print("sandbox until it has ended", &mut self.ours);
        print(
            "brokered sandbox until the program runs",
            &mut self.brokered_until_exec,
        );
        print("brokered sandbox until it has ended", &mut self.brokered);
        print("unshare -Urmpiun --fork --mount-proc", &mut self.unshare);
        print("fork and exec", &mut self.plain);
        if !self.crun.is_empty() {
            print("crun run", &mut self.crun);
        }
        println!(
            "{{\"bench\":\"cold_start\",\"p50_to_unshare\":{},\"brokered_p50_to_unshare\":{},\
             \"p50_to_crun\":{},\"brokered_p50_to_crun\":{}}}",
            ratio(&self.ours, &self.unshare),
            ratio(&self.brokered, &self.unshare),
            ratio(&self.ours, &self.crun),
            ratio(&self.brokered, &self.crun)
        );
    }
}

/// How the middle of two sorted series compare; JSON.
fn ratio(ours: &[Duration], other: &[Duration]) -> String {
    let other = middle(other).as_secs_f64();
    if other > 0.0 {
        (middle(ours).as_secs_f64() / other).to_string()
    } else {
        "null".into()
    }
}

fn sandboxed(
    launcher: &Launcher,
    number: usize,
    brokered: bool,
) -> Result<(Duration, Duration), Box<dyn Error>> {
    let name = SandboxName::new(format!("cold-{number}"))?;
    let mut spec = Spec::new(name, vec!["/bin/true".to_owned()]);
    if brokered {
        spec.network = Network::Brokered(Brokered::default());
    }
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

/// A process that runs `crun` and says how long it took, in a namespace where that works.
struct Crun {
    process: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Its bundle.
    _folder: tempfile::TempDir,
}

impl Crun {
    /// Fails where `crun` is not installed, or does not run this bundle.
    fn start() -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        write_bundle(folder.path())?;
        let own = std::env::current_exe()?;
        let mut command = if Path::new(UNIFIED).exists() {
            let script = format!("umount {UNIFIED} && exec \"$0\" \"$@\"");
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &script]).arg(own);
            command
        } else {
            Command::new(own)
        };
        let mut process = command
            .arg(RUNS_CRUN)
            .arg(folder.path())
            .stdin(ProcessStdio::piped())
            .stdout(ProcessStdio::piped())
            .spawn()?;
        let (Some(asked), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("its input and output are not pipes".into());
        };
        let mut crun = Self {
            process,
            asked,
            answers: BufReader::new(answers),
            _folder: folder,
        };
        crun.run()?;
        Ok(crun)
    }

    fn run(&mut self) -> Result<Duration, Box<dyn Error>> {
        writeln!(self.asked, "again")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let nanos = answer.trim().parse();
        Ok(Duration::from_nanos(nanos.map_err(|_| {
            format!("crun did not run: {}", answer.trim())
        })?))
    }
}

impl Drop for Crun {
    fn drop(&mut self) {
        // It has nothing to finish; there is nobody to tell if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers every line with the nanoseconds that a run of the bundle took, until there is none.
fn run_crun_on_demand(bundle: &str) -> Result<(), Box<dyn Error>> {
    for (number, _) in std::io::stdin().lines().enumerate() {
        let name = format!("cold-start-{}-{number}", std::process::id());
        let run = [
            "--cgroup-manager=cgroupfs",
            "run",
            "--bundle",
            bundle,
            &name,
        ];
        match command("crun", &run) {
            Ok(took) => println!("{}", took.as_nanos()),
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}

/// Writes an OCI bundle that runs the same program within the same limits.
fn write_bundle(folder: &Path) -> Result<(), Box<dyn Error>> {
    let status = Command::new("crun")
        .arg("spec")
        .current_dir(folder)
        .status()?;
    if !status.success() {
        return Err(format!("crun spec ended with {status}").into());
    }
    let root = folder.join("rootfs");
    std::fs::create_dir_all(root.join("usr"))?;
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["process"]["terminal"] = false.into();
    config["linux"]["resources"] = serde_json::json!({
        "memory": {"limit": 256 << 20},
        "cpu": {"quota": 100_000, "period": 100_000},
        "pids": {"limit": 64},
    });
    let usr = serde_json::json!({
        "destination": "/usr", "type": "bind", "source": "/usr",
        "options": ["rbind", "ro", "nosuid", "nodev"],
    });
    let mounts = config["mounts"].as_array_mut().ok_or("no mounts")?;
    mounts.push(usr);
    Ok(std::fs::write(&path, serde_json::to_vec(&config)?)?)
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
