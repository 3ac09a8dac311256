//! A state folder belongs to an environment: rules come from where the data lies, and evidence has
//! them word by word.

use barecount_e2e::{Outcome, place::Place};
use serde_json::Value;

use crate::pipelines;

fn environment(name: &str, kind: &str, sizes: &str) -> String {
    format!(
        "apiVersion: barecount.dev/v1
kind: Environment
metadata: {{ name: {name} }}
spec:
  kind: {kind}
  backends: {{ container: local }}
  governance:
    matrix:
      - tenant: demo
        allow: [{{ classes: [container], sizes: {sizes}, network_profiles: [private_vpc] }}]
"
    )
}

/// A place whose artifacts are pinned, with an environment `prod` that grants these sizes.
fn prod(sizes: &str) -> Place {
    let place = pipelines::container("");
    place.write(
        "environments/prod.yaml",
        environment("prod", "production", sizes),
    );
    place
        .barecount(["build", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    place
}

fn run(place: &Place, more: &[&str]) -> barecount_e2e::process::Finished {
    place
        .barecount(["run", "pipeline.yaml", "-o", "json"])
        .arguments(more)
        .finish()
}

#[test]
fn what_an_environment_refuses_is_not_permitted_in_its_folder_by_naming_another_or_none() {
    let place = prod("[medium]");
    run(&place, &["--env", "prod"]).fails_with(3, "BC0401");
    run(&place, &[]).fails_with(3, "BC0401");
    place.write(
        "environments/lax.yaml",
        environment("lax", "production", "[small]"),
    );
    run(&place, &["--env", "lax"])
        .fails_with(3, "BC0822")
        .tells("belongs to environment `prod` (production)")
        .tells("--state");
    place.write(
        "elsewhere/prod.yaml",
        environment("prod", "staging", "[small]"),
    );
    run(&place, &["--env", "elsewhere/prod.yaml"]).fails_with(3, "BC0822");
    place
        .barecount(["policy", "explain", "pipeline.yaml"])
        .finish()
        .exits_with(3);
    run(&place, &["--state", "other"]).exits_with(0);
}

/// The index of the latest entry of a kind.
fn latest(place: &Place, kind: &str) -> Result<String, barecount_e2e::Failure> {
    let listed = place
        .barecount(["evidence", "ls", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("evidence");
    let items = listed["items"].as_array().ok_or("a list")?;
    let found = items.iter().rev().find(|entry| entry["kind"] == kind);
    Ok(found.ok_or("such an entry")?["index"].to_string())
}

#[test]
fn evidence_has_the_rules_word_by_word_and_a_changed_text_is_found() -> Outcome {
    let place = prod("[medium]");
    run(&place, &["--env", "prod"]).fails_with(3, "BC0401");
    let first = environment("prod", "production", "[medium]");
    let second = environment("prod", "production", "[small]");
    place.write("environments/prod.yaml", &second);
    run(&place, &["--env", "prod"]).exits_with(0);

    let mut digests = Vec::new();
    for (kind, text) in [("refusal", &first), ("submission", &second)] {
        let index = latest(&place, kind)?;
        let shown = place
            .barecount([
                "evidence", "show", &index, "--with", "policies", "-o", "json",
            ])
            .finish()
            .exits_with(0)
            .json("evidence_entry");
        let rules = &shown["rules"];
        assert_eq!(rules["environment"]["text"], text.as_str());
        let policies = rules["policies"]["text"].as_str().ok_or("the policies")?;
        assert!(policies.contains("@id(") && policies.contains("schema.cedarschema"));
        let question = rules["question"]["text"].as_str().ok_or("the question")?;
        let question: Value = serde_json::from_str(question)?;
        assert!(question["matrix"].is_object(), "{question:#}");
        let digest = rules["environment"]["digest"].as_str().ok_or("a digest")?;
        digests.push((index, digest.trim_start_matches("sha256:").to_owned()));
    }
    place
        .barecount(["evidence", "verify"])
        .finish()
        .exits_with(0);
    place
        .barecount(["evidence", "export", "log"])
        .finish()
        .exits_with(0);
    let (index, digest) = &digests[0];
    let handed_out = fs_err::read_to_string(place.join(format!("log/details/{digest}.json")))?;
    assert_eq!(handed_out, first);

    place.write(format!(".barecount/rules/{digest}"), &second);
    place
        .barecount(["evidence", "show", index, "--with", "policies"])
        .finish()
        .fails_with(7, "BC0904")
        .tells(digest);
    let found = place.barecount(["evidence", "verify"]).finish();
    found.exits_with(7).tells(digest);
    Ok(())
}
