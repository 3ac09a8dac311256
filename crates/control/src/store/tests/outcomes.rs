//! What comes of an append on real files: `Done`, `Failed`, `Unknown` whether or not it persisted,
//! `Fenced`; and what a loss of power leaves of the last one.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use barecount_model::run::RunState;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::{
    CommandError, Update,
    clock::SystemClock,
    identity::Issuer,
    tests::{plan, submit},
    writer::{Answer, Listeners, Writer},
};

/// Lets the journal grow by so many pages at most; the file cannot be larger than that.
fn room_for(store: &Store, pages: u64) -> rusqlite::Result<()> {
    let journal = store.journal.connection();
    let now: u64 = journal.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let most = format!("PRAGMA max_page_count = {}", now + pages);
    journal.query_row(&most, [], |row| row.get::<_, u64>(0))?;
    Ok(())
}

/// Has every commit of the journal fail when all of it is written: what the trigger adds is looked
/// at last, and is not allowed.
fn refuse_commits(store: &Store) -> rusqlite::Result<()> {
    store.journal.connection().execute_batch(
        "PRAGMA foreign_keys = ON;
         CREATE TABLE there (id INTEGER PRIMARY KEY);
         CREATE TABLE wanted (id INTEGER REFERENCES there(id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER refuse AFTER INSERT ON journal BEGIN INSERT INTO wanted VALUES (1); END;",
    )
}

fn allow_commits(store: &Store) -> rusqlite::Result<()> {
    let journal = store.journal.connection();
    journal.execute_batch("DROP TRIGGER refuse; DROP TABLE wanted; DROP TABLE there;")
}

#[test]
fn a_batch_for_which_there_is_no_room_has_not_happened_and_may_once_there_is() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut store = open(folder.path())?;
    let before = store.position()?;
    // Nothing in it repeats, so that packing makes it no smaller.
    let parts = (0..1_u64 << 14).map(|part| hex::encode(Sha256::digest(part.to_le_bytes())));
    let large: String = parts.collect();
    let batch = batch_after(before, 0, &[&large]);
    room_for(&store, 8)?;
    let appended = store.append(&batch);
    assert!(matches!(appended, Appended::Failed(_)), "{appended:?}");
    assert_eq!(store.position()?, before);
    assert_eq!(queued(&store)?, []);
    let small = batch_after(before, 0, &["small"]);
    assert!(matches!(store.append(&small), Appended::Done));
    room_for(&store, 1 << 20)?;
    let batch = batch_after(store.position()?, 1, &[&large]);
    assert!(matches!(store.append(&batch), Appended::Done));
    assert_eq!(store.next_entry()?, 2);
    Ok(())
}

#[test]
fn of_a_batch_whose_commit_fails_nobody_knows_until_the_journal_is_asked() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut store = open(folder.path())?;
    let before = store.position()?;
    refuse_commits(&store)?;
    let batch = batch_after(before, 0, &["a"]);
    let appended = store.append(&batch);
    assert!(matches!(appended, Appended::Unknown(_)), "{appended:?}");
    assert_eq!(store.position()?, before, "it is not there");
    assert_eq!(queued(&store)?, []);
    allow_commits(&store)?;
    assert!(matches!(store.append(&batch), Appended::Done));
    assert_eq!(queued(&store)?, [(0, vec![b"a".to_vec()])]);
    Ok(())
}

/// A store whose answers get lost: what it wrote is there.
struct Silent {
    store: Store,
    /// So many appends are not answered.
    appends: u32,
    /// So many questions after those are not answered.
    questions: Arc<AtomicU32>,
}

impl Silent {
    fn asked(&self) -> Result<(), StoreError> {
        match self.questions.load(Ordering::Relaxed) {
            0 => Ok(()),
            left => {
                self.questions.store(left - 1, Ordering::Relaxed);
                Err(lost())
            }
        }
    }
}

fn lost() -> StoreError {
    failed("answer")(rusqlite::Error::InvalidQuery)
}

impl Storage for Silent {
    fn append(&mut self, batch: &Batch) -> Appended {
        match (self.store.append(batch), self.appends) {
            (appended, 0) => appended,
            (_, left) => {
                self.appends = left - 1;
                Appended::Unknown(lost())
            }
        }
    }

    fn position(&self) -> Result<Position, StoreError> {
        self.asked()?;
        self.store.position()
    }

    fn next_entry(&self) -> Result<u64, StoreError> {
        self.store.next_entry()
    }

    fn seen(&self) -> u64 {
        self.store.seen()
    }

    fn open_runs(&self) -> Result<Vec<Stored>, StoreError> {
        self.asked()?;
        self.store.open_runs()
    }

    fn run(&self, id: &RunId) -> Result<Option<Stored>, StoreError> {
        self.store.run(id)
    }

    fn run_by_token(&self, tenant: &str, token: &str) -> Result<Option<Stored>, StoreError> {
        self.store.run_by_token(tenant, token)
    }

    fn open_approvals(&self) -> Result<Vec<Approval>, StoreError> {
        self.store.open_approvals()
    }

    fn queued_entries(&self) -> Result<Vec<Entries>, StoreError> {
        self.store.queued_entries()
    }

    fn end(&mut self, integrated: Option<u64>) -> Result<(), StoreError> {
        self.store.end(integrated)
    }
}

/// A writer over real files, and who listens to it.
struct Owner {
    writer: Writer,
    updates: mpsc::UnboundedReceiver<Update>,
    entries: mpsc::UnboundedReceiver<Entries>,
}

