//! However batches are applied, together or one by one, now or by whoever comes later, the tables
//! are the same.

use std::collections::BTreeSet;

use barecount_model::{
    digest::Digest,
    id::RunId,
    run::outcome::{AttemptResult, CommittedDataset, Staged},
    work::Work,
};
use jiff::Timestamp;

use super::*;
use crate::{
    journal::{Batch, Position, Published, Storage},
    shard::{Command, Shard, Verb},
    store::{
        DeadLetter,
        journal::Journal,
        reader::Reader,
        tests::{open, sealing},
    },
    tests::{Random, outcome, plan, submit},
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

const TABLES: [&str; 7] = [
    "plans",
    "runs",
    "tasks",
    "answers",
    "outputs",
    "dead_letters",
    "ledger_entries",
];

/// Everything that the tables say.
fn rows(folder: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let file = Connection::open(folder.join(FILE))?;
    let mut rows = vec![format!("as of {}", applied(&file)?)];
    for table in TABLES {
        let mut query = file.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))?;
        let columns = query.column_count();
        let mut found = query.query([])?;
        while let Some(row) = found.next()? {
            let values = (0..columns).map(|column| row.get_ref(column));
            let values = values.collect::<Result<Vec<_>, _>>()?;
            rows.push(format!("{table} {values:?}"));
        }
    }
    Ok(rows)
}

fn letter(number: u64) -> DeadLetter {
    DeadLetter {
        dataset: (number > 1).then(|| "raw.example".into()),
        reason: format!("reason {number}").into(),
        count: number,
        record: "{}".into(),
        error: "it does not fit".into(),
        schema_hash: None,
        digest: (number > 2).then(|| "sha256:00".to_owned()),
    }
}

fn command(random: &mut Random, next: &mut u64) -> Command {
    let run_of = |number: u64| {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        RunId::from_bytes(bytes)
    };
    if *next == 0 || random.below(6) == 0 {
        *next += 1;
        return submit(&plan(), *next, &format!("token-{next}"));
    }
    let run = run_of(1 + random.below(*next));
    let task = usize::from(random.below(4) == 0);
    let number = 1 + u32::from(random.below(8) == 0);
    let verb = match random.below(4) {
        0 => Verb::Place {
            task,
            work: Some(Box::new(Work {
                key: Digest::of(&random.below(5).to_be_bytes()),
                parts: Default::default(),
                reads: Default::default(),
            })),
        },
        1 => Verb::Started {
            task,
            number,
            runner: "fake".into(),
        },
        2 => Verb::Report {
            task,
            number,
            outcome: outcome(AttemptResult::Done(Staged::default())),
            dead_letters: (0..random.below(4)).map(letter).collect(),
        },
        _ => Verb::Lost { task, number },
    };
    Command::Apply { run, verb }
}

fn published(run: RunId, version: u64) -> Published {
    Published {
        run,
        task: 0,
        outputs: vec![CommittedDataset {
            dataset: "raw.example".into(),
            uri: "file:///of/raw/example".to_owned(),
            version,
            rows: 1,
            bytes: 2,
            digest: "sha256:00".to_owned(),
        }],
    }
}

/// What a shard does with commands that a seed decides.
fn batches(random: &mut Random) -> Vec<Batch> {
    let mut shard = Shard::new(Position { epoch: 1, seq: 0 }, 0, vec![], vec![], 1);
    let mut next = 0;
    let mut batches = Vec::new();
    while batches.len() < 60 {
        let count = 1 + random.below(4);
        let commands = (0..count).map(|_| command(random, &mut next)).collect();
        let mut batch = shard.step(commands, Timestamp::UNIX_EPOCH).batch;
        if random.below(3) == 0
            && let Some(run) = batch.runs.keys().next().cloned()
        {
            batch.outputs.push(published(run, random.below(9)));
        }
        batches.extend(Some(batch).filter(|batch| !batch.is_empty()));
    }
    batches
}

