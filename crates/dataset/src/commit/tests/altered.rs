//! A data file whose bytes are not those that were committed is never handed out, in no form; and a
//! commit's rows can be counted anew by who does not believe the log.

use super::*;
use crate::read::ReadError;

/// A state folder with a table of two commits, one row each.
pub(super) async fn two_commits() -> TestResult<(tempfile::TempDir, Vec<String>)> {
    let state = tempfile::tempdir()?;
    let tables = tables_in(state.path());
    let mut digests = Vec::new();
    for (number, rate) in (0..).zip(["1", "2"]) {
        let attempt = &format!("a{number}");
        let csv = format!("year,rate\n2024,{rate}\n");
        let staged = staged(state.path(), attempt, &schema()?, &csv)?;
        let mut decision = decision(attempt, &schema()?, &staged, WriteMode::Append)?;
        decision.decided_at_ms += number;
        let committed = tables.roll_forward(&decision).await?;
        digests.push(committed[0].written_digest.clone());
    }
    Ok((state, digests))
}

pub(super) async fn latest(state: &Path) -> TestResult<Snapshot> {
    Ok(tables_in(state)
        .snapshot(&"gdp.rates".parse()?, None)
        .await?)
}

/// Puts other bytes where a data file is; its owner may, as whoever swapped it could.
pub(super) fn swap(file: &DataFile, bytes: &[u8]) -> TestResult {
    fs::remove_file(&file.path)?;
    fs::write(&file.path, bytes)?;
    Ok(())
}

/// Every way in which rows leave a table.
pub(super) fn ways(snapshot: &Snapshot, into: &Path) -> Vec<(&'static str, Result<(), ReadError>)> {
    let materialized = |format, folder: &str| {
        let made = snapshot.materialize(format, DataFiles::Linked, &into.join(folder), &[]);
        made.map(drop)
    };
    vec![
        ("parquet", materialized(InputFormat::Parquet, "parquet")),
        ("csv", materialized(InputFormat::Csv, "csv")),
        ("ndjson", materialized(InputFormat::Ndjson, "ndjson")),
        ("first rows", snapshot.first_rows(10).map(drop)),
        (
            "export as text",
            snapshot.export_text(InputFormat::Csv, io::sink()),
        ),
        ("export as Parquet", snapshot.export_parquet(io::sink())),
        ("recount", snapshot.recount().map(drop)),
    ]
}

#[tokio::test]
async fn a_swapped_file_is_handed_out_in_no_form() -> TestResult {
    let (state, _) = two_commits().await?;
    let snapshot = latest(state.path()).await?;
    for (way, told) in ways(&snapshot, &state.path().join("honest")) {
        told.map_err(|error| format!("{way}: {error}"))?;
    }
    // A file of the same columns and as many rows: one of the table's own.
    let other = fs::read(&snapshot.files[1].path)?;
    let first = fs::read(&snapshot.files[0].path)?;
    let mut flipped = first.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (number, bytes) in [other, flipped, first[..first.len() - 1].to_vec()]
        .iter()
        .enumerate()
    {
        swap(&snapshot.files[0], bytes)?;
        for (way, told) in ways(&snapshot, &state.path().join(format!("forged{number}"))) {
            assert!(
                matches!(told, Err(ReadError::Altered { .. })),
                "{way} of forged file {number}: {told:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_file_from_before_digests_were_kept_is_known_by_its_name() -> TestResult {
    let (state, _) = two_commits().await?;
    let table = "gdp.rates".parse()?;
    let log = tables_in(state.path())
        .root(&table)
        .join("_delta_log/00000000000000000001.json");
    let mut older = String::new();
    for line in fs::read_to_string(&log)?.lines() {
        let mut action: serde_json::Value = serde_json::from_str(line)?;
        let tags = action.pointer_mut("/add/tags");
        if let Some(tags) = tags.and_then(serde_json::Value::as_object_mut) {
            for tag in ["barecount.sha256", "barecount.seal"] {
                tags.remove(tag).ok_or("the log has the tag")?;
            }
        }
        older.push_str(&format!("{action}\n"));
    }
    fs::write(&log, older)?;
    let snapshot = latest(state.path()).await?;
    let older = &snapshot.files[1];
    assert_eq!(older.sha256.as_ref().map(String::len), Some(16));
    snapshot.recount()?;
    swap(older, &fs::read(&snapshot.files[0].path)?)?;
    assert!(matches!(snapshot.recount(), Err(ReadError::Altered { .. })));
    Ok(())
}

#[tokio::test]
async fn what_a_commit_brought_is_counted_anew() -> TestResult {
    let (state, digests) = two_commits().await?;
    let tables = tables_in(state.path());
    let table = "gdp.rates".parse()?;
    for (version, digest) in (0..).zip(&digests) {
        let brought = tables.brought(&table, version).await?;
        assert_eq!(brought.recount()?, (1, digest.clone()), "version {version}");
    }
    Ok(())
}
