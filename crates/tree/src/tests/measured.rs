//! What is found in trees that somebody fills, deepens, closes and moves about.

use std::{
    fs::{self, File},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{TestResult, as_ordinary, chain, chmod, in_own_process, place, place_on_disk};
use crate::{Amount, Linked, Measured, measure, remove, to_the_end};

fn all(path: &Path) -> std::io::Result<Measured> {
    measure(path, Linked::Counted, Amount::ENDLESS)
}

#[test]
fn what_is_not_there_has_nothing_and_a_link_is_no_folder() -> TestResult {
    let home = place()?;
    let nothing = all(&home.join("gone"))?;
    assert!(nothing.whole && nothing.amount == Amount::default());
    std::os::unix::fs::symlink("/", home.join("all"))?;
    assert!(all(&home.join("all")).is_err());
    // Nor is it followed where it lies in the tree.
    assert_eq!(all(&home)?.amount.files, 1);
    Ok(remove(&home, &to_the_end)?)
}

#[test]
fn what_takes_room_counts_and_a_hole_takes_none() -> TestResult {
    let home = place_on_disk()?;
    fs::write(home.join("full"), vec![7; 1 << 20])?;
    File::create(home.join("hole"))?.set_len(1 << 40)?;
    File::open(home.join("full"))?.sync_all()?;
    let found = all(&home)?;
    assert!(found.whole);
    assert_eq!(found.amount.files, 2);
    let mebibyte = 1 << 20;
    assert!(
        (mebibyte..2 * mebibyte).contains(&found.amount.bytes),
        "{found:?}"
    );
    Ok(remove(&home, &to_the_end)?)
}

#[test]
fn a_file_of_two_names_counts_by_each_or_not_at_all() -> TestResult {
    let home = place()?;
    fs::create_dir(home.join("one"))?;
    fs::write(home.join("one/rows"), vec![7; 1 << 16])?;
    fs::hard_link(home.join("one/rows"), home.join("other"))?;
    assert_eq!(all(&home)?.amount.files, 3);
    assert!(all(&home)?.amount.bytes >= 2 << 16);
    let left_out = measure(&home, Linked::LeftOut, Amount::ENDLESS)?;
    assert_eq!(left_out.amount.files, 1);
    Ok(remove(&home, &to_the_end)?)
}

#[test]
fn nobody_looks_further_than_what_is_asked_for() -> TestResult {
    let home = place()?;
    for number in 0..1_000 {
        fs::create_dir(home.join(number.to_string()))?;
        fs::write(home.join(number.to_string()).join("row"), "1")?;
    }
    assert_eq!(all(&home)?.amount.files, 2_000);
    let most = Amount {
        files: 10,
        ..Amount::ENDLESS
    };
    assert_eq!(measure(&home, Linked::Counted, most)?.amount.files, 11);
    Ok(remove(&home, &to_the_end)?)
}

#[test]
fn a_deep_tree_is_measured_with_few_descriptors_and_little_stack() -> TestResult {
    in_own_process("ulimit -n 20; exec", "measured::thirty_thousand_deep")
}

#[test]
#[ignore = "run by `a_deep_tree_is_measured_with_few_descriptors_and_little_stack`"]
fn thirty_thousand_deep() -> TestResult {
    let home = place()?;
    chain(&home, 30_000, "n", 0o700)?;
    assert_eq!(all(&home)?.amount.files, 30_000);
    Ok(remove(&home, &to_the_end)?)
}

#[test]
fn where_a_folder_is_closed_to_us_it_is_said_that_not_all_was_seen() -> TestResult {
    as_ordinary(|| {
        let home = place()?;
        fs::create_dir_all(home.join("closed/below"))?;
        chmod(&home.join("closed"), 0)?;
        assert!(!all(&home)?.whole);
        assert!(!all(&home.join("closed"))?.whole, "nor is it nothing");
        chmod(&home.join("closed"), 0o700)?;
        assert!(all(&home)?.whole);
        Ok(remove(&home, &to_the_end)?)
    })
}

#[test]
fn what_is_moved_about_meanwhile_is_measured_all_the_same() -> TestResult {
    let home = place()?;
    let (here, there) = (home.join("here"), home.join("there"));
    for folder in [&here, &there] {
        fs::create_dir(folder)?;
    }
    chain(&here, 50, "n", 0o700)?;
    let over = Arc::new(AtomicBool::new(false));
    let (ended, moved) = (Arc::clone(&over), (here.join("n/n"), there.join("n")));
    let mover = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            let there = fs::rename(&moved.0, &moved.1);
            let back = fs::rename(&moved.1, &moved.0);
            there.and(back)?;
        }
        std::io::Result::Ok(())
    });
    let mut complete = 0;
    for _ in 0..500 {
        // Both ends of the way are in the tree: at most what moves is seen twice, or not at all.
        let found = all(&home)?;
        assert!(found.amount.files <= 2 + 2 * 50, "{found:?}");
        complete += u32::from(found.whole);
    }
    over.store(true, Ordering::Relaxed);
    mover.join().map_err(|_| "the mover panicked")??;
    assert_eq!(all(&home)?.amount.files, 52);
    assert!(
        complete > 0,
        "a tree that changes can be measured all the same"
    );
    Ok(remove(&home, &to_the_end)?)
}
