//! Benchmarks: release builds of the crates' own measuring examples, and what their figures are
//! held against. Standard output gets one JSON line a figure, in one form for all.
//!
//! Figures mean something only on a machine that does nothing else.

mod figure;
mod reading;

use std::{fs, io};

use figure::Figure;
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
        read: reading::sandbox,
    },
    Bench {
        name: "ledger",
        package: "barecount-ledger",
        example: "throughput",
        arguments: &[FOLDER],
        read: reading::ledger,
    },
    Bench {
        name: "invoke",
        package: "barecount-runner",
        example: "invoke",
        arguments: &[],
        read: reading::invoke,
    },
    Bench {
        name: "network",
        package: "barecount-network",
        example: "relay",
        arguments: &[],
        read: reading::network,
    },
    Bench {
        name: "secrets",
        package: "barecount-secrets",
        example: "fetch",
        arguments: &[FOLDER],
        read: reading::secrets,
    },
    Bench {
        name: "etl",
        package: "barecount-engine",
        example: "etl",
        arguments: &["1"],
        read: reading::etl,
    },
    Bench {
        name: "sql",
        package: "barecount-engine",
        example: "sql",
        arguments: &[FOLDER, PYTHON],
        read: reading::sql,
    },
    Bench {
        name: "staging",
        package: "barecount-dataset",
        example: "staging",
        arguments: &[FOLDER, "2000000", PYTHON],
        read: reading::staging,
    },
    Bench {
        name: "skip",
        package: "barecount-e2e",
        example: "skip",
        arguments: &[],
        read: reading::skip,
    },
    Bench {
        name: "dispatch",
        package: "barecount-control",
        example: "dispatch",
        arguments: &[FOLDER],
        read: reading::dispatch,
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
        let figures = bench.run(&project)?;
        for figure in &figures {
            print(figure)?;
        }
        let over = figures
            .into_iter()
            .filter(|figure| figure.met() == Some(false));
        missed.extend(over.map(|figure| format!("{}: {}", figure.bench, figure.case)));
    }
    if missed.is_empty() {
        return Ok(());
    }
    let list = missed.join("; ");
    Err(Failure::new(
        "bench",
        format!("outside of the budget: {list}"),
    ))
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

impl Bench {
    fn run(&self, project: &Project) -> Result<Vec<Figure>, Failure> {
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
        fs::remove_dir_all(&scratch).map_err(failed)?;
        let said = fs::read_to_string(project.log(&log)).map_err(failed)?;
        let lines: Vec<Value> = said
            .lines()
            .filter(|line| line.starts_with('{'))
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let figures = (self.read)(&lines);
        if figures.is_empty() {
            let reason = format!("the example printed no figure; it said:\n{said}");
            return Err(Failure::new(*name, reason));
        }
        Ok(figures)
    }
}

#[expect(clippy::print_stdout, reason = "the figures are the result")]
fn print(figure: &Figure) -> Result<(), Failure> {
    let line = serde_json::to_string(&figure.line())
        .map_err(|error| Failure::new(figure.bench, error.to_string()))?;
    println!("{line}");
    Ok(())
}
