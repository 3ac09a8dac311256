use std::error::Error;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

/// Where every Linux system has a tmpfs (shm_overview(7)).
const MEMORY: &str = "/dev/shm";

/// A folder of the test's own in memory, and the one for secrets in it.
fn in_memory() -> io::Result<(TempDir, MemoryFolder)> {
    let home = tempfile::Builder::new()
        .prefix("barecount-test-")
        .tempdir_in(MEMORY)?;
    let memory = MemoryFolder::new(home.path(), "secrets");
    Ok((home, memory))
}

fn name(text: &str) -> Name {
    text.parse().expect("it is a name")
}

fn entries(folder: &Path) -> io::Result<usize> {
    Ok(std::fs::read_dir(folder)?.count())
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o7777)
}

#[test]
fn secrets_are_files_in_a_folder_that_only_its_owner_enters_until_they_are_removed()
-> Result<(), Box<dyn Error>> {
    let (home, memory) = in_memory()?;
    let (token, key) = (Secret::new(b"canary-token"), Secret::new(b"canary\0key"));
    let (a, b) = (name("token"), name("key"));
    let mounted = memory.mount("one", [(&a, &token), (&b, &key)])?;
    let folder = mounted.folder().to_owned();
    assert!(memory.close().is_err(), "an attempt has something in it");
    assert_eq!(std::fs::read(folder.join("token"))?, b"canary-token");
    assert_eq!(std::fs::read(folder.join("key"))?, b"canary\0key");
    assert_eq!(mode(&memory.path())?, 0o700, "nobody else passes");
    assert_eq!(mode(&folder.join("token"))?, 0o444, "nobody writes");
    assert!(!format!("{mounted:?}").contains("canary"));
    mounted.remove()?;
    assert!(!folder.exists());
    memory.close()?;
    assert_eq!(entries(home.path())?, 0);
    Ok(())
}

#[test]
fn whoever_still_has_a_file_open_or_linked_finds_nothing_in_it() -> Result<(), Box<dyn Error>> {
    let (home, memory) = in_memory()?;
    let (token, a) = (Secret::new(b"canary-token"), name("token"));
    let mounted = memory.mount("one", [(&a, &token)])?;
    let path = mounted.folder().join("token");
    let reader = File::open(&path)?;
    std::fs::hard_link(&path, home.path().join("kept"))?;
    std::fs::rename(&path, home.path().join("moved"))?;
    drop(mounted);
    assert_eq!(reader.metadata()?.len(), 0);
    assert_eq!(std::fs::read(home.path().join("kept"))?, b"");
    assert_eq!(std::fs::read(home.path().join("moved"))?, b"");
    Ok(())
}

#[test]
fn what_a_killed_process_left_is_swept_away_and_overwritten() -> Result<(), Box<dyn Error>> {
    let (home, memory) = in_memory()?;
    assert_eq!(memory.sweep()?, 0, "before the first attempt");
    let (token, a) = (Secret::new(b"canary-token"), name("token"));
    for attempt in ["one", "two"] {
        // As if the process had ended without a chance to clean up.
        std::mem::forget(memory.mount(attempt, [(&a, &token)])?);
    }
    let kept = home.path().join("kept");
    std::fs::hard_link(memory.path().join("one/token"), &kept)?;
    assert_eq!(memory.sweep()?, 2);
    assert!(!memory.path().exists());
    assert_eq!(std::fs::read(kept)?, [0; 12]);
    Ok(())
}

#[test]
fn a_folder_on_a_disk_is_refused() -> Result<(), Box<dyn Error>> {
    // The place of the crate itself: sources are not kept in memory.
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR"))?;
    let memory = MemoryFolder::new(home.path(), "secrets");
    let (token, a) = (Secret::new(b"canary-token"), name("token"));
    let refused = memory.mount("one", [(&a, &token)]);
    assert!(
        matches!(refused, Err(MountError::NotInMemory { .. })),
        "{refused:?}"
    );
    assert_eq!(entries(home.path())?, 0);
    Ok(())
}

#[test]
fn a_folder_that_others_can_use_is_refused() -> Result<(), Box<dyn Error>> {
    let (_home, memory) = in_memory()?;
    std::fs::create_dir(memory.path())?;
    std::fs::set_permissions(memory.path(), PermissionsExt::from_mode(0o750))?;
    let refused = memory.mount("one", []);
    assert!(
        matches!(refused, Err(MountError::Exposed { mode: 0o750, .. })),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn a_failure_half_way_leaves_nothing_and_overwrites_nothing() -> Result<(), Box<dyn Error>> {
    let (_home, memory) = in_memory()?;
    let (token, a) = (Secret::new(b"canary-token"), name("a"));
    let mounted = memory.mount("one", [(&a, &token)])?;
    let refused = memory.mount("one", [(&a, &token)]);
    assert!(matches!(refused, Err(MountError::Io { .. })), "{refused:?}");
    assert_eq!(std::fs::read(mounted.folder().join("a"))?, b"canary-token");
    let refused = memory.mount("two", [(&a, &token), (&a, &token)]);
    assert!(
        matches!(refused, Err(MountError::Duplicate { .. })),
        "{refused:?}"
    );
    assert_eq!(entries(&memory.path())?, 1);
    Ok(())
}

#[test]
fn a_link_in_place_of_the_folder_is_not_followed() -> Result<(), Box<dyn Error>> {
    let (home, memory) = in_memory()?;
    std::fs::create_dir(home.path().join("real"))?;
    std::os::unix::fs::symlink("real", memory.path())?;
    drop(memory.mount("one", [])?);
    memory.sweep()?;
    assert_eq!(entries(&home.path().join("real"))?, 0);
    assert_eq!(entries(home.path())?, 2, "the link and what it leads to");
    Ok(())
}

#[test]
fn a_folder_that_another_user_made_before_keeps_nobody_from_his_secrets()
-> Result<(), Box<dyn Error>> {
    let (home, memory) = in_memory()?;
    let theirs = memory.path();
    std::fs::create_dir(&theirs)?;
    std::fs::set_permissions(&theirs, PermissionsExt::from_mode(0o777))?;
    std::fs::write(theirs.join("trap"), "")?;
    // Only root can give something away: a test that cannot is no test.
    std::os::unix::fs::chown(&theirs, Some(42_424), Some(42_424))?;
    let (token, a) = (Secret::new(b"canary-token"), name("token"));
    let mounted = memory.mount("one", [(&a, &token)])?;
    assert!(!mounted.folder().starts_with(&theirs));
    assert_eq!(mode(&memory.path())?, 0o700, "nobody else passes");
    // As if the process had ended without a chance to clean up, and then the other user had gone.
    let kept = home.path().join("kept");
    std::fs::hard_link(mounted.folder().join("token"), &kept)?;
    std::mem::forget(mounted);
    std::fs::remove_file(theirs.join("trap"))?;
    std::fs::remove_dir(&theirs)?;
    assert_eq!(memory.sweep()?, 1);
    assert_eq!(std::fs::read(&kept)?, [0; 12]);
    memory.mount("two", [(&a, &token)])?.remove()?;
    memory.close()?;
    assert_eq!(entries(home.path())?, 1, "the link alone");
    Ok(())
}
