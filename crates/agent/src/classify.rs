//! What an attempt's end means: whose failure it is, under which code.

use barecount_model::run::outcome::{Failure, FailureKind, Metrics};
use barecount_runner::launch::{End, Ended};

/// Exit statuses that mean something beyond "failed": `sysexits.h`.
mod status {
    pub(super) const DATA: i32 = 65;
    pub(super) const TRY_AGAIN: i32 = 75;
    pub(super) const NO_PERMISSION: i32 = 77;
    pub(super) const CONFIGURATION: i32 = 78;
}

/// The failure that an end stands for, if it does, and the exit status, if there was one.
pub(crate) fn failure(end: &End, memory_bytes: u64) -> (Option<Failure>, Option<i32>) {
    let application = |code: &str, message: String| {
        Some(Failure {
            kind: FailureKind::Application,
            code: code.to_owned(),
            message,
        })
    };
    match end {
        End::Exited { code: 0 } => (None, Some(0)),
        End::Exited { code } => (Some(of_status(*code)), Some(*code)),
        End::Answered { .. } | End::Stopped => (None, None),
        End::Signalled { signal } => (
            application(
                "BC0602",
                format!("the program was ended by signal {signal}"),
            ),
            None,
        ),
        End::OutOfMemory => {
            let mebibytes = memory_bytes >> 20;
            let message = format!(
                "the program needed more than its {mebibytes} MiB of memory; choose a larger size"
            );
            (application("BC0603", message), None)
        }
        End::HandlerError {
            error_type,
            message,
        } => (
            application(
                "BC0604",
                format!("the function failed: {error_type}: {message}"),
            ),
            None,
        ),
    }
}

fn of_status(code: i32) -> Failure {
    let (kind, error, message) = match code {
        status::DATA => (
            FailureKind::Data,
            "BC0605",
            "the program says that its data is bad".to_owned(),
        ),
        status::TRY_AGAIN => (
            FailureKind::Application,
            "BC0606",
            "the program asks to be tried again".to_owned(),
        ),
        status::NO_PERMISSION => (
            FailureKind::Policy,
            "BC0607",
            "the program lacks a permission".to_owned(),
        ),
        status::CONFIGURATION => (
            FailureKind::Policy,
            "BC0608",
            "the program says that it is not configured right".to_owned(),
        ),
        other => (
            FailureKind::Application,
            "BC0601",
            format!("the program exited with status {other}"),
        ),
    };
    Failure {
        kind,
        code: error.to_owned(),
        message: format!("{message} (exit status {code})"),
    }
}

/// What an attempt used, as runs report it.
pub(crate) fn metrics(ended: &Ended) -> Metrics {
    let usage = &ended.usage;
    Metrics {
        // Microseconds of processor time stay far below 2^53.
        cpu_seconds: usage.cpu_micros.map(|micros| micros as f64 / 1e6),
        memory_peak_bytes: usage.memory_peak_bytes,
        io_read_bytes: usage.io_read_bytes,
        io_write_bytes: usage.io_write_bytes,
    }
}
