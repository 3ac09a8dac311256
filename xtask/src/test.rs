//! The whole suite: what a change must pass.

use crate::steps::{Failure, Step};

/// Runs every step, or those named; stops at the first that fails.
#[expect(clippy::print_stdout, reason = "the summary is the result")]
pub(crate) fn run(names: &[String]) -> Result<(), Failure> {
    let all = steps();
    if let Some(unknown) = names
        .iter()
        .find(|name| all.iter().all(|step| step.name != **name))
    {
        let known: Vec<_> = all.iter().map(|step| step.name).collect();
        return Err(Failure::new(
            unknown.as_str(),
            format!("no such step; there are {}", known.join(", ")),
        ));
    }
    let mut times = Vec::new();
    for step in all
        .iter()
        .filter(|step| names.is_empty() || names.iter().any(|name| name == step.name))
    {
        times.push((step.name, step.run()?));
    }
    println!("\nall steps passed:");
    for (name, time) in times {
        println!("  {name:<12} {:>7.1} s", time.as_secs_f64());
    }
    Ok(())
}

fn steps() -> Vec<Step> {
    vec![
        Step::new("format", "cargo fmt --all --check"),
        Step::new(
            "lint",
            "cargo clippy --workspace --all-targets --locked -- -D warnings",
        ),
        Step::new("test", "cargo test --workspace --locked --no-fail-fast"),
        Step::new("doc", "cargo doc --workspace --no-deps --locked")
            .with_env("RUSTDOCFLAGS", "-D warnings"),
    ]
}
