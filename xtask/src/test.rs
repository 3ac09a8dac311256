//! The whole suite: what a change must pass.

use std::path::PathBuf;

use crate::{
    dependencies,
    project::Project,
    setup,
    steps::{self, Failure, Step, Task, Work},
};

/// Each example is a workspace of its own: code as a user of the platform would write it.
const EXAMPLES: [&str; 2] = ["fx-rates", "erp-poll"];

/// Runs every step, or those named and what they need.
pub(crate) fn run(names: &[String]) -> Result<(), Failure> {
    let project = Project::find()?;
    steps::run(&suite(&project), names, &project)
}

fn suite(project: &Project) -> Vec<Step> {
    let mut suite = checks(project);
    suite.extend(tests(project));
    suite
}

/// What is read, not run.
fn checks(project: &Project) -> Vec<Step> {
    vec![
        function("setup", "what the tests need is there", setup::for_tests),
        step(
            "format",
            "formatted by rustfmt",
            &[],
            with_examples(
                project,
                Task::new("cargo fmt --all --check"),
                "cargo fmt --all --check EXAMPLE",
            ),
        ),
        function(
            "dependencies",
            "licences, sources, one copy of what is large",
            dependencies::check,
        ),
        step(
            "lint",
            "clippy has nothing to say",
            &["setup"],
            with_examples(
                project,
                Task::new("cargo clippy --workspace --all-targets --locked -- -D warnings")
                    .minutes(30),
                "cargo clippy EXAMPLE --workspace --all-targets --locked -- -D warnings",
            ),
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

/// What is run.
fn tests(project: &Project) -> Vec<Step> {
    vec![
        step(
            "build",
            "everything, and the binary that whole-binary tests run",
            &["setup"],
            vec![build()],
        ),
        step(
            "test",
            "unit, conformance and whole-binary tests",
            &["setup", "build"],
            vec![
                whole_binary(project, "cargo test --workspace --locked --no-fail-fast").minutes(30),
            ],
        ),
        step(
            "sim",
            "ten thousand histories of control plane and agent in a world that fails",
            &["setup", "build"],
            vec![sim().env("BARECOUNT_SIM_HISTORIES", "10000").minutes(30)],
        ),
        step(
            "example",
            "the examples' own tests",
            &["setup"],
            of_examples(
                project,
                "cargo test EXAMPLE --workspace --locked --no-fail-fast",
            )
            .collect(),
        ),
        step(
            "fuzz",
            "broken input, a few seconds for each of its readers",
            &["build"],
            // Always the same inputs: what fails, fails again. `cargo xtask fuzz` looks for more.
            vec![
                fuzz(
                    project,
                    ["--seconds", "60", "--seed", "1"].map(str::to_owned),
                )
                .minutes(15),
            ],
        ),
    ]
}

/// A command on each example's workspace, which stands for `EXAMPLE` in it.
fn of_examples(project: &Project, command: &str) -> impl Iterator<Item = Task> {
    EXAMPLES.into_iter().map(move |name| {
        let manifest = format!("--manifest-path=examples/{name}/Cargo.toml");
        let target = project.target.join(name);
        Task::new(&command.replace("EXAMPLE", &manifest))
            .env("CARGO_TARGET_DIR", target.display().to_string())
            .minutes(10)
    })
}

/// A task of the platform's own workspace, and its like on those of the examples.
fn with_examples(project: &Project, own: Task, command: &str) -> Vec<Task> {
    std::iter::once(own)
        .chain(of_examples(project, command))
        .collect()
}

/// The fuzzing program, with its arguments.
fn fuzz(project: &Project, arguments: impl IntoIterator<Item = String>) -> Task {
    let text = |path: PathBuf| path.display().to_string();
    let program = [text(project.debug_program("barecount-fuzz"))];
    let found = ["--found".to_owned(), text(project.target.join("fuzz"))];
    Task::of(program.into_iter().chain(arguments).chain(found))
}

/// Fuzzes with these arguments, for as long as they say.
pub(crate) fn run_fuzz(arguments: &[String]) -> Result<(), Failure> {
    let project = Project::find()?;
    build().run("build", &project)?;
    fuzz(&project, arguments.iter().cloned())
        .minutes(24 * 60)
        .run("fuzz", &project)
}

/// Kills the example's run at random moments, as often as asked, and holds that it ends as if
/// nothing had happened; then agents, launchers and sandboxes, and holds that nothing is left. With
/// `--every`, has the process end before and after each of its appends instead.
pub(crate) fn run_kill(arguments: &[String]) -> Result<(), Failure> {
    let project = Project::find()?;
    let mut task = whole_binary(&project, "cargo test --workspace --locked --test kill")
        .argument("--".to_owned())
        .argument("--nocapture".to_owned())
        .minutes(24 * 60);
    let sandboxes = "cargo test -p barecount-sandbox --locked --test sandbox -- \
                     nothing_outlives_a_kill_at_any_moment";
    let mut sandboxes = Task::new(sandboxes).minutes(24 * 60);
    if arguments == ["--every"] {
        task = task
            .argument("at_any_append".to_owned())
            .env("BARECOUNT_APPENDS", "every");
        build().run("build", &project)?;
        return task.run("kill", &project);
    }
    let usage = "usage: cargo xtask kill [--times N] [--seed N], or kill --every";
    let known = [("--times", "BARECOUNT_KILLS"), ("--seed", "BARECOUNT_SEED")];
    for (variable, value) in options("kill", arguments, &known, usage)? {
        task = task.env(variable, value.clone());
        sandboxes = sandboxes.env(variable, value);
    }
    build().run("build", &project)?;
    task.run("kill", &project)?;
    sandboxes.run("kill-sandboxes", &project)
}

/// Plays as many histories as asked, from this seed on.
pub(crate) fn run_sim(arguments: &[String]) -> Result<(), Failure> {
    let project = Project::find()?;
    let mut task = sim().minutes(24 * 60);
    let usage = "usage: cargo xtask sim [--histories N] [--seed S]";
    let known = [
        ("--histories", "BARECOUNT_SIM_HISTORIES"),
        ("--seed", "BARECOUNT_SIM_SEED"),
    ];
    for (variable, value) in options("sim", arguments, &known, usage)? {
        task = task.env(variable, value);
    }
    task.run("sim", &project)
}

fn sim() -> Task {
    Task::new("cargo test --workspace --locked --test histories -- --nocapture")
}

/// Works on a pipeline as people do from day to day, and holds that its figures stay true; and that
/// those of all the example's flights are.
pub(crate) fn run_walk(arguments: &[String]) -> Result<(), Failure> {
    let project = Project::find()?;
    let usage = "usage: cargo xtask walk [--steps N] [--seed S] [--only STEP,STEP…]";
    let known = [
        ("--steps", "BARECOUNT_WALK_STEPS"),
        ("--seed", "BARECOUNT_SEED"),
        ("--only", "BARECOUNT_WALK_ONLY"),
    ];
    let command = "cargo test --workspace --locked --test walk -- --nocapture";
    let mut walk = whole_binary(&project, command).minutes(24 * 60);
    for (variable, value) in options("walk", arguments, &known, usage)? {
        walk = walk.env(variable, value);
    }
    setup::for_tests(&project)?;
    build().run("build", &project)?;
    walk.run("walk", &project)?;
    let command = "cargo test --workspace --locked --test suite -- flights";
    whole_binary(&project, command)
        .env("BARECOUNT_FLIGHTS", "all")
        .minutes(60)
        .run("walk-all", &project)
}

/// Holds expressions of a seed beside DuckDB and PostgreSQL.
pub(crate) fn run_figures(arguments: &[String]) -> Result<(), Failure> {
    let project = Project::find()?;
    let usage = "usage: cargo xtask figures [--count N] [--seed S]";
    let known = [("--count", "count"), ("--seed", "seed")];
    let chosen = options("figures", arguments, &known, usage)?;
    let value = |name: &str, usual: &str| {
        let found = chosen.iter().find(|(known, _)| *known == name);
        found.map_or_else(|| usual.to_owned(), |(_, value)| value.clone())
    };
    setup::for_figures(&project)?;
    build().run("build", &project)?;
    let text = |path: PathBuf| path.display().to_string();
    let command = [
        text(project.test_python()),
        "crates/e2e/tests/python/engines.py".to_owned(),
        text(project.debug_program("examples/figures")),
        value("count", "2000"),
        value("seed", "1"),
    ];
    Task::of(command)
        .minutes(24 * 60)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .run("figures", &project)
}

/// The options of a task, each with the variable that tests read it from; a value is a number, or
/// several with commas between them.
fn options(
    task: &str,
    arguments: &[String],
    known: &[(&str, &'static str)],
    usage: &str,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut found = Vec::new();
    for option in arguments.chunks(2) {
        let wrong = || Failure::new(task, usage);
        let [name, value] = option else {
            return Err(wrong());
        };
        let (_, variable) = known
            .iter()
            .find(|(known, _)| known == name)
            .ok_or_else(wrong)?;
        let number = |number: &str| number.parse::<u64>().is_ok();
        if !value.split(',').all(number) {
            return Err(wrong());
        }
        found.push((*variable, value.clone()));
    }
    Ok(found)
}

/// Builds all of it, as the tests will: a part would be built with other features of the same large
/// dependencies, once more.
fn build() -> Task {
    Task::new("cargo build --workspace --all-targets --locked").minutes(30)
}

/// A command that runs tests of the whole binary.
fn whole_binary(project: &Project, command: &str) -> Task {
    let text = |path: PathBuf| path.display().to_string();
    Task::new(command)
        .env("BARECOUNT_BIN", text(project.debug_program("barecount")))
        .env("BARECOUNT_TEST_PYTHON", text(project.test_python()))
}

fn step(
    name: &'static str,
    purpose: &'static str,
    needs: &'static [&'static str],
    tasks: Vec<Task>,
) -> Step {
    Step {
        name,
        purpose,
        needs,
        work: Work::Tasks(tasks),
    }
}

fn function(
    name: &'static str,
    purpose: &'static str,
    function: fn(&Project) -> Result<(), Failure>,
) -> Step {
    Step {
        name,
        purpose,
        needs: &[],
        work: Work::Function(function),
    }
}
