//! What the ledger holds can be handed out, checked by a stranger, and not changed unseen.

use std::path::{Path, PathBuf};

use barecount_e2e::{Outcome, example, place::Place, process::Finished};

/// In a file larger than this, a sample of its bytes is flipped, not each.
const ALL_OF: u64 = 96;
/// So many bytes of a larger file.
const SAMPLE: u64 = 12;

/// An exported log, and the key that a stranger keeps.
struct Export {
    place: Place,
    folder: PathBuf,
    key: PathBuf,
}

fn export() -> Export {
    let place = Place::new();
    let folder = place.join("log");
    let run = &example::undisturbed().place;
    run.barecount(["evidence", "export"])
        .argument(&folder)
        .finish()
        .exits_with(0);
    let key = place.join("trusted.vkey");
    fs_err::copy(folder.join("key.vkey"), &key).expect("the key is exported beside the log");
    Export { place, folder, key }
}

impl Export {
    fn verify(&self, more: &[&Path]) -> Finished {
        let mut verify = self
            .place
            .barecount(["evidence", "verify", "-o", "json"])
            .argument(&self.folder)
            .argument("--vkey")
            .argument(&self.key);
        for argument in more {
            verify = verify.argument(argument);
        }
        verify.finish()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).expect("an export can be listed") {
        let entry = entry.expect("an export can be listed");
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

#[test]
fn the_ledger_of_a_run_verifies_where_it_is() {
    let verified = example::undisturbed()
        .place
        .barecount(["evidence", "verify", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("verification");
    assert_eq!(verified["valid"], true);
    assert_eq!(verified["entries"], verified["tree_size"]);
    let run = example::undisturbed().finished.json("run");
    assert_eq!(verified["tree_size"], run["tree_size"]);
}

#[test]
fn an_export_verifies_with_a_key_kept_apart_and_with_no_other() {
    let export = export();
    let verified = export.verify(&[]).exits_with(0).json("verification");
    assert_eq!(verified["valid"], true);
    assert_eq!(verified["problems"], serde_json::json!([]));
    let stranger = Place::new();
    stranger.barecount(["init"]).finish().exits_with(0);
    stranger
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    stranger
        .barecount(["evidence", "export", "log"])
        .finish()
        .exits_with(0);
    let other = stranger.join("log/key.vkey");
    let refused = export.place.barecount(["evidence", "verify", "-o", "json"]);
    let refused = refused
        .argument(&export.folder)
        .argument("--vkey")
        .argument(other);
    assert_eq!(
        refused.finish().exits_with(7).json("verification")["valid"],
        false
    );
}

#[test]
fn an_export_without_a_key_to_trust_is_not_verified() {
    let export = export();
    let folder = export.folder.as_path();
    export
        .place
        .barecount(["evidence", "verify"])
        .argument(folder)
        .finish()
        .exits_with(2)
        .tells("--vkey");
}

#[test]
fn a_flipped_byte_anywhere_in_an_export_is_found_and_its_file_named() -> Outcome {
    let export = export();
    let files = files(&export.folder);
    assert!(
        files.len() >= 3,
        "a checkpoint, a tile, a bundle: {files:?}"
    );
    for file in files {
        let name = file.strip_prefix(&export.folder)?.display().to_string();
        let intact = fs_err::read(&file)?;
        let length = intact.len() as u64;
        let step = if length <= ALL_OF { 1 } else { length / SAMPLE };
        for position in (0..length).step_by(usize::try_from(step)?) {
            let mut flipped = intact.clone();
            flipped[usize::try_from(position)?] ^= 1 << (position % 8);
            fs_err::write(&file, flipped)?;
            let found = export.verify(&[]).exits_with(7);
            let problems = found.json("verification")["problems"].clone();
            let named = problems.as_array().is_some_and(|problems| {
                problems
                    .iter()
                    .any(|problem| problem["file"] == name.as_str())
            });
            assert!(named, "byte {position} of {name}: {problems}");
        }
        fs_err::write(&file, intact)?;
    }
    export.verify(&[]).exits_with(0);
    Ok(())
}

#[test]
fn a_missing_file_of_an_export_is_found() -> Outcome {
    let export = export();
    // Records beside the log may be kept back; that is counted, and no fault of the export.
    let details = export.folder.join("details");
    for file in files(&export.folder) {
        if file.starts_with(&details) {
            continue;
        }
        let aside = export.place.join("aside");
        fs_err::rename(&file, &aside)?;
        export.verify(&[]).exits_with(7);
        fs_err::rename(&aside, &file)?;
    }
    Ok(())
}

#[test]
fn a_ledger_whose_key_the_environment_names_is_looked_at_and_checked_with_that_key() -> Outcome {
    let place = Place::new();
    place.barecount(["init"]).finish().exits_with(0);
    place.write(
        "environments/local.yaml",
        "apiVersion: barecount.dev/v1\nkind: Environment\nmetadata: { name: local }\nspec:\n  \
         kind: development\n  backends: { managed_etl: local }\n  signing_key: \
         ../keys/ledger.key\n  governance:\n    matrix:\n      - tenant: '*'\n        allow:\n          \
         - { classes: [managed_etl], sizes: [small], network_profiles: [private_vpc] }\n",
    );
    let run = ["run", "pipeline.yaml", "-o", "json"];
    let finished = place.barecount(run).finish().exits_with(0);
    assert!(
        place.join("keys/ledger.key").is_file(),
        "made where it is named"
    );
    let id = finished.json("run")["id"].as_str().map(str::to_owned);
    let id = id.ok_or("a run has an id")?;
    for verb in [
        ["evidence", "show", "0"].as_slice(),
        &["evidence", "verify"],
        &["evidence", "export", "log"],
        &["runs", "flows", &id],
        &["runs", "accesses", &id],
    ] {
        place.barecount(verb).finish().exits_with(0);
    }
    // Elsewhere it has to be said which environment it is.
    fs_err::rename(place.join("environments"), place.join("settings"))?;
    place
        .barecount(["evidence", "verify"])
        .finish()
        .fails_with(4, "BC0901")
        .tells("--env");
    let named = ["evidence", "verify", "--env", "settings/local.yaml"];
    place.barecount(named).finish().exits_with(0);
    Ok(())
}

#[test]
fn a_ledger_that_was_rolled_back_is_found_by_a_checkpoint_from_before() -> Outcome {
    let place = Place::new();
    place.barecount(["init"]).finish().exits_with(0);
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    place
        .barecount(["evidence", "export", "early"])
        .finish()
        .exits_with(0);
    place
        .barecount(["run", "pipeline.yaml", "--token", "more"])
        .finish()
        .exits_with(0);
    place
        .barecount(["evidence", "export", "late"])
        .finish()
        .exits_with(0);
    let verify = |log: &str, since: &str| {
        place
            .barecount([
                "evidence",
                "verify",
                log,
                "--vkey",
                "early/key.vkey",
                "-o",
                "json",
            ])
            .argument("--since")
            .argument(format!("{since}/checkpoint"))
            .finish()
    };
    verify("late", "early").exits_with(0);
    verify("late", "late").exits_with(0);
    let rolled_back = verify("early", "late").exits_with(7).json("verification");
    assert_eq!(rolled_back["valid"], false);
    Ok(())
}
