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
mod breakout;
mod escape;
mod launched;
mod life;
mod limits;
mod network;
mod ordinary;
mod probe;
mod resolver;
mod roots;
mod specs;

use std::process::ExitCode;
use std::sync::OnceLock;

use barecount_sandbox::{Launcher, LauncherConfig};
use libtest_mimic::{Arguments, Trial};

static LAUNCHER: OnceLock<Launcher> = OnceLock::new();
static LAUNCHER_WITHOUT_NF_TABLES: OnceLock<Launcher> = OnceLock::new();

/// What a test returns.
type TestResult = Result<(), Box<dyn std::error::Error>>;

fn launcher() -> &'static Launcher {
    LAUNCHER.get().expect("main starts it before any test")
}

/// One that finds no nf_tables.
fn launcher_without_nf_tables() -> &'static Launcher {
    let launcher = LAUNCHER_WITHOUT_NF_TABLES.get();
    launcher.expect("main starts it before any test")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--probe") => return probe::main(&arguments[2..]),
        Some("--agent") => return agent::main(&arguments[2..]),
        _ => {}
    }
    let prefix = format!("barecount-test-{}", std::process::id());
    let launcher = Launcher::start(LauncherConfig::new(prefix)).expect("the launcher starts");
    assert!(LAUNCHER.set(launcher).is_ok(), "it is set once");
    let mut config = LauncherConfig::new(format!("barecount-bare-{}", std::process::id()));
    config.use_nf_tables = false;
    let launcher = Launcher::start(config).expect("the launcher starts");
    let set = LAUNCHER_WITHOUT_NF_TABLES.set(launcher);
    assert!(set.is_ok(), "it is set once");
    let mut trials = Vec::new();
    for list in [
        breakout::TESTS,
        escape::TESTS,
        life::TESTS,
        limits::TESTS,
        network::TESTS,
        ordinary::TESTS,
        resolver::TESTS,
        roots::TESTS,
        specs::TESTS,
    ] {
        trials.extend(list.iter().map(|(name, test)| {
            Trial::test(*name, move || {
                test().map_err(|error| error.to_string().into())
            })
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
