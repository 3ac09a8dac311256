//! The command line: global flags, and one line per verb. What a verb does is in its own file.

use barecount_client::failure::Failure;
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{global::Global, verbs};

/// Runs data pipelines in sandboxes, commits their outputs once, and proves what ran.
#[derive(Debug, Parser)]
#[command(name = "barecount", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(verbs::init::Init),
    Run(verbs::run::Run),
    Build(verbs::build::Build),
    Validate(verbs::validate::Validate),
    #[command(subcommand)]
    Runs(verbs::runs::Runs),
    #[command(subcommand)]
    Outputs(verbs::outputs::Outputs),
    #[command(subcommand)]
    Datasets(verbs::datasets::Datasets),
    Trace(verbs::trace::Trace),
    #[command(subcommand)]
    Evidence(verbs::evidence::Evidence),
    #[command(subcommand)]
    Policy(verbs::policy::Policy),
    #[command(subcommand)]
    Approvals(verbs::approvals::Approvals),
    #[command(subcommand)]
    Dlq(verbs::dlq::Dlq),
    #[command(subcommand)]
    Secrets(verbs::secrets::Secrets),
    #[command(subcommand)]
    Advise(verbs::advise::Advise),
    Gc(verbs::gc::Gc),
    #[command(subcommand)]
    State(verbs::state::State),
    Schema(verbs::schema::Schema),
    Completions(verbs::completions::Completions),
    Man(verbs::man::Man),
    #[command(hide = true)]
    EngineJob(verbs::engine_job::EngineJob),
    #[command(hide = true)]
    EngineCheck(verbs::engine_job::EngineCheck),
}

/// A variable that is set to nothing is as one that is not set.
fn without_empty_variables(command: Command) -> Command {
    fn is_empty(argument: &clap::Arg) -> bool {
        let value = argument.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    }
    command
        .mut_args(|argument| match is_empty(&argument) {
            true => argument.env(None::<&'static str>),
            false => argument,
        })
        .mut_subcommands(without_empty_variables)
}

impl Cli {
    /// The command line of this process.
    ///
    /// # Errors
    /// If it cannot be understood; help and version are such errors too.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let mut command = without_empty_variables(Self::command());
        let matches = command.try_get_matches_from_mut(std::env::args_os())?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// Carries the verb out; answers with the exit status.
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        let printer = self.global.printer();
        match self.verb {
            Verb::EngineJob(verb) => return verb.execute(&printer),
            Verb::EngineCheck(verb) => return verb.execute(),
            Verb::Run(verb) => verb.execute(&self.global, &printer),
            Verb::Build(verb) => verb.execute(&self.global, &printer),
            Verb::Validate(verb) => verb.execute(&self.global, &printer),
            Verb::Runs(verb) => verb.execute(&self.global, &printer),
            Verb::Init(verb) => verb.execute(&printer),
            Verb::Outputs(verb) => verb.execute(&self.global, &printer),
            Verb::Datasets(verb) => verb.execute(&self.global, &printer),
            Verb::Trace(verb) => verb.execute(&self.global, &printer),
            Verb::Evidence(verb) => verb.execute(&self.global, &printer),
            Verb::Policy(verb) => verb.execute(&self.global, &printer),
            Verb::Approvals(verb) => verb.execute(&self.global, &printer),
            Verb::Secrets(verb) => verb.execute(&self.global, &printer),
            Verb::Advise(verb) => verb.execute(&self.global, &printer),
            Verb::Gc(verb) => verb.execute(&self.global, &printer),
            Verb::State(verb) => verb.execute(&self.global, &printer),
            Verb::Dlq(verb) => verb.execute(&self.global, &printer),
            Verb::Schema(verb) => verb.execute(&printer),
            Verb::Completions(verb) => verb.execute(Self::command(), &printer),
            Verb::Man(verb) => verb.execute(Self::command(), &printer),
        }?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
