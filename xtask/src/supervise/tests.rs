//! The tests take turns: [`run`] waits for every child of the process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a script; gives its log too.
fn shell(script: &str, limit: Duration) -> io::Result<(Ended, String)> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("made/log");
    let ended = run(
        Command::new("sh").args(["-c", script]),
        limit,
        &log,
        Shown::InLog,
    )?;
    Ok((ended, fs::read_to_string(log)?))
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn output_is_logged_and_its_last_lines_are_kept() -> TestResult {
    let _turn = turn();
    let script = "seq 1 100; echo unfinished line >&2; printf end; exit 3";
    let (ended, log) = shell(script, LONG)?;
    assert!(ended.how == How::Exited(3));
    assert_eq!(log.lines().count(), 102);
    assert_eq!(ended.tail.len(), TAIL_LINES);
    assert_eq!(
        ended.tail[TAIL_LINES - 3..],
        ["100", "unfinished line", "end"]
    );
    Ok(())
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_all_that_it_started() -> TestResult {
    let _turn = turn();
    adopt_orphans()?;
    let script = "setsid sleep 1000 & (setsid sh -c 'sleep 1001; true' &) ; echo up; sleep 1002";
    let started = Instant::now();
    let (ended, log) = shell(script, Duration::from_millis(300))?;
    assert!(ended.how == How::TimedOut);
    assert_eq!(log, "up\n");
    assert!(started.elapsed() < GRACE, "nothing was waited for in vain");
    assert!(ended.left_behind.contains(&"sleep".to_owned()));
    assert!(children()?.is_empty());
    Ok(())
}

#[test]
fn what_a_command_leaves_behind_is_ended_and_named() -> TestResult {
    let _turn = turn();
    adopt_orphans()?;
    let (ended, _) = shell("(setsid sleep 1000 &); sleep 0.2", LONG)?;
    assert!(ended.how == How::Exited(0));
    assert_eq!(ended.left_behind, ["sleep"]);
    assert!(children()?.is_empty());
    Ok(())
}

#[test]
fn a_command_that_another_ends_says_by_which_signal() -> TestResult {
    let _turn = turn();
    let (ended, _) = shell("kill -SEGV $$", LONG)?;
    assert!(ended.how == How::Signalled(11));
    Ok(())
}

#[test]
fn a_program_name_with_parentheses_does_not_confuse_its_parent() {
    let stat = "42 (a) R 7 (b) S 13 42 42 0";
    assert_eq!(parse_stat(stat), Some((13, "S", "a) R 7 (b")));
}
