mod altered;
mod evolution;
mod forged;
mod places;
mod round_trip;
mod versions;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use barecount_model::seal::SealKey;

use super::*;
use crate::decision::{AppTransaction, PartitionValues};
use crate::disk::LocalDisk;
use crate::evolution::SchemaEvolution;
use crate::name::Tenant;
use crate::read::{DataFiles, InputFormat};
use crate::schema::{Column, ColumnType, TableSchema};
use crate::stage::{Limits, OutputFormat, OutputSpec, Staged, stage_output};
use crate::table::{Standing, StateTables};

type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn schema() -> TestResult<TableSchema> {
    Ok(TableSchema::new(
        vec![
            Column::required("year", ColumnType::Int64),
            Column::required(
                "rate",
                ColumnType::Decimal {
                    precision: 18,
                    scale: 6,
                },
            ),
        ],
        vec!["year".to_owned()],
    )?)
}

/// Stages CSV text under `staging/<attempt>` of a state folder.
fn staged(state: &Path, attempt: &str, schema: &TableSchema, csv: &str) -> TestResult<Staged> {
    let written = state.join(format!("attempts/{attempt}/gdp.rates"));
    fs::create_dir_all(&written)?;
    fs::write(written.join("rates.csv"), csv)?;
    fs::create_dir_all(state.join("staging"))?;
    let spec = OutputSpec {
        format: OutputFormat::Csv,
        schema: schema.clone(),
        only_partition: PartitionValues::new(),
        limits: Limits::default(),
    };
    Ok(stage_output(
        &written,
        &state.join("staging").join(attempt),
        &spec,
        &(),
    )?)
}

fn decision(
    attempt: &str,
    schema: &TableSchema,
    staged: &Staged,
    mode: WriteMode,
) -> TestResult<Decision> {
    let dataset = DatasetCommit {
        table: "gdp.rates".parse()?,
        mode,
        replace_partition: PartitionValues::new(),
        schema: schema.clone(),
        schema_evolution: SchemaEvolution::default(),
        staging: Path::new("staging").join(attempt),
        files: staged.files.clone(),
        transaction: AppTransaction {
            app_id: format!("{attempt}/stage//gdp.rates"),
            version: 1,
        },
    };
    Ok(Decision {
        decided_at_ms: 1_700_000_000_000,
        datasets: vec![dataset],
    })
}

fn acme() -> Tenant {
    "acme".parse().expect("the test names a tenant")
}

/// The tables of who has the key of their seals.
fn tables_in(state: &Path) -> Tables {
    let key = SealKey::new([7; 32].into());
    StateTables::new(state.to_owned()).sealed(key).of(&acme())
}

fn is_sealed(snapshot: &Snapshot) -> bool {
    let mut files = snapshot.files.iter();
    files.all(|file| file.standing == Standing::Sealed)
}

fn csv_of(tables: &Tables, snapshot: &Snapshot) -> TestResult<String> {
    let into = tables.state().join(format!("out-{}", snapshot.version));
    let _ = fs::remove_dir_all(&into);
    snapshot.materialize(InputFormat::Csv, DataFiles::Linked, &into, &[])?;
    Ok(fs::read_to_string(into.join("rates.csv"))?)
}

#[tokio::test]
async fn a_decision_rolled_forward_twice_commits_once() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = tables_in(state.path());
    let schema = schema()?;
    let staged = staged(
        state.path(),
        "a1",
        &schema,
        "year,rate\n2024,1.5\n2023,1.25\n2024,2\n",
    )?;
    let decision = decision("a1", &schema, &staged, WriteMode::Overwrite)?;

    assert_eq!(tables.standing(&decision).await?, []);
    let first = tables.roll_forward(&decision).await?;
    assert_eq!(tables.standing(&decision).await?, first);
    assert_eq!(first[0].digest, staged.content_digest);
    assert_eq!((first[0].version, first[0].rows), (0, 3));
    // Staging may be swept as soon as the commit was reported.
    fs::remove_dir_all(state.path().join("staging"))?;
    assert_eq!(tables.roll_forward(&decision).await?, first);

    let snapshot = tables.snapshot(&"gdp.rates".parse()?, None).await?;
    assert_eq!(snapshot.version, 0);
    assert_eq!(
        csv_of(&tables, &snapshot)?,
        "year,rate\n2023,1.250000\n2024,1.500000\n2024,2.000000\n"
    );
    assert_eq!(snapshot.digest()?, (3, staged.content_digest));
    Ok(())
}

