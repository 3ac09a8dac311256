//! One SQLite file: who may write it, and what it keeps for the ledger.

use std::fs;

use barecount_model::evidence::EvidenceKind;
use jiff::Timestamp;

use super::*;
use crate::journal::Entry;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// The batch after `position`, with these facts for the ledger.
fn batch_after(position: Position, first_entry: u64, facts: &[&str]) -> Batch {
    let entry = |fact: &&str| Entry {
        kind: EvidenceKind::Build,
        run: None,
        bytes: fact.as_bytes().to_vec(),
    };
    Batch {
        position: position.next(),
        at: Timestamp::UNIX_EPOCH,
        runs: Default::default(),
        first_entry,
        entries: facts.iter().map(entry).collect(),
        outputs: vec![],
        dead_letters: vec![],
        integrated: None,
    }
}

/// The first entry's index, and the entries.
type Piece = (u64, Vec<Vec<u8>>);

fn queued(store: &Store) -> Result<Vec<Piece>, StoreError> {
    let queued = store.queued_entries()?.into_iter();
    Ok(queued.map(|piece| (piece.first, piece.bytes)).collect())
}

#[test]
fn who_opened_the_file_first_writes_nothing_once_another_has_taken_it_over() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut older = Store::open(folder.path())?;
    let of_older = older.position()?;
    // The lock is a file like any other, and can be removed.
    fs::remove_file(folder.path().join("lock"))?;
    let mut newer = Store::open(folder.path())?;
    let of_newer = newer.position()?;
    assert_eq!(of_newer.epoch, of_older.epoch + 1);

    let late = batch_after(of_older, 0, &["late"]);
    assert!(matches!(older.append(&late), Appended::Fenced));
    let next = batch_after(of_newer, 0, &["next"]);
    assert!(matches!(newer.append(&next), Appended::Done));
    // Not with the right number either: the epoch is another's.
    let seq = newer.position()?.seq;
    let late = batch_after(Position { seq, ..of_older }, 1, &["later"]);
    assert!(matches!(older.append(&late), Appended::Fenced));
    assert_eq!(queued(&newer)?, [(0, vec![b"next".to_vec()])]);
    assert_eq!(newer.next_entry()?, 1);
    assert!(matches!(
        newer.append(&batch_after(newer.position()?, 1, &["more"])),
        Appended::Done
    ));
    Ok(())
}

#[test]
fn a_batch_is_written_once() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut store = Store::open(folder.path())?;
    let batch = batch_after(store.position()?, 0, &["a"]);
    assert!(matches!(store.append(&batch), Appended::Done));
    assert!(matches!(store.append(&batch), Appended::Fenced));
    assert_eq!(store.next_entry()?, 1);
    Ok(())
}

#[test]
fn entries_stay_queued_until_all_that_were_queued_with_them_are_under_a_checkpoint() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut store = Store::open(folder.path())?;
    let facts: [&[&str]; 2] = [&["a\n", "", "ccc"], &["d"]];
    let mut first = 0;
    for facts in facts {
        let batch = batch_after(store.position()?, first, facts);
        assert!(matches!(store.append(&batch), Appended::Done));
        first += facts.len() as u64;
    }
    let bytes = |facts: &[&str]| facts.iter().map(|fact| fact.as_bytes().to_vec()).collect();
    let all: [Piece; 2] = [(0, bytes(facts[0])), (3, bytes(facts[1]))];
    assert_eq!(queued(&store)?, all);
    store.trim(2)?;
    assert_eq!(queued(&store)?, all);
    store.trim(3)?;
    assert_eq!(queued(&store)?, all[1..]);
    store.trim(4)?;
    assert_eq!(queued(&store)?, []);
    assert_eq!(store.next_entry()?, 4);
    Ok(())
}

#[test]
fn what_an_older_program_queued_entry_by_entry_is_read_and_trimmed_as_it_was() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut store = Store::open(folder.path())?;
    store.connection.execute_batch(
        "INSERT INTO ledger_queue (idx, bytes) VALUES (5, CAST('five' AS BLOB)), (6, CAST('six' AS BLOB));
         INSERT INTO ledger_entries (idx, kind, at, leaf_hash) VALUES
             (5, 'build', '', zeroblob(32)), (6, 'build', '', zeroblob(32));",
    )?;
    let (five, six) = ((5, vec![b"five".to_vec()]), (6, vec![b"six".to_vec()]));
    assert_eq!(store.next_entry()?, 7);
    let batch = batch_after(store.position()?, 7, &["seven"]);
    assert!(matches!(store.append(&batch), Appended::Done));
    let seven = (7, vec![b"seven".to_vec()]);
    assert_eq!(queued(&store)?, [five, six.clone(), seven.clone()]);
    store.trim(6)?;
    assert_eq!(queued(&store)?, [six, seven]);
    Ok(())
}
