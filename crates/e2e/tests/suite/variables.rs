//! Variables that stand for flags.

use barecount_e2e::{Outcome, place::Place};
use serde_json::Value;

const VARIABLES: [&str; 6] = [
    "BARECOUNT_OUTPUT",
    "BARECOUNT_ENV",
    "BARECOUNT_STATE",
    "BARECOUNT_QUIET",
    "BARECOUNT_VERBOSE",
    "BARECOUNT_COLOR",
];

#[test]
fn a_variable_that_is_set_to_nothing_is_as_one_that_is_not_set() -> Outcome {
    let place = Place::new();
    place.barecount(["init"]).finish().exits_with(0);
    let run = ["run", "pipeline.yaml"];
    let empty = VARIABLES
        .iter()
        .fold(place.barecount(run), |run, name| run.env(name, ""));
    // Shown as a table, told what goes on, in the usual state folder.
    let finished = empty.finish().exits_with(0).tells("state     succeeded");
    assert!(finished.stderr.contains("submitted"), "{finished}");
    assert!(place.state().is_dir());
    for name in VARIABLES {
        let one = place.barecount(["runs", "ls"]).env(name, "");
        one.finish().exits_with(0).tells("weekdays");
    }
    Ok(())
}

#[test]
fn quiet_and_output_may_be_asked_for_by_variables() -> Outcome {
    let place = Place::new();
    place.barecount(["init"]).finish().exits_with(0);
    for (number, yes) in ["1", "true", "yes"].into_iter().enumerate() {
        let token = format!("quiet-{number}");
        let run = place.barecount(["run", "pipeline.yaml", "--token", &token]);
        let finished = run.env("BARECOUNT_QUIET", yes).finish().exits_with(0);
        assert_eq!(finished.stderr, "", "{finished}");
    }
    for no in ["0", "false"] {
        let run = place.barecount(["run", "pipeline.yaml", "--token", no]);
        let finished = run.env("BARECOUNT_QUIET", no).finish().exits_with(0);
        assert!(finished.stderr.contains("submitted"), "{finished}");
    }
    let listed = place
        .barecount(["runs", "ls"])
        .env("BARECOUNT_OUTPUT", "json");
    let listed = listed.finish().exits_with(0);
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    assert_eq!(listed["schema"], "barecount/runs/v1");
    Ok(())
}
