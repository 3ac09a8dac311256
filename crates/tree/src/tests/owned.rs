//! Folders of a well-known name, which somebody else may have made before.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown, symlink},
    path::{Path, PathBuf},
};

use super::{ORDINARY, TestResult, as_ordinary, chmod, place};
use crate::{close_to_others, own_folder, own_folders, remove, to_the_end};

const NAME: &str = "barecount-test-1000";

/// A folder in which everybody may make some, and nobody may touch another's: a `/tmp`.
fn shared() -> Result<PathBuf, std::io::Error> {
    let shared = place()?;
    chmod(&shared, 0o1777)?;
    Ok(shared)
}

fn taken(shared: &Path) -> TestResult {
    let theirs = shared.join(NAME);
    fs::create_dir(&theirs)?;
    // Only root can give something away: a test that cannot is no test.
    chown(&theirs, Some(ORDINARY + 1), Some(ORDINARY + 1))?;
    Ok(())
}

#[test]
fn whoever_made_it_before_another_folder_is_found_and_used_from_then_on() -> TestResult {
    let shared = shared()?;
    taken(&shared)?;
    let within = shared.clone();
    as_ordinary(move || {
        let first = own_folder(&within, NAME)?;
        assert!(first.starts_with(&within) && first != within.join(NAME));
        let found = fs::metadata(&first)?;
        assert_eq!((found.uid(), found.mode() & 0o7777), (ORDINARY, 0o700));
        assert_eq!(
            own_folder(&within, NAME)?,
            first,
            "by the next process, too"
        );
        assert_eq!(own_folders(&within, NAME)?, [first]);
        Ok(())
    })?;
    // Whoever took the name gives it back: those who use the other folder are not left alone.
    remove(&shared.join(NAME), &to_the_end)?;
    let within = shared.clone();
    as_ordinary(move || {
        assert_ne!(own_folder(&within, NAME)?, within.join(NAME));
        assert!(!within.join(NAME).exists());
        Ok(())
    })?;
    remove(&shared, &to_the_end)?;
    Ok(())
}

#[test]
fn nothing_that_somebody_else_can_make_there_stops_anybody() -> TestResult {
    let shared = shared()?;
    let outside = place()?;
    let make = |kind: u8, path: &Path| match kind {
        0 => fs::write(path, ""),
        1 => symlink("/nowhere", path),
        2 => symlink(&outside, path),
        _ => fs::create_dir(path),
    };
    for kind in 0..4 {
        let names = [NAME.to_owned(), format!("{NAME}-0"), format!("{NAME}-zzz")];
        for name in &names {
            make(kind, &shared.join(name))?;
            std::os::unix::fs::lchown(shared.join(name), Some(ORDINARY + 1), None)?;
        }
        let within = shared.clone();
        as_ordinary(move || {
            let own = own_folder(&within, NAME)?;
            assert_eq!(fs::symlink_metadata(&own)?.uid(), ORDINARY);
            fs::write(own.join("lock"), "")?;
            remove(&own, &to_the_end)?;
            Ok(())
        })?;
        for name in &names {
            remove(&shared.join(name), &to_the_end)?;
        }
    }
    assert_eq!(fs::read_dir(&outside)?.count(), 0);
    remove(&shared, &to_the_end)?;
    remove(&outside, &to_the_end)?;
    Ok(())
}

#[test]
fn what_others_put_into_a_folder_that_was_open_goes_when_it_is_closed() -> TestResult {
    let home = place()?;
    let folder = home.join("open");
    fs::create_dir_all(folder.join("theirs/below"))?;
    fs::write(folder.join("cpu-0.lock"), "")?;
    fs::write(folder.join("cpu-1.lock"), "")?;
    for theirs in ["theirs", "cpu-1.lock"] {
        chown(folder.join(theirs), Some(ORDINARY), Some(ORDINARY))?;
    }
    chmod(&folder, 0o777)?;
    close_to_others(&folder)?;
    assert_eq!(fs::metadata(&folder)?.mode() & 0o7777, 0o700);
    assert_eq!(fs::read_dir(&folder)?.count(), 1);
    assert!(folder.join("cpu-0.lock").exists());
    close_to_others(&folder)?;
    remove(&home, &to_the_end)?;
    Ok(())
}
