//! Depth, width, descriptors, stack and time.

use std::{
    cell::Cell,
    fs,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::fs::Mode;

use super::{TestResult, as_ordinary, chain, in_own_process, place};
use crate::{RemoveError, each_folder, remove, to_the_end};

const DEPTH: usize = 30_000;

#[test]
fn nesting_costs_neither_descriptors_nor_stack() -> TestResult {
    in_own_process("ulimit -n 20; exec", "limits::thirty_thousand_deep")?;
    in_own_process(
        "ulimit -n 20; exec",
        "limits::thirty_thousand_deep_and_frozen",
    )
}

/// With few descriptors, and little stack.
#[test]
#[ignore = "run by `nesting_costs_neither_descriptors_nor_stack` in a process of its own"]
fn thirty_thousand_deep() -> TestResult {
    as_ordinary(|| {
        let home = place()?;
        // The longest names there are, and none that a mode would not forbid.
        chain(&home, DEPTH, &"n".repeat(255), 0)?;
        remove(&home, &to_the_end)?;
        assert!(fs::symlink_metadata(&home).is_err());
        Ok(())
    })
}

#[test]
#[ignore = "run by `nesting_costs_neither_descriptors_nor_stack` in a process of its own"]
fn thirty_thousand_deep_and_frozen() -> TestResult {
    as_ordinary(|| {
        let home = place()?;
        chain(&home, DEPTH, "n", 0o700)?;
        let mut folders = 0;
        each_folder(fs::File::open(&home)?.as_fd(), |folder| {
            folders += 1;
            rustix::fs::fchmod(folder, Mode::from_raw_mode(0o555))
        })?;
        assert_eq!(folders, DEPTH + 1);
        remove(&home, &to_the_end)?;
        assert!(fs::symlink_metadata(&home).is_err());
        Ok(())
    })
}

#[test]
fn a_hundred_thousand_entries_of_one_folder_go_each_with_something_in_it_or_not() -> TestResult {
    let home = place()?;
    for number in 0..100_000 {
        let path = home.join(number.to_string());
        match number % 10 {
            0 => {
                fs::create_dir(&path)?;
                fs::write(path.join("row"), "")?;
            }
            1 => fs::create_dir(&path)?,
            _ => fs::write(path, "")?,
        }
    }
    let begun = Instant::now();
    remove(&home, &to_the_end)?;
    assert!(!home.exists());
    // Seconds where each entry costs the same, hours where it costs a look at all the others.
    assert!(
        begun.elapsed() < Duration::from_secs(120),
        "{:?}",
        begun.elapsed()
    );
    Ok(())
}

#[test]
fn who_says_stop_is_heard_soon_and_another_time_goes_on() -> TestResult {
    let home = place()?;
    for number in 0..2_000 {
        fs::write(home.join(number.to_string()), "")?;
    }
    chain(&home, 2_000, "n", 0o700)?;
    let asked = Cell::new(0);
    let soon = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    assert!(matches!(remove(&home, &soon), Err(RemoveError::Stopped)));
    assert_eq!(asked.get(), 3);
    assert!(home.exists());
    remove(&home, &to_the_end)?;
    assert!(!home.exists());
    Ok(())
}
