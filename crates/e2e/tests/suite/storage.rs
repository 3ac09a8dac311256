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
