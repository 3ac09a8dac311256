//! Throws broken input at everything that reads what others wrote.
//!
//! Each target gets a process of its own, with bounded memory, that mutates a small corpus: the
//! seeds beneath `seeds/`, and every input that made the target answer in a new way. A panic, an
//! abort, a hang or too much memory ends that process; the input that did it was written down
//! before, and is kept.

mod corpus;
mod hunt;
mod mutation;
mod targets;
mod worker;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use hunt::Hunt;

/// Throws broken input at the readers of foreign input.
#[derive(Debug, Parser)]
#[command(name = "fuzz")]
struct Arguments {
    /// Targets; all, if none is named.
    targets: Vec<String>,
    /// How long, all targets together.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the sequence of mutations begins; by the clock, if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Gives the target this one input instead, and tells its answer.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where offending inputs are kept.
    #[arg(long, value_name = "FOLDER", default_value = "target/fuzz")]
    found: PathBuf,
    /// How many seconds of processor time one input may take.
    #[arg(long, default_value_t = 10)]
    patience: u64,
    /// Is the process that runs the one target, and writes its inputs into this file.
    #[arg(long, hide = true)]
    worker: Option<PathBuf>,
}

#[expect(
    clippy::print_stderr,
    reason = "a development task talks to its terminal"
)]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was found.
#[expect(clippy::print_stdout, reason = "the summary is the result")]
fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let chosen = targets::choose(&arguments.targets)?;
    let seed = arguments.seed.unwrap_or_else(rand::random);
    if let Some(input) = &arguments.input {
        let [target] = chosen[..] else {
            return Err("an input is for one target: name it".into());
        };
        println!(
            "{}: {}",
            target.name,
            worker::once(target, &std::fs::read(input)?)?
        );
        return Ok(true);
    }
    let share = Duration::from_secs(arguments.seconds) / u32::try_from(chosen.len().max(1))?;
    if let (Some(current), [target]) = (&arguments.worker, &chosen[..]) {
        worker::run(target, seed, share, current)?;
        return Ok(true);
    }
    println!("seed {seed}");
    let hunt = Hunt {
        seed,
        time: share,
        patience: Duration::from_secs(arguments.patience),
        found: &arguments.found,
    };
    let mut clean = true;
    for target in chosen {
        clean &= hunt.run(target)?;
    }
    Ok(clean)
}
