//! The whole suite: what a change must pass.

use crate::{
    project::Project,
    setup,
    steps::{self, Failure, Step, Task, Work},
};

/// The example is a workspace of its own: code as a user of the platform would write it.
const EXAMPLE: &str = "--manifest-path=examples/fx-rates/Cargo.toml";

/// Runs every step, or those named and what they need.
pub(crate) fn run(names: &[String]) -> Result<(), Failure> {
    let project = Project::find()?;
    steps::run(&suite(&project), names, &project)
}

fn suite(project: &Project) -> Vec<Step> {
    let step = |name, purpose, needs, tasks| Step {
        name,
        purpose,
        needs,
        work: Work::Tasks(tasks),
    };
    let example_target = project.target.join("fx-rates").display().to_string();
    let example = |command: &str| {
        let command = command.replace("EXAMPLE", EXAMPLE);
        Task::new(&command).env("CARGO_TARGET_DIR", example_target.as_str())
    };
    let tests = Task::new("cargo test --workspace --locked --no-fail-fast")
        .env(
            "BARECOUNT_BIN",
            project.debug_binary().display().to_string(),
        )
        .env(
            "BARECOUNT_TEST_PYTHON",
            project.test_python().display().to_string(),
        );
    vec![
        Step {
            name: "setup",
            purpose: "what the tests need is there",
            needs: &[],
            work: Work::Function(setup::for_tests),
        },
        step(
            "format",
            "formatted by rustfmt",
            &[],
            vec![
                Task::new("cargo fmt --all --check"),
                Task::new(&format!("cargo fmt --all --check {EXAMPLE}")),
            ],
        ),
        step(
            "lint",
            "clippy has nothing to say",
            &["setup"],
            vec![
                Task::new("cargo clippy --workspace --all-targets --locked -- -D warnings")
                    .minutes(30),
                example("cargo clippy EXAMPLE --workspace --all-targets --locked -- -D warnings")
                    .minutes(10),
            ],
        ),
        step(
            "build",
            "the binary that whole-binary tests run",
            &["setup"],
            vec![Task::new("cargo build --locked --package barecount").minutes(30)],
        ),
        step(
            "test",
            "unit, conformance and whole-binary tests",
            &["setup", "build"],
            vec![tests.minutes(30)],
        ),
        step(
            "example",
            "the example's own tests",
            &["setup"],
            vec![example("cargo test EXAMPLE --workspace --locked --no-fail-fast").minutes(10)],
        ),
        step(
            "doc",
            "documentation without broken links",
            &["setup"],
            vec![
                Task::new("cargo doc --workspace --no-deps --locked")
                    .env("RUSTDOCFLAGS", "-D warnings")
                    .minutes(20),
            ],
        ),
    ]
}
