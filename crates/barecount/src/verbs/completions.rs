//! `barecount completions`.

use barecount_client::failure::{Failure, Status};
use clap::{Args, Command};
use clap_complete::Shell;

use crate::printer::Printer;

/// Print a script that lets a shell complete verbs and flags.
///
/// bash:  barecount completions bash > ~/.local/share/bash-completion/completions/barecount
///
/// fish:  barecount completions fish > ~/.config/fish/completions/barecount.fish
///
/// zsh:   barecount completions zsh > _barecount, in a folder of $fpath
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Completions {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn execute(self, mut command: Command, printer: &Printer) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "barecount", &mut script);
        let script = String::from_utf8(script).map_err(|error| {
            Failure::new(Status::Bug, "the script is not UTF-8").because(&error)
        })?;
        printer.document(&script)
    }
}
