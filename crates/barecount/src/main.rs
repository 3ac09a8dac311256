//! The `barecount` binary: verbs, configuration, output, exit statuses, wiring.
//!
//! Start at [`cli`]; each verb is a file in [`verbs`].

mod accesses;
mod cli;
mod flows;
mod global;
mod names;
mod printer;
mod progress;
mod tenant;
mod verbs;
mod view;
mod window;

use std::{io, process::ExitCode};

use barecount_model::untrusted;
use tracing_subscriber::{EnvFilter, fmt};

fn main() -> ExitCode {
    // Before there is a secret, a thread, or the launcher, which is a fork.
    let hidden = barecount_secrets::forbid_dumps();
    barecount_client::embedded::fail_beyond_file_size();
    let cli = match cli::Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            // Standard output and error may be closed; then there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    log_to_stderr(cli.global.verbose);
    if let Err(error) = hidden {
        tracing::error!(%error, "this process cannot be kept from being dumped or traced");
    }
    let printer = cli.global.printer();
    end_without_threads(cli.global.printer());
    match cli.execute() {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.status() as u8)
        }
    }
}

/// Ends this process with a message where a library panics since the host makes no further thread: what
/// it then unwinds waits for threads that never were.
fn end_without_threads(printer: printer::Printer) {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(
        move |panic| match barecount_client::runtime::lack_of_threads(panic) {
            Some(failure) => {
                printer.failure(&failure);
                std::process::exit(failure.status() as i32);
            }
            None => others(panic),
        },
    ));
}

/// Logs for those who ask for them. Whoever does not is told of failures, each once and in our own
/// words; what a library logs of them would be a second time.
fn log_to_stderr(verbose: u8) {
    let filter = match verbose {
        0 => "barecount=error",
        1 => "warn,barecount=info",
        _ => "debug",
    };
    fmt()
        .with_env_filter(EnvFilter::new(filter))
        // An escape of ours could not be told from one of somebody else's.
        .with_ansi(false)
        .with_writer(|| EventLog)
        .init();
}

/// Writes each event on a line of its own, whoever the texts in it are from.
struct EventLog;

impl io::Write for EventLog {
    /// Takes one whole event, as the subscriber hands them over.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = untrusted::line(text.trim_end_matches('\n'));
        writeln!(io::stderr(), "{line}")?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
