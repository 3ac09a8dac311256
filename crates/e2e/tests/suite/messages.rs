//! Names that lead nowhere, places without room, and what a person is told of them.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::symlink},
};

use barecount_e2e::{
    Outcome,
    place::Place,
    process::{Finished, Invocation},
};

fn told(place: &Place, arguments: &[&str]) -> Finished {
    place.barecount(arguments).finish()
}

fn small() -> Place {
    let place = Place::new();
    told(&place, &["init"]).exits_with(0);
    place
}

#[test]
fn a_manifest_that_is_not_there_is_told_with_what_may_be_wrong_with_its_name() -> Outcome {
    let place = small();
    told(&place, &["run", "pipelin.yaml"])
        .exits_with(4)
        .tells("pipelin.yaml cannot be read")
        .tells("slip in the name");
    told(&place, &["validate", "pipelines/one.yaml"])
        .exits_with(4)
        .tells("There is no folder pipelines.");
    symlink("/nowhere/at-all", place.path().join("link.yaml"))?;
    told(&place, &["validate", "link.yaml"])
        .exits_with(4)
        .tells("link.yaml is a link to /nowhere/at-all, which is not there.");
    Ok(())
}

#[test]
fn a_state_folder_that_cannot_be_one_is_told_with_the_reason() -> Outcome {
    let place = small();
    symlink("/nowhere/at-all", place.path().join("link"))?;
    told(&place, &["run", "pipeline.yaml", "--state", "link"])
        .fails_with(6, "BC0804")
        .tells("is a link to /nowhere/at-all, which is not there.");
    let long = "b".repeat(300);
    told(&place, &["run", "pipeline.yaml", "--state", &long])
        .fails_with(6, "BC0804")
        .tells("--state");
    let deep = ["c".repeat(200), "d".repeat(200), "e".repeat(200)].join("/");
    told(&place, &["run", "pipeline.yaml", "--state", &deep])
        .fails_with(6, "BC0804")
        .tells("shorter path");
    let name: &OsStr = OsStrExt::from_bytes(b"not-\xff-text");
    let run = place.barecount(["run", "pipeline.yaml", "--state"]);
    run.argument(name)
        .finish()
        .fails_with(6, "BC0804")
        .tells("is not UTF-8 text");
    Ok(())
}

#[test]
fn a_folder_for_temporary_files_that_is_not_there_keeps_nobody_from_running() {
    let place = small();
    let run = place.barecount(["run", "pipeline.yaml"]);
    run.env("TMPDIR", "/nonexistent").finish().exits_with(0);
}

#[test]
fn standard_output_without_room_takes_nothing_back_of_what_was_done() {
    let place = small();
    let shell = [
        "-c".to_owned(),
        "\"$BINARY\" run pipeline.yaml > /dev/full".to_owned(),
    ];
    Invocation::of("sh", place.path(), shell)
        .env("BINARY", barecount_e2e::binary::barecount())
        .env("XDG_CONFIG_HOME", place.join("config"))
        .finish()
        .exits_with(6)
        .tells("standard output cannot be written")
        .tells("What was done is done");
    told(&place, &["runs", "ls"])
        .exits_with(0)
        .tells("succeeded");
}

#[test]
fn an_export_that_has_no_place_says_what_is_in_its_way() {
    let place = small();
    told(&place, &["run", "pipeline.yaml"]).exits_with(0);
    let export = |to: &str| told(&place, &["outputs", "export", "kpi.weekdays", "--to", to]);
    export("none/days.csv")
        .exits_with(1)
        .tells("There is no folder none.");
    export("pipeline.yaml")
        .exits_with(1)
        .tells("Nothing is replaced");
}

#[test]
fn shells_complete_verbs_and_manual_pages_tell_of_each() -> Outcome {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = told(&place, &["completions", shell]).exits_with(0);
        script.tells("validate").tells("dry-run");
    }
    told(&place, &["completions", "csh"])
        .exits_with(2)
        .tells("bash");
    told(&place, &["man"])
        .exits_with(0)
        .tells(".TH barecount 1");
    told(&place, &["man", "--to", "pages"])
        .exits_with(0)
        .tells("pages");
    let page = fs_err::read_to_string(place.path().join("pages/barecount-run.1"))?;
    assert!(page.contains("dry\\-run"), "{page}");
    assert!(
        place
            .path()
            .join("pages/barecount-datasets-diff.1")
            .is_file()
    );
    let hidden = place.path().join("pages/barecount-engine-job.1");
    assert!(!hidden.exists(), "a verb that nobody types has a page");
    told(&place, &["man", "--to", "pages/barecount.1/deeper"])
        .exits_with(1)
        .tells("no pages can be written");
    Ok(())
}
