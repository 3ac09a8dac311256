//! Benchmarks: release builds of the crates' own measuring examples, and what their figures are
//! held against. Standard output gets one JSON line a figure, in one form for all, after those that
//! say in words what is compared.
//!
//! Figures mean something only on a machine that does nothing else.

mod dispatch;
mod figure;
mod peers;
mod reading;

use std::{fs, io};

use figure::Figure;
use serde::Serialize;
use serde_json::Value;

use crate::{
    project::Project,
    setup,
    steps::{Failure, Task},
    supervise::Shown,
};

struct Bench {
    name: &'static str,
    package: &'static str,
    example: &'static str,
    arguments: &'static [&'static str],
    /// Programs in `xtask/peers` that have others do the same.
    peers: &'static [&'static str],
    /// What the example's lines say.
    read: fn(&[Value]) -> Vec<Figure>,
}

/// Stands for a new folder on the file system that cargo builds on.
const FOLDER: &str = "FOLDER";
/// Stands for a Python that has DuckDB and Polars.
const PYTHON: &str = "PYTHON";

const BENCHES: &[Bench] = &[
    Bench {
        name: "sandbox",
        package: "barecount-sandbox",
        example: "cold_start",
        arguments: &[],
        peers: &[],
        read: reading::sandbox,
    },
    Bench {
        name: "ledger",
        package: "barecount-ledger",
        example: "throughput",
        arguments: &[FOLDER],
        peers: &[],
        read: reading::ledger,
    },
    Bench {
        name: "invoke",
        package: "barecount-runner",
        example: "invoke",
        arguments: &[],
        peers: &[],
        read: reading::invoke,
    },
    Bench {
        name: "network",
        package: "barecount-network",
        example: "relay",
        arguments: &[],
        peers: &[],
        read: reading::network,
    },
    Bench {
        name: "neighbours",
        package: "barecount-network",
        example: "neighbours",
        arguments: &[],
        peers: &[],
        read: reading::neighbours,
    },
    Bench {
        name: "secrets",
        package: "barecount-secrets",
        example: "fetch",
        arguments: &[FOLDER],
        peers: &[],
        read: reading::secrets,
    },
    Bench {
        name: "etl",
        package: "barecount-engine",
        example: "etl",
        arguments: &["1"],
        peers: &[],
        read: reading::etl,
    },
    Bench {
        name: "sql",
        package: "barecount-engine",
        example: "sql",
        arguments: &[FOLDER, PYTHON],
        peers: &[],
        read: reading::sql,
    },
    Bench {
        name: "staging",
        package: "barecount-dataset",
        example: "staging",
        arguments: &[FOLDER, "2000000", PYTHON],
        peers: &[],
        read: reading::staging,
    },
    Bench {
        name: "skip",
        package: "barecount-e2e",
        example: "skip",
        arguments: &[],
        peers: &[],
        read: reading::skip,
    },
    Bench {
        name: "dispatch",
        package: "barecount-control",
        example: "dispatch",
        arguments: &[FOLDER],
        peers: &["restate", "graphile-worker", "dbos"],
        read: dispatch::read,
    },
];

/// Runs the benchmarks named, one after another. Fails where a budget is not met.
pub(crate) fn run(names: &[String]) -> Result<(), Failure> {
    let chosen: Vec<_> = names
        .iter()
        .map(|name| find(name))
        .collect::<Result<_, _>>()?;
    let project = Project::find()?;
    build(&chosen, &project)?;
    let mut missed = Vec::new();
    for bench in chosen {
        let Measured { lines, failed } = bench.run(&project)?;
        for line in lines.iter().filter(|line| line.get("about").is_some()) {
            print(bench.name, line)?;
        }
        for figure in (bench.read)(&lines) {
            let line = figure.line();
            print(bench.name, &line)?;
            if figure.met() == Some(false) {
                missed.push(format!("outside of the budget: {}", line.shortfall()));
            }
        }
        missed.extend(failed.map(|failure| failure.to_string()));
    }
    if missed.is_empty() {
        return Ok(());
    }
    Err(Failure::new("bench", missed.join("\n")))
}

fn find(name: &str) -> Result<&'static Bench, Failure> {
    BENCHES
        .iter()
        .find(|bench| bench.name == name)
        .ok_or_else(|| {
            let known: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
            let reason = format!("there is no such benchmark; there are {}", known.join(", "));
            Failure::new(name, reason)
        })
}

/// Builds what was chosen at once, and so with one set of features: one by one, what they have in
/// common would be built for each of them.
fn build(chosen: &[&Bench], project: &Project) -> Result<(), Failure> {
    let mut command = "cargo build --release --locked".to_owned();
    for Bench {
        name,
        package,
        example,
        ..
    } in chosen
    {
        command.push_str(&format!(" -p {package} --example {example}"));
        if ["etl", "skip"].contains(name) {
            command.push_str(" -p barecount --bin barecount");
        }
    }
    Task::new(&command)
        .minutes(60)
        .shown(Shown::Stderr)
        .run("bench-build", project)
        .map(drop)
}

/// What came of a benchmark.
struct Measured {
    /// Lines of JSON, of ours and of peers.
    lines: Vec<Value>,
    /// Why there are none of some peer, and of those after it.
    failed: Option<Failure>,
}

impl Bench {
    fn run(&self, project: &Project) -> Result<Measured, Failure> {
        let Self { name, example, .. } = self;
        setup::for_benchmark(name, project)?;
        let program = project.target.join("release/examples").join(example);
        let scratch = project.target.join("xtask/bench").join(name);
        let failed = |error: io::Error| Failure::new(*name, error.to_string());
        if scratch.exists() {
            fs::remove_dir_all(&scratch).map_err(failed)?;
        }
        fs::create_dir_all(&scratch).map_err(failed)?;
        let python = project.bench_environment().join("bin/python");
        let binary = project.target.join("release/barecount");
        let arguments = self.arguments.iter().map(|&argument| match argument {
            FOLDER => scratch.display().to_string(),
            PYTHON => python.display().to_string(),
            other => other.to_owned(),
        });
        let log = format!("bench-{name}");
        Task::of([program.display().to_string()].into_iter().chain(arguments))
            .minutes(15)
            .env("BARECOUNT_BIN", binary.display().to_string())
            .shown(Shown::InLog)
            .run(&log, project)?;
        let mut lines = peers::lines(&log, project)?;
        if (self.read)(&lines).is_empty() {
            let log = project.log(&log);
            let reason = format!("the example printed no figure; it said: {}", log.display());
            return Err(Failure::new(*name, reason));
        }
        let beside = self.peers.iter().try_for_each(|peer| {
            lines.extend(peers::run(peer, &scratch, project)?);
            Ok(())
        });
        fs::remove_dir_all(&scratch).map_err(failed)?;
        Ok(Measured {
            lines,
            failed: beside.err(),
        })
    }
}

#[expect(clippy::print_stdout, reason = "the figures are the result")]
fn print(bench: &str, line: &impl Serialize) -> Result<(), Failure> {
    let line =
        serde_json::to_string(line).map_err(|error| Failure::new(bench, error.to_string()))?;
    println!("{line}");
    Ok(())
}
