//! Runs that do not come to their end by themselves: each is shown as what it is, and has a way out.

use barecount_e2e::{Outcome, place::Place, process::Finished};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::pipelines;

fn told(place: &Place, arguments: &[&str]) -> Finished {
    place.barecount(arguments).finish()
}

fn asked(place: &Place, arguments: &[&str], kind: &str) -> Value {
    let asked = place.barecount(arguments).argument("-o").argument("json");
    asked.finish().exits_with(0).json(kind)
}

/// The newest run.
fn newest(place: &Place) -> Value {
    asked(place, &["runs", "ls"], "runs")["items"][0].clone()
}

fn id(run: &Value) -> &str {
    run["id"].as_str().expect("a run has an id")
}

/// A run whose process was killed in the middle of its work.
fn killed() -> (Place, Value) {
    let place = pipelines::function("linger");
    let run = pipelines::start(&place);
    pipelines::lingers(&run);
    run.signal(Signal::KILL);
    run.finish();
    place.nothing_runs();
    let run = newest(&place);
    (place, run)
}

#[test]
fn a_run_whose_process_died_is_shown_as_interrupted_and_says_how_it_goes_on() {
    let (place, run) = killed();
    assert_eq!(
        (&run["state"], &run["interrupted"]),
        (&json!("running"), &json!(true))
    );
    told(&place, &["runs", "ls"])
        .exits_with(0)
        .tells("interrupted");
    told(&place, &["runs", "show", id(&run)])
        .exits_with(0)
        .tells("state     interrupted")
        .tells("`barecount run` of the manifest of pipeline `worker` takes it up")
        .tells(&format!("`barecount runs cancel {}` ends it", id(&run)));
    let again = pipelines::start(&place);
    pipelines::lingers(&again);
    assert_eq!(newest(&place)["interrupted"], json!(false));
    pipelines::let_go(&again);
    let done = again.finish().exits_with(0).json("run");
    assert_eq!(
        (&done["id"], &done["interrupted"]),
        (&run["id"], &json!(false))
    );
}

#[test]
fn a_run_whose_process_died_is_cancelled_for_good_and_can_be_taken_up_later() {
    let (place, run) = killed();
    let other = ["runs", "cancel", id(&run), "--tenant", "others"];
    told(&place, &other).exits_with(4).tells("`others`");
    let cancelled = asked(&place, &["runs", "cancel", id(&run)], "run");
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(newest(&place)["interrupted"], json!(false));
    place.nothing_is_left();
    told(&place, &["evidence", "verify"]).exits_with(0);
    told(&place, &["runs", "cancel", id(&run)])
        .fails_with(5, "BC0830")
        .tells("it is cancelled");
    told(&place, &["runs", "cancel", "run_none"]).exits_with(4);
    let again = pipelines::start(&place);
    pipelines::let_go(&again);
    let done = again.finish().exits_with(0).json("run");
    assert_eq!(done["id"], run["id"]);
}

#[test]
fn a_run_that_a_living_process_works_on_is_ended_there() {
    let place = pipelines::function("linger");
    let run = pipelines::start(&place);
    pipelines::lingers(&run);
    let found = newest(&place);
    assert_eq!(found["interrupted"], json!(false));
    for verb in [
        &["runs", "cancel", id(&found)][..],
        &["runs", "abandon", id(&found), "--reason", "tired of it"],
    ] {
        told(&place, verb)
            .fails_with(6, "BC0831")
            .tells(&format!("kill -INT {}", run.pid.as_raw_nonzero()));
    }
    run.signal(Signal::INT);
    run.finish().exits_with(1).tells("was cancelled");
}

/// A pipeline that adds one row, in a partition of its own.
fn adding(place: &Place, row: u32, more: &str) {
    place.write(
        "pipeline.yaml",
        format!(
            "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: adding, tenant: demo, owner: you@example.com }}
spec:
  classification: public
  stages:
    - name: add
      phase: kpi
      runner:
        {{ class: managed_etl, size: small, network_profile: private_vpc, job: add.sql }}
      outputs:
        - dataset: kpi.rows
          format: parquet
          mode: append
          partition_by: [id]
          {more}
          columns: [{{ name: id, type: int64, nullable: false }}, {{ name: note, type: string }}]
"
        ),
    );
    let sql = format!("INSERT INTO kpi.rows SELECT CAST({row} AS BIGINT) AS id, 'a' AS note;\n");
    place.write("add.sql", sql);
}

/// A run whose outputs are decided for and cannot be committed: where its partition would be, there
/// is a file.
fn wedged() -> (Place, Value) {
    let place = Place::new();
    adding(&place, 1, "");
    told(&place, &["run", "pipeline.yaml"]).exits_with(0);
    adding(&place, 2, "");
    fs_err::write(obstacle(&place), "in the way").expect("a file in the table's folder");
    told(&place, &["run", "pipeline.yaml"])
        .fails_with(6, "BC0706")
        .tells("runs abandon run_");
    let run = newest(&place);
    (place, run)
}

fn obstacle(place: &Place) -> std::path::PathBuf {
    place.state().join("datasets/demo/kpi/rows/id=2")
}

