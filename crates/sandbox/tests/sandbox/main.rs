//! Real sandboxes. Not run by the usual test harness, since the launcher must be started while the
//! process has one thread: `main` does that, then hands over to `libtest-mimic`.
//!
//! The binary is also what runs *inside* (`--probe`), and an agent to be killed (`--agent`). As
//! root, the whole suite runs once more as an ordinary user.

/// Tests with their names, which are those of the functions.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        pub(crate) const TESTS: &[(&str, fn() -> $crate::TestResult)] =
            &[$((stringify!($test), $test)),*];
    };
}

mod agent;
mod battery;
mod breakout;
mod escape;
mod hosts;
mod kills;
mod launched;
mod life;
mod limits;
mod meeting;
mod neighbours;
mod network;
mod ordinary;
mod probe;
mod resolver;
mod roots;
mod specs;
mod tunnels;

use std::process::ExitCode;
use std::sync::OnceLock;

use barecount_sandbox::{Launcher, LauncherConfig, StartError};
use libtest_mimic::{Arguments, Trial};

static LAUNCHERS: OnceLock<Launchers> = OnceLock::new();

struct Launchers {
    /// It uses all that the kernel has.
    full: Launcher,
    without_packet_log: Launcher,
    without_nf_tables: Launcher,
}

impl Launchers {
    fn start() -> Result<Self, StartError> {
        let config = |what| LauncherConfig::new(format!("barecount-{what}-{}", std::process::id()));
        let full = Launcher::start(config("test"))?;
        let mut without = config("unlogged");
        without.use_packet_log = false;
        let without_packet_log = Launcher::start(without)?;
        let mut without = config("bare");
        without.use_nf_tables = false;
        Ok(Self {
            full,
            without_packet_log,
            without_nf_tables: Launcher::start(without)?,
        })
    }
}

/// What a test returns.
type TestResult = Result<(), Box<dyn std::error::Error>>;

fn launchers() -> &'static Launchers {
    LAUNCHERS.get().expect("main starts them before any test")
}

fn launcher() -> &'static Launcher {
    &launchers().full
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--probe") => return probe::main(&arguments[2..]),
        Some("--host") => return hosts::main(&arguments[2..]),
        Some("--agent") => return agent::main(&arguments[2..]),
        Some("--battery") => return battery::main(&arguments[2..]),
        Some("--battery-agent") => return battery::agent(&arguments[2..]),
        Some("--identity") => return battery::tell_identity(),
        _ => {}
    }
    let launchers = Launchers::start().expect("the launchers start");
    assert!(LAUNCHERS.set(launchers).is_ok(), "they are set once");
    let as_root = [
        battery::AS_ROOT,
        hosts::AS_ROOT,
        neighbours::AS_ROOT,
        ordinary::AS_ROOT,
    ]
    .concat();
    let root = launcher().host().root;
    let mut trials = Vec::new();
    for list in [
        battery::TESTS,
        breakout::TESTS,
        escape::TESTS,
        hosts::TESTS,
        kills::TESTS,
        life::TESTS,
        limits::TESTS,
        neighbours::TESTS,
        network::TESTS,
        ordinary::TESTS,
        resolver::TESTS,
        roots::TESTS,
        specs::TESTS,
        tunnels::TESTS,
    ] {
        trials.extend(list.iter().map(|(name, test)| {
            let needs_root = as_root.contains(name);
            let trial = Trial::test(*name, move || {
                test().map_err(|error| error.to_string().into())
            });
            let kind = if needs_root { "as root" } else { "" };
            trial.with_kind(kind).with_ignored_flag(needs_root && !root)
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
