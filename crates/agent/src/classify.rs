//! What an attempt's end means: whose failure it is, under which code.

use barecount_model::{
    codes,
    run::outcome::{Failure, FailureKind, Metrics},
};
use barecount_runner::launch::{End, Ended};

/// Exit statuses that mean something beyond "failed", as `sysexits.h` numbers them.
mod status {
    pub(super) const DATA: i32 = 65;
    pub(super) const TRY_AGAIN: i32 = 75;
    pub(super) const NO_PERMISSION: i32 = 77;
    pub(super) const CONFIGURATION: i32 = 78;

    // Those of the engine alone.
    pub(super) const WRITE: i32 = 74;
    pub(super) const OUT_OF_TIME: i32 = 124;
    pub(super) const OUT_OF_MEMORY: i32 = 137;

    /// The names of `sysexits.h`. A function has no exit status of its own: it names one as the
    /// `errorType` of its error.
    const NAMES: [(&str, i32); 15] = [
        ("EX_USAGE", 64),
        ("EX_DATAERR", DATA),
        ("EX_NOINPUT", 66),
        ("EX_NOUSER", 67),
        ("EX_NOHOST", 68),
        ("EX_UNAVAILABLE", 69),
        ("EX_SOFTWARE", 70),
        ("EX_OSERR", 71),
        ("EX_OSFILE", 72),
        ("EX_CANTCREAT", 73),
        ("EX_IOERR", WRITE),
        ("EX_TEMPFAIL", TRY_AGAIN),
        ("EX_PROTOCOL", 76),
        ("EX_NOPERM", NO_PERMISSION),
        ("EX_CONFIG", CONFIGURATION),
    ];

    /// The status of this name.
    pub(super) fn named(name: &str) -> Option<i32> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, status)| *status)
    }
}

/// `SIGXFSZ` of signal(7): a file was to become larger than `RLIMIT_FSIZE`.
const FILE_TOO_LARGE: i32 = 25;

/// Whose exit statuses they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whatever the pipeline brings: the task contract says what they mean.
    Program,
    /// The engine's.
    Job,
}

/// The failure that an end stands for, if it does, and the exit status, if there was one.
pub(crate) fn failure(end: &End, work: Kind, memory_bytes: u64) -> (Option<Failure>, Option<i32>) {
    match end {
        End::Exited { code: 0 } => (None, Some(0)),
        End::Exited { code } => {
            let failure = match work {
                Kind::Job => of_job(*code, memory_bytes),
                Kind::Program => of_program(*code),
            };
            (Some(failure), Some(*code))
        }
        End::Answered { .. } | End::Stopped => (None, None),
        End::Signalled {
            signal: FILE_TOO_LARGE,
        } => {
            let message = "the program was ended when a file of its own grew larger than all that its \
                           size has on disk; write less, or choose a larger size";
            (
                Some(application(codes::DISK_USED_UP.id, message.to_owned())),
                None,
            )
        }
        End::Signalled { signal } => {
            let message = format!("the program was ended by signal {signal}");
            (Some(application("BC0602", message)), None)
        }
        End::OutOfMemory => (Some(out_of_memory("program", memory_bytes)), None),
        End::HandlerError {
            error_type,
            message,
        } => (Some(of_function(error_type.raw(), message.raw())), None),
    }
}

fn out_of_memory(what: &str, memory_bytes: u64) -> Failure {
    let mebibytes = memory_bytes >> 20;
    let message =
        format!("the {what} needed more than its {mebibytes} MiB of memory; choose a larger size");
    application("BC0603", message)
}

/// The engine is ours: its exit statuses say more than those of any program.
fn of_job(status: i32, memory_bytes: u64) -> Failure {
    let failure = |kind, code: &str, message: &str| Failure {
        kind,
        code: code.to_owned(),
        message: format!("{message} (exit status {status})").into(),
    };
    match status {
        status::DATA => failure(FailureKind::Data, "BC0605", "the job's data is bad"),
        status::CONFIGURATION => failure(
            FailureKind::Policy,
            "BC0608",
            "the job cannot be carried out",
        ),
        status::WRITE => failure(
            FailureKind::Infrastructure,
            "BC0612",
            "the job could not write what it made",
        ),
        status::OUT_OF_TIME => failure(
            FailureKind::Timeout,
            "BC0609",
            "the job was not done in time",
        ),
        status::OUT_OF_MEMORY => out_of_memory("job", memory_bytes),
        _ => failure(FailureKind::Application, "BC0601", "the job failed"),
    }
}

