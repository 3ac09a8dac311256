//! What a table's versions tell, and going back to one.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::*;
use crate::versions::{Act, Amount, ChangeError, Difference};

const AT_MS: i64 = 1_700_000_100_000;

fn amount(files: u64, rows: u64) -> Amount {
    let rows = Some(rows);
    Amount { files, rows }
}

async fn write(tables: &Tables, attempt: &str, csv: &str, mode: WriteMode) -> TestResult {
    let schema = schema()?;
    let rows = staged(tables.state(), attempt, &schema, csv)?;
    tables
        .roll_forward(&decision(attempt, &schema, &rows, mode)?)
        .await?;
    Ok(())
}

/// Three versions: two rows, another one added, all replaced by one.
async fn three_versions(state: &Path) -> TestResult<Tables> {
    let tables = tables_in(state);
    write(
        &tables,
        "a1",
        "year,rate\n2023,1\n2024,1\n",
        WriteMode::Overwrite,
    )
    .await?;
    write(&tables, "a2", "year,rate\n2025,2\n", WriteMode::Append).await?;
    write(&tables, "a3", "year,rate\n2023,9\n", WriteMode::Overwrite).await?;
    Ok(tables)
}

#[tokio::test]
async fn a_log_is_read_once_as_long_as_nothing_is_added_to_it() -> TestResult {
    let state = tempfile::tempdir()?;
    let table: DatasetName = "gdp.rates".parse()?;
    let tables = tables_in(state.path());
    assert!(tables.latest(&table).await?.is_none(), "there is none");
    let tables = three_versions(state.path()).await?;
    let latest = async || -> TestResult<_> { Ok(tables.latest(&table).await?.ok_or("none")?) };
    let first = latest().await?;
    assert_eq!(first.version, 2);
    assert!(Arc::ptr_eq(&first, &latest().await?), "nothing was added");
    // Whoever adds to it: here somebody who shares nothing with these tables.
    let others = tables_in(state.path());
    write(&others, "a4", "year,rate\n2026,4\n", WriteMode::Append).await?;
    assert_eq!(latest().await?.version, 3);
    others.drop_table(&table, 3, "ada", AT_MS).await?;
    assert!(tables.latest(&table).await?.is_none(), "it was dropped");
    Ok(())
}

#[tokio::test]
async fn a_history_names_what_brought_each_version_and_what_came_and_went() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = three_versions(state.path()).await?;
    let table: DatasetName = "gdp.rates".parse()?;
    let back = tables.foresee_restore(&table, 1).await?;
    assert_eq!(back.difference.added, amount(3, 3));
    assert_eq!(back.difference.removed, amount(1, 1));
    assert_eq!(tables.restore(&back, "ada", AT_MS).await?, 3);
    assert_eq!(tables.give(&table, 3, "others", "ada").await?, 4);
    assert_eq!(tables.drop_table(&table, 4, "ada", AT_MS).await?, 5);

    let history = tables.history(&table).await?;
    let told: Vec<_> = history
        .iter()
        .map(|version| {
            (
                version.act.clone(),
                version.rows,
                version.added,
                version.removed,
            )
        })
        .collect();
    let given = "others".to_owned();
    let expected = [
        (Act::Overwritten, Some(2), amount(2, 2), amount(0, 0)),
        (Act::Appended, Some(3), amount(1, 1), amount(0, 0)),
        (Act::Overwritten, Some(1), amount(1, 1), amount(3, 3)),
        (
            Act::Restored { restored: 1 },
            Some(3),
            amount(3, 3),
            amount(1, 1),
        ),
        (
            Act::Given { to: given },
            Some(3),
            amount(0, 0),
            amount(0, 0),
        ),
        (Act::Dropped, Some(0), amount(0, 0), amount(3, 3)),
    ];
    assert_eq!(told, expected);
    let brought = async |version| -> TestResult<Vec<u64>> {
        let (_, brought) = tables.origins(&table, Some(version)).await?;
        Ok(brought.iter().map(|version| version.version).collect())
    };
    assert_eq!(brought(1).await?, [0, 1]);
    assert_eq!(brought(2).await?, [2]);
    assert_eq!(
        brought(4).await?,
        [0, 1],
        "who brought the rows that were restored"
    );
    assert!(tables.origins(&table, Some(9)).await.is_err());
    let task = history[1].transaction.as_ref().map(|by| by.app_id.as_str());
    assert_eq!(task, Some("a2/stage//gdp.rates"));
    assert_eq!(history[3].by.as_deref(), Some("ada"));
    assert!(history.iter().all(|version| version.at_ms.is_some()));
    Ok(())
}

