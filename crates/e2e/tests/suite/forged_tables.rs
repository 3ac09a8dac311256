//! Whoever can write in a state folder can swap a table's data file, and change what the table's log
//! says of it. What a stage was given is in its evidence as it was, or it is given nothing.

use std::path::{Path, PathBuf};

use barecount_e2e::{Outcome, place::Place, process::Finished, programs};
use serde_json::{Value, json};

use crate::datasets::{NUMBERS, TWO};

/// A stage that has the numbers as CSV, and hands over a row of its own.
const READER: &str = "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: { name: reader, tenant: demo, owner: you@example.com }
spec:
  classification: public
  defaults:
    retries: { application: 0, infrastructure: 0 }
  stages:
    - name: read
      phase: ingestion
      runner: { class: serverless, size: small, network_profile: private_vpc, package: worker.zip }
      inputs:
        - { dataset: kpi.rows, from: numbers, format: csv }
      outputs:
        - dataset: raw.read
          format: csv
          mode: overwrite
          columns: [{ name: id, type: int64 }]
";

/// Other rows of the same columns, and as many.
const FORGED: &str = "CAST(column1 AS BIGINT) AS n FROM (VALUES (1000), (2000))";

fn told(place: &Place, arguments: &[&str]) -> Finished {
    place.barecount(arguments).finish()
}

/// A table of two rows, and what its log says of its only file.
struct Table {
    place: Place,
    log: PathBuf,
    honest: String,
}

impl Table {
    fn new(select: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let place = Place::new();
        NUMBERS.runs(&place, select);
        place.write("reader/pipeline.yaml", READER);
        let rows: &[(&str, &[u8])] = &[("rows/raw.read/part.csv", b"id\n1\n")];
        programs::package(&place, "reader/worker.zip", "bootstrap", rows);
        let log = place
            .state()
            .join("datasets/demo/kpi/rows/_delta_log/00000000000000000000.json");
        let honest = fs_err::read_to_string(&log)?;
        Ok(Self { place, log, honest })
    }

    fn entry(&self) -> Result<Value, Box<dyn std::error::Error>> {
        let actions = self.honest.lines().map(serde_json::from_str::<Value>);
        let actions = actions.collect::<Result<Vec<_>, _>>()?;
        let added = actions.into_iter().find(|action| action["add"].is_object());
        Ok(added.ok_or("a file was added")?["add"].clone())
    }