fn application(code: &str, message: String) -> Failure {
    Failure {
        kind: FailureKind::Application,
        code: code.to_owned(),
        message: message.into(),
    }
}

fn of_program(status: i32) -> Failure {
    match meaning(status) {
        Some((kind, code, says)) => Failure {
            kind,
            code: code.to_owned(),
            message: format!("the program {says} (exit status {status})").into(),
        },
        None => application("BC0601", format!("the program exited with status {status}")),
    }
}

/// The end of a function that failed, with what it means and nothing of what the function said.
pub(crate) fn without_words(error_type: &str) -> End {
    let known = status::named(error_type).is_some();
    End::HandlerError {
        error_type: if known { error_type } else { "an error" }.into(),
        message: "what it says is in its log alone".into(),
    }
}

/// A function that reports `EX_DATAERR` has failed as a program has that exits with status 65, so
/// that the same work fails alike as either kind.
fn of_function(error_type: &str, message: &str) -> Failure {
    let Some(status) = status::named(error_type) else {
        let message = format!("the function failed: {error_type}: {message}");
        return application("BC0604", message);
    };
    match meaning(status) {
        Some((kind, code, says)) => Failure {
            kind,
            code: code.to_owned(),
            message: format!("the function {says} ({error_type}): {message}").into(),
        },
        None => application(
            "BC0601",
            format!("the function reported {error_type}: {message}"),
        ),
    }
}

/// What the task contract says that an exit status says.
fn meaning(status: i32) -> Option<(FailureKind, &'static str, &'static str)> {
    Some(match status {
        status::DATA => (FailureKind::Data, "BC0605", "says that its data is bad"),
        status::TRY_AGAIN => (FailureKind::Application, "BC0606", "asks to be tried again"),
        status::NO_PERMISSION => (FailureKind::Policy, "BC0607", "lacks a permission"),
        status::CONFIGURATION => (
            FailureKind::Policy,
            "BC0608",
            "says that it is not configured right",
        ),
        _ => return None,
    })
}

/// What an attempt used, as runs report it.
pub(crate) fn metrics(ended: &Ended) -> Metrics {
    let usage = &ended.usage;
    let flows = ended.flows.as_ref().map(|flows| &flows.totals);
    Metrics {
        // Microseconds of processor time stay far below 2^53.
        cpu_seconds: usage.cpu_micros.map(|micros| micros as f64 / 1e6),
        memory_peak_bytes: usage.memory_peak_bytes,
        io_read_bytes: usage.io_read_bytes,
        io_write_bytes: usage.io_write_bytes,
        network_sent_bytes: flows.map(|totals| totals.bytes_up),
        network_received_bytes: flows.map(|totals| totals.bytes_down),
        network_connections: flows.map(|totals| totals.allowed + totals.audited),
        network_refusals: flows.map(|totals| totals.refused),
        metered: ended.metered.clone(),
    }
}

#[cfg(test)]
mod tests {
    use barecount_runner::launch::{LogSummary, Usage};
    use serde_json::json;

    use super::*;

    const MEMORY: u64 = 256 << 20;

    fn reported(error_type: &str) -> End {
        End::HandlerError {
            error_type: error_type.into(),
            message: "row 7 has no date".into(),
        }
    }

    /// Kind and code of the failure that an end stands for.
    fn judged(end: &End) -> Option<(FailureKind, String)> {
        let (failure, _) = failure(end, Kind::Program, MEMORY);
        failure.map(|failure| (failure.kind, failure.code))
    }

    fn is(kind: FailureKind, code: &str) -> Option<(FailureKind, String)> {
        Some((kind, code.to_owned()))
    }

    #[test]
    fn a_failure_without_words_keeps_its_meaning_and_nothing_that_the_function_said() {
        let of = |error_type: &str| failure(&without_words(error_type), Kind::Program, 0).0;
        let data = of("EX_DATAERR").expect("it has failed");
        assert_eq!(
            (data.kind, data.code.as_str()),
            (FailureKind::Data, "BC0605")
        );
        let odd = of("account 4711 is overdrawn").expect("it has failed");
        assert_eq!(odd.code, "BC0604");
        assert!(!odd.message.raw().contains("4711"), "{}", odd.message);
    }

