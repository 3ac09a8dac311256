//! Ctrl-C.

use barecount_e2e::{Outcome, place::Place, tree};
use rustix::process::Signal;
use serde_json::json;

use crate::pipelines;

#[test]
fn ctrl_c_cancels_a_run_and_the_next_run_takes_it_up_again() {
    for signal in [Signal::INT, Signal::TERM] {
        let place = pipelines::function("linger");
        let run = pipelines::start(&place);
        pipelines::lingers(&run);
        run.signal(signal);
        let cancelled = run
            .finish()
            .exits_with(1)
            .tells("cancelled")
            .tells("resumes");
        let cancelled = cancelled.json("run");
        assert_eq!(cancelled["state"], "cancelled");
        assert_eq!(cancelled["outputs"], json!([]));
        place.nothing_is_left();
        resumes(&place, &cancelled["id"]);
        says_what_permitted_it(&place);
    }
}

#[test]
fn ctrl_c_twice_ends_everything_at_once_and_loses_nothing() {
    let place = pipelines::function("linger");
    let run = pipelines::start(&place);
    pipelines::lingers(&run);
    let listed = place
        .barecount(["runs", "ls", "-o", "json"])
        .finish()
        .exits_with(0);
    let id = listed.json("runs")["items"][0]["id"].clone();
    run.signal(Signal::INT);
    run.signal(Signal::INT);
    // Both may arrive as one; then it ends in good order.
    run.wait_until("it ends", || {
        run.signal(Signal::INT);
        run.ends_before(std::time::Instant::now())
    });
    let status = run.finish().status.code();
    assert!(matches!(status, Some(1 | 130)), "{status:?}");
    place.nothing_runs();
    resumes(&place, &id);
}

fn resumes(place: &Place, id: &serde_json::Value) {
    let again = pipelines::start(place);
    pipelines::let_go(&again);
    let finished = again.finish().exits_with(0);
    let run = finished.json("run");
    assert_eq!(run["id"], *id, "{finished}");
    assert_eq!(run["outputs"][0]["version"], 0, "committed once");
    place
        .barecount(["evidence", "verify"])
        .finish()
        .exits_with(0);
    place.nothing_is_left();
}

/// The entry of a run that was taken up has the decision and its rules, as that of its beginning.
fn says_what_permitted_it(place: &Place) {
    let listed = place.barecount(["evidence", "ls", "-o", "json"]).finish();
    let listed = listed.exits_with(0).json("evidence");
    let mut entries = listed["items"].as_array().into_iter().flatten();
    let taken_up = entries
        .find(|entry| entry["kind"] == "resumption")
        .expect("it was taken up");
    let index = taken_up["index"].to_string();
    let shown = place
        .barecount([
            "evidence", "show", &index, "--with", "policies", "-o", "json",
        ])
        .finish()
        .exits_with(0)
        .json("evidence_entry");
    let decision = &shown["statement"]["predicate"]["decision"];
    assert_eq!(decision["action"], "resume");
    assert_eq!(decision["decisions"][0]["allowed"], true);
    assert!(shown["rules"]["question"]["text"].is_string(), "{shown:#}");
}

#[test]
fn ctrl_c_during_a_build_leaves_nothing_running() -> Outcome {
    let place = pipelines::container("");
    // A build script that never ends: cargo is what is interrupted.
    place.write(
        "images/worker/Cargo.toml",
        "[package]\nname = \"slow\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n",
    );
    place.write(
        "images/worker/Cargo.lock",
        "version = 4\n\n[[package]]\nname = \"slow\"\nversion = \"0.1.0\"\n",
    );
    place.write("images/worker/src/main.rs", "fn main() {}\n");
    place.write(
        "images/worker/build.rs",
        "fn main() { loop { std::thread::sleep(std::time::Duration::from_secs(60)) } }\n",
    );
    place.write(
        "images/worker/build.yaml",
        "kind: image\ncargo: { package: slow }\n",
    );
    let run = pipelines::start(&place);
    run.wait_until("the build script runs", || {
        let script = |pid| tree::command_line(pid).contains("build-script-build");
        run.tree().find(script).is_some()
    });
    run.signal(Signal::INT);
    run.finish().exits_with(1).tells("cancelled");
    place.nothing_is_left();
    Ok(())
}
