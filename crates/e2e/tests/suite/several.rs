//! Several processes on one state folder at once.

use std::os::unix::process::ExitStatusExt;

use barecount_e2e::{
    Outcome,
    place::Place,
    process::{Finished, Running},
};
use rustix::process::Signal;

use crate::pipelines;

/// A run that has committed once, so that its dataset is there, and does other work now.
fn working() -> (Place, Running) {
    let place = pipelines::function("linger");
    let run = pipelines::start(&place);
    pipelines::let_go(&run);
    run.finish().exits_with(0);
    let other = ["run", "pipeline.yaml", "--token", "other", "-o", "json"];
    let run = place.barecount(other).start();
    pipelines::lingers(&run);
    (place, run)
}

fn at_once(place: &Place, verb: &[&str]) -> Finished {
    place.barecount(["--wait", "0"]).arguments(verb).finish()
}

/// A process that waits for another one.
fn waits(place: &Place, verb: &[&str], holder: &Running) -> Running {
    let waiting = place.barecount(verb).start();
    let process = format!(
        "waiting for process {} (`barecount run` of pipeline `worker`, since ",
        holder.pid.as_raw_nonzero()
    );
    waiting.wait_until("it says whom it waits for", || {
        waiting.so_far().contains(&process)
    });
    waiting
}

const ALL_THAT_CHANGE: [&[&str]; 6] = [
    &["run", "pipeline.yaml"],
    &["build", "pipeline.yaml"],
    &["gc"],
    &["datasets", "drop", "raw.rows", "--yes"],
    &["datasets", "give", "raw.rows", "--to", "other", "--yes"],
    &["datasets", "restore", "raw.rows", "--version", "0", "--yes"],
];

#[test]
fn whoever_does_not_wait_is_told_at_once_who_works_here_and_the_first_is_unharmed() {
    let (place, first) = working();
    let process = format!("process {} (`barecount run`", first.pid.as_raw_nonzero());
    for verb in ALL_THAT_CHANGE {
        at_once(&place, verb)
            .fails_with(6, "BC0803")
            .tells(&process)
            .tells("of pipeline `worker`")
            .tells("--wait")
            .tells("--state");
    }
    place
        .barecount(["gc"])
        .env("BARECOUNT_WAIT", "0")
        .finish()
        .fails_with(6, "BC0803");
    // So does whoever has waited for as long as was said.
    place
        .barecount(["--wait", "50ms", "gc"])
        .finish()
        .fails_with(6, "BC0803")
        .tells("waiting for process");
    pipelines::let_go(&first);
    let finished = first.finish().exits_with(0).json("run");
    assert_eq!(finished["outputs"][0]["rows"], 3);
    place.nothing_is_left();
}

#[test]
fn whoever_only_looks_is_let_in_while_a_run_goes_on() {
    let (place, first) = working();
    for (verb, tells) in [
        (&["runs", "ls"][..], "running"),
        (&["outputs", "ls"], "raw.rows"),
        (&["outputs", "show", "raw.rows"], "raw.rows"),
        (&["datasets", "ls"], "raw.rows"),
        (&["datasets", "show", "raw.rows"], "worker"),
        (&["datasets", "history", "raw.rows"], "overwritten"),
        (&["trace", "raw.rows"], "brought by"),
        (&["dlq", "ls"], "no dead letters"),
        (&["evidence", "ls"], "submission"),
        (&["evidence", "verify"], "valid: "),
        (&["validate", "pipeline.yaml"], "is valid"),
        (&["policy", "explain", "pipeline.yaml"], "permitted"),
        (&["run", "pipeline.yaml", "--dry-run"], "nothing would run"),
    ] {
        at_once(&place, verb).exits_with(0).tells(tells);
    }
    pipelines::let_go(&first);
    first.finish().exits_with(0);
    place.nothing_is_left();
}

#[test]
fn a_second_process_waits_says_for_whom_and_goes_on_when_the_first_has_ended() {
    let (place, first) = working();
    let run = ["run", "pipeline.yaml", "--token", "other"];
    let waiting = [
        waits(&place, &run, &first),
        waits(&place, &["gc"], &first),
        waits(
            &place,
            &["datasets", "restore", "raw.rows", "--version", "0", "--yes"],
            &first,
        ),
    ];
    pipelines::let_go(&first);
    first.finish().exits_with(0);
    for waiting in waiting {
        waiting.finish().exits_with(0);
    }
    place
        .barecount(["evidence", "verify"])
        .finish()
        .exits_with(0);
    place.nothing_is_left();
}

#[test]
fn ctrl_c_ends_the_wait_and_nothing_else() {
    let (place, first) = working();
    for signal in [Signal::INT, Signal::TERM] {
        let waiting = waits(&place, &["run", "pipeline.yaml"], &first);
        waiting.signal(signal);
        let ended = waiting.finish();
        // As a shell has it: 128 and the signal's number.
        assert_eq!(ended.status.signal(), Some(signal.as_raw()), "{ended}");
    }
    pipelines::let_go(&first);
    first.finish().exits_with(0);
    place.nothing_is_left();
}

#[test]
fn a_first_process_that_dies_lets_the_second_take_its_run_up() -> Outcome {
    let place = pipelines::function("linger");
    let first = pipelines::start(&place);
    pipelines::lingers(&first);
    let listed = place.barecount(["runs", "ls", "-o", "json"]).finish();
    let id = listed.exits_with(0).json("runs")["items"][0]["id"].clone();
    let second = waits(&place, &["run", "pipeline.yaml", "-o", "json"], &first);
    first.signal(Signal::KILL);
    first.finish();
    pipelines::let_go(&second);
    let finished = second.finish().exits_with(0).tells("was interrupted");
    let run = finished.json("run");
    assert_eq!(run["id"], id, "{finished}");
    assert_eq!(run["outputs"][0]["version"], 0, "committed once");
    place
        .barecount(["evidence", "verify"])
        .finish()
        .exits_with(0);
    place.nothing_is_left();
    Ok(())
}
