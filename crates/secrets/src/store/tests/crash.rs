//! Dying at every step of every write.

use super::super::Store;
use super::fixture::{Fixture, NOW, TestResult, When, get, name, set};
use crate::disk::staging_prefix;

/// The steps of a rotation: two replacements of three steps each.
const ROTATION_STEPS: usize = 6;

fn every_fault(steps: usize) -> impl Iterator<Item = (usize, When)> {
    (0..steps).flat_map(|at| [(at, When::Before), (at, When::After)])
}

fn assert_readable(store: &Store, context: &str) -> TestResult {
    for number in 1..=3 {
        let value = get(store, &format!("s{number}"))?;
        assert_eq!(value, format!("canary-{number}"), "{context}");
    }
    Ok(())
}

#[test]
fn a_rotation_that_dies_anywhere_leaves_every_secret_readable_and_goes_on() -> TestResult {
    for (at, when) in every_fault(ROTATION_STEPS) {
        let context = format!("{when:?} step {at}");
        let (fixture, store) = Fixture::new()?;
        for number in 1..=3 {
            set(&store, &format!("s{number}"), &format!("canary-{number}"))?;
        }
        let new = fixture.key.add()?;
        let dying = fixture.open_faulty(at, when)?;
        assert!(dying.rotate(NOW).is_err(), "{context}");
        assert_readable(&dying, &context)?;
        assert_readable(&store, &context)?;
        let after = fixture.open()?;
        assert_readable(&after, &context)?;
        set(&after, "s4", "canary-4")?;
        assert_eq!(after.rotate(NOW)?.current, new, "{context}");
        assert_readable(&after, &context)?;
        assert_eq!(get(&after, "s4")?, "canary-4");
        assert_eq!(after.keys()?, [new], "{context}");
        for former in fixture.key.ids()?.into_iter().skip(1) {
            fixture.key.remove(former)?;
        }
        assert_readable(&fixture.open()?, &context)?;
    }
    Ok(())
}

#[test]
fn the_steps_of_a_rotation_are_all_tried() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    set(&store, "s1", "canary-1")?;
    fixture.key.add()?;
    let last = fixture.open_faulty(ROTATION_STEPS, When::Before)?;
    last.rotate(NOW)?;
    Ok(())
}

#[test]
fn a_set_that_dies_anywhere_is_done_or_not_done() -> TestResult {
    for (at, when) in every_fault(3) {
        let (fixture, store) = Fixture::new()?;
        set(&store, "a", "canary-1")?;
        let dying = fixture.open_faulty(at, when)?;
        assert!(set(&dying, "a", "canary-2").is_err());
        let published = (at, when) >= (1, When::After);
        let expected = if published { "canary-2" } else { "canary-1" };
        for store in [&dying, &store, &fixture.open()?] {
            assert_eq!(get(store, "a")?, expected, "{when:?} step {at}");
        }
        assert_eq!(
            set(&store, "a", "canary-3")?.to_string(),
            if published { "a@3" } else { "a@2" }
        );
    }
    Ok(())
}

#[test]
fn a_removal_that_dies_anywhere_is_done_or_not_done() -> TestResult {
    for (at, when) in every_fault(3) {
        let (fixture, store) = Fixture::new()?;
        set(&store, "a", "canary-1")?;
        let dying = fixture.open_faulty(at, when)?;
        assert!(dying.remove(&name("a")).is_err());
        let gone = (at, when) >= (1, When::After);
        assert_eq!(
            get(&fixture.open()?, "a").is_err(),
            gone,
            "{when:?} step {at}"
        );
    }
    Ok(())
}

#[test]
fn what_a_crash_left_half_written_is_cleared_by_the_next_writer() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    let dying = fixture.open_faulty(0, When::After)?;
    assert!(set(&dying, "a", "canary-1").is_err());
    let prefix = staging_prefix(&fixture.file());
    let leftovers = || -> std::io::Result<usize> {
        let entries = std::fs::read_dir(fixture.folder())?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        let names: Vec<_> = names.collect::<Result<_, _>>()?;
        Ok(names
            .iter()
            .filter(|name| name.to_string_lossy().starts_with(&prefix))
            .count())
    };
    assert_eq!(leftovers()?, 1, "the crash left a file");
    set(&store, "a", "canary-2")?;
    assert_eq!(leftovers()?, 0);
    Ok(())
}
