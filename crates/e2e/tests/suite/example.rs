//! The example runs, its figures are right, and running it again does nothing twice.

use std::process::Command;

use barecount_e2e::{Outcome, example, process::Finished};
use serde_json::Value;

/// Datasets of the example, and how many rows each has.
const ROWS: [(&str, u64); 6] = [
    ("raw.fx_rates", 7_126),
    ("gdp.fx_rates", 221_702),
    ("kpi.fx_monthly", 10_393),
    ("kpi.fx_drawdown", 41),
    ("gdp.invoices_eur", 2_823),
    ("publish.fx_report", 2),
];

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name]
        .as_array()
        .unwrap_or_else(|| panic!("`{name}` is a list: {value}"))
}

/// Asserts that an object has exactly these fields, in whatever order.
#[track_caller]
fn has_fields(value: &Value, expected: &[&str]) {
    let object = value.as_object().expect("it is an object");
    let mut found: Vec<&str> = object.keys().map(String::as_str).collect();
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{value}");
}

#[test]
fn a_run_is_told_in_full_as_the_command_line_page_promises() {
    let run = example::undisturbed().finished.json("run");
    has_fields(&run, RUN);
    assert!(run["id"].as_str().is_some_and(|id| id.starts_with("run_")));
    assert_eq!(run["tenant"], "demo");
    assert_eq!(run["pipeline"], "fx-rates");
    assert_eq!(run["environment"], "local");
    assert_eq!(run["state"], "succeeded");
    assert_eq!(run["window"], Value::Null);
    assert_eq!(run["waiting_reason"], Value::Null);
    has_fields(&run["cost"], &["amount", "currency"]);
    assert!(
        run["cost"]["amount"]
            .as_str()
            .is_some_and(|amount| amount.parse::<f64>().is_ok_and(|amount| amount > 0.0))
    );
    for output in list(&run, "outputs") {
        has_fields(
            output,
            &[
                "dataset",
                "partition",
                "uri",
                "version",
                "rows",
                "bytes",
                "digest",
            ],
        );
    }
    for entry in list(&run, "evidence") {
        has_fields(entry, &["index", "kind", "leaf_hash"]);
    }
    let covered = list(&run, "evidence")
        .iter()
        .all(|entry| entry["index"].as_u64() < run["tree_size"].as_u64());
    assert!(covered, "the tree covers all evidence of the run");
}

/// The fields of `barecount/run/v1`, as the command-line page lists them.
const TASK: &[&str] = &[
    "id",
    "stage",
    "partition",
    "class",
    "size",
    "network_profile",
    "backend",
    "state",
    "held",
    "work",
    "answered_by",
    "attempts",
];
const RUN: &[&str] = &[
    "schema",
    "id",
    "token",
    "tenant",
    "pipeline",
    "version",
    "environment",
    "window",
    "state",
    "interrupted",
    "waiting_reason",
    "refusal",
    "submitted_at",
    "ended_at",
    "tasks",
    "outputs",
    "dead_letters",
    "undeclared",
    "cost",
    "evidence",
    "tree_size",
];
const ATTEMPT: &[&str] = &[
    "number",
    "runner",
    "digest",
    "state",
    "exit_code",
    "failure",
    "intended_at",
    "started_at",
    "work_ended_at",
    "staged_at",
    "ended_at",
    "committed_at",
    "work_seconds",
    "platform_seconds",
    "metrics",
    "network",
    "secrets",
];
const METRICS: &[&str] = &[
    "cpu_seconds",
    "memory_peak_bytes",
    "io_read_bytes",
    "io_write_bytes",
    "network_sent_bytes",
    "network_received_bytes",
    "network_connections",
    "network_refusals",
];

