//! Tables whose schema changes from commit to commit.

use super::*;
use crate::evolution::SchemaEvolution;

fn decimal(precision: u8, scale: u8) -> ColumnType {
    ColumnType::Decimal { precision, scale }
}

fn rates(columns: Vec<Column>, partition_by: &[&str]) -> TestResult<TableSchema> {
    let by = partition_by.iter().map(|name| (*name).to_owned()).collect();
    Ok(TableSchema::new(columns, by)?)
}

struct Step<'a> {
    attempt: &'a str,
    schema: &'a TableSchema,
    csv: &'a str,
    mode: WriteMode,
    evolution: SchemaEvolution,
}

async fn commit(tables: &Tables, step: &Step<'_>) -> TestResult<Result<Committed, CommitError>> {
    let rows = staged(tables.state(), step.attempt, step.schema, step.csv)?;
    let mut decision = decision(step.attempt, step.schema, &rows, step.mode)?;
    decision.datasets[0].schema_evolution = step.evolution;
    decision.decided_at_ms += i64::from(*step.attempt.as_bytes().last().unwrap_or(&0));
    let foreseen = tables.foresee(&decision.datasets[0]).await;
    let mut first = tables.roll_forward(&decision).await;
    assert_eq!(
        foreseen.is_ok(),
        first.is_ok(),
        "what is foreseen comes true"
    );
    if let Ok(committed) = &mut first {
        assert_eq!(&tables.roll_forward(&decision).await?, committed, "once");
        // Whatever became of the table's columns, the commit's own rows can be held against what was
        // signed of them.
        let [committed] = &committed[..] else {
            return Err("one dataset is committed".into());
        };
        let brought = tables
            .brought(&committed.dataset, committed.version)
            .await?;
        let signed = (committed.written_rows, committed.written_digest.clone());
        assert_eq!(brought.recount()?, signed);
    }
    Ok(first.map(|mut committed| committed.remove(0)))
}

impl Snapshot {
    fn names(&self) -> Vec<String> {
        self.files.iter().map(|file| file.name.clone()).collect()
    }
}

async fn now(tables: &Tables) -> TestResult<(Snapshot, String)> {
    let snapshot = tables.snapshot(&"gdp.rates".parse()?, None).await?;
    assert!(is_sealed(&snapshot), "{:?}", snapshot.files);
    for file in &snapshot.files {
        let (rows, read) = snapshot.hash_file(file)?;
        assert_eq!(
            (Some(rows), Some(read)),
            (file.rows, file.rows_hash.clone())
        );
    }
    let csv = csv_of(tables, &snapshot)?;
    Ok((snapshot, csv))
}

#[tokio::test]
async fn a_whole_overwrite_takes_any_schema_and_can_go_back() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = tables_in(state.path());
    let first = rates(
        vec![
            Column::required("year", ColumnType::Int64),
            Column::required("rate", ColumnType::Int64),
        ],
        &["year"],
    )?;
    let others = [
        rates(
            vec![
                Column::required("rate", ColumnType::Float64),
                Column::nullable("year", ColumnType::Int64),
            ],
            &["year"],
        )?,
        rates(
            vec![
                Column::required("rate", ColumnType::Int64),
                Column::required("year", ColumnType::String),
            ],
            &[],
        )?,
    ];
    let mut schemas = Vec::new();
    // Past a checkpoint of the log, too.
    for _ in 0..6 {
        schemas.extend([&first, &others[0], &first, &others[1]]);
    }
    for (number, schema) in schemas.into_iter().enumerate() {
        let attempt = format!("a{number}");
        let names: Vec<&str> = schema.columns().iter().map(|c| c.name.as_str()).collect();
        let csv = format!("{}\n7,7\n", names.join(","));
        let step = Step {
            attempt: &attempt,
            schema,
            csv: &csv,
            mode: WriteMode::Overwrite,
            evolution: SchemaEvolution::Additive,
        };
        let committed = commit(&tables, &step).await??;
        let (snapshot, _) = now(&tables).await?;
        assert_eq!(
            (&snapshot.schema, snapshot.version),
            (schema, number as u64)
        );
        assert_eq!(snapshot.digest()?, (1, committed.digest));
    }
    let old = tables.snapshot(&"gdp.rates".parse()?, Some(0)).await?;
    assert_eq!(old.schema, first);
    Ok(())
}

