//! From a figure back to all that it rests on.

use barecount_e2e::{Outcome, example, place::Place, process::Finished};
use serde_json::{Value, json};

fn told(place: &Place, arguments: &[&str]) -> Finished {
    place.barecount(arguments).finish()
}

fn traced(place: &Place, what: &str) -> Value {
    let told = told(place, &["trace", what, "-o", "json"]).exits_with(0);
    told.json("trace")["trace"].clone()
}

#[test]
fn a_trace_leads_from_a_figure_to_the_files_that_were_read() -> Outcome {
    let place = &example::undisturbed().place;
    let run = example::undisturbed().finished.json("run");
    let monthly = traced(place, "kpi.fx_monthly");
    let commit = &monthly["brought_by"][0];
    assert_eq!(commit["run"]["id"], run["id"], "{monthly}");
    assert_eq!(commit["run"]["version"], run["version"]);
    assert_eq!(commit["task"]["stage"], "consolidate");
    let of_stage = run["tasks"].as_array().ok_or("tasks")?;
    let consolidate = of_stage.iter().find(|task| task["stage"] == "consolidate");
    let digest = &consolidate.ok_or("a task")?["attempts"][0]["digest"];
    assert_eq!(commit["code"]["artifact"]["digest"], *digest);
    assert!(
        commit["decision"]["policies_digest"].is_string(),
        "{commit}"
    );
    assert!(
        commit["decision"]["policies"]
            .as_array()
            .is_some_and(|found| !found.is_empty())
    );
    assert!(commit["cost"]["amount"].is_string());
    assert_eq!(
        commit["evidence"].as_array().map(Vec::len),
        run["evidence"].as_array().map(Vec::len)
    );

    // And so on, back to what came from outside.
    let mut found = Vec::new();
    files(&monthly, &mut found);
    assert!(
        found.iter().any(|file| file.starts_with("sha256:")),
        "{found:?}"
    );
    told(place, &["trace", "kpi.fx_monthly@0"])
        .exits_with(0)
        .tells("kpi.fx_monthly@0  10393 rows")
        .tells("brought by  version 0")
        .tells("raw.fx_rates@")
        .tells("policies sha256:")
        .tells("code")
        .tells("cost")
        .tells("evidence");
    told(place, &["trace", "kpi.fx_monthly@99"]).fails_with(4, "BC0701");
    told(place, &["trace", "kpi.none"]).fails_with(4, "BC0701");
    told(place, &["trace", "kpi.fx_monthly@x"]).exits_with(2);
    told(place, &["trace", "kpi.fx_monthly", "--tenant", "nobody"]).fails_with(4, "BC0701");
    Ok(())
}

/// The digests of all files below a trace.
fn files(traced: &Value, found: &mut Vec<String>) {
    for commit in traced["brought_by"].as_array().into_iter().flatten() {
        for input in commit["inputs"].as_array().into_iter().flatten() {
            match input["file"].is_string() {
                true => found.extend(input["digest"].as_str().map(str::to_owned)),
                false => files(input, found),
            }
        }
    }
}

#[test]
fn the_end_of_a_run_has_its_cost_in_evidence() -> Outcome {
    let place = &example::undisturbed().place;
    let run = example::undisturbed().finished.json("run");
    let entries = run["evidence"].as_array().ok_or("there is evidence")?;
    let end = entries.iter().find(|entry| entry["kind"] == "run");
    let index = end.ok_or("a run ends")?["index"].to_string();
    let shown = told(place, &["evidence", "show", &index, "-o", "json"]).exits_with(0);
    let shown = shown.json("evidence_entry");
    let cost = &shown["statement"]["predicate"]["cost"];
    assert_eq!(
        *cost,
        json!({ "amount": run["cost"]["amount"], "currency": "USD" })
    );
    Ok(())
}
