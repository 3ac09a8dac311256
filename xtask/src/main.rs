//! Development tasks. `cargo xtask test` is the whole suite, as continuous integration runs it.

mod bench;
mod breaks;
mod coverage;
mod dependencies;
mod dist;
mod docs;
mod project;
mod setup;
mod steps;
mod supervise;
mod test;
mod vm;

use std::process::ExitCode;

use project::Project;
use steps::Failure;

const USAGE: &str = "\
usage: cargo xtask <task>

  test           install what the tests need, then run all of them
  test STEP…     only these steps of it, and what they need
  fuzz [TARGET…] [--seconds N] [--seed N] [--input FILE]
                 throw broken input at everything that reads what others wrote
  kill [--times N] [--seed N]
                 kill the example's run at random moments until it has survived N of them (8),
                 and agents with their sandboxes until nothing was left of N of them (20)
  kill --every   end the example's run before and after each of its durable steps, in turn
  sim [--histories N] [--seed S]
                 make histories up from a seed, and hold that each comes to one end
  walk [--steps N] [--seed S] [--only STEP,STEP…]
                 edit, revert, backfill, restore, cancel and kill a pipeline in N steps (14), and
                 hold each of its figures beside DuckDB's; then those of all flights
  figures [--count N] [--seed S]
                 hold N expressions (2000) beside what DuckDB and PostgreSQL make of them
  break [NAME…]  break each guarantee in a copy of the project, and hold that a test notices
  coverage       say how much of the control plane and of the agent their own tests and the
                 simulation go through; compiles cargo-llvm-cov first
  vm [ROW…]      boot Debian's kernels with Debian's systemd, start runs there in each way that the
                 table of hosts has, and hold what they are held to against it
  dist           build a static binary, pack it as an archive, a Debian package, a wheel and an
                 OCI image in target/dist, and try each of them
  docs           make the pages of docs/ a site; compiles mdBook first
  deny           have cargo-deny check what is depended on; compiles it first
  bench NAME…    measure beside the alternatives and print JSON lines, on a machine that does
                 nothing else; NAME is sandbox, ledger, invoke, network,
                 secrets, etl, sql, staging, skip or dispatch
";

#[expect(
    clippy::print_stderr,
    reason = "a development task talks to its terminal"
)]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((task, rest)) = arguments.split_first() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let outcome = supervise::adopt_orphans()
        .map_err(|error| Failure::new(task.as_str(), error.to_string()))
        .and_then(|()| match task.as_str() {
            "test" => test::run(rest).map(Some),
            "fuzz" => test::run_fuzz(rest).map(Some),
            "kill" => test::run_kill(rest).map(Some),
            "sim" => test::run_sim(rest).map(Some),
            "walk" => test::run_walk(rest).map(Some),
            "figures" => test::run_figures(rest).map(Some),
            "break" => breaks::run(rest).map(Some),
            "vm" => vm::run(rest).map(Some),
            "deny" if rest.is_empty() => Project::find()
                .and_then(|project| dependencies::with_cargo_deny(&project))
                .map(Some),
            "coverage" if rest.is_empty() => Project::find()
                .and_then(|project| coverage::run(&project))
                .map(Some),
            "dist" if rest.is_empty() => Project::find()
                .and_then(|project| dist::make(&project))
                .map(Some),
            "docs" if rest.is_empty() => Project::find()
                .and_then(|project| docs::build(&project))
                .map(Some),
            "bench" if !rest.is_empty() => bench::run(rest).map(Some),
            _ => Ok(None),
        });
    match outcome {
        Ok(Some(())) => ExitCode::SUCCESS,
        Ok(None) => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
        Err(failure) => {
            eprintln!("\nxtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
