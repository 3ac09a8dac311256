//! Committed datasets open in engines that others wrote, and hold what the exports hold.

use std::{collections::BTreeMap, path::Path, process::Command};

use barecount_e2e::{Failure, Outcome, example, python};
use serde_json::Value;

/// For each dataset a column whose sum is taken.
const SUMS: [(&str, &str); 5] = [
    ("raw.fx_rates", "length(\"USD\")"),
    ("gdp.fx_rates", "rate"),
    ("kpi.fx_monthly", "mean_rate"),
    ("kpi.fx_drawdown", "worst_drawdown"),
    ("gdp.invoices_eur", "amount_eur"),
];

fn asked(script: &str, arguments: &[(&str, String)]) -> Result<BTreeMap<String, Value>, Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let mut command = Command::new(python::interpreter());
    command.arg(folder.join(script));
    for (name, value) in arguments {
        command.arg(format!("{name}={value}"));
    }
    let output = command.output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {told}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn uris() -> Result<BTreeMap<String, String>, Failure> {
    let listed = example::undisturbed()
        .place
        .barecount(["outputs", "ls", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("outputs");
    let items = listed["items"].as_array().ok_or("a list of outputs")?;
    let uri = |item: &Value| {
        let name = item["dataset"].as_str()?.to_owned();
        Some((name, item["uri"].as_str()?.to_owned()))
    };
    Ok(items.iter().filter_map(uri).collect())
}

/// Rows and sum of each dataset as its export has them, by an engine that knows nothing of tables.
fn exported() -> Result<BTreeMap<String, Value>, Failure> {
    let folder = tempfile::tempdir()?;
    let mut arguments = Vec::new();
    for (dataset, sum) in SUMS {
        let file = folder.path().join(format!("{dataset}.csv"));
        example::undisturbed()
            .place
            .barecount(["outputs", "export", dataset, "--to"])
            .argument(&file)
            .finish()
            .exits_with(0);
        arguments.push((dataset, format!("{}={sum}", file.display())));
    }
    asked("exports.py", &arguments)
}

fn tables() -> Result<Vec<(&'static str, String)>, Failure> {
    let uris = uris()?;
    SUMS.iter()
        .map(|(dataset, sum)| {
            let uri = uris
                .get(*dataset)
                .ok_or_else(|| format!("{dataset} is listed"))?;
            Ok((*dataset, format!("{uri}={sum}")))
        })
        .collect()
}

#[test]
fn the_deltalake_package_reads_what_was_exported() -> Outcome {
    assert_eq!(asked("deltalake_tables.py", &tables()?)?, exported()?);
    Ok(())
}

#[test]
fn duckdb_reads_what_was_exported_and_finds_the_partitions() -> Outcome {
    assert_eq!(asked("duckdb_tables.py", &tables()?)?, exported()?);
    Ok(())
}