#[tokio::test]
async fn a_wider_type_is_in_every_file_and_earlier_rows_keep_their_order() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = tables_in(state.path());
    let schema = |rate: ColumnType, count: ColumnType| {
        rates(
            vec![
                Column::required("year", ColumnType::Int64),
                Column::nullable("rate", rate),
                Column::required("count", count),
            ],
            &["year"],
        )
    };
    let narrow = schema(decimal(6, 2), ColumnType::Int64)?;
    let wide = schema(decimal(12, 4), decimal(20, 0))?;
    let append = |attempt, schema, csv| Step {
        attempt,
        schema,
        csv,
        mode: WriteMode::Append,
        evolution: SchemaEvolution::Additive,
    };
    let csv = "year,rate,count\n2024,1.25,-9223372036854775808\n2023,,2\n";
    commit(&tables, &append("a1", &narrow, csv)).await??;
    let csv = "year,rate,count\n2024,9999.99,9223372036854775807\n";
    commit(&tables, &append("a2", &narrow, csv)).await??;
    let before: Vec<String> = now(&tables).await?.0.names();
    let csv = "year,rate,count\n2024,12345678.1234,18446744073709551615\n";
    let committed = commit(&tables, &append("a3", &wide, csv)).await??;
    let (snapshot, text) = now(&tables).await?;
    assert_eq!(
        text,
        "year,rate,count\n2023,,2\n2024,1.2500,-9223372036854775808\n\
         2024,9999.9900,9223372036854775807\n2024,12345678.1234,18446744073709551615\n"
    );
    assert_eq!(snapshot.digest()?, (4, committed.digest));
    // What the earlier commits wrote is known by the names that they gave it.
    let origins: Vec<&String> = snapshot.files.iter().map(|file| &file.written_as).collect();
    assert!(before.iter().all(|name| origins.contains(&name)));
    assert!(!before.iter().any(|name| snapshot.names().contains(name)));
    // And back is not wider.
    let csv = "year,rate,count\n2024,1.25,1\n";
    let refused = commit(&tables, &append("a4", &narrow, csv)).await?;
    assert!(
        matches!(refused, Err(CommitError::Schema { .. })),
        "{refused:?}"
    );
    let replace = Step {
        evolution: SchemaEvolution::Replace,
        ..append("a5", &narrow, csv)
    };
    commit(&tables, &replace).await??;
    assert_eq!(now(&tables).await?.1, "year,rate,count\n2024,1.25,1\n");
    Ok(())
}

#[tokio::test]
async fn a_task_finds_every_column_in_every_file() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = tables_in(state.path());
    let mut columns = vec![
        Column::required("year", ColumnType::Int64),
        Column::required("rate", ColumnType::Int64),
    ];
    let old = rates(columns.clone(), &["year"])?;
    columns.push(Column::nullable("note", ColumnType::String));
    let new = rates(columns, &["year"])?;
    for (attempt, schema, csv) in [
        ("a1", &old, "year,rate\n2023,1\n"),
        ("a2", &new, "year,rate,note\n2023,2,n\n"),
    ] {
        let step = Step {
            attempt,
            schema,
            csv,
            mode: WriteMode::Append,
            evolution: SchemaEvolution::Additive,
        };
        commit(&tables, &step).await??;
    }
    let (snapshot, _) = now(&tables).await?;
    let into = state.path().join("given");
    let given = snapshot.materialize(InputFormat::Parquet, DataFiles::Linked, &into, &[])?;
    assert_eq!((given.files.len(), given.rows), (2, 2));
    for file in given.files {
        let file = fs::File::open(into.join(file))?;
        let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)?;
        let names: Vec<&String> = builder.schema().fields().iter().map(|f| f.name()).collect();
        assert_eq!(names, ["rate", "note"]);
    }
    Ok(())
}