#[test]
fn tables_are_the_same_however_batches_are_put_together() -> TestResult {
    let mut seen = BTreeSet::new();
    for seed in 0..12 {
        let mut random = Random(seed);
        let batches = batches(&mut random);
        let records = batches.iter().map(|batch| record::encode(batch, |_| false));
        let records: Vec<Vec<u8>> = records.collect::<Result<_, _>>()?;
        let mut expected = None;
        for most in [1, 7, records.len() as u64] {
            let folder = tempfile::tempdir()?;
            drop(open(folder.path())?);
            let views = Views::open(folder.path())?;
            let journal = Tail::open(folder.path())?.ok_or("there is a journal")?;
            let mut rest = records.as_slice();
            while !rest.is_empty() {
                let count = match most {
                    7 => 1 + random.below(7) as usize,
                    most => most as usize,
                };
                let (group, after) = rest.split_at(count.min(rest.len()));
                views.apply(group, &journal)?;
                // What is there is not applied again.
                views.apply(group, &journal)?;
                rest = after;
            }
            let found = rows(folder.path())?;
            let expected = expected.get_or_insert_with(|| found.clone());
            assert_eq!(found, *expected, "seed {seed}, at most {most} together");
        }
        let tables = expected
            .iter()
            .flatten()
            .filter_map(|row| row.split(' ').next());
        seen.extend(tables.map(str::to_owned));
    }
    for table in TABLES {
        assert!(seen.contains(table), "{table} had rows");
    }
    Ok(())
}

#[test]
fn what_a_process_left_behind_its_journal_is_there_for_whoever_reads_or_opens_next() -> TestResult {
    let batches = batches(&mut Random(3));
    let (first, rest) = batches.split_at(20);
    let folder = tempfile::tempdir()?;
    let mut store = open(folder.path())?;
    for batch in first {
        store.append(batch);
    }
    drop(store);
    // Appends, and dies before anything of it is applied.
    let dies = |batches: &[Batch]| -> TestResult {
        let mut journal =
            Journal::open(folder.path(), sealing(0), || unreachable!("there is one"))?;
        let epoch = journal.position()?.epoch;
        for batch in batches {
            let position = Position {
                epoch,
                ..batch.position
            };
            let record = record::encode(batch, |_| false)?;
            let place = (position, batch.first_entry, batch.entries.len() as u64);
            let written = journal.write(place, &record)?;
            written.ok_or("it is the next")?.commit()?;
        }
        Ok(())
    };
    let (read, opened) = rest.split_at(20);
    let known = Reader::open(folder.path())?.ok_or("there is a store")?;
    dies(read)?;
    let newest = |reader: &Reader| -> Result<usize, Box<dyn std::error::Error>> {
        Ok(reader.runs(1000)?.len())
    };
    let reader = Reader::open(folder.path())?.ok_or("there is a store")?;
    assert_eq!(newest(&known)?, newest(&reader)?, "also by who had it open");
    assert_eq!(rows(folder.path())?[0], "as of 40");
    dies(opened)?;
    drop(open(folder.path())?);
    let after = rows(folder.path())?;

    let undisturbed = tempfile::tempdir()?;
    let mut store = open(undisturbed.path())?;
    for batch in &batches {
        store.append(batch);
    }
    drop(store);
    assert_eq!(after, rows(undisturbed.path())?);
    Ok(())
}

#[test]
fn where_nothing_can_be_written_what_the_tables_lack_is_added_in_memory() -> TestResult {
    // A name that means something else where it is taken for a URI.
    let place = tempfile::tempdir()?;
    let folder = place.path().join("a%20b?c#d");
    let batches = batches(&mut Random(5));
    let mut store = open(&folder)?;
    for batch in &batches[..20] {
        store.append(batch);
    }
    drop(store);
    let files = || -> Result<Vec<Vec<u8>>, std::io::Error> {
        let name = |file: &str| std::fs::read(folder.join(file));
        [FILE, crate::store::journal::FILE]
            .map(name)
            .into_iter()
            .collect()
    };
    let before = files()?;
    let seen = |views: &Views| applied(views.connection());
    let journal = Tail::open(&folder)?.ok_or("there is a journal")?;
    let views = Views::look(&folder, Some(&journal))?;
    assert_eq!(views.catch_up(&journal)?, seen(&views)?);
    drop((views, journal));

    let mut journal = Journal::open(&folder, sealing(0), || unreachable!("there is one"))?;
    let epoch = journal.position()?.epoch;
    for batch in &batches[20..30] {
        let position = Position {
            epoch,
            ..batch.position
        };
        let record = record::encode(batch, |_| false)?;
        let place = (position, batch.first_entry, batch.entries.len() as u64);
        let written = journal.write(place, &record)?;
        written.ok_or("it is the next")?.commit()?;
    }
    let tail = Tail::open(&folder)?.ok_or("there is a journal")?;
    let views = Views::look(&folder, Some(&tail))?;
    assert_eq!(views.catch_up(&tail)?, seen(&views)?);
    assert!(seen(&views)? > applied(&Connection::open(folder.join(FILE))?)?);
    assert_eq!(files()?[0], before[0], "the tables' file is as it was");
    Ok(())
}