fn rows(place: &Place) -> Vec<String> {
    let export = told(place, &["outputs", "export", "kpi.rows"]).exits_with(0);
    export.stdout.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn a_decision_that_cannot_be_carried_out_is_given_up_on_record_and_the_pipeline_runs_again()
-> Outcome {
    let (place, run) = wedged();
    told(&place, &["runs", "show", id(&run)])
        .exits_with(0)
        .tells("state     interrupted")
        .tells("runs abandon");
    // Neither running again nor cancelling gets over it, and both say what does.
    for verb in [&["run", "pipeline.yaml"][..], &["runs", "cancel", id(&run)]] {
        told(&place, verb)
            .fails_with(6, "BC0706")
            .tells(&format!("runs abandon {}", id(&run)));
    }
    told(&place, &["runs", "abandon", id(&run)])
        .exits_with(2)
        .tells("--reason");
    let reason = [
        "runs",
        "abandon",
        id(&run),
        "--reason",
        "a file is in its place",
    ];
    let ended = told(&place, &reason).exits_with(0);
    ended
        .tells("what it wrote is given up")
        .tells("BC0721")
        .tells("a file is in its place");
    told(&place, &reason).fails_with(5, "BC0830");
    let given_up = asked(&place, &["runs", "show", id(&run)], "run");
    assert_eq!(given_up["state"], "failed");
    let kinds = given_up["evidence"].as_array().ok_or("there is evidence")?;
    assert!(kinds.iter().any(|entry| entry["kind"] == "abandonment"));
    assert_eq!(rows(&place), ["1,a"]);

    fs_err::remove_file(obstacle(&place))?;
    told(&place, &["run", "pipeline.yaml"]).exits_with(0);
    assert_eq!(rows(&place), ["1,a", "2,a"]);
    told(&place, &["evidence", "verify"]).exits_with(0);
    place.nothing_is_left();
    Ok(())
}

#[test]
fn what_was_committed_of_a_decision_that_is_given_up_is_told_and_on_record() -> Outcome {
    let place = Place::new();
    let both = |row: u32| {
        adding(&place, row, "");
        let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
        let (before, output) = manifest
            .split_once("      outputs:\n")
            .ok_or("no outputs")?;
        let ahead = output.replace("kpi.rows", "kpi.ahead");
        place.write(
            "pipeline.yaml",
            format!("{before}      outputs:\n{ahead}{output}"),
        );
        let sql = fs_err::read_to_string(place.join("add.sql"))?;
        let ahead = sql.replace("kpi.rows", "kpi.ahead");
        place.write("add.sql", format!("{ahead}{sql}"));
        Outcome::Ok(())
    };
    both(1)?;
    told(&place, &["run", "pipeline.yaml"]).exits_with(0);
    both(2)?;
    fs_err::write(obstacle(&place), "in the way")?;
    told(&place, &["run", "pipeline.yaml"]).fails_with(6, "BC0706");
    let run = newest(&place);
    let reason = ["runs", "abandon", id(&run), "--reason", "no room"];
    told(&place, &reason)
        .exits_with(0)
        .tells("kpi.ahead@1 was committed before, and stays");
    let listed = asked(&place, &["evidence", "ls", "--run", id(&run)], "evidence");
    let mut entries = listed["items"].as_array().into_iter().flatten();
    let entry = entries
        .find(|entry| entry["kind"] == "abandonment")
        .ok_or("it was given up")?;
    let index = entry["index"].to_string();
    let shown = asked(&place, &["evidence", "show", &index], "evidence_entry");
    let standing = &shown["statement"]["predicate"]["standing"];
    assert_eq!(
        (&standing[0]["dataset"], &standing[0]["version"]),
        (&json!("kpi.ahead"), &json!(1))
    );
    assert_eq!(standing.as_array().map(Vec::len), Some(1), "{standing}");
    Ok(())
}

#[test]
fn a_decision_that_can_be_carried_out_after_all_is_not_given_up() -> Outcome {
    let (place, run) = wedged();
    fs_err::remove_file(obstacle(&place))?;
    told(
        &place,
        &["runs", "abandon", id(&run), "--reason", "impatience"],
    )
    .exits_with(0)
    .tells("could be committed, and is")
    .tells("nothing is left to be given up");
    assert_eq!(newest(&place)["state"], "succeeded");
    assert_eq!(rows(&place), ["1,a", "2,a"]);
    Ok(())
}

#[test]
fn a_schema_that_changed_behind_a_decision_has_a_way_out_too() -> Outcome {
    let (place, run) = wedged();
    // Somebody else makes another table of it, which the decided rows do not fit.
    let adding_of = fs_err::read_to_string(place.join("pipeline.yaml"))?;
    let other = adding_of
        .replace("mode: append", "mode: overwrite")
        .replace("partition_by: [id]", "partition_by: []")
        .replace(
            "{ name: note, type: string }",
            "{ name: note, type: int64 }",
        );
    place.write("pipeline.yaml", other);
    place.write(
        "add.sql",
        "INSERT INTO kpi.rows SELECT CAST(7 AS BIGINT) AS id, CAST(7 AS BIGINT) AS note;\n",
    );
    told(&place, &["run", "pipeline.yaml"]).exits_with(0);
    fs_err::remove_file(obstacle(&place))?;
    adding(&place, 2, "");
    told(&place, &["run", "pipeline.yaml"])
        .fails_with(2, "BC0720")
        .tells("schema_evolution: replace");
    told(&place, &["runs", "cancel", id(&run)])
        .fails_with(6, "BC0706")
        .tells("runs abandon");
    told(
        &place,
        &[
            "runs",
            "abandon",
            id(&run),
            "--reason",
            "the table is another",
        ],
    )
    .exits_with(0)
    .tells("what it wrote is given up");
    adding(&place, 2, "schema_evolution: replace");
    told(&place, &["run", "pipeline.yaml"]).exits_with(0);
    assert_eq!(rows(&place), ["2,a"]);
    Ok(())
}
