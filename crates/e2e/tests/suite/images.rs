//! Images as other tools make them.

use std::{path::Path, process::Command};

use barecount_e2e::{Outcome, place::Place, programs, python};
use serde_json::{Value, json};

use crate::pipelines;

/// A container stage whose image is a layout that [`python`] wrote.
fn place() -> Result<Place, std::io::Error> {
    let place = pipelines::container("");
    let image = place.join("images/worker");
    fs_err::remove_dir_all(&image)?;
    let rows = place.write("rows.csv", pipelines::GOOD_ROWS);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/image_layout.py");
    let output = Command::new(python::interpreter())
        .arg(script)
        .arg(image)
        .arg(programs::worker())
        .arg(rows)
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    Ok(place)
}

#[test]
fn layers_as_other_tools_make_them_run_and_what_is_left_out_is_on_record() -> Outcome {
    let place = place()?;
    let left_out = "without its devices and pipes: dev/agpgart, run/pipe";
    let ran = place.barecount(["run", "pipeline.yaml"]).finish();
    ran.exits_with(0).tells(left_out).tells("3 rows");
    let listed = place
        .barecount(["evidence", "ls", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("evidence");
    let items = listed["items"].as_array().cloned().unwrap_or_default();
    let builds: Vec<Value> = items
        .iter()
        .filter(|item| item["kind"] == "build")
        .map(|item| {
            let number = item["index"].to_string();
            let shown = place.barecount(["evidence", "show", &number, "-o", "json"]);
            let shown = shown.finish().exits_with(0).json("evidence_entry");
            shown["statement"]["predicate"]["left_out"]["paths"].clone()
        })
        .collect();
    assert_eq!(builds, [json!(["dev/agpgart", "run/pipe"])], "{listed:#}");
    // What is on record is not told again.
    let again = place.barecount(["build", "pipeline.yaml"]).finish();
    let again = again.exits_with(0);
    assert!(!again.stderr.contains("without its devices"), "{again}");
    place.nothing_is_left();
    Ok(())
}
