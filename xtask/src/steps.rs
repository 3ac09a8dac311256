//! The steps of a task, one after another: each shown before it starts, timed, and logged.

use std::{
    fmt,
    io::IsTerminal,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    project::Project,
    supervise::{self, How, Shown},
};

/// Why a step failed.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    step: String,
    reason: String,
    /// The last lines of the command's output.
    tail: Vec<String>,
    /// The command's whole output.
    log: Option<PathBuf>,
    /// Steps that come after this one.
    not_run: Vec<&'static str>,
}

impl Failure {
    pub(crate) fn new(step: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            step: step.into(),
            reason: reason.into(),
            ..Self::default()
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed: {}", self.step, self.reason)?;
        if let Some(log) = &self.log {
            if !self.tail.is_empty() {
                write!(f, "\nits last lines:")?;
            }
            for line in &self.tail {
                write!(f, "\n  | {line}")?;
            }
            write!(f, "\nall of its output: {}", log.display())?;
        }
        if !self.not_run.is_empty() {
            write!(f, "\nnot run: {}", self.not_run.join(", "))?;
        }
        Ok(())
    }
}

/// A command with what it needs to run.
pub(crate) struct Task {
    command: Vec<String>,
    env: Vec<(&'static str, String)>,
    limit: Duration,
    shown: Shown,
}

impl Task {
    /// Splits `command` at white space.
    pub(crate) fn new(command: &str) -> Self {
        Self::of(command.split_whitespace().map(str::to_owned))
    }

    pub(crate) fn of(command: impl IntoIterator<Item = String>) -> Self {
        Self {
            command: command.into_iter().collect(),
            env: Vec::new(),
            limit: Duration::from_secs(60),
            shown: Shown::Stdout,
        }
    }

    /// Shows the command's output, and that it runs, elsewhere than on standard output.
    pub(crate) fn shown(mut self, shown: Shown) -> Self {
        self.shown = shown;
        self
    }

    pub(crate) fn argument(mut self, argument: String) -> Self {
        self.command.push(argument);
        self
    }

    pub(crate) fn arguments(
        mut self,
        arguments: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.command.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// The command.
    pub(crate) fn words(&self) -> Vec<String> {
        self.command.clone()
    }

    pub(crate) fn env(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.env.push((key, value.into()));
        self
    }

    /// Ends the command and all that it started after so many minutes.
    pub(crate) fn minutes(mut self, minutes: u64) -> Self {
        self.limit = Duration::from_secs(60 * minutes);
        self
    }

    /// Runs the command in the workspace's root; its output is logged as `name`.
    pub(crate) fn run(&self, name: &str, project: &Project) -> Result<(), Failure> {
        self.say(format_args!("\n==> {name}: {self}"));
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or_else(|| Failure::new(name, "it has no command"))?;
        let mut command = Command::new(program);
        // What cargo says of this program would be taken for a change by build scripts that look at it
        // (ring's does): everything above them would be compiled anew after each build by hand.
        let own =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(own) {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir(&project.root);
        if self.shown != Shown::InLog && std::io::stdout().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        let log = project.log(name);
        let ended = supervise::run(&mut command, self.limit, &log, self.shown)
            .map_err(|error| Failure::new(name, format!("`{program}`: {error}")))?;
        if !ended.left_behind.is_empty() {
            let names = ended.left_behind.join(", ");
            self.say(format_args!("{name}: left running, and ended now: {names}"));
        }
        let seconds = ended.took.as_secs_f64();
        self.say(format_args!("<== {name}: {seconds:.1} s"));
        let reason = match ended.how {
            How::Exited(0) => return Ok(()),
            How::Exited(code) => format!("exit status {code}"),
            How::Signalled(signal) => format!("ended by signal {signal}"),
            How::TimedOut => format!("not done after {} minutes", self.limit.as_secs() / 60),
            How::Interrupted => "interrupted".to_owned(),
        };
        Err(Failure {
            reason: format!("{reason}; its command: {self}"),
            tail: ended.tail,
            log: Some(log),
            ..Failure::new(name, "")
        })
    }

    #[expect(
        clippy::print_stdout,
        clippy::print_stderr,
        reason = "what runs is shown"
    )]
    fn say(&self, text: fmt::Arguments<'_>) {
        match self.shown {
            Shown::Stdout => println!("{text}"),
            Shown::Stderr | Shown::InLog => eprintln!("{text}"),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.env {
            write!(f, "{key}='{value}' ")?;
        }
        f.write_str(&self.command.join(" "))
    }
}

/// What a step does.
pub(crate) enum Work {
    /// Runs commands, one after another.
    Tasks(Vec<Task>),
    /// Calls a function of this program.
    Function(fn(&Project) -> Result<(), Failure>),
}

/// A named part of a suite.
pub(crate) struct Step {
    /// The name that selects it.
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) purpose: &'static str,
    /// Steps that must have passed before, and are run with it.
    pub(crate) needs: &'static [&'static str],
    /// What it does.
    pub(crate) work: Work,
}

