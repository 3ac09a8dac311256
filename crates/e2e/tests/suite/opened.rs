//! Beside a manifest may lie what is no file, or somebody else's: links, pipes, devices. Nothing waits
//! for them, reads them without end or writes through them.

use std::{os::unix::fs::symlink, process::Command, time::Duration};

use barecount_e2e::{Outcome, place::Place, programs};

use crate::datasets::{NUMBERS, TWO};

/// What may lie in a file's place: its name, and how it is made.
const NO_FILES: [&str; 3] = ["a pipe", "an endless device", "a folder"];

fn put(kind: &str, path: &std::path::Path) -> Outcome {
    let _ = fs_err::remove_file(path);
    match kind {
        "a pipe" => assert!(Command::new("mkfifo").arg(path).status()?.success()),
        "an endless device" => symlink("/dev/zero", path)?,
        _ => fs_err::create_dir(path)?,
    }
    Ok(())
}

/// A stage that is given a file.
fn reads_a_file() -> Place {
    let place = Place::new();
    let rows: &[(&str, &[u8])] = &[("rows/raw.rows/part.csv", b"id\n1\n")];
    programs::package(&place, "good.zip", "bootstrap", rows);
    place.write("given.csv", "n\n1\n");
    place.write(
        "pipeline.yaml",
        "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: { name: reads, tenant: demo, owner: you@example.com }
spec:
  classification: public
  stages:
    - name: good
      phase: ingestion
      runner: { class: serverless, size: small, network_profile: private_vpc, package: good.zip }
      inputs:
        - { file: given.csv, name: given }
      outputs:
        - dataset: raw.rows
          format: csv
          mode: overwrite
          columns: [{ name: id, type: int64 }]
",
    );
    place
}

/// A job in SQL.
fn reads_a_job() -> Place {
    let place = Place::new();
    NUMBERS.write(&place, TWO);
    place
}

/// Makes a pipeline that can be run.
type Make = fn() -> Place;

#[test]
fn what_is_no_file_is_refused_in_each_place_that_a_file_is_read_from() -> Outcome {
    let places: [(Make, &str, &str); 4] = [
        (reads_a_file, "pipeline.yaml", "pipeline.lock"),
        (reads_a_file, "pipeline.yaml", "given.csv"),
        (
            reads_a_job,
            "demo-numbers/pipeline.yaml",
            "demo-numbers/pipeline.lock",
        ),
        (
            reads_a_job,
            "demo-numbers/pipeline.yaml",
            "demo-numbers/make.sql",
        ),
    ];
    for (make, manifest, file) in places {
        for kind in NO_FILES {
            let place = make();
            let run = || {
                let run = place.barecount(["run", manifest]);
                run.within(Duration::from_secs(60)).finish()
            };
            run().exits_with(0);
            let path = place.join(file);
            put(kind, &path)?;
            let ended = run();
            // A lock that is no file is written anew, where that can be.
            if !(file.ends_with("pipeline.lock") && ended.status.success()) {
                assert!(!ended.status.success(), "{kind} as {file}: {ended}");
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                ended.tells(&name);
            }
        }
    }
    Ok(())
}

#[test]
fn the_lock_is_written_through_no_link_that_somebody_left() -> Outcome {
    let place = Place::new();
    NUMBERS.write(&place, TWO);
    let (folder, victim) = (place.join("demo-numbers"), place.join("victim"));
    fs_err::write(&victim, "precious")?;
    // The lock's own name, and every name that one of the next processes could be expected to use.
    symlink(&victim, folder.join("pipeline.lock"))?;
    for process in 1..40_000 {
        symlink(&victim, folder.join(format!(".pipeline.lock.{process}")))?;
    }
    place
        .barecount(["build", "demo-numbers/pipeline.yaml"])
        .finish();
    assert_eq!(fs_err::read_to_string(&victim)?, "precious");
    Ok(())
}
