//! One SQLite file: who may write it, and what it keeps for the ledger.

mod outcomes;
mod sealed;

use std::{fs, path::Path};

use barecount_model::seal::SealKey;
use rusqlite::{Connection, params};

use super::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Seals of a journal, of which so many entries are signed.
pub(super) fn sealing(signed: u64) -> Sealing {
    Sealing::new(SealKey::new([7; 32].into()), signed)
}

pub(super) fn open(folder: &Path) -> Result<Store, OpenError> {
    open_signed(folder, 0)
}

fn open_signed(folder: &Path, signed: u64) -> Result<Store, OpenError> {
    Store::open(FolderLock::take(folder)?, sealing(signed))
}

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
        approvals: Default::default(),
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
    let mut older = open(folder.path())?;
    let of_older = older.position()?;
    // Its lock is gone, as where a file system has none on folders and somebody removes the file.
    let elsewhere = tempfile::tempdir()?;
    older._lock = FolderLock::take(elsewhere.path())?;
    let mut newer = open(folder.path())?;
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
    let mut store = open(folder.path())?;
    let batch = batch_after(store.position()?, 0, &["a"]);
    assert!(matches!(store.append(&batch), Appended::Done));
    assert!(matches!(store.append(&batch), Appended::Fenced));
    assert_eq!(store.next_entry()?, 1);
    Ok(())
}

#[test]
fn the_journal_keeps_what_the_ledger_has_not_taken_over() -> TestResult {
    let folder = tempfile::tempdir()?;
    let facts: [&[&str]; 3] = [&["a\n", "", "ccc"], &["d"], &[]];
    let bytes = |facts: &[&str]| facts.iter().map(|fact| fact.as_bytes().to_vec()).collect();
    let all: [Piece; 2] = [(0, bytes(facts[0])), (3, bytes(facts[1]))];
    let mut store = open(folder.path())?;
    let mut first = 0;
    for facts in facts {
        let batch = batch_after(store.position()?, first, facts);
        assert!(matches!(store.append(&batch), Appended::Done));
        first += facts.len() as u64;
    }
    assert_eq!(queued(&store)?, all);
    store.end(Some(2))?;
    drop(store);
    let mut store = open(folder.path())?;
    assert_eq!(queued(&store)?, all, "a batch is kept for its last entry");
    store.end(Some(3))?;
    drop(store);
    let mut store = open(folder.path())?;
    assert_eq!(queued(&store)?, all[1..]);
    store.end(Some(4))?;
    drop(store);
    let store = open(folder.path())?;
    assert_eq!(queued(&store)?, []);
    assert_eq!(store.next_entry()?, 4);
    assert_eq!(store.position()?.seq, 3);
    Ok(())
}

#[test]
fn records_that_an_older_program_wrote_are_read_and_its_journal_gone_on_with() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut store = open(folder.path())?;
    let batch = batch_after(store.position()?, 0, &["older"]);
    assert!(matches!(store.append(&batch), Appended::Done));
    drop(store);
    // Format 1 kept records as they are.
    let journal = Connection::open(folder.path().join(journal::FILE))?;
    journal.execute(
        "UPDATE journal SET record = ?1 WHERE seq = ?2",
        params![record::encode(&batch, |_| true)?, batch.position.seq],
    )?;
    journal.execute_batch("ALTER TABLE journal DROP COLUMN seal; PRAGMA user_version = 1;")?;
    drop(journal);

    let mut store = open_signed(folder.path(), 1)?;
    let next = batch_after(store.position()?, 1, &["newer"]);
    assert!(matches!(store.append(&next), Appended::Done));
    let all = [(0, vec![b"older".to_vec()]), (1, vec![b"newer".to_vec()])];
    assert_eq!(queued(&store)?, all);
    Ok(())
}

/// What the tables hold, but for who owns them.
fn tables(folder: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let file = Connection::open(folder.join(FILE))?;
    let mut rows = Vec::new();
    for table in ["shard", "ledger_entries"] {
        let mut query = file.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = query.column_count();
        let mut found = query.query([])?;
        while let Some(row) = found.next()? {
            let values = (0..columns).map(|column| row.get_ref(column));
            rows.push(format!(
                "{table} {:?}",
                values.collect::<Result<Vec<_>, _>>()?
            ));
        }
    }
    Ok(rows)
}

#[test]
fn what_an_older_program_queued_is_in_the_journal_from_its_beginning() -> TestResult {
    let folder = tempfile::tempdir()?;
    format::tests::older(
        &folder.path().join(FILE),
        6,
        "UPDATE shard SET epoch = 3, seq = 9;
         INSERT INTO ledger_queue (idx, bytes) VALUES (5, CAST('five' AS BLOB));
         INSERT INTO ledger_queue (idx, bytes, lengths)
             VALUES (6, CAST('sixseven' AS BLOB), x'0300000005000000');
         INSERT INTO ledger_entries (idx, kind, at, leaf_hash) VALUES
             (5, 'build', '', zeroblob(32)), (6, 'build build', '', zeroblob(64));",
    )?;
    let bytes = |facts: &[&str]| facts.iter().map(|fact| fact.as_bytes().to_vec()).collect();
    let older: Piece = (5, bytes(&["five", "six", "seven"]));
    for _ in 0..2 {
        let store = open_signed(folder.path(), 8)?;
        assert_eq!(queued(&store)?, std::slice::from_ref(&older));
        assert_eq!(store.position()?.seq, 9);
    }
    let mut store = open(folder.path())?;
    assert_eq!(store.position()?, Position { epoch: 6, seq: 9 });
    assert_eq!(store.next_entry()?, 8);
    let batch = batch_after(store.position()?, 8, &["eight"]);
    assert!(matches!(store.append(&batch), Appended::Done));
    assert_eq!(queued(&store)?, [older, (8, bytes(&["eight"]))]);
    drop(store);
    assert_eq!(tables(folder.path())?.len(), 4, "nothing is indexed twice");
    Ok(())
}

