//! What a table's log says of its files, changed by who can write it: it is believed of no file whose
//! seal does not hold, and of none that has no seal.

use serde_json::{Value, json};

use super::altered::{latest, swap, two_commits, ways};
use super::*;
use crate::read::ReadError;

/// Changes the entry of a version's file in the log.
fn change(tables: &Tables, version: u64, change: impl Fn(&mut Value)) -> TestResult {
    let log = tables.root(&"gdp.rates".parse()?);
    let log = log.join(format!("_delta_log/{version:020}.json"));
    let mut changed = String::new();
    for line in fs::read_to_string(&log)?.lines() {
        let mut action: Value = serde_json::from_str(line)?;
        change(&mut action);
        changed.push_str(&format!("{action}\n"));
    }
    Ok(fs::write(&log, changed)?)
}

/// Changes one member of the entry of the first file.
fn set(tables: &Tables, pointer: &str, value: &Value) -> TestResult {
    change(tables, 0, |action| {
        if let Some(place) = action.pointer_mut(pointer) {
            place.clone_from(value);
        }
    })
}

fn tags(tables: &Tables, version: u64) -> TestResult<Value> {
    let mut found = Value::Null;
    let log = tables.root(&"gdp.rates".parse()?);
    let log = fs::read_to_string(log.join(format!("_delta_log/{version:020}.json")))?;
    for line in log.lines() {
        let action: Value = serde_json::from_str(line)?;
        if let Some(tags) = action.pointer("/add/tags") {
            found = tags.clone();
        }
    }
    Ok(found)
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("{:x}", sha2::Sha256::digest(bytes))
}

/// The digest that an input is handed out with, and that of the rows that are handed out.
fn handed_out(snapshot: &Snapshot, into: &Path) -> TestResult<(String, String)> {
    let given = snapshot.materialize(InputFormat::Csv, DataFiles::Linked, into, &[])?;
    let (rows, counted) = snapshot.recount()?;
    assert_eq!(given.rows, rows);
    Ok((given.digest, counted))
}

#[tokio::test]
async fn what_the_log_says_of_a_file_holds_together_or_not_at_all() -> TestResult {
    let (state, _) = two_commits().await?;
    let tables = tables_in(state.path());
    assert!(is_sealed(&latest(state.path()).await?));
    let honest = tags(&tables, 0)?;
    let other = tags(&tables, 1)?;
    assert_ne!(honest["barecount.seal"], other["barecount.seal"]);
    // One after the other; each is put back.
    let forged = [
        (
            "/add/tags/barecount.rows_hash",
            &other["barecount.rows_hash"],
        ),
        ("/add/tags/barecount.rows_hash", &json!("AAAA")),
        ("/add/tags/barecount.rows_hash", &Value::Null),
        ("/add/tags/barecount.sha256", &other["barecount.sha256"]),
        ("/add/tags/barecount.sha256", &Value::Null),
        ("/add/tags/barecount.seal", &other["barecount.seal"]),
        ("/add/tags/barecount.seal", &json!("")),
        ("/add/tags/barecount.seal", &json!("ää")),
        ("/add/tags", &other),
        ("/add/stats", &json!("{\"numRecords\":2}")),
        ("/add/stats", &Value::Null),
        ("/add/partitionValues/year", &json!("2023")),
    ];
    let entry = tables.root(&"gdp.rates".parse()?);
    let entry = entry.join("_delta_log/00000000000000000000.json");
    let before = fs::read(&entry)?;
    for (number, (pointer, value)) in forged.into_iter().enumerate() {
        set(&tables, pointer, value)?;
        let snapshot = latest(state.path()).await?;
        let into = state.path().join(format!("forged{number}"));
        for (way, told) in ways(&snapshot, &into) {
            assert!(
                matches!(told, Err(ReadError::Unproved { .. })),
                "{way} with {pointer} {value}: {told:?}"
            );
        }
        fs::write(&entry, &before)?;
    }
    handed_out(&latest(state.path()).await?, &state.path().join("honest"))?;
    Ok(())
}

