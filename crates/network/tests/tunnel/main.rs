//! Tunnels between two namespaces of the test's own: ours on one side, on the other a peer that is
//! written here, on Noise sessions and nothing else of ours, so that it can misbehave; or another
//! implementation of the protocol, wireguard-go, so that both are held against what others speak.
//! And a real sandbox with its broker, which needs the launcher as well.
//!
//! Not run by the usual test harness, since the launcher must be started while the process has one
//! thread. Needs user namespaces and `/dev/net/tun`, and no privilege.

/// Tests with their names, which are those of the functions.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        pub(crate) const TESTS: &[(&str, fn() -> $crate::TestResult)] =
            &[$((stringify!($test), || $crate::run($test()))),*];
    };
}

mod carrying;
mod cut;
mod far;
mod near;
mod other;
mod refusing;
mod sandboxed;

use std::{process::ExitCode, sync::OnceLock};

use barecount_sandbox::{Launcher, LauncherConfig};
use libtest_mimic::{Arguments, Trial};

static LAUNCHER: OnceLock<Launcher> = OnceLock::new();

/// What a test returns.
type TestResult = Result<(), Box<dyn std::error::Error>>;

fn launcher() -> &'static Launcher {
    LAUNCHER.get().expect("main starts it before any test")
}

/// Runs a test on a runtime of its own.
fn run(test: impl Future<Output = TestResult>) -> TestResult {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(test)
}

fn main() -> ExitCode {
    if let Some(ended) = other::started_anew() {
        return ended;
    }
    let config = LauncherConfig::new(format!("barecount-tunnel-{}", std::process::id()));
    let launcher = Launcher::start(config).expect("the launcher starts");
    assert!(LAUNCHER.set(launcher).is_ok(), "it is set once");
    let lists = [
        carrying::TESTS,
        cut::TESTS,
        refusing::TESTS,
        sandboxed::TESTS,
    ];
    let trials = lists.into_iter().flatten().map(|(name, test)| {
        Trial::test(*name, move || {
            test().map_err(|error| error.to_string().into())
        })
    });
    let with_another = other::TESTS.iter().map(|(name, _)| {
        Trial::test(format!("with_wireguard_go_{name}"), move || {
            other::in_namespaces(name).map_err(|error| error.to_string().into())
        })
    });
    let all = trials.chain(with_another).collect();
    libtest_mimic::run(&Arguments::from_args(), all).exit_code()
}