    #[test]
    fn exit_statuses_are_judged_by_the_task_contract() {
        let expected = [
            (65, FailureKind::Data, "BC0605"),
            (75, FailureKind::Application, "BC0606"),
            (77, FailureKind::Policy, "BC0607"),
            (78, FailureKind::Policy, "BC0608"),
            (1, FailureKind::Application, "BC0601"),
            (66, FailureKind::Application, "BC0601"),
            (255, FailureKind::Application, "BC0601"),
        ];
        for (code, kind, error) in expected {
            let end = End::Exited { code };
            assert_eq!(judged(&end), is(kind, error), "status {code}");
            assert_eq!(failure(&end, Kind::Program, MEMORY).1, Some(code));
        }
    }

    #[test]
    fn exit_statuses_of_the_engine_say_whether_another_try_could_help() {
        let expected = [
            (1, FailureKind::Application, "BC0601"),
            (65, FailureKind::Data, "BC0605"),
            (70, FailureKind::Application, "BC0601"),
            (74, FailureKind::Infrastructure, "BC0612"),
            (78, FailureKind::Policy, "BC0608"),
            (124, FailureKind::Timeout, "BC0609"),
            (137, FailureKind::Application, "BC0603"),
        ];
        for (code, kind, error) in expected {
            let (failure, status) = failure(&End::Exited { code }, Kind::Job, MEMORY);
            let told = failure.map(|failure| (failure.kind, failure.code));
            assert_eq!(told, is(kind, error), "status {code}");
            assert_eq!(status, Some(code));
        }
    }

    #[test]
    fn a_function_that_names_an_exit_status_fails_as_a_program_that_exits_with_it() {
        for (name, code) in [
            ("EX_USAGE", 64),
            ("EX_DATAERR", 65),
            ("EX_NOINPUT", 66),
            ("EX_UNAVAILABLE", 69),
            ("EX_IOERR", 74),
            ("EX_TEMPFAIL", 75),
            ("EX_NOPERM", 77),
            ("EX_CONFIG", 78),
        ] {
            let function = reported(name);
            assert_eq!(judged(&function), judged(&End::Exited { code }), "{name}");
            let (failure, status) = failure(&function, Kind::Program, MEMORY);
            let message = failure.map(|failure| failure.message).unwrap_or_default();
            assert!(message.raw().contains(name), "{message}");
            assert!(message.raw().contains("row 7 has no date"), "{message}");
            assert_eq!(status, None, "a function has no exit status");
        }
    }

    #[test]
    fn any_other_error_of_a_function_is_its_own_failure() {
        for name in [
            "ValueError",
            "Runtime.NoAnswer",
            "EX_OK",
            "ex_dataerr",
            "EX_DATAERR ",
            "65",
            "",
        ] {
            let expected = is(FailureKind::Application, "BC0604");
            assert_eq!(judged(&reported(name)), expected, "{name:?}");
        }
    }

    #[test]
    fn signals_and_want_of_memory_are_told_apart_and_say_what_to_do() {
        let signalled = End::Signalled { signal: 9 };
        let (killed, _) = failure(&signalled, Kind::Program, MEMORY);
        assert_eq!(judged(&signalled), is(FailureKind::Application, "BC0602"));
        assert!(killed.is_some_and(|failure| failure.message.raw().contains("signal 9")));
        let (starved, _) = failure(&End::OutOfMemory, Kind::Program, MEMORY);
        assert_eq!(
            judged(&End::OutOfMemory),
            is(FailureKind::Application, "BC0603")
        );
        assert!(starved.is_some_and(|failure| failure.message.raw().contains("256 MiB")));
    }

    #[test]
    fn what_is_done_or_was_stopped_is_no_failure() {
        let answered = End::Answered {
            response: json!(null),
        };
        assert_eq!(
            failure(&End::Exited { code: 0 }, Kind::Program, MEMORY),
            (None, Some(0))
        );
        assert_eq!(failure(&answered, Kind::Program, MEMORY), (None, None));
        assert_eq!(failure(&End::Stopped, Kind::Program, MEMORY), (None, None));
    }

    #[test]
    fn what_the_host_cannot_tell_stays_unknown_in_the_metrics() {
        let ended = Ended {
            end: End::Stopped,
            metered: Vec::new(),
            usage: Usage {
                cpu_micros: Some(1_500_000),
                memory_peak_bytes: None,
                io_read_bytes: Some(0),
                io_write_bytes: None,
            },
            enforcement: json!(null),
            log: LogSummary::default(),
            warm: false,
            flows: None,
            saved: false,
        };
        let expected = Metrics {
            cpu_seconds: Some(1.5),
            memory_peak_bytes: None,
            io_read_bytes: Some(0),
            ..Metrics::default()
        };
        assert_eq!(metrics(&ended), expected);
    }
}
