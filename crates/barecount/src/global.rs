//! The flags that hold for every verb.

use std::path::PathBuf;

use barecount_client::{
    client::Client,
    embedded::{Embedded, hold::Wait},
};
use barecount_model::text::Duration;
use clap::Args;

use crate::printer::{ColorChoice, Format, Printer};

/// What holds for every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// How data is printed on standard output.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        env = "BARECOUNT_OUTPUT"
    )]
    pub(crate) output: Format,
    /// The environment: a name in the pipeline's folder `environments/`, or a file.
    #[arg(
        long = "env",
        global = true,
        value_name = "NAME",
        env = "BARECOUNT_ENV"
    )]
    pub(crate) environment: Option<String>,
    /// The state folder.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = ".barecount",
        env = "BARECOUNT_STATE"
    )]
    pub(crate) state: PathBuf,
    /// How long to wait for another process that works on the state folder, such as `30s`; `0` to
    /// fail at once. As long as it takes if absent.
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        env = "BARECOUNT_WAIT",
        value_parser = wait,
        default_value = "forever",
        hide_default_value = true
    )]
    pub(crate) wait: Wait,
    /// Print nothing but data and failures.
    #[arg(
        short,
        long,
        global = true,
        env = "BARECOUNT_QUIET",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub(crate) quiet: bool,
    /// Log more on standard error; twice for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "BARECOUNT_VERBOSE")]
    pub(crate) verbose: u8,
    /// When to use colour.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        env = "BARECOUNT_COLOR"
    )]
    pub(crate) color: ColorChoice,
}

fn wait(text: &str) -> Result<Wait, String> {
    match text {
        "forever" => Ok(Wait::Forever),
        "0" => Ok(Wait::AtMost(std::time::Duration::ZERO)),
        text => text
            .parse::<Duration>()
            .map(|duration| Wait::AtMost(duration.into()))
            .map_err(|error| error.to_string()),
    }
}

impl Global {
    /// Who answers the verb.
    pub(crate) fn client(&self) -> impl Client {
        Embedded {
            state: self.state.clone(),
            environment: self.environment.clone(),
            wait: self.wait,
        }
    }

    /// The printer that the flags ask for.
    pub(crate) fn printer(&self) -> Printer {
        Printer::new(self.output, self.quiet, self.verbose > 0, self.color)
    }
}
