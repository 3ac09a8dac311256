//! What would run, and why: told, and not done.

use std::{collections::BTreeMap, path::Path, time::SystemTime};

use barecount_e2e::{Outcome, place::Place};
use serde_json::{Value, json};

use crate::pipelines;

const MANIFEST: &str = "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: { name: sums, tenant: acme, owner: you@acme.example }
spec:
  stages:
    - name: numbers
      phase: ingestion
      runner: { class: managed_etl, size: small, network_profile: private_vpc, job: numbers.sql }
      outputs:
        - dataset: raw.numbers
          format: parquet
          columns: [{ name: n, type: int64, nullable: false }]
    - name: sum
      phase: kpi
      runner: { class: managed_etl, size: small, network_profile: private_vpc, job: sum.sql }
      inputs: [{ dataset: raw.numbers }]
      outputs:
        - dataset: kpi.sum
          format: parquet
          columns: [{ name: total, type: int64, nullable: true }]
";

fn sums(numbers: &str) -> Place {
    let place = Place::new();
    place.write("pipeline.yaml", MANIFEST);
    write(&place, numbers);
    place.write(
        "sum.sql",
        "INSERT INTO kpi.sum SELECT sum(n) AS total FROM raw.numbers;\n",
    );
    place
}

fn write(place: &Place, numbers: &str) {
    place.write(
        "numbers.sql",
        format!("INSERT INTO raw.numbers SELECT CAST(column1 AS BIGINT) AS n FROM ({numbers});\n"),
    );
}

fn dry(place: &Place, more: &[&str]) -> Value {
    let arguments = [&["run", "pipeline.yaml", "--dry-run", "-o", "json"], more].concat();
    place
        .barecount(arguments)
        .finish()
        .exits_with(0)
        .json("dry_run")
}

/// What would become of each task.
fn fates(told: &Value) -> Vec<&str> {
    let tasks = told["tasks"].as_array().expect("there are tasks");
    tasks
        .iter()
        .filter_map(|task| task["does"].as_str())
        .collect()
}

/// Every file below a folder, and when it was changed.
fn files(folder: &Path) -> BTreeMap<String, SystemTime> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).expect("a folder can be listed") {
            let path = entry.expect("an entry can be read").path();
            let about = fs_err::symlink_metadata(&path).expect("a file can be looked at");
            let changed = about.modified().expect("a file has a time");
            found.insert(path.display().to_string(), changed);
            if about.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

#[test]
fn before_the_first_run_everything_would_run_and_nothing_is_made() -> Outcome {
    let place = sums("VALUES (1), (2)");
    let before = files(place.path());
    let told = dry(&place, &[]);
    assert_eq!(fates(&told), ["runs", "runs"]);
    assert_eq!(
        (&told["run"], &told["permitted"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(told["tasks"][0]["why"], "nothing like it was done before");
    assert_eq!(files(place.path()), before, "nothing is written");
    Ok(())
}

#[test]
fn what_would_run_is_told_with_the_reason_and_then_runs() -> Outcome {
    let place = sums("VALUES (1), (2)");
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    let before = files(place.path());
    let told = dry(&place, &[]);
    assert_eq!(fates(&told), ["unchanged", "unchanged"]);
    assert_eq!(told["run"]["state"], "succeeded");
    place
        .barecount(["run", "pipeline.yaml", "--dry-run"])
        .finish()
        .exits_with(0)
        .tells("nothing would run: run run_");
    assert_eq!(
        fates(&dry(&place, &["--force", "sum"])),
        ["unchanged", "runs"]
    );
    write(&place, "VALUES (5)");
    let told = dry(&place, &[]);
    assert_eq!(fates(&told), ["runs", "depends"]);
    assert_eq!(
        told["tasks"][0]["why"],
        "differs from the last time in work"
    );
    assert_eq!(
        told["tasks"][1]["why"],
        "runs if numbers comes to something else than before"
    );
    let mut after = files(place.path());
    // Whoever reads the store shares files with its writers, which are there for as long as it reads.
    let shared = ["-shm", "-wal", "/.barecount"];
    let changed = |path: &String| {
        !path.ends_with("numbers.sql") && !shared.iter().any(|name| path.ends_with(name))
    };
    after.retain(|path, _| changed(path));
    let mut same = before;
    same.retain(|path, _| changed(path));
    assert_eq!(after, same, "nothing is written");
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    assert_eq!(fates(&dry(&place, &[])), ["unchanged", "unchanged"]);
    Ok(())
}

#[test]
fn an_interrupted_run_would_be_taken_up() {
    let place = pipelines::function("linger");
    let run = pipelines::start(&place);
    pipelines::lingers(&run);
    run.signal(rustix::process::Signal::KILL);
    run.finish();
    place.nothing_runs();
    let told = dry(&place, &[]);
    assert_eq!(fates(&told), ["runs"]);
    assert_eq!(told["run"]["state"], "running");
    place
        .barecount(["run", "pipeline.yaml", "--dry-run"])
        .finish()
        .exits_with(0)
        .tells("would be taken up");
}
