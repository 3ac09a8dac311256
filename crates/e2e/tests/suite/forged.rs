//! Whoever can write in a state folder can swap what lies there. What was swapped is handed to no
//! stage and shown to nobody, and evidence says of it what is true.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use barecount_e2e::{Outcome, place::Place, process::Finished};
use rusqlite::Connection;

use crate::{
    datasets::{NOTED, NUMBERS, TWO, Writes},
    pipelines,
};

const READER: &str = "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: { name: reader, tenant: demo, owner: you@example.com }
spec:
  classification: public
  stages:
    - name: count
      phase: kpi
      runner:
        { class: managed_etl, size: small, network_profile: private_vpc, job: count.sql }
      inputs:
        - { dataset: kpi.rows, from: numbers }
      outputs:
        - dataset: kpi.count
          format: parquet
          mode: overwrite
          columns: [{ name: n, type: int64, nullable: false }]
";

/// A state folder in which `kpi.rows` has two rows.
fn place() -> Place {
    let place = Place::new();
    NUMBERS.runs(&place, TWO);
    place
}

/// The one data file of `kpi.rows`, and the entry of its table's log that brought it.
fn file_and_log(place: &Place) -> Result<(PathBuf, PathBuf), Box<dyn std::error::Error>> {
    let table = place.state().join("datasets/demo/kpi/rows");
    let mut files = Vec::new();
    for entry in fs_err::read_dir(&table)? {
        let path = entry?.path();
        files.extend((path.extension() == Some("parquet".as_ref())).then_some(path));
    }
    let [file] = &files[..] else {
        return Err(format!("one data file of {}: {files:?}", table.display()).into());
    };
    let log = table.join("_delta_log/00000000000000000000.json");
    Ok((file.clone(), log))
}

/// Puts a file of the same columns and as many other rows in its place.
fn swap(place: &Place) -> Outcome {
    let other = Place::new();
    let forged = "CAST(column1 AS BIGINT) AS n FROM (VALUES (1000), (2000))";
    NUMBERS.runs(&other, forged);
    let (file, _) = file_and_log(place)?;
    fs_err::remove_file(&file)?;
    fs_err::copy(file_and_log(&other)?.0, file)?;
    Ok(())
}

fn told(place: &Place, arguments: &[&str]) -> Finished {
    place.barecount(arguments).finish()
}

#[test]
fn a_swapped_data_file_is_shown_to_nobody_and_handed_to_no_stage() -> Outcome {
    let place = place();
    place.write("reader/pipeline.yaml", READER);
    let count = "INSERT INTO kpi.count SELECT sum(n) AS n FROM kpi.rows;\n";
    place.write("reader/count.sql", count);
    swap(&place)?;
    for words in [
        &["outputs", "show", "kpi.rows"][..],
        &["outputs", "export", "kpi.rows"],
        &["outputs", "export", "kpi.rows", "--format", "parquet"],
    ] {
        let refused = told(&place, words).fails_with(7, "BC0711");
        refused.tells("is not the one that was committed");
    }
    let run = told(&place, &["run", "reader/pipeline.yaml"]);
    run.fails_with(1, "BC0711")
        .tells("is not the one that was committed");
    place.nothing_is_left();
    Ok(())
}

#[test]
fn the_rows_of_every_commit_are_held_against_what_was_signed() -> Outcome {
    let place = place();
    NUMBERS.runs(&place, "CAST(3 AS BIGINT) AS n");
    let noted = Writes {
        columns: NOTED,
        ..NUMBERS
    };
    noted.runs(&place, "CAST(4 AS BIGINT) AS n, 'x' AS note");
    let verify = ["evidence", "verify", "--data"];
    told(&place, &verify)
        .exits_with(0)
        .tells("the rows of 3 commits are those that were signed");
    Ok(())
}

#[test]
fn a_table_whose_log_was_forged_as_well_does_not_verify() -> Outcome {
    let place = place();
    let (file, log) = file_and_log(&place)?;
    swap(&place)?;
    let honest = fs_err::read_to_string(&log)?;
    let tag = "\"barecount.sha256\":\"";
    let start = honest.find(tag).ok_or("the log has the digest")? + tag.len();
    let digest = sha256(&fs_err::read(&file)?);
    let forged = format!("{}{digest}{}", &honest[..start], &honest[start + 64..]);
    fs_err::write(&log, forged)?;
    told(&place, &["evidence", "verify"]).exits_with(0);
    told(&place, &["evidence", "verify", "--data"])
        .exits_with(7)
        .tells("NOT valid")
        .tells("datasets of demo: kpi.rows, entry")
        .tells("is not the one that was committed");
    Ok(())
}

