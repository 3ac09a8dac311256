//! Whoever can write in a state folder can swap what lies there. What was swapped is handed to no
//! stage and shown to nobody, and evidence says of it what is true.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use barecount_e2e::{Outcome, place::Place, process::Finished};

use crate::datasets::{NOTED, NUMBERS, TWO, Writes};

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
        .tells("version 0 was signed as 2 rows of");
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