#[tokio::test]
async fn an_earlier_decision_is_found_behind_later_ones() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = tables_in(state.path());
    let schema = schema()?;
    let mut decisions = Vec::new();
    for attempt in ["a1", "a2", "a3"] {
        let staged = staged(state.path(), attempt, &schema, "year,rate\n2024,1\n")?;
        decisions.push(decision(attempt, &schema, &staged, WriteMode::Append)?);
    }
    let mut committed = Vec::new();
    for decision in &decisions {
        committed.extend(tables.roll_forward(decision).await?);
    }
    let (first, last) = (&committed[0], &committed[2]);
    assert_eq!((first.rows, last.rows), (1, 3));
    assert_eq!(first.written_digest, last.written_digest);
    assert_ne!(first.digest, last.digest);
    assert_eq!(tables.roll_forward(&decisions[0]).await?, committed[..1]);
    assert_eq!(
        tables.snapshot(&"gdp.rates".parse()?, None).await?.version,
        2
    );
    assert_eq!(
        tables
            .snapshot(&"gdp.rates".parse()?, Some(0))
            .await?
            .files
            .len(),
        1
    );

    let mut older = decisions[1].clone();
    older.datasets[0].transaction.version = 0;
    let refused = tables.roll_forward(&older).await;
    assert!(matches!(
        refused,
        Err(CommitError::Superseded {
            present: 1,
            version: 0,
            ..
        })
    ));
    Ok(())
}

#[tokio::test]
async fn replacing_a_partition_leaves_the_others_and_the_digest_is_of_all() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = tables_in(state.path());
    let schema = schema()?;
    let whole = staged(
        state.path(),
        "a1",
        &schema,
        "year,rate\n2023,1\n2024,2\n2024,3\n",
    )?;
    tables
        .roll_forward(&decision("a1", &schema, &whole, WriteMode::Overwrite)?)
        .await?;

    let part = staged(state.path(), "a2", &schema, "year,rate\n2024,9\n")?;
    let mut replace = decision("a2", &schema, &part, WriteMode::Overwrite)?;
    replace.datasets[0].replace_partition = [("year".to_owned(), Some("2024".to_owned()))].into();
    let committed = tables.roll_forward(&replace).await?;

    let expected = staged(state.path(), "a3", &schema, "year,rate\n2024,9\n2023,1\n")?;
    assert_eq!(committed[0].digest, expected.content_digest);
    let snapshot = tables.snapshot(&"gdp.rates".parse()?, None).await?;
    assert_eq!(
        csv_of(&tables, &snapshot)?,
        "year,rate\n2023,1.000000\n2024,9.000000\n"
    );

    replace.datasets[0].transaction.version = 2;
    replace.datasets[0].replace_partition = [("year".to_owned(), Some("2023".to_owned()))].into();
    assert!(matches!(
        tables.roll_forward(&replace).await,
        Err(CommitError::Decision { .. })
    ));
    Ok(())
}