#[tokio::test]
async fn a_swapped_file_is_not_handed_out_however_much_of_the_log_goes_with_it() -> TestResult {
    let (state, _) = two_commits().await?;
    let tables = tables_in(state.path());
    let honest = latest(state.path()).await?;
    let digest = honest.recount()?.1;
    let other = fs::read(&honest.files[1].path)?;
    swap(&honest.files[0], &other)?;
    // With its digest, the seal does not hold.
    set(
        &tables,
        "/add/tags/barecount.sha256",
        &json!(sha256(&other)),
    )?;
    for (way, told) in ways(&latest(state.path()).await?, &state.path().join("one")) {
        let told = told.map_err(|error| error.is_altered());
        assert_eq!(told, Err(true), "{way}");
    }
    // Without a seal, its name has other digits.
    let unsealed = |action: &mut Value| {
        if let Some(tags) = action
            .pointer_mut("/add/tags")
            .and_then(Value::as_object_mut)
        {
            tags.remove("barecount.seal");
        }
    };
    change(&tables, 0, unsealed)?;
    for (way, told) in ways(&latest(state.path()).await?, &state.path().join("two")) {
        assert!(
            matches!(told, Err(ReadError::Altered { .. })),
            "{way}: {told:?}"
        );
    }
    // And under a name with these, nothing tells it from another program's file: the digest that it is
    // handed out with is that of its own rows, and not what the log says.
    let named = "year=2024/part-00000-0123456789abcdef-0123456789abcdef.zstd.parquet";
    let named = named.replace(
        "0123456789abcdef.zstd",
        &format!("{}.zstd", &sha256(&other)[..16]),
    );
    fs::copy(
        &honest.files[1].path,
        honest.files[0]
            .path
            .with_file_name(named.rsplit('/').next().unwrap_or_default()),
    )?;
    set(&tables, "/add/path", &json!(named))?;
    let forged = latest(state.path()).await?;
    let (given, counted) = handed_out(&forged, &state.path().join("three"))?;
    assert_eq!(given, counted);
    assert_ne!(given, digest);
    Ok(())
}

#[tokio::test]
async fn rows_without_a_seal_are_counted_and_not_believed() -> TestResult {
    let (state, _) = two_commits().await?;
    let tables = tables_in(state.path());
    let wrong = tags(&tables, 1)?["barecount.rows_hash"].clone();
    change(&tables, 0, |action| {
        if let Some(tags) = action
            .pointer_mut("/add/tags")
            .and_then(Value::as_object_mut)
        {
            tags.remove("barecount.seal");
            tags.insert("barecount.rows_hash".to_owned(), wrong.clone());
        }
    })?;
    let snapshot = latest(state.path()).await?;
    assert_eq!(snapshot.files[0].standing, Standing::Unsealed);
    let (given, counted) = handed_out(&snapshot, &state.path().join("out"))?;
    assert_eq!(given, counted);
    // Who has no key believes the log, as the digest in a list does.
    let keyless = StateTables::new(state.path().to_owned()).of(&acme());
    let snapshot = keyless.snapshot(&"gdp.rates".parse()?, None).await?;
    let (given, counted) = handed_out(&snapshot, &state.path().join("keyless"))?;
    assert_ne!(given, counted);
    Ok(())
}

#[tokio::test]
async fn a_column_by_another_name_is_no_column_of_the_rows_that_were_hashed() -> TestResult {
    let (state, _) = two_commits().await?;
    let tables = tables_in(state.path());
    let honest = latest(state.path()).await?.digest()?.1;
    change(&tables, 0, |action| {
        if let Some(schema) = action.pointer_mut("/metaData/schemaString") {
            let renamed = schema.as_str().unwrap_or_default();
            let renamed = renamed
                .replace("\"rate\"", "\"rite\"")
                .replace("false", "true");
            *schema = json!(renamed);
        }
    })?;
    let snapshot = latest(state.path()).await?;
    assert!(is_sealed(&snapshot));
    let into = state.path().join("out");
    let given = snapshot.materialize(InputFormat::Csv, DataFiles::Linked, &into, &[])?;
    let text = fs::read_to_string(into.join("rates.csv"))?;
    assert_eq!(text, "year,rite\n2024,\n2024,\n");
    assert_eq!(given.digest, snapshot.recount()?.1);
    assert_ne!(given.digest, honest);
    Ok(())
}

#[tokio::test]
async fn a_seal_is_of_one_table_of_one_tenant_and_of_one_key() -> TestResult {
    let (state, _) = two_commits().await?;
    let table: DatasetName = "gdp.rates".parse()?;
    let root = tables_in(state.path()).root(&table);
    let read = async |tables: Tables, table: &DatasetName| -> TestResult<Standing> {
        Ok(tables.snapshot(table, None).await?.files[0].standing)
    };
    let key = || SealKey::new([7; 32].into());
    let state_tables = || StateTables::new(state.path().to_owned());
    let others = state_tables().sealed(key()).of(&"other".parse()?);
    let copied = "gdp.copied".parse()?;
    for to in [others.root(&table), tables_in(state.path()).root(&copied)] {
        copy_all(&root, &to)?;
    }
    let own = tables_in(state.path());
    assert_eq!(read(own.clone(), &table).await?, Standing::Sealed);
    assert_eq!(read(own, &copied).await?, Standing::Altered);
    assert_eq!(read(others, &table).await?, Standing::Altered);
    let key = SealKey::new([8; 32].into());
    let another = state_tables().sealed(key).of(&acme());
    assert_eq!(read(another, &table).await?, Standing::Altered);
    Ok(())
}

fn copy_all(from: &Path, to: &Path) -> TestResult {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_all(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}