impl Step {
    fn run(&self, project: &Project) -> Result<(), Failure> {
        match &self.work {
            Work::Tasks(tasks) => tasks
                .iter()
                .try_for_each(|task| task.run(self.name, project)),
            Work::Function(function) => function(project),
        }
    }
}

/// Runs the steps named, and those that they need; all, if none is named. Stops at the first that
/// fails, and says which were not run.
#[expect(clippy::print_stdout, reason = "the summary is the result")]
pub(crate) fn run(all: &[Step], names: &[String], project: &Project) -> Result<(), Failure> {
    let chosen = choose(all, names)?;
    let started = Instant::now();
    let mut times = Vec::new();
    for (position, step) in chosen.iter().enumerate() {
        let begun = Instant::now();
        step.run(project).map_err(|failure| Failure {
            not_run: chosen[position + 1..]
                .iter()
                .map(|step| step.name)
                .collect(),
            ..failure
        })?;
        times.push((step, begun.elapsed()));
    }
    println!("\nall steps passed:");
    for (step, time) in times {
        let seconds = time.as_secs_f64();
        println!("  {:<12} {seconds:>7.1} s  {}", step.name, step.purpose);
    }
    println!(
        "  {:<12} {:>7.1} s",
        "in all",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn choose<'a>(all: &'a [Step], names: &[String]) -> Result<Vec<&'a Step>, Failure> {
    let known = |name: &str| all.iter().any(|step| step.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let known: Vec<_> = all.iter().map(|step| step.name).collect();
        let reason = format!("there is no such step; there are {}", known.join(", "));
        return Err(Failure::new(unknown.as_str(), reason));
    }
    let mut wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    // What a step needs comes before it in the list.
    for step in all.iter().rev() {
        if wanted.contains(&step.name) {
            wanted.extend(step.needs);
        }
    }
    let chosen = |step: &&Step| names.is_empty() || wanted.contains(&step.name);
    Ok(all.iter().filter(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &'static str, needs: &'static [&'static str]) -> Step {
        let work = Work::Tasks(vec![]);
        Step {
            name,
            purpose: "",
            needs,
            work,
        }
    }

    fn names(chosen: Result<Vec<&Step>, Failure>) -> Result<Vec<&'static str>, String> {
        chosen
            .map(|steps| steps.iter().map(|step| step.name).collect())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_named_step_comes_with_what_it_needs_in_order() {
        let all = [
            step("a", &[]),
            step("b", &["a"]),
            step("c", &[]),
            step("d", &["b"]),
        ];
        assert_eq!(names(choose(&all, &["d".into()])), Ok(vec!["a", "b", "d"]));
        assert_eq!(names(choose(&all, &[])), Ok(vec!["a", "b", "c", "d"]));
    }

    #[test]
    fn a_misspelt_step_is_told_the_names() {
        let all = [step("format", &[]), step("lint", &[])];
        let told = "`lnit` failed: there is no such step; there are format, lint";
        assert_eq!(names(choose(&all, &["lnit".into()])), Err(told.into()));
    }
}
