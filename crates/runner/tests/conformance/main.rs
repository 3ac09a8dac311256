//! The conformance suite, on the fake and on every embedded backend.
//!
//! The binary is its own payload: it is what the sandboxes under test run. A test binary that
//! starts sandboxes has to start the launcher while it has one thread, so it has no harness but
//! `libtest-mimic`.

mod containers;
mod faults;
mod function;
mod functions;
mod ground;
mod payload;
mod recovery;
mod shared;
mod subjects;

use std::{process::ExitCode, sync::Arc, time::Duration};

use barecount_runner::conformance::{CHECKS, Check, Subject};
use barecount_sandbox::{Launcher, LauncherConfig};
use ground::CGROUP_PREFIX;
use libtest_mimic::{Arguments, Failed, Trial};
use shared::Shared;
use subjects::Under;

/// How long a test may take before it has failed. Generous: a build may share the machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if let Some(code) = payload::main() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((recovery::AGENT, rest)) = arguments.split_first().map(|(a, r)| (a.as_str(), r)) {
        return recovery::main(rest);
    }
    let started = || {
        let launcher = Launcher::start(LauncherConfig::new(CGROUP_PREFIX))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        Ok::<_, Box<dyn std::error::Error>>(Arc::new(Shared::new(launcher, runtime)?))
    };
    let shared = match started() {
        Ok(shared) => shared,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "there is no harness yet to tell")]
            {
                eprintln!("the conformance suite cannot start: {error}");
            }
            return ExitCode::FAILURE;
        }
    };
    let mut trials = Vec::new();
    for under in Under::ALL {
        for check in CHECKS.iter().copied().flatten() {
            let shared = shared.clone();
            let name = format!("{}::{}", under.name(), check.name);
            trials.push(Trial::test(name, move || hold(&shared, *under, check)));
        }
    }
    for (module, tests) in [
        ("function", functions::TESTS),
        ("container", containers::TESTS),
        ("fault", faults::TESTS),
        ("recovery", recovery::TESTS),
    ] {
        for (name, test) in tests {
            let shared = shared.clone();
            let test = *test;
            trials.push(Trial::test(format!("{module}::{name}"), move || {
                let bounded = async { tokio::time::timeout(PATIENCE, test(shared.clone())).await };
                Ok(shared.runtime.block_on(bounded)??)
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Holds one backend against one promise. What a backend cannot do has to be declared.
fn hold(shared: &Shared, under: Under, check: &Check) -> Result<(), Failed> {
    let subject: Arc<dyn Subject> = under.subject(shared)?;
    let done = shared.runtime.block_on(check.run(subject))?;
    if done == under.declines(check.name) {
        let wrong = if done {
            "declined, but works"
        } else {
            "skipped without being declined"
        };
        return Err(wrong.into());
    }
    Ok(())
}
