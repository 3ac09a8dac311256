//! Random trees.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::symlink},
    path::{Path, PathBuf},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{TestResult, as_ordinary, chmod, place, place_on_disk};
use crate::{each_folder, empty_but, remove, remove_at, to_the_end};

/// Any name that a file system takes.
fn name(dice: &mut StdRng) -> OsString {
    loop {
        let length = match dice.random_range(0..4) {
            0 => 255,
            1 => dice.random_range(1..255),
            _ => dice.random_range(1..12),
        };
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                loop {
                    let byte: u8 = dice.random();
                    if byte != 0 && byte != b'/' {
                        break byte;
                    }
                }
            })
            .collect();
        if bytes != b"." && bytes != b".." {
            return OsString::from_vec(bytes);
        }
    }
}

/// Grows a tree below a folder, with links to `outside` and modes from 000 to 7777, which are set once
/// all is there.
fn grow(dice: &mut StdRng, root: &Path, outside: &Path) -> std::io::Result<u32> {
    let mut folders = vec![root.to_owned()];
    let mut modes: Vec<(PathBuf, u32)> = Vec::new();
    let entries = dice.random_range(1..120);
    for _ in 0..entries {
        let folder = folders[dice.random_range(0..folders.len())].clone();
        let path = folder.join(name(dice));
        if path.as_os_str().len() > 3_000 || fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match dice.random_range(0..6) {
            0..=2 => {
                fs::create_dir(&path)?;
                folders.push(path.clone());
                modes.push((path, dice.random_range(0..0o10_000)));
            }
            3 => symlink(outside, &path)?,
            4 => symlink(name(dice), &path)?,
            _ => {
                fs::write(&path, "rows")?;
                modes.push((path, dice.random_range(0..0o10_000)));
            }
        }
    }
    for (path, mode) in modes.iter().rev() {
        chmod(path, *mode)?;
    }
    Ok(entries)
}

fn removes_whatever_grows(seed: u64, home: PathBuf) -> TestResult {
    let mut dice = StdRng::seed_from_u64(seed);
    let (root, outside) = (home.join("root"), home.join("outside"));
    for folder in [&root, &outside] {
        fs::create_dir(folder)?;
    }
    fs::write(outside.join("precious"), "1")?;
    chmod(&outside, 0o750)?;
    grow(&mut dice, &root, &outside)?;
    chmod(&root, dice.random_range(0..0o1000))?;
    remove(&root, &to_the_end).map_err(|error| format!("seed {seed}: {error:?}"))?;
    assert!(fs::symlink_metadata(&root).is_err(), "seed {seed}");
    assert_eq!(fs::read_to_string(outside.join("precious"))?, "1");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&outside)?.permissions());
    assert_eq!(mode & 0o7777, 0o750, "seed {seed}: a link was followed");
    remove(&home, &to_the_end)?;
    Ok(())
}

#[test]
fn any_tree_goes_whatever_its_names_modes_and_links() -> TestResult {
    let in_memory = |seed| removes_whatever_grows(seed, place()?);
    let on_disk = |seed| removes_whatever_grows(seed, place_on_disk()?);
    as_ordinary(move || {
        (0..300).try_for_each(in_memory)?;
        (300..305).try_for_each(on_disk)
    })?;
    (305..400).try_for_each(in_memory)?;
    (400..405).try_for_each(on_disk)
}

#[test]
fn what_is_no_folder_goes_and_what_is_not_there_is_gone() -> TestResult {
    let home = place()?;
    fs::write(home.join("file"), "1")?;
    symlink("/nowhere", home.join("dangling"))?;
    symlink(&home, home.join("loop"))?;
    for name in ["file", "dangling", "loop", "missing"] {
        remove(&home.join(name), &to_the_end)?;
        assert!(fs::symlink_metadata(home.join(name)).is_err(), "{name}");
    }
    remove(&home.join("no/such/folder"), &to_the_end)?;
    let folder = fs::File::open(&home)?;
    for name in ["", ".", "..", "a/b"] {
        let refused = remove_at(
            std::os::fd::AsFd::as_fd(&folder),
            name.as_ref(),
            &to_the_end,
        );
        assert!(refused.is_err(), "{name:?}");
    }
    remove(&home, &to_the_end)?;
    assert!(!home.exists());
    Ok(())
}

#[test]
fn a_folder_is_emptied_but_for_what_is_to_stay_and_stays_itself() -> TestResult {
    let home = place()?;
    for folder in ["kept/below", "gone/kept", "also"] {
        fs::create_dir_all(home.join(folder))?;
        fs::write(home.join(folder).join("kept"), "1")?;
    }
    let folder = fs::File::open(&home)?;
    let keep = |name: &std::ffi::OsStr| name == "kept";
    empty_but(std::os::fd::AsFd::as_fd(&folder), &keep, &to_the_end)?;
    assert_eq!(fs::read_dir(&home)?.count(), 1);
    assert!(home.join("kept/below/kept").exists());
    remove(&home, &to_the_end)?;
    Ok(())
}

#[test]
fn every_folder_is_visited_once_and_after_those_in_it() -> TestResult {
    let home = place()?;
    for folder in ["a/b/c", "a/d", "e"] {
        fs::create_dir_all(home.join(folder))?;
    }
    fs::write(home.join("a/file"), "1")?;
    symlink(&home, home.join("a/link"))?;
    let mut seen = Vec::new();
    each_folder(
        std::os::fd::AsFd::as_fd(&fs::File::open(&home)?),
        |folder| {
            seen.push(rustix::fs::fstat(folder)?.st_ino);
            Ok(())
        },
    )?;
    let number = |path: &str| -> std::io::Result<usize> {
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(home.join(path))?);
        Ok(seen.iter().filter(|found| **found == inode).count() * 100
            + seen.iter().position(|found| *found == inode).unwrap_or(99))
    };
    assert_eq!(seen.len(), 6);
    assert!(number("a/b/c")? < number("a/b")? && number("a/b")? < number("a")?);
    assert!(number("a/d")? < number("a")? && number("e")? < number("")?);
    assert_eq!(number("")?, 105, "once, and last");
    remove(&home, &to_the_end)?;
    Ok(())
}
