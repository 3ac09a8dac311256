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
    for number in 0..count {
        let (started, ended) = sandboxed(&launcher, number)?;
        until_exec.push(started);
        ours.push(ended);
        unshare.push(command(
            "unshare",
            &["-Urmpiun", "--fork", "--mount-proc", "/bin/true"],
        )?);
        plain.push(command("/bin/true", &[])?);
    }
    print("sandbox until the program runs", &mut until_exec);
    print("sandbox until it has ended", &mut ours);
    print("unshare -Urmpiun --fork --mount-proc", &mut unshare);
    print("fork and exec", &mut plain);
    println!(
        "{{\"bench\":\"cold_start\",\"ratio_to_unshare_p50\":{:.2}}}",
        middle(&ours).as_secs_f64() / middle(&unshare).as_secs_f64()
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
