//! What an attempt may have on the host's disk: whatever it fills, however it does, it is ended, and
//! what the next one finds is as it was before.

use barecount_e2e::place::Place;

use crate::pipelines;

const ENVIRONMENT: &str = "apiVersion: barecount.dev/v1
kind: Environment
metadata: { name: tight }
spec:
  kind: development
  backends: { container: local, serverless: local }
  lock: { refresh_on_run: true }
  governance:
    matrix:
      - tenant: demo
        allow:
          - { classes: [container, serverless], sizes: [small], network_profiles: [private_vpc] }
  catalog:
    container: { small: { disk: 64MiB } }
    serverless: { small: { disk: 64MiB } }
";

const OF_FUNCTIONS: [&str; 2] = ["fill the output", "fill the output with empty files"];
const OF_CONTAINERS: [&str; 2] = ["fill the checkpoint", "fill the cache"];

pub(crate) fn tight(place: Place) -> Place {
    place.write("environments/tight.yaml", ENVIRONMENT);
    place
}

pub(crate) fn run(place: &Place) -> barecount_e2e::process::Finished {
    place
        .barecount(["run", "pipeline.yaml", "--env", "tight"])
        .finish()
}

/// What a folder and all below it take of the disk.
fn taken(folder: &std::path::Path) -> u64 {
    let all = barecount_tree::Amount::ENDLESS;
    let found = barecount_tree::measure(folder, barecount_tree::Linked::Counted, all);
    found
        .expect("the test's own folder can be measured")
        .amount
        .bytes
}

#[test]
fn whatever_work_fills_it_is_ended_and_leaves_nothing() {
    let containers = OF_FUNCTIONS.into_iter().chain(OF_CONTAINERS);
    let containers = containers.map(pipelines::container);
    for place in containers.chain(OF_FUNCTIONS.map(pipelines::function)) {
        let place = tight(place);
        let ended = run(&place);
        let ended = ended.fails_with(1, "BC0615");
        let ended = ended.tells("its size has 64 MiB in 4096 files");
        place.nothing_is_left();
        let state = taken(&place.state());
        assert!(state < 128 << 20, "{state} bytes are left of {ended}");
    }
}

#[test]
fn no_file_grows_larger_than_all_that_an_attempt_may_have() {
    let place = tight(pipelines::container("write one large file"));
    run(&place)
        .fails_with(1, "BC0615")
        .tells("a file of its own grew larger");
    place.nothing_is_left();
}

#[test]
fn caches_that_no_latest_run_has_go_and_all_of_them_where_that_is_asked() {
    let place = pipelines::container("");
    let caches = || {
        let listed = fs_err::read_dir(place.state().join("cache"));
        listed.expect("the caches can be listed").count()
    };
    for rows in ["id,amount\n1,1.00\n", "id,amount\n2,2.00\n"] {
        place.write("images/worker/rows/raw.rows/part.csv", rows);
        place
            .barecount(["run", "pipeline.yaml"])
            .finish()
            .exits_with(0);
    }
    assert_eq!(caches(), 2);
    for (more, removed, left) in [(None, 1, 1), (None, 0, 1), (Some("--caches"), 1, 0)] {
        let gc = place
            .barecount(["gc", "-o", "json"])
            .arguments(more.as_slice());
        assert_eq!(gc.finish().exits_with(0).json("gc")["caches"], removed);
        assert_eq!(caches(), left);
    }
    place
        .barecount(["run", "pipeline.yaml", "--force", "work"])
        .finish()
        .exits_with(0);
}
