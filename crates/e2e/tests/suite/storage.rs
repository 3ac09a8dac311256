//! State folders that cannot be written, or not far enough.

use barecount_e2e::{mounts::MountNamespace, place::Place, process::Finished};
use serde_json::json;

use crate::pipelines;

/// Room on the disk, in mebibytes, growing from nearly none.
const ROOM: [u32; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 12, 128];

fn run(place: &Place, namespace: &MountNamespace) -> Finished {
    place
        .barecount(["run", "pipeline.yaml", "-o", "json"])
        .behind(&namespace.entry(place.path()))
        .finish()
}

#[test]
fn a_state_folder_that_cannot_be_made_is_told_with_what_would_help() {
    let place = pipelines::container("");
    place.write("occupied", "a file");
    place
        .barecount(["run", "pipeline.yaml", "--state", "occupied"])
        .finish()
        .fails_with(6, "BC0804")
        .tells("occupied")
        .tells("--state");
}

#[test]
fn a_state_folder_on_a_read_only_file_system_is_told_and_can_still_be_looked_at() {
    let place = pipelines::container("");
    let done = place
        .barecount(["run", "pipeline.yaml", "-o", "json"])
        .finish()
        .exits_with(0);
    let mut namespace = MountNamespace::new();
    let state = place.state();
    let state = state.display();
    namespace.run(&format!(
        "mount --bind {state} {state} && mount -o remount,ro,bind {state}"
    ));
    run(&place, &namespace)
        .fails_with(6, "BC0804")
        .tells("Read-only")
        .tells("--state");
    for verb in [
        ["runs", "ls"].as_slice(),
        &["outputs", "ls"],
        &["outputs", "show", "raw.rows"],
        &["outputs", "export", "raw.rows"],
        &["evidence", "ls"],
        &["evidence", "verify"],
        &["dlq", "ls"],
    ] {
        place
            .barecount(verb)
            .behind(&namespace.entry(place.path()))
            .finish()
            .exits_with(0);
    }
    // Made writable again, it is as it was.
    namespace.run(&format!("mount -o remount,rw,bind {state}"));
    let again = run(&place, &namespace).exits_with(0);
    assert_eq!(done.json("run")["id"], again.json("run")["id"]);
    place.nothing_is_left();
}

#[test]
fn a_full_disk_loses_nothing_once_there_is_room_again() {
    let place = pipelines::container("");
    let state = place.state();
    fs_err::create_dir(&state).expect("a folder to mount on");
    let mut namespace = MountNamespace::new();
    let state = state.display();
    namespace.run(&format!(
        "mount -t tmpfs -o size=1m,mode=0700 tmpfs {state}"
    ));
    let mut done = None;
    for mebibytes in ROOM {
        namespace.run(&format!("mount -o remount,size={mebibytes}m {state}"));
        let finished = run(&place, &namespace);
        place.nothing_runs();
        if finished.status.success() {
            done = Some(finished);
            break;
        }
        let status = finished.status.code();
        assert!(matches!(status, Some(1 | 6)), "{mebibytes} MiB: {finished}");
        let told = finished.stderr.to_lowercase();
        assert!(
            told.contains("no space left") || told.contains("full"),
            "{mebibytes} MiB: {finished}"
        );
        assert!(
            told.contains("[bc"),
            "a code, with {mebibytes} MiB: {finished}"
        );
    }
    let done = done.expect("with room enough it runs");
    let told = done.json("run");
    assert_eq!(told["outputs"][0]["rows"], 3);
    assert_eq!(told["outputs"][0]["version"], json!(0), "committed once");
    let verified = place
        .barecount(["evidence", "verify", "-o", "json"])
        .behind(&namespace.entry(place.path()))
        .finish()
        .exits_with(0);
    assert_eq!(verified.json("verification")["valid"], true);
}