#[test]
fn a_journal_that_is_older_than_its_tables_is_refused() -> TestResult {
    let folder = tempfile::tempdir()?;
    let mut store = open(folder.path())?;
    let batch = batch_after(store.position()?, 0, &["a"]);
    assert!(matches!(store.append(&batch), Appended::Done));
    drop(store);
    let journal = Connection::open(folder.path().join(journal::FILE))?;
    journal.execute("DELETE FROM journal WHERE seq = 1", [])?;
    drop(journal);
    let refused = open(folder.path()).err().ok_or("it is refused")?;
    let OpenError::Unreadable { source, .. } = refused else {
        return Err(refused.into());
    };
    assert!(matches!(
        *source,
        StoreError::Behind {
            journal: 0,
            tables: 1
        }
    ));
    Ok(())
}

#[test]
fn an_approval_is_found_as_the_last_batch_left_it_and_while_something_can_be_done_to_it()
-> TestResult {
    use barecount_model::{
        approval::{Act, Approval, Asked, Scope, Signed},
        class::{NetworkProfile, RunnerClass, Size},
        digest::Digest,
        id::ApprovalId,
    };
    let signed = |entry| Signed {
        by: "ada".into(),
        at: Timestamp::UNIX_EPOCH,
        reason: "month-end".into(),
        entry,
    };
    let asked = Asked {
        tenant: "demo".into(),
        environment: "local".into(),
        pipeline: "example".into(),
        version: "sha256:aa".into(),
        stage: "only".into(),
        class: RunnerClass::Container,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
        scopes: [Scope::Matrix].into(),
        datasets: Default::default(),
        question: Digest::of(b"the question"),
    };
    let folder = tempfile::tempdir()?;
    let mut store = open(folder.path())?;
    let mut approval = Approval::requested(ApprovalId::from_bytes([7; 16]), asked, signed(0));
    for (number, open) in [(0, 1), (1, 0)] {
        let mut batch = batch_after(store.position()?, number, &["act"]);
        batch.approvals = [(approval.id.clone(), approval.clone())].into();
        assert!(matches!(store.append(&batch), Appended::Done));
        let reader = reader::Reader::open(folder.path())?.ok_or("there is a store")?;
        let of_pipeline = reader.approvals(Some("demo"), Some("example"), None, 10)?;
        assert_eq!(of_pipeline, [approval.clone()]);
        assert_eq!(reader.approvals(Some("other"), None, None, 10)?, []);
        assert_eq!(store.open_approvals()?.len(), open);
        if number == 0 {
            approval.act(Act::Deny, signed(1))?;
        }
    }
    Ok(())
}

#[test]
fn what_pipelines_carry_out_is_told_by_the_latest_version_of_each_whichever_stages_ran()
-> TestResult {
    let folder = tempfile::tempdir()?;
    drop(open(folder.path())?);
    let file = Connection::open(folder.path().join(FILE))?;
    // Runs in their order: of which pipeline and version, what became of each, and who asked.
    let runs = [
        ("report", "1", "succeeded", "ada"),
        ("till", "1", "failed", "bob"),
        ("report", "2", "succeeded", "cleo"),
        ("report", "2", "running", "dana"),
        ("report", "3", "refused", "eve"),
    ];
    for (seq, (pipeline, version, state, requester)) in runs.into_iter().enumerate() {
        let plan = barecount_model::plan::Plan {
            pipeline: pipeline.to_owned(),
            version: version.to_owned(),
            requester: requester.to_owned(),
            ..barecount_model::plan::Plan::clone(crate::tests::plan().plan())
        };
        let body = serde_json::to_string(&plan)?;
        file.execute(
            "INSERT INTO plans VALUES (?1, ?2)",
            params![requester, body],
        )?;
        file.execute(
            "INSERT INTO runs (id, tenant, token, pipeline, state, submitted, plan, body)
             VALUES (?1, 'demo', ?1, ?2, ?3, '', ?4, '{}')",
            params![seq.to_string(), pipeline, state, requester],
        )?;
    }
    let reader = reader::Reader::open(folder.path())?.ok_or("there is a store")?;
    let asked_by = |tenant| -> Result<Vec<String>, StoreError> {
        let plans = reader.latest_plans(tenant)?.into_iter();
        Ok(plans.map(|plan| plan.requester).collect())
    };
    assert_eq!(asked_by("demo")?, ["dana", "cleo", "bob"]);
    assert_eq!(asked_by("other")?, Vec::<String>::new());
    Ok(())
}