#[test]
fn a_table_that_is_gone_with_its_log_does_not_verify_and_one_that_was_dropped_does() -> Outcome {
    let place = place();
    NUMBERS.runs(&place, "CAST(3 AS BIGINT) AS n");
    told(&place, &["datasets", "drop", "kpi.rows", "--yes"]).exits_with(0);
    told(&place, &["evidence", "verify", "--data"])
        .exits_with(0)
        .tells("the rows of 2 commits are those that were signed");
    fs_err::remove_dir_all(place.state().join("datasets/demo/kpi/rows"))?;
    told(&place, &["evidence", "verify", "--data"])
        .exits_with(7)
        .tells("datasets of demo: kpi.rows, entry");
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("{:x}", sha2::Sha256::digest(bytes))
}

fn copy(from: &Path, to: &Path) -> Outcome {
    let copied = Command::new("cp").arg("-a").args([from, to]).status()?;
    assert!(copied.success(), "{} is copied", from.display());
    Ok(())
}

#[test]
fn a_state_folder_that_was_put_back_to_an_older_copy_is_noticed() -> Outcome {
    let place = place();
    let (state, older, newer) = (place.state(), place.join("older"), place.join("newer"));
    copy(&state, &older)?;
    NUMBERS.runs(&place, "CAST(3 AS BIGINT) AS n");
    fs_err::rename(&state, &newer)?;
    copy(&older, &state)?;
    // What has not changed since, and what has.
    for select in [TWO, "CAST(4 AS BIGINT) AS n"] {
        NUMBERS.write(&place, select);
        told(&place, &["run", "demo-numbers/pipeline.yaml"])
            .fails_with(6, "BC0905")
            .tells("the state folder is an older copy of itself");
    }
    told(&place, &["evidence", "verify"])
        .exits_with(7)
        .tells("NOT valid");
    // The newest copy is all there is to it.
    fs_err::remove_dir_all(&state)?;
    fs_err::rename(&newer, &state)?;
    NUMBERS.runs(&place, "CAST(5 AS BIGINT) AS n");
    told(&place, &["evidence", "verify"]).exits_with(0);
    place.nothing_is_left();
    Ok(())
}

/// Changes a database of the state folder, in so many rows.
fn change(place: &Place, file: &str, sql: &str) -> Outcome {
    let database = Connection::open(place.state().join(file))?;
    let changed = database.execute(sql, [])?;
    assert!(changed > 0, "{sql} changes something");
    Ok(())
}

/// What somebody may change of a run in the store, and what is told of it then.
const CHANGES: [(&str, &[&str]); 9] = [
    (
        "UPDATE outputs SET rows = 1000",
        &[
            "commit: predicate/outputs/0/rows",
            "signed 2",
            "the store has 1000",
        ],
    ),
    ("DELETE FROM outputs", &["commit: predicate/outputs"]),
    (
        "UPDATE outputs SET digest = replace(digest, 'a', 'b')",
        &["commit: predicate/outputs/0/digest"],
    ),
    (
        "UPDATE plans SET body = replace(body, 'you@example.com', 'she@example.com')",
        &[
            "submission: predicate/owner",
            "you@example.com",
            "she@example.com",
        ],
    ),
    (
        "UPDATE runs SET body = json_set(body, '$.ended_at', '2026-01-01T00:00:00Z')",
        &["run: predicate/ended_at", "2026-01-01T00:00:00Z"],
    ),
    (
        "UPDATE tasks SET body = json_set(body, '$.attempts[0].exit_code', 3)",
        &["attempt: predicate/exit_code", "the store has 3"],
    ),
    (
        "UPDATE tasks SET body = json_set(body, '$.attempts', json_array())",
        &["attempt: signed", "the store has nothing"],
    ),
    (
        "DELETE FROM ledger_entries WHERE idx > 0",
        &["no entry, run: signed nothing, the store has succeeded"],
    ),
    (
        "UPDATE ledger_entries SET run = NULL",
        &["no entry, submission: signed nothing"],
    ),
];

