//! What work leaves behind, and what others made before: neither keeps anybody from running.

use barecount_e2e::process::Invocation;
use rustix::process::Signal;

use crate::{
    ordinary::{Home, USER},
    pipelines,
};

const LEFT: [&str; 2] = ["leave closed folders", "leave a deep folder"];

/// With as many descriptors as most hosts give.
fn usual(invocation: Invocation) -> Invocation {
    invocation.behind(&["prlimit".into(), "--nofile=1024:1024".into()])
}

fn runs_and_collects(home: &Home, what: &str) {
    for round in 0..2 {
        let run =
            usual(home.invocation(&["run", "pipeline.yaml", "--force", "work", "-o", "json"]));
        let run = run.finish().exits_with(0).json("run");
        assert_eq!(run["state"], "succeeded", "{what}, round {round}");
        let gc = usual(home.invocation(&["gc", "-o", "json"])).finish();
        let gc = gc.exits_with(0).json("gc");
        assert_eq!(gc["left"], 0, "{what}, round {round}");
    }
    home.place.nothing_is_left();
    assert!(!home.place.state().join("aside").exists(), "{what}");
}

#[test]
fn whatever_folders_work_leaves_in_its_output_each_later_run_and_gc_succeeds() {
    for behaviour in LEFT {
        for place in [
            pipelines::container(behaviour),
            pipelines::function(behaviour),
        ] {
            runs_and_collects(&Home::of(place), behaviour);
        }
    }
}

#[test]
fn what_work_had_left_when_its_process_was_killed_keeps_no_run_from_starting() {
    for behaviour in LEFT {
        let lingers = format!("{behaviour} and linger");
        for place in [
            pipelines::container(&lingers),
            pipelines::function(&lingers),
        ] {
            let home = Home::of(place);
            let arguments = ["run", "pipeline.yaml", "-o", "json"];
            let run = usual(home.invocation(&arguments)).start();
            pipelines::lingers(&run);
            run.signal(Signal::KILL);
            run.finish();
            home.place.nothing_runs();
            let again = usual(home.invocation(&arguments)).start();
            pipelines::let_go(&again);
            again.finish().exits_with(0);
            home.place.nothing_is_left();
        }
    }
}

#[test]
fn a_folder_that_another_user_made_before_keeps_nobody_from_running() {
    let home = Home::of(pipelines::container(""));
    let shared = home.place.join("tmp");
    let theirs = shared.join(format!("barecount-processors-{USER}"));
    fs_err::create_dir_all(&theirs).expect("a folder in the test's own");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs_err::set_permissions(&shared, mode).expect("its mode can be set");
    let given = std::os::unix::fs::chown(&theirs, Some(USER + 1), Some(USER + 1));
    given.expect("this test is root's: nobody else can give a folder away");
    for _ in 0..2 {
        let run = home.invocation(&["run", "pipeline.yaml", "--force", "work", "-o", "json"]);
        run.env("TMPDIR", home.path().join("tmp"))
            .finish()
            .exits_with(0);
    }
    assert_eq!(fs_err::read_dir(&theirs).expect("it is there").count(), 0);
    home.place.nothing_is_left();
}

#[test]
fn a_state_folder_whose_lock_file_is_removed_has_one_process_at_a_time_still() {
    let place = pipelines::function("linger");
    let first = pipelines::start(&place);
    pipelines::lingers(&first);
    fs_err::remove_file(place.state().join("lock")).expect("it is there");
    let second = |arguments: &[&str]| place.barecount(arguments).finish();
    second(&["run", "pipeline.yaml", "--force", "work", "--wait", "0"])
        .fails_with(6, "BC0803")
        .tells("lock");
    second(&["gc", "--wait", "0"]).fails_with(6, "BC0803");
    pipelines::let_go(&first);
    let run = first.finish().exits_with(0).json("run");
    assert_eq!(run["state"], "succeeded");
    place.nothing_is_left();
    second(&["evidence", "verify"]).exits_with(0);
}