impl Owner {
    fn of(storage: Box<dyn Storage>) -> Result<Self, StoreError> {
        let (updates_in, updates) = mpsc::unbounded_channel();
        let (entries_in, entries) = mpsc::unbounded_channel();
        let listeners = Listeners {
            updates: updates_in,
            entries: entries_in,
        };
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let issuer = Arc::new(Issuer::with(key));
        let clock = Arc::new(SystemClock);
        let (writer, _) = Writer::new(storage, clock, issuer, listeners, 1)?;
        Ok(Self {
            writer,
            updates,
            entries,
        })
    }

    fn submit(&mut self, id: u64, token: &str) -> Answer {
        let (reply, mut answer) = oneshot::channel();
        let command = submit(&plan(), id, token);
        self.writer.commit(vec![(vec![command], reply)]);
        let answer = answer.try_recv().ok().and_then(|mut answers| answers.pop());
        answer.unwrap_or(Err(CommandError::Closed))
    }

    /// The indices of entries that the ledger heard of.
    fn heard(&mut self) -> Vec<u64> {
        let told = std::iter::from_fn(|| self.entries.try_recv().ok());
        told.flat_map(|told| told.first..told.first + told.bytes.len() as u64)
            .collect()
    }
}

#[test]
fn a_batch_that_is_in_the_file_after_all_is_answered_and_announced() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut owner = Owner::of(Box::new(Silent {
        store: open(folder.path())?,
        appends: 1,
        questions: Arc::default(),
    }))?;
    let update = owner.submit(1, "one")?.ok_or("it is answered")?;
    assert_eq!(update.run.state, RunState::Waiting);
    assert_eq!(owner.updates.try_recv()?.run.id, update.run.id);
    assert_eq!(owner.heard(), [0]);
    let again = owner.submit(2, "one")?.ok_or("it is answered")?;
    assert_eq!(again.run.id, update.run.id, "the token has one run");
    Ok(())
}

#[test]
fn what_the_file_holds_is_announced_once_it_can_be_read() -> TestResult {
    let folder = tempfile::tempdir()?;
    let questions = Arc::new(AtomicU32::new(0));
    let mut owner = Owner::of(Box::new(Silent {
        store: open(folder.path())?,
        appends: 1,
        questions: Arc::clone(&questions),
    }))?;
    questions.store(1, Ordering::Relaxed);
    let answer = owner.submit(1, "one");
    assert!(
        matches!(answer, Err(CommandError::Unknown(_))),
        "{answer:?}"
    );
    assert!(owner.updates.try_recv().is_err(), "nothing is told yet");
    let update = owner.submit(2, "one")?.ok_or("it is answered")?;
    let first = owner.updates.try_recv()?;
    assert_eq!(first.run.id, update.run.id, "the token is the first run's");
    assert_eq!(owner.heard(), [0]);
    Ok(())
}

#[test]
fn a_batch_that_was_not_written_leaves_the_writer_as_it_was() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = open(folder.path())?;
    refuse_commits(&store)?;
    let mut owner = Owner::of(Box::new(store))?;
    let refused = owner.submit(1, "one");
    assert!(
        matches!(refused, Err(CommandError::Store(_))),
        "{refused:?}"
    );
    assert!(owner.updates.try_recv().is_err(), "nobody hears of it");
    assert_eq!(owner.heard(), [0; 0]);
    drop(owner);
    let store = open(folder.path())?;
    allow_commits(&store)?;
    assert!(store.open_runs()?.is_empty());
    let mut owner = Owner::of(Box::new(store))?;
    owner.submit(2, "one")?.ok_or("it is answered")?;
    assert_eq!(owner.heard(), [0], "there is no gap");
    Ok(())
}

#[test]
fn a_journal_whose_end_was_torn_off_holds_whole_batches_and_none_is_missing_between() -> TestResult
{
    let folder = tempfile::tempdir()?;
    let mut store = open(folder.path())?;
    let empty = tempfile::tempdir()?;
    copy(folder.path(), empty.path())?;
    let facts = ["first", "second", "third", "fourth"];
    for (first, fact) in (0..).zip(facts) {
        let batch = batch_after(store.position()?, first, &[fact]);
        assert!(matches!(store.append(&batch), Appended::Done));
    }
    // As they are while the process lives: the log of the journal has all of it.
    let log = fs::read(folder.path().join("journal.sqlite-wal"))?;
    let mut seen = std::collections::BTreeSet::new();
    let step = (log.len() / 60).max(1);
    for length in (0..log.len()).step_by(step).chain([log.len()]) {
        let torn = tempfile::tempdir()?;
        copy(empty.path(), torn.path())?;
        fs::write(torn.path().join("journal.sqlite-wal"), &log[..length])?;
        // The index of the log is made anew after a loss of power.
        match fs::remove_file(torn.path().join("journal.sqlite-shm")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
        let mut found = open(torn.path())?;
        let there = usize::try_from(found.position()?.seq)?;
        let entries: Vec<Vec<u8>> = queued(&found)?.into_iter().flat_map(|(_, of)| of).collect();
        let expected = facts[..there].iter().map(|fact| fact.as_bytes().to_vec());
        assert_eq!(entries, expected.collect::<Vec<_>>(), "{length} bytes");
        let next = batch_after(found.position()?, there as u64, &["next"]);
        assert!(matches!(found.append(&next), Appended::Done));
        seen.insert(there);
    }
    assert_eq!(seen, (0..=facts.len()).collect(), "each was the last once");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != "lock" {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