#[tokio::test]
async fn a_new_nullable_column_widens_the_table_and_old_rows_read_as_null() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = tables_in(state.path());
    let old = schema()?;
    let rows = staged(state.path(), "a1", &old, "year,rate\n2023,1\n")?;
    tables
        .roll_forward(&decision("a1", &old, &rows, WriteMode::Append)?)
        .await?;

    let mut columns = old.columns().to_vec();
    columns.insert(0, Column::nullable("note", ColumnType::String));
    let wide = TableSchema::new(columns, vec!["year".to_owned()])?;
    let rows = staged(state.path(), "a2", &wide, "note,year,rate\nn,2024,2\n")?;
    let committed = tables
        .roll_forward(&decision("a2", &wide, &rows, WriteMode::Append)?)
        .await?;
    let snapshot = tables.snapshot(&"gdp.rates".parse()?, None).await?;
    assert_eq!(
        csv_of(&tables, &snapshot)?,
        "year,rate,note\n2023,1.000000,\n2024,2.000000,n\n"
    );
    for file in &snapshot.files {
        let (rows, read) = snapshot.hash_file(file)?;
        assert_eq!(
            (Some(rows), Some(read)),
            (file.rows, file.rows_hash.clone())
        );
    }
    assert_eq!(snapshot.digest()?.1, committed[0].digest);

    let narrow = staged(state.path(), "a3", &old, "year,rate\n2023,1\n")?;
    let refused = tables
        .roll_forward(&decision("a3", &old, &narrow, WriteMode::Append)?)
        .await;
    assert!(matches!(refused, Err(CommitError::Schema { .. })));
    Ok(())
}

#[tokio::test]
async fn partition_values_of_any_text_are_read_back() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = tables_in(state.path());
    let columns = vec![
        Column::required("region", ColumnType::String),
        Column::required("n", ColumnType::Int64),
    ];
    let schema = TableSchema::new(columns, vec!["region".to_owned()])?;
    let csv = "region,n\n../../x,1\na b%41?#&=,2\nnull,3\nÄ日,4\n";
    let rows = staged(state.path(), "a1", &schema, csv)?;
    tables
        .roll_forward(&decision("a1", &schema, &rows, WriteMode::Overwrite)?)
        .await?;
    let snapshot = tables.snapshot(&"gdp.rates".parse()?, None).await?;
    assert_eq!(csv_of(&tables, &snapshot)?, csv);
    let committed = tables
        .roll_forward(&decision(
            "a2",
            &schema,
            &staged(state.path(), "a2", &schema, "region,n\nx,1\n")?,
            WriteMode::Overwrite,
        )?)
        .await?;
    assert_eq!(committed[0].rows, 1);
    Ok(())
}

#[tokio::test]
async fn a_damaged_or_missing_staged_file_is_not_committed() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = tables_in(state.path());
    let schema = schema()?;
    let rows = staged(state.path(), "a1", &schema, "year,rate\n2023,1\n")?;
    let decision = decision("a1", &schema, &rows, WriteMode::Append)?;
    let path = state.path().join("staging/a1").join(&rows.files[0].path);
    let content = fs::read(&path)?;
    fs::remove_file(&path)?;
    assert!(matches!(
        tables.roll_forward(&decision).await,
        Err(CommitError::StagedFile { .. })
    ));
    fs::write(&path, [&content[..content.len() - 1], b"x"].concat())?;
    assert!(matches!(
        tables.roll_forward(&decision).await,
        Err(CommitError::StagedFile { .. })
    ));
    assert!(tables.snapshot(&"gdp.rates".parse()?, None).await.is_err());
    fs::write(&path, content)?;
    tables.roll_forward(&decision).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_decision_from_two_processes_at_once_commits_once() -> TestResult {
    let state = tempfile::tempdir()?;
    let schema = schema()?;
    let rows = staged(state.path(), "a1", &schema, "year,rate\n2023,1\n2024,1\n")?;
    let decision = Arc::new(decision("a1", &schema, &rows, WriteMode::Append)?);
    let mut racing = tokio::task::JoinSet::new();
    for _ in 0..6 {
        // A `Tables` of its own shares no lock: as another process would.
        let (tables, decision) = (tables_in(state.path()), Arc::clone(&decision));
        racing.spawn(async move { tables.roll_forward(&decision).await });
    }
    while let Some(committed) = racing.join_next().await {
        assert_eq!(committed??[0].version, 0);
    }
    let tables = tables_in(state.path());
    let snapshot = tables.snapshot(&"gdp.rates".parse()?, None).await?;
    assert_eq!((snapshot.version, snapshot.digest()?.0), (0, 2));
    Ok(())
}

/// A disk that fails its nth durable step, before or after the step had its effect.
#[derive(Debug)]
struct FaultyDisk {
    disk: LocalDisk,
    steps: AtomicUsize,
    fail_at: usize,
    persisted: bool,
}

