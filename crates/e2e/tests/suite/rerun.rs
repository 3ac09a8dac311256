//! What runs again, and what earlier runs answer: always what is true now.

use barecount_e2e::{place::Place, process::Finished};
use serde_json::Value;

const MANIFEST: &str = "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: { name: sums, tenant: acme, owner: OWNER }
spec:
  stages:
    - name: numbers
      phase: ingestion
      runner:
        class: managed_etl
        size: small
        network_profile: private_vpc
        job: jobs/numbers.sql
      outputs:
        - dataset: raw.numbers
          format: parquet
          columns: [{ name: n, type: int64, nullable: false }]
    - name: sum
      phase: kpi
      runner:
        class: managed_etl
        size: small
        network_profile: private_vpc
        job: jobs/sum.sql
      inputs: [{ dataset: raw.numbers }]
      outputs:
        - dataset: kpi.sum
          format: parquet
          columns: [{ name: total, type: int64, nullable: true }]
";

/// The environment that holds without a file.
const LOCAL: &str = "apiVersion: barecount.dev/v1
kind: Environment
metadata: { name: local }
spec:
  kind: development
  backends: { managed_etl: local }
  governance:
    matrix:
      - tenant: acme
        allow:
          - classes: [managed_etl]
            sizes: [small]
            network_profiles: [private_vpc]
  lock: { refresh_on_run: true }
  isolation: { process: true }
  log_level: info
";

struct Sums {
    place: Place,
}

impl Sums {
    fn new() -> Self {
        let sums = Self {
            place: Place::new(),
        };
        sums.owner("data@acme.example");
        sums.numbers("VALUES (1), (2)", "");
        sums.sum("sum(n)");
        sums
    }

    fn owner(&self, owner: &str) {
        let manifest = MANIFEST.replace("OWNER", owner);
        self.place.write("pipeline.yaml", manifest);
    }

    fn numbers(&self, values: &str, comment: &str) {
        let sql = format!(
            "{comment}INSERT INTO raw.numbers SELECT CAST(column1 AS BIGINT) AS n FROM ({values});\n"
        );
        self.place.write("jobs/numbers.sql", sql);
    }

    fn sum(&self, of: &str) {
        let sql = format!("INSERT INTO kpi.sum SELECT {of} AS total FROM raw.numbers;\n");
        self.place.write("jobs/sum.sql", sql);
    }

    fn run(&self, more: &[&str]) -> Finished {
        let arguments = [&["run", "pipeline.yaml", "-o", "json"], more].concat();
        self.place.barecount(arguments).finish().exits_with(0)
    }

    /// Runs, and gives the stages that did work.
    fn worked(&self, more: &[&str]) -> Vec<String> {
        let run = self.run(more).json("run");
        let tasks = run["tasks"].as_array().expect("a run has tasks");
        tasks
            .iter()
            .filter(|task| task["answered_by"] == Value::Null)
            .filter_map(|task| task["stage"].as_str().map(str::to_owned))
            .collect()
    }

    /// Runs once more what has not changed; whether the platform was started for it.
    fn starts(&self) -> bool {
        let works = || fs_err::read(self.place.state().join("working")).expect("who works here");
        let before = works();
        self.run(&[]).tells("the same work was done by run");
        self.place.nothing_is_left();
        works() != before
    }

    fn total(&self) -> String {
        let export = self.place.barecount(["outputs", "export", "kpi.sum"]);
        let rows = export.finish().exits_with(0).stdout;
        rows.lines().nth(1).unwrap_or_default().to_owned()
    }
}

#[test]
fn a_revert_brings_back_the_figures_of_what_it_reverts_to() {
    let sums = Sums::new();
    assert_eq!(sums.worked(&[]), ["numbers", "sum"]);
    assert_eq!(sums.total(), "3");
    sums.sum("sum(n) * 1000");
    assert_eq!(sums.worked(&[]), ["sum"]);
    assert_eq!(sums.total(), "3000");
    sums.sum("sum(n)");
    assert_eq!(sums.worked(&[]), ["sum"]);
    assert_eq!(sums.total(), "3");
    sums.run(&[]).tells("the same work was done by run");
    assert_eq!(sums.total(), "3");
}