    fn file(&self) -> Result<PathBuf, Box<dyn std::error::Error>> {
        let name = self.entry()?["path"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let folder = self.log.parent().and_then(Path::parent);
        Ok(folder.ok_or("a folder")?.join(name))
    }

    /// Changes the log; what is not changed is as it was committed.
    fn forge(&self, change: impl Fn(&mut Value)) -> Outcome {
        let mut log = String::new();
        for line in self.honest.lines() {
            let mut action: Value = serde_json::from_str(line)?;
            if action["add"].is_object() {
                change(&mut action["add"]);
            }
            log.push_str(&format!("{action}\n"));
        }
        Ok(fs_err::write(&self.log, log)?)
    }

    /// Puts the data file of another table in the place of this one's.
    fn swap(&self, other: &Self) -> Outcome {
        fs_err::remove_file(self.file()?)?;
        fs_err::copy(other.file()?, self.file()?)?;
        Ok(())
    }

    /// It is shown to nobody, and no stage is given it.
    fn is_refused(&self, words: &str) {
        for verb in [
            &["outputs", "show", "kpi.rows"][..],
            &["outputs", "export", "kpi.rows"],
        ] {
            told(&self.place, verb).fails_with(7, "BC0711").tells(words);
        }
        let run = ["run", "reader/pipeline.yaml", "--force", "read"];
        told(&self.place, &run).fails_with(1, "BC0711").tells(words);
    }

    /// The digest of the numbers that the last attempt of the reader was given, as it was signed.
    fn given(&self) -> Result<Value, Box<dyn std::error::Error>> {
        let entries = told(&self.place, &["evidence", "ls", "-o", "json"]).json("evidence");
        let entries = entries["items"].as_array().cloned().unwrap_or_default();
        let mut given = Value::Null;
        for entry in entries.iter().filter(|entry| entry["kind"] == "attempt") {
            let index = entry["index"].to_string();
            let shown = told(&self.place, &["evidence", "show", &index, "-o", "json"]);
            let shown: Value = serde_json::from_str(&shown.stdout)?;
            if let Some(digest) = find(&shown, "kpi.rows") {
                given = digest;
            }
        }
        Ok(given)
    }
}

/// The digest beside the name of an input, wherever in an entry.
fn find(value: &Value, dataset: &str) -> Option<Value> {
    if value["dataset"] == dataset && value["digest"].is_string() {
        return Some(value["digest"].clone());
    }
    match value {
        Value::Array(items) => items.iter().find_map(|item| find(item, dataset)),
        Value::Object(members) => members.values().find_map(|member| find(member, dataset)),
        _ => None,
    }
}

fn sha256(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
    use sha2::Digest as _;
    Ok(format!("{:x}", sha2::Sha256::digest(fs_err::read(path)?)))
}

#[test]
fn a_swapped_file_whose_digest_was_put_into_the_log_is_given_to_no_stage() -> Outcome {
    let (table, other) = (Table::new(TWO)?, Table::new(FORGED)?);
    told(&table.place, &["run", "reader/pipeline.yaml"]).exits_with(0);
    table.swap(&other)?;
    let forged = json!(sha256(&other.file()?)?);
    table.forge(|add| add["tags"]["barecount.sha256"] = forged.clone())?;
    table.is_refused("its seal does not hold");
    // With all that the other table's log says of it: its seal is of that one.
    let tags = other.entry()?["tags"].clone();
    table.forge(|add| add["tags"] = tags.clone())?;
    table.is_refused("its seal does not hold");
    // Without a seal there is still the file's name.
    table.forge(|add| {
        add["tags"] = tags.clone();
        let tags = add["tags"].as_object_mut();
        tags.map(|tags| tags.remove("barecount.seal"));
    })?;
    table.is_refused("is not the one that was committed");
    table.place.nothing_is_left();
    Ok(())
}

#[test]
fn what_the_log_says_alone_changes_nothing_of_what_is_signed() -> Outcome {
    let (table, other) = (Table::new(TWO)?, Table::new(FORGED)?);
    for (tag, value) in [
        (
            "barecount.rows_hash",
            other.entry()?["tags"]["barecount.rows_hash"].clone(),
        ),
        (
            "barecount.seal",
            other.entry()?["tags"]["barecount.seal"].clone(),
        ),
    ] {
        table.forge(|add| add["tags"][tag] = value.clone())?;
        table.is_refused("its seal does not hold");
    }
    table.forge(|add| add["stats"] = json!("{\"numRecords\":7}"))?;
    table.is_refused("its seal does not hold");
    told(&table.place, &["evidence", "verify", "--data"])
        .exits_with(7)
        .tells("its seal does not hold");
    table.place.nothing_is_left();
    Ok(())
}

#[test]
fn of_rows_without_a_seal_the_digest_of_these_rows_is_signed() -> Outcome {
    let (table, other) = (Table::new(TWO)?, Table::new(FORGED)?);
    let run = ["run", "reader/pipeline.yaml", "--force", "read"];
    let digest = |table: &Table| -> Result<Value, Box<dyn std::error::Error>> {
        told(&table.place, &run).exits_with(0);
        table.given()
    };
    let (honest, others) = (digest(&table)?, digest(&other)?);
    assert!(honest.is_string() && others.is_string() && honest != others);
    // A log of an older program: the same rows, and the same digest.
    let unsealed = |add: &mut Value| {
        let tags = add["tags"].as_object_mut();
        tags.map(|tags| tags.remove("barecount.seal"));
    };
    table.forge(unsealed)?;
    assert_eq!(digest(&table)?, honest);
    // Other rows, under a name that could be theirs, and what the log said of the rows before.
    let forged = sha256(&other.file()?)?;
    let name = format!("part-00000-0123456789abcdef-{}.zstd.parquet", &forged[..16]);
    fs_err::copy(other.file()?, table.file()?.with_file_name(&name))?;
    table.forge(|add| {
        unsealed(add);
        add["path"] = json!(name);
        add["tags"]["barecount.sha256"] = json!(forged);
    })?;
    assert_eq!(digest(&table)?, others);
    told(&table.place, &["evidence", "verify", "--data"])
        .exits_with(7)
        .tells("version 0 was signed as 2 rows of");
    table.place.nothing_is_left();
    Ok(())
}