#[tokio::test]
async fn what_is_restored_is_what_it_was_and_can_be_added_to() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = three_versions(state.path()).await?;
    let table: DatasetName = "gdp.rates".parse()?;
    let then = tables.snapshot(&table, Some(1)).await?;
    let back = tables.foresee_restore(&table, 1).await?;
    tables.restore(&back, "ada", AT_MS).await?;
    let now = tables.snapshot(&table, None).await?;
    assert_eq!(now.version, 3);
    assert!(is_sealed(&now), "seals are those of the files");
    assert_eq!(now.digest()?, then.digest()?);
    assert_eq!(now.content_identity(&[]), then.content_identity(&[]));
    assert!(Difference::between(&then, &now).is_none());
    let stale = tables.restore(&back, "ada", AT_MS).await;
    assert!(
        matches!(stale, Err(ChangeError::Changed { .. })),
        "{stale:?}"
    );
    write(&tables, "a4", "year,rate\n2026,5\n", WriteMode::Append).await?;
    assert_eq!(tables.snapshot(&table, None).await?.digest()?.0, 4);
    Ok(())
}

#[tokio::test]
async fn what_was_dropped_is_not_there_and_can_be_restored_or_made_anew() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = three_versions(state.path()).await?;
    let table: DatasetName = "gdp.rates".parse()?;
    tables.drop_table(&table, 2, "ada", AT_MS).await?;
    for version in [None, Some(3)] {
        let found = tables.snapshot(&table, version).await;
        assert!(
            matches!(found, Err(TableError::NotFound { .. })),
            "{found:?}"
        );
    }
    assert_eq!(tables.snapshot(&table, Some(2)).await?.digest()?.0, 1);
    // Another schema is no obstacle: nothing is there that it would have to fit.
    let columns = vec![Column::required("other", ColumnType::Int64)];
    let other = TableSchema::new(columns, vec![])?;
    let rows = staged(state.path(), "b1", &other, "other\n7\n")?;
    let mut anew = decision("b1", &other, &rows, WriteMode::Append)?;
    anew.datasets[0].transaction.app_id = "b1".to_owned();
    assert_eq!(tables.foresee(&anew.datasets[0]).await?, None);
    tables.roll_forward(&anew).await?;
    let now = tables.snapshot(&table, None).await?;
    assert_eq!((now.version, now.digest()?.0, now.dropped), (4, 1, false));
    assert_eq!(now.schema.columns().len(), 1);
    let back = tables.foresee_restore(&table, 2).await?;
    tables.restore(&back, "ada", AT_MS).await?;
    assert_eq!(
        tables.snapshot(&table, None).await?.schema.columns().len(),
        2
    );
    Ok(())
}

#[tokio::test]
async fn a_version_whose_files_are_gone_or_that_never_was_is_not_restored() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = three_versions(state.path()).await?;
    let table: DatasetName = "gdp.rates".parse()?;
    let missing = tables.foresee_restore(&table, 7).await;
    assert!(
        matches!(
            missing,
            Err(ChangeError::Table(TableError::NotFound { .. }))
        ),
        "{missing:?}"
    );
    let then = tables.snapshot(&table, Some(0)).await?;
    fs::remove_file(&then.files[0].path)?;
    let gone = tables.foresee_restore(&table, 0).await;
    assert!(
        matches!(gone, Err(ChangeError::FileGone { version: 0, .. })),
        "{gone:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_sweep_leaves_what_the_latest_version_uses_and_those_that_are_kept() -> TestResult {
    let state = tempfile::tempdir()?;
    let tables = three_versions(state.path()).await?;
    let table: DatasetName = "gdp.rates".parse()?;
    let whole = async |version| -> TestResult<bool> {
        let files = tables.snapshot(&table, Some(version)).await?.files;
        Ok(files.iter().all(|file| file.path.is_file()))
    };
    let later = SystemTime::now() + Duration::from_secs(60);
    let sweep = async |keep: &[u64]| {
        let keep = keep.iter().copied().collect();
        tables
            .sweep_table(&table, later, Duration::ZERO, &keep)
            .await
    };
    assert_eq!(sweep(&[0]).await?.files, 1, "what version 1 added");
    assert_eq!((whole(0).await?, whole(1).await?), (true, false));
    assert_eq!(sweep(&[]).await?.files, 2);
    assert_eq!((whole(0).await?, whole(2).await?), (false, true));
    Ok(())
}
