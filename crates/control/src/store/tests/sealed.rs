//! What somebody else puts into a journal is not taken for this program's.

use super::*;

/// A folder whose journal has a batch that is not signed yet, as a process leaves it that is killed.
fn killed() -> Result<tempfile::TempDir, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let mut store = open(folder.path())?;
    for (first, fact) in [(0, "a"), (1, "b")] {
        let batch = batch_after(store.position()?, first, &[fact]);
        assert!(matches!(store.append(&batch), Appended::Done));
    }
    Ok(folder)
}

fn journal(folder: &Path) -> rusqlite::Result<Connection> {
    Connection::open(folder.join(journal::FILE))
}

/// A batch that adds a fact, as another program would write its record.
fn forged(seq: u64) -> Result<Vec<u8>, StoreError> {
    let position = Position {
        epoch: 1,
        seq: seq - 1,
    };
    record::encode(&batch_after(position, seq - 1, &["forged"]), |_| true)
}

/// What opening a folder refuses with.
fn refused(folder: &Path, signed: u64) -> Result<StoreError, Box<dyn std::error::Error>> {
    match open_signed(folder, signed) {
        Err(OpenError::Unreadable { source, .. }) => Ok(*source),
        Err(error) => Err(error.into()),
        Ok(_) => Err("it was opened".into()),
    }
}

#[test]
fn a_batch_that_somebody_else_wrote_or_changed_is_refused_and_nothing_done() -> TestResult {
    let insert = "INSERT INTO journal (seq, epoch, first_entry, entries, record, seal)";
    let changes = [
        format!("{insert} VALUES (3, 1, 2, 1, ?1, NULL)"),
        format!("{insert} VALUES (3, 1, 2, 1, ?1, zeroblob(32))"),
        format!("{insert} SELECT 3, 1, 2, 1, ?1, seal FROM journal WHERE seq = 2"),
        // A batch of this program's, once more.
        format!(
            "{insert} SELECT 3, epoch, 2, 1, record, seal FROM journal WHERE seq = 2 AND ?1 > ''"
        ),
        "UPDATE journal SET record = ?1 WHERE seq = 2".to_owned(),
        "UPDATE journal SET first_entry = 0, record = ?1 WHERE seq = 2".to_owned(),
        "UPDATE journal SET entries = 0 WHERE seq = 2 AND ?1 > ''".to_owned(),
        "UPDATE journal SET epoch = 9 WHERE seq = 2 AND ?1 > ''".to_owned(),
        "UPDATE journal SET seal = 'text' WHERE seq = 2 AND ?1 > ''".to_owned(),
    ];
    for change in changes {
        let folder = killed()?;
        let file = journal(folder.path())?;
        assert_eq!(file.execute(&change, params![forged(3)?])?, 1, "{change}");
        let owner = |file: &Connection| -> rusqlite::Result<u64> {
            file.query_row("SELECT epoch FROM owner", [], |row| row.get(0))
        };
        let before = owner(&file)?;
        // However much is signed: what was signed has its seal as well.
        for signed in [0, 9] {
            let refused = refused(folder.path(), signed)?;
            assert!(matches!(refused, StoreError::Foreign { .. }), "{change}");
        }
        assert_eq!(owner(&file)?, before, "{change}");
    }
    Ok(())
}

#[test]
fn another_key_seals_otherwise() -> TestResult {
    let folder = killed()?;
    let lock = FolderLock::take(folder.path())?;
    let other = Store::open(lock, Sealing::new(SealKey::new([8; 32].into()), 0));
    let Err(OpenError::Unreadable { source, .. }) = other else {
        return Err("it was opened".into());
    };
    assert!(matches!(*source, StoreError::Foreign { batch: 0 }));
    open(folder.path())?;
    Ok(())
}

#[test]
fn who_says_that_an_older_program_wrote_it_gets_nothing_signed() -> TestResult {
    // As a journal without seals.
    let folder = killed()?;
    journal(folder.path())?
        .execute_batch("ALTER TABLE journal DROP COLUMN seal; PRAGMA user_version = 2;")?;
    let found = refused(folder.path(), 1)?;
    assert!(
        matches!(found, StoreError::Unsigned { entries: 1 }),
        "{found}"
    );
    // Where all is signed, the ledger knows each entry.
    assert_eq!(open_signed(folder.path(), 2)?.next_entry()?, 2);
    assert_eq!(open(folder.path())?.next_entry()?, 2, "it has seals now");

    // As tables from before there was a journal.
    let folder = killed()?;
    fs::remove_file(folder.path().join(journal::FILE))?;
    let tables = Connection::open(folder.path().join(FILE))?;
    tables.execute_batch(
        "INSERT INTO ledger_queue (idx, bytes) VALUES (2, CAST('forged' AS BLOB));
         INSERT INTO ledger_entries (idx, kind, at, leaf_hash) VALUES (2, 'build', '', zeroblob(32));",
    )?;
    drop(tables);
    let found = refused(folder.path(), 2)?;
    assert!(
        matches!(found, StoreError::Unsigned { entries: 1 }),
        "{found}"
    );
    Ok(())
}
