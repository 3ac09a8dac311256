//! Functions and programs that fail in every way that the task contract knows, and some more.

use barecount_e2e::{Outcome, place::Place, process::Finished};
use serde_json::Value;

use crate::pipelines;

fn run(place: &Place) -> Finished {
    let finished = place
        .barecount(["run", "pipeline.yaml", "-o", "json"])
        .finish();
    place.nothing_is_left();
    finished
}

/// The failure of the only task's last attempt.
fn failure(finished: &Finished) -> Value {
    let run = finished.json("run");
    let attempts = run["tasks"][0]["attempts"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let last = attempts.last().expect("there was an attempt");
    last["failure"].clone()
}

/// Asserts that a run failed, how its attempt failed, and that nothing was committed.
#[track_caller]
fn fails(place: &Place, kind: &str, code: &str, message: &str) {
    let finished = run(place).exits_with(1);
    let failure = failure(&finished);
    assert_eq!(failure["kind"], kind, "{finished}");
    assert_eq!(failure["code"], code, "{finished}");
    let told = failure["message"].as_str().unwrap_or_default();
    assert!(told.contains(message), "`{message}` is told by {finished}");
    let finished = finished
        .tells(&format!("[{code}]"))
        .tells("barecount runs logs");
    assert_eq!(
        finished.json("run")["outputs"],
        serde_json::json!([]),
        "nothing is committed"
    );
    let listed = place
        .barecount(["outputs", "ls", "-o", "json"])
        .finish()
        .exits_with(0);
    assert_eq!(listed.json("outputs")["items"], serde_json::json!([]));
    place
        .barecount(["evidence", "verify"])
        .finish()
        .exits_with(0);
}

#[test]
fn a_good_function_and_a_good_container_succeed() {
    for place in [pipelines::function(""), pipelines::container("")] {
        let finished = run(&place).exits_with(0);
        assert_eq!(finished.json("run")["outputs"][0]["rows"], 3);
    }
}

#[test]
fn a_function_that_crashes_fails_and_says_by_which_signal() {
    fails(
        &pipelines::function("crash"),
        "application",
        "BC0602",
        "signal 6",
    );
    fails(
        &pipelines::function("crash at start"),
        "application",
        "BC0602",
        "signal 6",
    );
    fails(
        &pipelines::container("crash"),
        "application",
        "BC0602",
        "signal 6",
    );
}

#[test]
fn exit_statuses_of_a_program_mean_what_the_task_contract_says() {
    fails(&pipelines::container("exit 65"), "data", "BC0605", "65");
    fails(
        &pipelines::container("exit 75"),
        "application",
        "BC0606",
        "75",
    );
    fails(&pipelines::container("exit 77"), "policy", "BC0607", "77");
    fails(&pipelines::container("exit 78"), "policy", "BC0608", "78");
    fails(
        &pipelines::container("exit 3"),
        "application",
        "BC0601",
        "status 3",
    );
}

#[test]
fn a_function_fails_by_name_as_a_program_does_by_exit_status() {
    fails(
        &pipelines::function("report EX_DATAERR"),
        "data",
        "BC0605",
        "row 7 is odd",
    );
    fails(
        &pipelines::function("report EX_TEMPFAIL"),
        "application",
        "BC0606",
        "row 7 is odd",
    );
    fails(
        &pipelines::function("report EX_NOPERM"),
        "policy",
        "BC0607",
        "row 7 is odd",
    );
    fails(
        &pipelines::function("report EX_CONFIG"),
        "policy",
        "BC0608",
        "row 7 is odd",
    );
    fails(
        &pipelines::function("report OddError"),
        "application",
        "BC0604",
        "OddError",
    );
}

#[test]
fn work_that_never_ends_is_ended_at_its_timeout() {
    let timeout = "      timeout: 2s\n";
    let never = pipelines::function_with("answer never", timeout, pipelines::GOOD_ROWS);
    fails(&never, "timeout", "BC0609", "2 s");
    let hangs = pipelines::function_with("hang", timeout, pipelines::GOOD_ROWS);
    fails(&hangs, "timeout", "BC0609", "2 s");
}

#[test]
fn a_fork_bomb_is_stopped_by_the_limit_on_processes() {
    let timeout = "      timeout: 8s\n";
    let place = pipelines::container_with("fork bomb", timeout);
    fails(&place, "timeout", "BC0609", "8 s");
    let listed = place.barecount(["runs", "ls", "-o", "json"]).finish();
    let listed = listed.exits_with(0).json("runs");
    assert_eq!(listed["items"][0]["state"], "failed", "{listed:#}");
    // The timeout ended it; the limit had stopped it before.
    let id = listed["items"][0]["id"].as_str().unwrap_or_default();
    let log = place.barecount(["runs", "logs", id]).finish().exits_with(0);
    let log = log.tells("stopped after");
    assert!(!log.stdout.contains("nothing stopped it"), "{log}");
}

#[test]
fn work_that_eats_memory_is_stopped_and_told_how_much_it_had() {
    fails(
        &pipelines::function("eat memory"),
        "application",
        "BC0603",
        "MiB of memory",
    );
    fails(
        &pipelines::container("eat memory"),
        "application",
        "BC0603",
        "MiB of memory",
    );
}

#[test]
fn a_gigabyte_of_output_is_cut_and_the_work_goes_on() {
    let place = pipelines::function_with(
        "print a gigabyte",
        "      timeout: 120s\n",
        pipelines::GOOD_ROWS,
    );
    let finished = run(&place).exits_with(0);
    assert_eq!(finished.json("run")["outputs"][0]["rows"], 3);
    let kept: u64 = fs_err::read_dir(place.state().join("logs"))
        .expect("logs are kept")
        .map(|entry| entry.and_then(|entry| entry.metadata()))
        .map(|found| found.expect("a log can be looked at").len())
        .sum();
    assert!(kept > 0 && kept <= 64 << 20, "{kept} bytes of log");
}

#[test]
fn the_last_words_of_work_that_printed_too_much_are_its_last() {
    let timeout = "      timeout: 120s\n";
    let place = pipelines::container_with("print a gigabyte and fail", timeout);
    let finished = run(&place).exits_with(1);
    let failure = failure(&finished);
    let told = failure["message"].as_str().unwrap_or_default();
    assert!(told.contains("its last words: "), "{finished}");
    assert!(told.ends_with("row 7 is odd"), "{finished}");
}

#[test]
fn a_second_answer_to_one_event_changes_nothing() {
    let finished = run(&pipelines::function("answer twice")).exits_with(0);
    assert_eq!(finished.json("run")["outputs"][0]["rows"], 3);
}

#[test]
fn what_asks_to_be_tried_again_is_tried_again() {
    let retries = "      retries: { application: 1 }\n";
    let place = pipelines::container_with("fail once", retries);
    let finished = run(&place).exits_with(0);
    let run = finished.json("run");
    let attempts = run["tasks"][0]["attempts"].as_array().map(Vec::len);
    assert_eq!(attempts, Some(2), "{run}");
    assert_eq!(run["outputs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_checkpoint_is_found_again_once_its_rows_are_committed_and_not_before() -> Outcome {
    let place = pipelines::container_with("count", "      retries: { application: 1 }\n");
    let run = |token: &str| {
        place
            .barecount(["run", "pipeline.yaml", "--token", token, "-o", "json"])
            .finish()
    };
    let log_of = |finished: Finished| {
        let run = finished.json("run");
        let id = run["id"].as_str().unwrap_or_default().to_owned();
        place
            .barecount(["runs", "logs", &id])
            .finish()
            .exits_with(0)
    };
    // The first attempt asks to be tried again, and hands on what it saved to the second.
    log_of(run("first").exits_with(0))
        .tells("found 0")
        .tells("found 1");
    log_of(run("second").exits_with(0)).tells("found 2");
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
    place.write(
        "pipeline.yaml",
        manifest.replace("\"count\"", "\"count and fail\""),
    );
    log_of(run("failing").exits_with(1)).tells("found 3");
    place.write("pipeline.yaml", manifest);
    // What failed has moved nothing.
    log_of(run("third").exits_with(0)).tells("found 3");
    place.nothing_is_left();
    Ok(())
}

#[test]
fn an_image_says_where_its_program_starts_and_with_which_variables() -> Outcome {
    let place = pipelines::container("tell");
    let recipe = fs_err::read_to_string(place.join("images/worker/build.yaml"))?;
    place.write(
        "images/worker/build.yaml",
        format!("{recipe}workdir: /app/rows\nenv: {{ MARK: image, OTHER: image }}\n"),
    );
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
    // The stage comes before the image.
    place.write(
        "pipeline.yaml",
        manifest.replace("env: { ", "env: { OTHER: stage, "),
    );
    let finished = run(&place).exits_with(0).json("run");
    let id = finished["id"].as_str().unwrap_or_default();
    place
        .barecount(["runs", "logs", id])
        .finish()
        .exits_with(0)
        .tells("in /app/rows")
        .tells("MARK=image OTHER=stage");
    Ok(())
}
