//! Rows that do not fit are set aside and the rest goes on; data that does not hold its tests is
//! never seen.

use barecount_e2e::{Outcome, place::Place, process::Finished};
use serde_json::{Value, json};

use crate::pipelines;

fn run(place: &Place) -> Finished {
    let finished = place
        .barecount(["run", "pipeline.yaml", "-o", "json"])
        .finish();
    place.nothing_is_left();
    finished
}

fn letters(place: &Place) -> Vec<Value> {
    let listed = place
        .barecount(["dlq", "ls", "-o", "json"])
        .finish()
        .exits_with(0);
    let listed = listed.json("dead_letters");
    listed["items"].as_array().cloned().unwrap_or_default()
}

/// Runs rows of which `good` fit, and asserts that one is set aside, why, and with which sample.
#[track_caller]
fn sets_aside(rows: &[u8], good: u64, reason: &str, sample: &str) {
    let place = pipelines::function_with("", "", rows);
    let finished = run(&place).exits_with(0);
    let told = finished.json("run");
    assert_eq!(told["outputs"][0]["rows"], good, "{finished}");
    assert_eq!(told["dead_letters"], 1, "{finished}");
    let letters = letters(&place);
    assert_eq!(letters.len(), 1);
    let field = |name: &str| letters[0][name].as_str().unwrap_or_default().to_owned();
    assert!(
        field("error").contains(reason),
        "`{reason}` is told by {letters:?}"
    );
    assert!(field("error").contains("line 3"), "{letters:?}");
    assert!(field("record").contains(sample), "{letters:?}");
    assert!(!field("schema_hash").is_empty(), "{letters:?}");
    assert_eq!(field("dataset"), "raw.rows");
    let id = letters[0]["id"].to_string();
    place
        .barecount(["dlq", "show", &id])
        .finish()
        .exits_with(0)
        .tells(reason);
}

#[test]
fn a_row_with_a_value_of_another_type_is_set_aside() {
    sets_aside(b"id,amount\n1,1.5\nx,2.5\n3,3.5\n", 2, "id", "x,2.5");
    sets_aside(
        b"id,amount\n1,1.5\n2,a lot\n3,3.5\n",
        2,
        "amount",
        "2,a lot",
    );
    sets_aside(b"id,amount\n1,1.5\n2,2.505\n3,3.5\n", 2, "amount", "2.505");
    sets_aside(b"id,amount\n1,1.5\n,2.5\n3,3.5\n", 2, "id", ",2.5");
}

#[test]
fn a_row_of_another_width_is_set_aside() {
    sets_aside(
        b"id,amount\n1,1.5\n2\n3,3.5\n",
        2,
        "2 fields expected, found 1",
        "2",
    );
    sets_aside(
        b"id,amount\n1,1.5\n2,2.5,7\n3,3.5\n",
        2,
        "2 fields expected, found 3",
        "2,2.5,7",
    );
}

#[test]
fn a_row_that_is_not_utf_8_is_set_aside() {
    sets_aside(
        b"id,amount\n1,1.5\n\xff\xfe,2.5\n3,3.5\n",
        2,
        "UTF-8",
        "2.5",
    );
}

#[test]
fn a_file_without_a_column_of_the_schema_fails_and_names_it() {
    let place = pipelines::function_with("", "", b"id\n1\n2\n");
    let finished = run(&place).exits_with(1).tells("amount").tells("[BC0703]");
    assert_eq!(finished.json("run")["outputs"], json!([]));
}

#[test]
fn rows_that_fail_an_acceptance_test_are_not_committed_and_the_message_says_what_was_seen() {
    let place = pipelines::function_with("", "", b"id,amount\n1,1.5\n1,2.5\n1,3.5\n");
    let finished = run(&place)
        .exits_with(1)
        .tells("[BC0704]")
        .tells("unique")
        .tells("raw.rows");
    assert_eq!(finished.json("run")["outputs"], json!([]));
    let listed = place
        .barecount(["outputs", "ls", "-o", "json"])
        .finish()
        .exits_with(0);
    assert_eq!(listed.json("outputs")["items"], json!([]));
}

const JOB: &str = "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: { name: job, tenant: demo, owner: you@example.com }
spec:
  classification: public
  stages:
    - name: compute
      phase: kpi
      runner: { class: managed_etl, size: small, network_profile: private_vpc, job: job.sql }
      outputs:
        - dataset: kpi.numbers
          format: parquet
          mode: overwrite
          columns: [{ name: n, type: int64, nullable: false }]
          tests: [{ row_count: { min: 3, max: 3 } }]
";

fn job(sql: &str) -> Place {
    let place = Place::new();
    place.write("pipeline.yaml", JOB);
    place.write("job.sql", sql);
    place
}

#[test]
fn an_error_in_sql_is_told_with_its_line() {
    let syntax = job("-- numbers\nINSERT INTO kpi.numbers\nSELEKT 1 AS n;\n");
    let validate = |place: &Place| place.barecount(["validate", "pipeline.yaml"]).finish();
    for told in [run(&syntax), validate(&syntax)] {
        let told = told.fails_with(2, "BC0233").tells("job.sql:3:1");
        told.tells("SELEKT").tells("  | ^");
    }
    assert!(
        !syntax.join("pipeline.lock").exists(),
        "nothing has started"
    );
    let name =
        job("-- numbers\nINSERT INTO kpi.numbers\nSELECT m AS n FROM (VALUES (1)) AS t(n);\n");
    for told in [run(&name), validate(&name)] {
        let told = told.fails_with(2, "BC0233").tells("job.sql:3:8");
        told.tells("No field named m");
    }
    fs_err::remove_file(name.join("job.sql")).expect("it was there");
    for told in [run(&name), validate(&name)] {
        told.fails_with(2, "BC0233")
            .tells("pipeline.yaml:")
            .tells("job.sql");
    }
    let computed = job(
        "INSERT INTO kpi.numbers\nSELECT CAST(column1 AS BIGINT) AS n FROM (VALUES ('1'), ('two'));\n",
    );
    run(&computed).exits_with(1).tells("two");
}

#[test]
fn an_observed_value_is_told_where_a_test_on_a_jobs_output_fails() {
    let place = job(
        "INSERT INTO kpi.numbers SELECT CAST(column1 AS BIGINT) AS n FROM (VALUES (1), (2));\n",
    );
    run(&place)
        .exits_with(1)
        .tells("[BC0704]")
        .tells("row_count")
        .tells("found 2 rows");
    let empty = job("CREATE VIEW one AS SELECT 1 AS n;\n");
    run(&empty).fails_with(2, "BC0233").tells("kpi.numbers");
}

#[test]
fn a_run_succeeds_as_another_version_once_the_cause_of_its_failure_is_gone() -> Outcome {
    let place = job("INSERT INTO kpi.numbers SELECT 1 AS n;\n");
    let failed = run(&place).exits_with(1).json("run");
    place.write(
        "job.sql",
        "INSERT INTO kpi.numbers SELECT CAST(column1 AS BIGINT) AS n FROM (VALUES (1), (2), (3));\n",
    );
    let done = run(&place).exits_with(0).json("run");
    assert_ne!(
        failed["version"], done["version"],
        "another job is another version"
    );
    Ok(())
}