#[test]
fn nothing_is_started_where_nothing_has_changed_and_nothing_is_left_to_be_done() {
    let sums = Sums::new();
    sums.run(&[]);
    assert!(!sums.starts());
    let state = sums.place.state();
    // An attempt of a process that was killed.
    let left = state.join("staging/task_0123456789abcdef0123456789abcdef-1/output");
    fs_err::create_dir_all(left).expect("a folder in the test's own");
    assert!(sums.starts());
    assert!(!sums.starts());
    // An artifact that has to be taken in again.
    let blobs = state.join("artifacts/blobs/sha256");
    for blob in fs_err::read_dir(&blobs).expect("the blobs") {
        fs_err::remove_file(blob.expect("a blob").path()).expect("a blob is removed");
    }
    assert!(sums.starts());
    assert!(!sums.starts());
    // Rules that the state folder is to keep.
    sums.place.write("environments/local.yaml", LOCAL);
    assert!(sums.starts());
    assert!(!sums.starts());
}

#[test]
fn a_ledger_that_lacks_what_is_on_record_answers_for_nothing() {
    let sums = Sums::new();
    sums.run(&[]);
    let (ledger, older) = (sums.place.state().join("ledger"), sums.place.join("older"));
    copy(&ledger, &older);
    sums.sum("sum(n) + 1");
    sums.run(&[]);
    fs_err::remove_dir_all(&ledger).expect("the ledger is removed");
    copy(&older, &ledger);
    let run = sums.place.barecount(["run", "pipeline.yaml"]).finish();
    assert!(!run.status.success(), "{run}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs_err::create_dir_all(to).expect("a folder in the test's own");
    for entry in fs_err::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let into = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &into),
            false => {
                fs_err::copy(&path, &into).expect("a copy");
            }
        }
    }
}

#[test]
fn an_owner_changes_no_work_and_a_comment_that_of_its_stage() {
    let sums = Sums::new();
    sums.run(&[]);
    sums.owner("others@acme.example");
    let run = sums.run(&[]);
    run.tells("unchanged; answered by run");
    let none: [&str; 0] = [];
    sums.owner("third@acme.example");
    assert_eq!(sums.worked(&[]), none);
    sums.numbers("VALUES (1), (2)", "-- what is counted\n");
    assert_eq!(sums.worked(&[]), ["numbers"]);
    assert_eq!(sums.total(), "3");
}

#[test]
fn a_stage_alone_runs_if_what_it_reads_has_changed() {
    let sums = Sums::new();
    sums.run(&[]);
    let none: [&str; 0] = [];
    assert_eq!(sums.worked(&["--stage", "sum"]), none);
    sums.numbers("VALUES (5)", "");
    assert_eq!(sums.worked(&["--stage", "numbers"]), ["numbers"]);
    assert_eq!(sums.worked(&["--stage", "sum"]), ["sum"]);
    assert_eq!(sums.total(), "5");
}

#[test]
fn what_was_appended_twice_by_force_and_restored_to_once_is_not_appended_again() {
    let sums = Sums::new();
    let manifest = MANIFEST.replace("OWNER", "data@acme.example");
    let appends = manifest.replacen(
        "format: parquet",
        "format: parquet\n          mode: append",
        1,
    );
    sums.place.write("pipeline.yaml", appends);
    sums.run(&[]);
    assert_eq!(sums.total(), "3");
    assert_eq!(sums.worked(&["--force", "numbers"]), ["numbers", "sum"]);
    assert_eq!(sums.total(), "6");
    let restore = [
        "datasets",
        "restore",
        "raw.numbers",
        "--version",
        "0",
        "--yes",
    ];
    sums.place.barecount(restore).finish().exits_with(0);
    // What the forced run appended is gone; what the first one did is in there.
    assert_eq!(sums.worked(&[]), ["sum"]);
    assert_eq!(sums.total(), "3");
}

#[test]
fn a_forced_stage_works_again_and_no_other() {
    let sums = Sums::new();
    sums.run(&[]);
    assert_eq!(sums.worked(&["--force", "sum"]), ["sum"]);
    assert_eq!(sums.worked(&["--force", "all"]), ["numbers", "sum"]);
    let unknown = ["run", "pipeline.yaml", "--force", "none"];
    sums.place.barecount(unknown).finish().exits_with(4);
}
