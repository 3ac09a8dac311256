//! What a task does with the files of its inputs is felt by nobody who has the same files.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use barecount_e2e::{Outcome, place::Place};

use crate::{ordinary::Home, pipelines};

/// How long the kernel lets a holder keep a lease that somebody waits for, less than half
/// (`/proc/sys/fs/lease-break-time`).
const AT_ONCE: Duration = Duration::from_secs(20);

/// Adds a stage to a place, which reads what the stage before it wrote.
fn then_leases(place: Place, runner: &str) -> Place {
    let file = place.join("pipeline.yaml");
    let mut manifest = fs_err::read_to_string(&file).expect("the place has a pipeline");
    manifest.push_str(&format!(
        "    - name: lease
      phase: normalization
      runner: {runner}
      env: {{ BEHAVIOUR: lease inputs and linger, DATASET: curated.rows }}
      inputs: [{{ dataset: raw.rows, format: parquet }}]
      outputs:
        - dataset: curated.rows
          format: csv
          mode: overwrite
          columns:
            - {{ name: id, type: int64, nullable: false }}
            - {{ name: amount, type: \"decimal(10,2)\" }}
"
    ));
    place.write("pipeline.yaml", manifest);
    place
}

/// The data files below, each by its inode with how many names it has.
fn data_files(folder: &Path) -> Result<BTreeMap<PathBuf, (u64, u64)>, std::io::Error> {
    let mut found = BTreeMap::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(data_files(&path)?);
        } else if path.extension() == Some("parquet".as_ref()) {
            let file = fs_err::metadata(&path)?;
            found.insert(path, (file.ino(), file.nlink()));
        }
    }
    Ok(found)
}

fn a_lease_keeps_nobody_waiting(place: Place, copied: bool) -> Outcome {
    let home = Home::of(place);
    let run = home
        .invocation(&["run", "pipeline.yaml", "-o", "json"])
        .start();
    pipelines::lingers(&run);
    // What a container reads may be the table's own file, which it sees by an inode of its own.
    let files = data_files(&home.place.state())?;
    assert!(files.len() > 1, "one that is handed out: {files:?}");
    let names = files.values().map(|(_, names)| *names);
    assert_eq!(names.max(), Some(if copied { 1 } else { 2 }), "{files:?}");
    for verb in [
        &["outputs", "show", "raw.rows"][..],
        &["outputs", "export", "raw.rows"],
    ] {
        let answer = home.invocation(verb).within(AT_ONCE).finish();
        answer.exits_with(0).tells("2.25");
    }
    pipelines::let_go(&run);
    let run = run.finish().exits_with(0).json("run");
    assert_eq!(run["state"], "succeeded");
    let id = run["id"].as_str().unwrap_or_default();
    home.barecount(&["runs", "logs", id])
        .exits_with(0)
        .tells("0 of 1 leased");
    home.place.nothing_is_left();
    Ok(())
}

#[test]
fn a_lease_on_an_input_keeps_nobody_from_the_dataset() -> Outcome {
    let runner =
        "{ class: container, size: small, network_profile: private_vpc, image: images/worker }";
    a_lease_keeps_nobody_waiting(then_leases(pipelines::container(""), runner), false)
}

#[test]
fn a_warm_process_has_inputs_that_are_files_of_its_own() -> Outcome {
    let runner =
        "{ class: serverless, size: small, network_profile: private_vpc, package: worker.zip }";
    a_lease_keeps_nobody_waiting(then_leases(pipelines::function(""), runner), true)
}
