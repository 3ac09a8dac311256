//! Figures of SQL beside those of another engine: expressions that nobody chose, over values at the
//! edges.

use std::{path::Path, process::Command};

use barecount_e2e::{Failure, Outcome, place::Place, python};
use serde_json::Value;

/// Expressions of one output.
const COLUMNS: usize = 100;

/// An expression, and what DuckDB makes of it.
struct Figure {
    expression: String,
    is_float: bool,
    value: Option<String>,
}

/// DuckDB rounds at every step: where numbers around one cancel each other, that much of them is left.
const CANCELLED: f64 = 1e-15;

impl Figure {
    /// Whether a text is the same figure. Floats may be spelt and rounded in another way, and decimals
    /// may have more zeros behind the point.
    fn is(&self, found: Option<&str>) -> bool {
        let (Some(value), Some(found)) = (self.value.as_deref(), found) else {
            return self.value.as_deref() == found;
        };
        match (value.parse::<f64>(), found.parse::<f64>()) {
            (Ok(value), Ok(found)) if self.is_float => {
                let apart = (value - found).abs();
                apart <= (1e-9 * value.abs()).max(CANCELLED) || (value.is_nan() && found.is_nan())
            }
            (Ok(_), Ok(_)) => without_zeros(value) == without_zeros(found),
            _ => value == found,
        }
    }
}

/// A decimal without the zeros that say nothing.
fn without_zeros(text: &str) -> &str {
    match text.contains(['.']) && !text.contains(['e', 'E']) {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

fn figures(seed: u64, count: usize) -> Result<Vec<Figure>, Failure> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/expressions.py");
    let output = Command::new(python::interpreter())
        .arg(script)
        .args([seed.to_string(), count.to_string()])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let lines = String::from_utf8(output.stdout)?;
    lines
        .lines()
        .map(|line| {
            let read: Value = serde_json::from_str(line)?;
            let text = |key: &str| read[key].as_str().map(str::to_owned);
            Ok(Figure {
                expression: text("expression").ok_or("there is an expression")?,
                is_float: read["is_float"] == true,
                value: text("value"),
            })
        })
        .collect()
}

/// A job that writes each expression's text into a column of its own, some a dataset.
fn place(figures: &[Figure]) -> Place {
    let place = Place::new();
    let (mut sql, mut outputs) = (String::new(), String::new());
    for (number, figures) in figures.chunks(COLUMNS).enumerate() {
        let columns = figures.iter().enumerate();
        let columns: Vec<_> = columns
            .map(|(column, figure)| format!("CAST({} AS VARCHAR) AS c{column}", figure.expression))
            .collect();
        let names: Vec<_> = (0..figures.len())
            .map(|column| format!("c{column}"))
            .collect();
        sql += &format!(
            "INSERT INTO kpi.n{number} SELECT {};\n",
            columns.join(",\n")
        );
        outputs += &format!(
            "        - {{ dataset: kpi.n{number}, format: parquet, columns: [{{ names: [{}], type: string }}] }}\n",
            names.join(", ")
        );
    }
    place.write("job.sql", sql);
    place.write(
        "pipeline.yaml",
        format!(
            "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: figures, tenant: demo, owner: you@example.com }}
spec:
  classification: public
  stages:
    - name: job
      phase: kpi
      runner: {{ class: managed_etl, size: small, network_profile: private_vpc, job: job.sql }}
      outputs:
{outputs}"
        ),
    );
    place
}

/// Compares so many expressions of a seed.
fn compare(seed: u64, count: usize) -> Outcome {
    let figures = figures(seed, count)?;
    let place = place(&figures);
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    let mut different = Vec::new();
    for (number, figures) in figures.chunks(COLUMNS).enumerate() {
        let dataset = format!("kpi.n{number}");
        let exported = place
            .barecount(["outputs", "export", &dataset, "--format", "ndjson"])
            .finish()
            .exits_with(0);
        let row: Value = serde_json::from_str(&exported.stdout)?;
        for (column, figure) in figures.iter().enumerate() {
            let found = row[format!("c{column}")].as_str();
            if !figure.is(found) {
                let Figure {
                    expression, value, ..
                } = figure;
                different.push(format!("{expression}: {value:?} is {found:?} here"));
            }
        }
    }
    assert!(
        different.is_empty(),
        "seed {seed}: {}",
        different.join("\n")
    );
    place.nothing_is_left();
    Ok(())
}

#[test]
fn two_thousand_expressions_give_what_duckdb_gives() -> Outcome {
    (1..=10).try_for_each(|seed| compare(seed, 200))
}

#[test]
#[ignore = "minutes; FIGURES_SEED chooses others"]
fn twenty_thousand_expressions_give_what_duckdb_gives() -> Outcome {
    let first = match std::env::var("FIGURES_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => 100,
    };
    (first..first + 100).try_for_each(|seed| compare(seed, 200))
}