#[test]
fn every_task_tells_its_attempts_and_what_they_used() {
    let run = example::undisturbed().finished.json("run");
    let tasks = list(&run, "tasks");
    let stages_and_partitions = 8;
    assert_eq!(tasks.len(), stages_and_partitions);
    for task in tasks {
        has_fields(task, TASK);
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(task["backend"], "local");
        let attempts = list(task, "attempts");
        assert_eq!(attempts.len(), 1, "{task}");
        let attempt = &attempts[0];
        has_fields(attempt, ATTEMPT);
        assert_eq!(attempt["failure"], Value::Null);
        let digest = attempt["digest"].as_str().unwrap_or_default();
        assert!(digest.starts_with("sha256:"), "{task}");
        assert!(attempt["started_at"].as_str() <= attempt["ended_at"].as_str());
        let metrics = &attempt["metrics"];
        has_fields(metrics, METRICS);
        // Without control groups it is not known what of a function's process an event used.
        let known = metrics["cpu_seconds"].is_number();
        assert!(known || task["class"] == "serverless", "{task}");
        if known {
            assert!(metrics["cpu_seconds"].as_f64() > Some(0.0), "{task}");
            assert!(metrics["memory_peak_bytes"].as_u64() > Some(0), "{task}");
        }
        assert_eq!(attempt["network"]["totals"]["refused"], 0, "{task}");
    }
    let classes: std::collections::BTreeSet<&str> = tasks
        .iter()
        .filter_map(|task| task["class"].as_str())
        .collect();
    let all = [
        "container",
        "dedicated_compute",
        "managed_etl",
        "serverless",
    ];
    assert_eq!(classes.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn every_dataset_is_committed_with_as_many_rows_as_the_source_has() {
    let run = example::undisturbed().finished.json("run");
    for (dataset, rows) in ROWS {
        let parts: Vec<&Value> = list(&run, "outputs")
            .iter()
            .filter(|output| output["dataset"] == dataset)
            .collect();
        let sum: u64 = parts.iter().filter_map(|part| part["rows"].as_u64()).sum();
        assert_eq!(sum, rows, "{dataset}");
        let expected = if dataset == "gdp.invoices_eur" { 4 } else { 1 };
        assert_eq!(parts.len(), expected, "commits of {dataset}");
        let versions: std::collections::BTreeSet<u64> = parts
            .iter()
            .filter_map(|part| part["version"].as_u64())
            .collect();
        assert_eq!(
            versions.len(),
            expected,
            "each commit is a version of its own"
        );
    }
}

#[test]
fn the_two_invoices_without_a_rate_are_dead_letters() {
    let undisturbed = example::undisturbed();
    assert_eq!(undisturbed.finished.json("run")["dead_letters"], 2);
    let place = &undisturbed.place;
    let letters = place
        .barecount(["dlq", "ls", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("dead_letters");
    let letters = list(&letters, "items");
    assert_eq!(letters.len(), 2);
    for letter in letters {
        assert!(
            letter["record"]
                .as_str()
                .is_some_and(|record| record.contains("RUB")),
            "{letter}"
        );
        assert!(
            letter["error"]
                .as_str()
                .is_some_and(|error| !error.is_empty()),
            "{letter}"
        );
        assert_eq!(letter["stage"], "archive");
    }
}

#[test]
fn the_figures_equal_an_independent_computation_over_the_same_input() -> Outcome {
    let place = &example::undisturbed().place;
    let folder = tempfile::tempdir()?;
    let mut check = Command::new("python3");
    check.arg(example::source().join("tests/independent/check.py"));
    for dataset in ["kpi.fx_monthly", "kpi.fx_drawdown", "gdp.invoices_eur"] {
        let file = folder.path().join(format!("{dataset}.csv"));
        place
            .barecount(["outputs", "export", dataset, "--to"])
            .argument(&file)
            .finish()
            .exits_with(0);
        check.arg(file);
    }
    let output = check.output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(told.matches(" 0 differences").count(), 3, "{told}");
    Ok(())
}

#[test]
fn the_same_work_is_not_done_a_second_time() {
    let undisturbed = example::undisturbed();
    let size = |finished: &Finished| finished.json("verification")["tree_size"].clone();
    let verify = || {
        undisturbed
            .place
            .barecount(["evidence", "verify", "-o", "json"])
            .finish()
            .exits_with(0)
    };
    let before = size(&verify());
    let again = undisturbed
        .place
        .barecount(["run", "fx-rates/pipeline.yaml", "-o", "json"])
        .finish()
        .exits_with(0);
    let (first, second) = (undisturbed.finished.json("run"), again.json("run"));
    assert_eq!(first["id"], second["id"]);
    assert_eq!(first["tasks"], second["tasks"], "no new attempt");
    assert_eq!(first["outputs"], second["outputs"]);
    assert_eq!(before, size(&verify()), "nothing new is in the ledger");
    undisturbed.place.nothing_is_left();
}

#[test]
fn nothing_is_left_of_a_run_but_its_state() {
    example::undisturbed().place.nothing_is_left();
}