#[test]
fn a_run_that_was_changed_in_the_store_is_shown_beside_what_was_signed() -> Outcome {
    for (sql, told_of) in CHANGES {
        let place = place();
        let shown = |code: i32| {
            let run = told(&place, &["runs", "ls", "-o", "json"]).json("runs");
            let run = run["items"][0]["id"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            told(&place, &["runs", "show", &run]).exits_with(code)
        };
        shown(0).tells("evidence");
        change(&place, "control.sqlite", sql)?;
        let mut differs = shown(7).tells("BC0907");
        for words in told_of {
            differs = differs.tells(words);
        }
    }
    Ok(())
}

#[test]
fn what_somebody_put_among_what_waits_to_be_signed_is_not() -> Outcome {
    let place = place();
    told(&place, &["evidence", "verify"]).exits_with(0);
    // As if its last batch was another one.
    change(
        &place,
        "journal.sqlite",
        "UPDATE journal SET epoch = epoch + 7",
    )?;
    NUMBERS.write(&place, "CAST(4 AS BIGINT) AS n");
    let refused = told(&place, &["run", "demo-numbers/pipeline.yaml"]);
    refused
        .fails_with(6, "BC0906")
        .tells("was not written by who holds the key of this folder's ledger");
    let verified = told(&place, &["evidence", "verify", "-o", "json"]).exits_with(0);
    let before = verified.json("verification")["tree_size"].clone();
    // Nor as one that an older program wrote.
    change(
        &place,
        "journal.sqlite",
        "UPDATE journal SET first_entry = first_entry + 9, entries = 1",
    )?;
    let journal = Connection::open(place.state().join("journal.sqlite"))?;
    journal.execute_batch("ALTER TABLE journal DROP COLUMN seal; PRAGMA user_version = 2;")?;
    drop(journal);
    told(&place, &["run", "demo-numbers/pipeline.yaml"])
        .fails_with(6, "BC0906")
        .tells("of its entries are not signed yet");
    let verified = told(&place, &["evidence", "verify", "-o", "json"]).exits_with(0);
    assert_eq!(verified.json("verification")["tree_size"], before);
    Ok(())
}

#[test]
fn secrets_that_were_put_back_to_an_older_copy_are_given_to_nobody() -> Outcome {
    let place = place();
    let set = |value: &str| {
        place
            .barecount(["secrets", "set", "erp/token", "--tenant", "demo"])
            .reads(value)
            .finish()
            .exits_with(0)
    };
    set("the first value");
    let (store, older) = (place.state().join("secrets"), place.join("older"));
    copy(&store, &older)?;
    set("the second value");
    fs_err::remove_dir_all(&store)?;
    copy(&older, &store)?;
    told(&place, &["secrets", "ls", "--tenant", "demo"])
        .fails_with(6, "BC1001")
        .tells("went back from change 3 to change 2");
    Ok(())
}

#[test]
fn a_boundary_that_somebody_else_wrote_opens_no_dataset() -> Outcome {
    let place = place();
    place.write("reader/pipeline.yaml", READER);
    let count = "INSERT INTO kpi.count SELECT sum(n) AS n FROM kpi.rows;\n";
    place.write("reader/count.sql", count);
    told(&place, &["run", "reader/pipeline.yaml"]).exits_with(0);
    let record = place.state().join("boundaries/demo/kpi.rows.json");
    let written = fs_err::read_to_string(&record)?;
    fs_err::write(&record, written.replace("private_vpc", "public_vpc_egress"))?;
    told(&place, &["run", "reader/pipeline.yaml", "--force", "all"])
        .fails_with(1, "BC0701")
        .tells("was not written by who holds the key of this folder's ledger");
    fs_err::write(&record, written)?;
    told(&place, &["run", "reader/pipeline.yaml", "--force", "all"]).exits_with(0);
    Ok(())
}

/// The trees that were unpacked in a state folder.
fn unpacked(place: &Place) -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
    let entries = fs_err::read_dir(place.state().join("artifacts/unpacked"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    Ok(paths.collect::<Result<_, _>>()?)
}

#[test]
fn what_was_unpacked_from_an_artifact_and_altered_since_is_never_run() -> Outcome {
    for (place, program) in [
        (pipelines::container_with("", ""), "app/worker"),
        (
            pipelines::function_with("", "", pipelines::GOOD_ROWS),
            "bootstrap",
        ),
    ] {
        pipelines::start(&place).finish().exits_with(0);
        let again = || told(&place, &["run", "pipeline.yaml", "--force", "all"]);
        let quiet = again().exits_with(0);
        assert!(!quiet.stderr.contains("altered"), "{quiet}");
        let trees = unpacked(&place)?;
        let [tree] = &trees[..] else {
            return Err(format!("one artifact was unpacked: {trees:?}").into());
        };
        let file = tree.join(program);
        let (before, intact) = (fs_err::metadata(&file)?, fs_err::read(&file)?);
        fs_err::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
        fs_err::write(&file, vec![b'x'; intact.len()])?;
        fs_err::set_permissions(&file, before.permissions())?;
        again().exits_with(0).tells("has been altered since");
        assert_eq!(fs_err::read(&file)?, intact);
        let quiet = again().exits_with(0);
        assert!(!quiet.stderr.contains("altered"), "{quiet}");
    }
    Ok(())
}