impl FaultyDisk {
    fn step(&self, step: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let number = self.steps.fetch_add(1, Ordering::SeqCst);
        if number != self.fail_at {
            return step();
        }
        if self.persisted {
            step()?;
        }
        Err(io::Error::other("injected fault"))
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.step(|| self.disk.create(path, content))
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.step(|| self.disk.replace(path, content))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|| self.disk.link(from, to))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step(|| self.disk.create_dir_all(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|| self.disk.rename(from, to))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step(|| self.disk.sync_dir(path))
    }
}

#[tokio::test]
async fn every_durable_step_may_fail_once_with_or_without_effect() -> TestResult {
    let schema = schema()?;
    for persisted in [false, true] {
        let mut failures = 0;
        for fail_at in 0.. {
            let state = tempfile::tempdir()?;
            let good = tables_in(state.path());
            let before = staged(state.path(), "a0", &schema, "year,rate\n2023,5\n")?;
            good.roll_forward(&decision("a0", &schema, &before, WriteMode::Append)?)
                .await?;

            let rows = staged(state.path(), "a1", &schema, "year,rate\n2023,1\n2024,2\n")?;
            let mut decision = decision("a1", &schema, &rows, WriteMode::Append)?;
            let mut second = decision.datasets[0].clone();
            second.table = "gdp.others".parse()?;
            decision.datasets.push(second);

            let disk = LocalDisk::default();
            let disk = FaultyDisk {
                disk,
                steps: AtomicUsize::new(0),
                fail_at,
                persisted,
            };
            let disk = Arc::new(disk);
            let faulty = StateTables::on_disk(state.path().to_owned(), disk.clone()).of(&acme());
            let failed = faulty.roll_forward(&decision).await.is_err();
            let committed = tables_in(state.path()).roll_forward(&decision).await?;

            let summary: Vec<_> = committed
                .iter()
                .map(|c| (c.dataset.to_string(), c.version, c.rows))
                .collect();
            let expected = [
                ("gdp.rates".to_owned(), 1, 3),
                ("gdp.others".to_owned(), 0, 2),
            ];
            assert_eq!(summary, expected, "step {fail_at}, persisted {persisted}");
            for done in &committed {
                let snapshot = good.snapshot(&done.dataset, None).await?;
                assert_eq!(snapshot.version, done.version, "step {fail_at}");
                assert_eq!(snapshot.digest()?, (done.rows, done.digest.clone()));
            }
            if disk.steps.load(Ordering::SeqCst) <= fail_at {
                break;
            }
            assert!(failed, "step {fail_at} failed and nobody noticed");
            failures += 1;
        }
        assert!(failures >= 12, "only {failures} durable steps were seen");
    }
    Ok(())
}

#[tokio::test]
async fn many_commits_are_summed_up_in_a_durable_checkpoint() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = tables_in(&state.path().join("with space % and #"));
    let schema = schema()?;
    let rows = staged(tables.state(), "a", &schema, "year,rate\n2024,1\n")?;
    let mut last = None;
    for number in 0..=CHECKPOINT_INTERVAL {
        let mut decision = decision("a", &schema, &rows, WriteMode::Append)?;
        decision.datasets[0].transaction.app_id = format!("run-{number}");
        last = tables.roll_forward(&decision).await?.pop();
    }
    let log = tables.root(&"gdp.rates".parse()?).join("_delta_log");
    assert!(log.join("_last_checkpoint").exists());
    let snapshot = tables.snapshot(&"gdp.rates".parse()?, None).await?;
    let last = last.ok_or("nothing was committed")?;
    assert_eq!(
        (snapshot.version, last.rows),
        (CHECKPOINT_INTERVAL, CHECKPOINT_INTERVAL + 1)
    );
    // The hashes of rows must survive the checkpoint, or the digest would read every file.
    assert!(snapshot.files.iter().all(|file| file.rows_hash.is_some()));
    assert!(is_sealed(&snapshot), "so must the seals");
    assert_eq!(snapshot.digest()?.1, last.digest);
    Ok(())
}
