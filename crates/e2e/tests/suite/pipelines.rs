//! Small pipelines of one stage, whose work is the worker of `programs/worker.rs`.

use barecount_e2e::{
    place::Place,
    process::Running,
    programs,
    tree::{self, Tree},
};

/// What the worker hands over unless a test says otherwise.
pub(crate) const GOOD_ROWS: &[u8] = b"id,amount\n1,1.50\n2,2.25\n3,-4.00\n";

/// A stage of class `serverless` that behaves so; its function hands [`GOOD_ROWS`] over.
pub(crate) fn function(behaviour: &str) -> Place {
    function_with(behaviour, "", GOOD_ROWS)
}

/// The same, with more keys of the stage (indented by six) and other rows.
pub(crate) fn function_with(behaviour: &str, more: &str, rows: &[u8]) -> Place {
    let place = Place::new();
    programs::package(
        &place,
        "worker.zip",
        "bootstrap",
        &[("rows/raw.rows/part.csv", rows)],
    );
    let runner =
        "{ class: serverless, size: small, network_profile: private_vpc, package: worker.zip }";
    place.write("pipeline.yaml", manifest(runner, behaviour, more));
    place
}

/// A stage of class `container` that behaves so; its image holds the worker alone.
pub(crate) fn container(behaviour: &str) -> Place {
    container_with(behaviour, "")
}

/// The same, with more keys of the stage (indented by six).
pub(crate) fn container_with(behaviour: &str, more: &str) -> Place {
    let place = Place::new();
    let worker = fs_err::read(programs::worker()).expect("the worker was built");
    place.write("images/worker/worker", worker);
    place.write("images/worker/rows/raw.rows/part.csv", GOOD_ROWS);
    place.write(
        "images/worker/build.yaml",
        "kind: image\nfiles:\n  - { from: worker, to: /app/worker, executable: true }\n  \
         - { from: rows, to: /app/rows }\nentrypoint: [/app/worker]\nuser: \"1000:1000\"\n",
    );
    let runner =
        "{ class: container, size: small, network_profile: private_vpc, image: images/worker }";
    place.write("pipeline.yaml", manifest(runner, behaviour, more));
    place
}

fn manifest(runner: &str, behaviour: &str, more: &str) -> String {
    let stage = format!(
        "    - name: work
      phase: ingestion
      runner: {runner}
      env: {{ BEHAVIOUR: \"{behaviour}\" }}
{more}      outputs:
        - dataset: raw.rows
          format: csv
          mode: overwrite
          columns:
            - {{ name: id, type: int64, nullable: false }}
            - {{ name: amount, type: \"decimal(10,2)\" }}
          tests:
            - {{ unique: [id] }}
"
    );
    of_stages("worker", &stage)
}

/// The manifest of a pipeline that tries nothing twice, with these stages.
pub(crate) fn of_stages(name: &str, stages: &str) -> String {
    format!(
        "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: {name}, tenant: demo, owner: you@example.com }}
spec:
  classification: public
  defaults:
    retries: {{ application: 0, infrastructure: 0, initial_backoff: 100ms, max_backoff: 1s }}
  stages:
{stages}"
    )
}

/// A run of a place's pipeline, started.
pub(crate) fn start(place: &Place) -> Running {
    place
        .barecount(["run", "pipeline.yaml", "-o", "json"])
        .start()
}

/// Waits until the worker of a run lingers, which it does until [`let_go`].
pub(crate) fn lingers(run: &Running) {
    run.wait_until("the worker lingers", || sleepers(run).is_some());
}

/// Lets a worker that lingers finish its work.
pub(crate) fn let_go(run: &Running) {
    lingers(run);
    if let Some(sleeper) = sleepers(run) {
        sleeper.kill();
    }
}

fn sleepers(run: &Running) -> Option<Tree> {
    let tree = Tree::of(run.pid);
    let found = tree.find(|pid| tree::command_line(pid).starts_with("sleeper"))?;
    Some(Tree::of(found))
}
