//! Trees that somebody changes meanwhile, and that reach into what is not theirs.

use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::{CWD, RenameFlags};

use super::{ORDINARY, TestResult, as_ordinary, chmod, in_own_process, place};
use crate::{RemoveError, remove, to_the_end};

#[test]
fn a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere() -> TestResult {
    let home = place()?;
    let (root, outside) = (home.join("root"), home.join("outside"));
    fs::create_dir(&outside)?;
    for number in 0..50 {
        fs::create_dir(outside.join(number.to_string()))?;
        fs::write(outside.join(number.to_string()).join("precious"), "1")?;
    }
    for _ in 0..200 {
        let (folder, link) = (root.join("a/folder"), root.join("a/link"));
        fs::create_dir_all(&folder)?;
        for number in 0..50 {
            fs::create_dir(folder.join(number.to_string()))?;
            fs::write(folder.join(number.to_string()).join("row"), "1")?;
        }
        symlink(&outside, &link)?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Fails once one of the two is gone.
                    let exchange = RenameFlags::EXCHANGE;
                    let _ = rustix::fs::renameat_with(CWD, &folder, CWD, &link, exchange);
                }
            });
            let removed = remove(&root, &to_the_end);
            done.store(true, Ordering::Relaxed);
            removed
        })?;
        assert!(fs::symlink_metadata(&root).is_err());
    }
    let mut precious = 0;
    for entry in fs::read_dir(&outside)? {
        precious += usize::from(entry?.path().join("precious").exists());
    }
    assert_eq!(precious, 50);
    remove(&home, &to_the_end)?;
    Ok(())
}

#[test]
fn a_folder_that_is_moved_out_from_under_the_remover_takes_it_nowhere_else() -> TestResult {
    let home = place()?;
    let (root, elsewhere) = (home.join("root"), home.join("elsewhere"));
    fs::create_dir(&elsewhere)?;
    fs::write(elsewhere.join("precious"), "1")?;
    for round in 0..200 {
        let (inner, moved) = (root.join("a/b/c"), elsewhere.join(format!("c{round}")));
        fs::create_dir_all(inner.join("d/e"))?;
        for number in 0..200 {
            fs::write(inner.join(format!("d/e/{number}")), "")?;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| fs::rename(&inner, &moved));
            remove(&root, &to_the_end)
        })?;
        assert!(fs::symlink_metadata(&root).is_err(), "round {round}");
        assert_eq!(fs::read_to_string(elsewhere.join("precious"))?, "1");
    }
    remove(&home, &to_the_end)?;
    Ok(())
}

#[test]
fn of_anothers_folder_what_stays_is_named_and_all_else_goes() -> TestResult {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can make a folder of another user".into());
    }
    let home = place()?;
    chmod(&home, 0o755)?;
    let root = home.join("root");
    fs::create_dir_all(root.join("theirs/in it"))?;
    fs::create_dir_all(root.join("theirs too/but empty"))?;
    fs::create_dir_all(root.join("ours/below"))?;
    fs::create_dir_all(root.join("empty"))?;
    for path in ["", "ours", "ours/below"] {
        chown(root.join(path), Some(ORDINARY), Some(ORDINARY))?;
    }
    chown(&home, Some(ORDINARY), Some(ORDINARY))?;
    let path = root.clone();
    as_ordinary(move || {
        let Err(RemoveError::Stuck {
            place,
            others,
            source,
        }) = remove(&path, &to_the_end)
        else {
            return Err("root's folders with something in them cannot be removed".into());
        };
        assert!(place.starts_with("theirs"), "{place}");
        assert_eq!(others, 1);
        assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
        Ok(())
    })?;
    assert!(root.join("theirs/in it").exists());
    assert!(!root.join("ours").exists() && !root.join("empty").exists());
    // Root removes what any user has made.
    remove(&home, &to_the_end)?;
    assert!(!home.exists());
    Ok(())
}

#[test]
fn a_mount_is_not_entered() -> TestResult {
    in_own_process(
        "exec unshare --user --map-root-user --mount",
        "hostile::among_mounts",
    )
}

#[test]
#[ignore = "run by `a_mount_is_not_entered` in a mount namespace of its own"]
fn among_mounts() -> TestResult {
    let home = place()?;
    let (root, outside) = (home.join("root"), home.join("outside"));
    for folder in ["inner/mounted", "inner/gone", "gone"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::create_dir(&outside)?;
    fs::write(outside.join("precious"), "1")?;
    // Of the same file system: its number does not tell.
    rustix::mount::mount_bind(&outside, root.join("inner/mounted"))?;
    let Err(RemoveError::Stuck { place, others, .. }) = remove(&root, &to_the_end) else {
        return Err("a mount cannot be removed".into());
    };
    assert_eq!((place.as_str(), others), ("inner/mounted", 0));
    assert!(outside.join("precious").exists());
    assert!(!root.join("inner/gone").exists() && !root.join("gone").exists());
    let mounted: PathBuf = root.join("inner/mounted");
    rustix::mount::unmount(&mounted, rustix::mount::UnmountFlags::empty())?;
    remove(&home, &to_the_end)?;
    assert!(!home.exists());
    Ok(())
}