#[test]
fn on_a_disk_that_others_have_filled_one_can_look_and_make_room() {
    let place = pipelines::container("");
    let state = place.state();
    fs_err::create_dir(&state).expect("a folder to mount on");
    let mut namespace = MountNamespace::new();
    let at = state.display();
    namespace.run(&format!("mount -t tmpfs -o size=128m,mode=0700 tmpfs {at}"));
    run(&place, &namespace).exits_with(0);
    namespace.run(&format!("cat /dev/zero >{at}/others 2>/dev/null || true"));
    let within = namespace.entry(place.path());
    let asked = |verb: &[&str]| place.barecount(verb).behind(&within).finish();
    // Nothing can be worked on, and it is the host that lacks something.
    let more = ["run", "pipeline.yaml", "--force", "work"];
    asked(&more).fails_with(1, "BC0616").tells("barecount gc");
    for verb in [
        ["runs", "ls"].as_slice(),
        &["outputs", "ls"],
        &["evidence", "verify"],
        &["gc", "--caches"],
    ] {
        asked(verb).exits_with(0);
    }
    namespace.run(&format!("rm {at}/others"));
    asked(&more).exits_with(0);
    namespace.run(&format!("[ $(stat -c %s {at}/reserve) = 4194304 ]"));
}

/// A file system in memory with so few inodes that work can take them all.
fn with_few_inodes(place: &Place) -> MountNamespace {
    let state = place.state();
    fs_err::create_dir(&state).expect("a folder to mount on");
    let mut namespace = MountNamespace::new();
    let at = state.display();
    namespace.run(&format!(
        "mount -t tmpfs -o size=512m,nr_inodes=6000,mode=0700 tmpfs {at}"
    ));
    namespace
}

#[test]
fn the_end_of_work_that_took_every_inode_is_on_record() {
    let place = pipelines::container("take every inode");
    let namespace = with_few_inodes(&place);
    run(&place, &namespace).fails_with(1, "BC0616");
    place.nothing_runs();
    let verified = place
        .barecount(["evidence", "verify", "-o", "json"])
        .behind(&namespace.entry(place.path()))
        .finish()
        .exits_with(0);
    assert_eq!(verified.json("verification")["valid"], true);
}

#[test]
fn where_others_have_taken_every_inode_one_can_look_and_remove_files() {
    let place = pipelines::container("");
    let mut namespace = with_few_inodes(&place);
    let at = place.state();
    let at = at.display();
    run(&place, &namespace).exits_with(0);
    namespace.run(&format!("[ -e {at}/reserve.inodes/63 ]"));
    namespace.run(&format!(
        "mkdir {at}/others; n=0; while true 2>/dev/null >{at}/others/$n; do n=$((n+1)); done; true"
    ));
    let within = namespace.entry(place.path());
    let asked = |verb: &[&str]| place.barecount(verb).behind(&within).finish();
    for verb in [
        ["runs", "ls"].as_slice(),
        &["outputs", "ls"],
        &["evidence", "verify"],
        &["gc", "--caches"],
    ] {
        asked(verb).exits_with(0);
    }
    namespace.run(&format!("[ ! -e {at}/reserve.inodes ]"));
    namespace.run(&format!("rm -r {at}/others"));
    asked(&["run", "pipeline.yaml", "--force", "work"]).exits_with(0);
    namespace.run(&format!("[ -e {at}/reserve.inodes/63 ]"));
}

#[test]
fn a_limit_of_the_size_of_files_is_told_and_not_died_of() {
    // In blocks of 512 bytes: less than the store has, and less than what is kept back.
    for blocks in [64, 2_048] {
        let place = pipelines::container("");
        let limited = format!("ulimit -f {blocks} && exec \"$@\"");
        let finished = place
            .barecount(["run", "pipeline.yaml"])
            .behind(&["sh", "-c", &limited, "sh"].map(Into::into))
            .finish();
        let status = finished.status.code();
        assert!(matches!(status, Some(0 | 1 | 6)), "{blocks}: {finished}");
        let is_told = finished.status.success() || finished.stderr.contains("[BC");
        assert!(is_told, "{blocks}: {finished}");
        place.nothing_runs();
    }
}

#[test]
fn a_run_that_leases_no_processors_needs_no_folder_for_leases() {
    let place = pipelines::container("");
    place
        .barecount(["run", "pipeline.yaml"])
        .env("TMPDIR", "/proc/none")
        .finish()
        .exits_with(0);
}
