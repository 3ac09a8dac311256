//! What governance refuses never starts, and what is pinned is what runs.

use barecount_e2e::{Outcome, place::Place};
use serde_json::{Value, json};

use crate::pipelines;

fn items(place: &Place, verb: &[&str], kind: &str) -> Vec<Value> {
    let listed = place
        .barecount(verb)
        .argument("-o")
        .argument("json")
        .finish()
        .exits_with(0);
    listed.json(kind)["items"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn change(place: &Place, from: &str, to: &str) -> Outcome {
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
    assert!(manifest.contains(from), "{from} is in {manifest}");
    place.write("pipeline.yaml", manifest.replace(from, to));
    Ok(())
}

#[test]
fn an_xlarge_stage_is_refused_with_the_condition_and_never_starts() -> Outcome {
    let place = pipelines::container("");
    change(&place, "size: small", "size: xlarge")?;
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .fails_with(3, "BC0401")
        .tells("xlarge")
        .tells("`work`")
        .tells("approval");
    let runs = items(&place, &["runs", "ls"], "runs");
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(
        (&runs[0]["state"], &runs[0]["interrupted"]),
        (&json!("refused"), &json!(false))
    );
    let id = runs[0]["id"].as_str().ok_or("a run has an id")?;
    place
        .barecount(["runs", "show", id])
        .finish()
        .exits_with(0)
        .tells("state     refused")
        .tells("REFUSED: run")
        .tells("approval");
    let shown = place.barecount(["runs", "show", id, "-o", "json"]).finish();
    let shown = shown.exits_with(0).json("run");
    assert_eq!(shown["refusal"]["decisions"][0]["allowed"], false);
    assert_eq!(shown["evidence"][0]["kind"], "refusal");
    assert!(!place.state().join("logs").exists(), "nothing ran");
    let evidence = items(&place, &["evidence", "ls"], "evidence");
    let refusals: Vec<&Value> = evidence
        .iter()
        .filter(|entry| entry["kind"] == "refusal")
        .collect();
    assert_eq!(refusals.len(), 1, "{evidence:?}");
    let index = refusals[0]["index"].to_string();
    place
        .barecount(["evidence", "show", &index])
        .finish()
        .exits_with(0)
        .tells("xlarge");
    place
        .barecount(["evidence", "verify"])
        .finish()
        .exits_with(0);
    place.nothing_is_left();
    Ok(())
}

#[test]
fn policy_explain_answers_as_run_would_and_says_what_would_change_it() -> Outcome {
    let place = pipelines::container("");
    let explain = || place.barecount(["policy", "explain", "pipeline.yaml"]);
    explain().finish().exits_with(0).tells("permitted");
    let permitted = explain()
        .argument("-o")
        .argument("json")
        .finish()
        .exits_with(0);
    assert_eq!(permitted.json("decision")["permitted"], true);
    change(&place, "size: small", "size: xlarge")?;
    explain()
        .finish()
        .exits_with(3)
        .tells("xlarge")
        .tells("approval");
    let refused = explain()
        .argument("-o")
        .argument("json")
        .finish()
        .exits_with(3);
    assert_eq!(refused.json("decision")["permitted"], false);
    assert!(!place.state().exists(), "asking makes nothing");
    Ok(())
}

const PRODUCTION: &str = "apiVersion: barecount.dev/v1
kind: Environment
metadata: { name: production }
spec:
  kind: production
  backends: { container: local }
  governance:
    matrix:
      - tenant: demo
        allow:
          - classes: [container]
            sizes: [small]
            network_profiles: [private_vpc]
  lock: { refresh_on_run: false }
  isolation: { process: false }
  log_level: info
";

#[test]
fn a_production_environment_runs_only_what_a_lock_pins() -> Outcome {
    let place = pipelines::container("");
    place.write("environments/production.yaml", PRODUCTION);
    let run = || place.barecount(["run", "pipeline.yaml", "--env", "production", "-o", "json"]);
    run()
        .finish()
        .fails_with(2, "BC0502")
        .tells("barecount build");
    assert_eq!(items(&place, &["runs", "ls"], "runs"), Vec::<Value>::new());
    place
        .barecount(["build", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    let done = run().finish().exits_with(0).json("run");
    assert_eq!(done["environment"], "production");
    // What the lock pins runs, whatever became of the source.
    place.write("images/worker/rows/raw.rows/part.csv", "id,amount\n");
    let again = run().finish().exits_with(0).json("run");
    assert_eq!(done["id"], again["id"]);
    place.write("pipeline.lock", "{");
    run().finish().fails_with(2, "BC0501");
    Ok(())
}

#[test]
fn a_tenant_without_a_row_in_the_matrix_is_refused() -> Outcome {
    let place = pipelines::container("");
    place.write("environments/production.yaml", PRODUCTION);
    place
        .barecount(["build", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    change(&place, "tenant: demo", "tenant: other")?;
    place
        .barecount(["run", "pipeline.yaml", "--env", "production"])
        .finish()
        .fails_with(3, "BC0401")
        .tells("other");
    Ok(())
}

#[test]
fn a_class_without_a_backend_is_told_before_anything_is_made() -> Outcome {
    let place = pipelines::function("");
    place.write("environments/production.yaml", PRODUCTION);
    place
        .barecount(["run", "pipeline.yaml", "--env", "production"])
        .finish()
        .fails_with(2, "BC0304")
        .tells("serverless");
    assert!(!place.state().exists(), "nothing was made");
    Ok(())
}

#[test]
fn a_token_names_the_same_work_for_ever() -> Outcome {
    let place = pipelines::container("");
    let run = || place.barecount(["run", "pipeline.yaml", "--token", "june", "-o", "json"]);
    let first = run().finish().exits_with(0).json("run");
    assert_eq!(first["token"], "june");
    assert_eq!(run().finish().exits_with(0).json("run")["id"], first["id"]);
    change(&place, "max_backoff: 1s", "max_backoff: 2s")?;
    run().finish().fails_with(5, "BC0806").tells("run token");
    let runs = items(&place, &["runs", "ls"], "runs");
    assert_eq!(runs.len(), 1);
    assert_eq!(first["outputs"][0]["version"], json!(0));
    Ok(())
}
