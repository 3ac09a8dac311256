//! Development tasks. `cargo xtask test` is the whole suite, as continuous integration runs it.

mod steps;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task>

  test        install what the tests need, then run all of them
  test NAME…  only the steps named (see their names in the output of `test`)
";

#[expect(
    clippy::print_stderr,
    reason = "a development task talks to its terminal"
)]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((task, rest)) if task == "test" => test::run(rest),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
