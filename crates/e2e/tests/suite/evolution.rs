//! A dataset's schema changes from run to run: it is taken, or refused before anything runs, and
//! there is a way back from each.

use std::{path::Path, process::Command};

use barecount_e2e::{Outcome, place::Place, process::Finished, python};
use serde_json::{Value, json};

/// A schema, and the row that a stage writes of it.
#[derive(Clone, Copy)]
struct Schema {
    columns: &'static str,
    row: &'static str,
    partition_by: &'static str,
    header: &'static str,
    csv: &'static str,
}

const FIRST: Schema = Schema {
    columns: "[{ name: id, type: int64, nullable: false }, \
              { name: amount, type: \"decimal(10,2)\" }, { name: note, type: string }]",
    row: "CAST(1 AS BIGINT) AS id, CAST(1.50 AS DECIMAL(10,2)) AS amount, 'a' AS note",
    partition_by: "[]",
    header: "id,amount,note",
    csv: "1,1.50,a",
};

/// What changes, and whether rows that stay can live with it.
const CHANGES: [(&str, bool, Schema); 9] = [
    (
        "a type changed",
        false,
        Schema {
            columns: "[{ name: id, type: int64, nullable: false }, \
                      { name: amount, type: float64 }, { name: note, type: string }]",
            row: "CAST(1 AS BIGINT) AS id, CAST(1.5 AS DOUBLE) AS amount, 'a' AS note",
            csv: "1,1.5,a",
            ..FIRST
        },
    ),
    (
        "a required column added",
        false,
        Schema {
            columns: "[{ name: id, type: int64, nullable: false }, \
                      { name: amount, type: \"decimal(10,2)\" }, { name: note, type: string }, \
                      { name: more, type: int64, nullable: false }]",
            row: "CAST(1 AS BIGINT) AS id, CAST(1.50 AS DECIMAL(10,2)) AS amount, 'a' AS note, \
                  CAST(7 AS BIGINT) AS more",
            header: "id,amount,note,more",
            csv: "1,1.50,a,7",
            ..FIRST
        },
    ),
    (
        "a column that may be null added",
        true,
        Schema {
            columns: "[{ name: id, type: int64, nullable: false }, \
                      { name: amount, type: \"decimal(10,2)\" }, { name: note, type: string }, \
                      { name: more, type: int64 }]",
            row: "CAST(1 AS BIGINT) AS id, CAST(1.50 AS DECIMAL(10,2)) AS amount, 'a' AS note, \
                  CAST(7 AS BIGINT) AS more",
            header: "id,amount,note,more",
            csv: "1,1.50,a,7",
            ..FIRST
        },
    ),
    (
        "a column dropped",
        false,
        Schema {
            columns: "[{ name: id, type: int64, nullable: false }, \
                      { name: amount, type: \"decimal(10,2)\" }]",
            row: "CAST(1 AS BIGINT) AS id, CAST(1.50 AS DECIMAL(10,2)) AS amount",
            header: "id,amount",
            csv: "1,1.50",
            ..FIRST
        },
    ),
    (
        "a column renamed",
        false,
        Schema {
            columns: "[{ name: id, type: int64, nullable: false }, \
                      { name: amount, type: \"decimal(10,2)\" }, { name: remark, type: string }]",
            row: "CAST(1 AS BIGINT) AS id, CAST(1.50 AS DECIMAL(10,2)) AS amount, 'a' AS remark",
            header: "id,amount,remark",
            ..FIRST
        },
    ),
    (
        "a type widened",
        true,
        Schema {
            columns: "[{ name: id, type: int64, nullable: false }, \
                      { name: amount, type: \"decimal(12,4)\" }, { name: note, type: string }]",
            row: "CAST(1 AS BIGINT) AS id, CAST(1.5 AS DECIMAL(12,4)) AS amount, 'a' AS note",
            csv: "1,1.5000,a",
            ..FIRST
        },
    ),
    (
        "a column that may be null from now on",
        true,
        Schema {
            columns: "[{ name: id, type: int64 }, \
                      { name: amount, type: \"decimal(10,2)\" }, { name: note, type: string }]",
            ..FIRST
        },
    ),
    (
        "a column that may no longer be null",
        false,
        Schema {
            columns: "[{ name: id, type: int64, nullable: false }, \
                      { name: amount, type: \"decimal(10,2)\" }, \
                      { name: note, type: string, nullable: false }]",
            ..FIRST
        },
    ),
    (
        "other partitions",
        false,
        Schema {
            partition_by: "[id]",
            ..FIRST
        },
    ),
];

/// Writes a pipeline whose one stage writes the row of a schema.
fn write(place: &Place, schema: Schema, mode: &str, more: &str) {
    let Schema {
        columns,
        row,
        partition_by,
        ..
    } = schema;
    place.write(
        "pipeline.yaml",
        format!(
            "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: evolving, tenant: demo, owner: you@example.com }}
spec:
  classification: public
  defaults:
    retries: {{ application: 0, infrastructure: 0, initial_backoff: 100ms, max_backoff: 1s }}
  stages:
    - name: make
      phase: kpi
      runner:
        {{ class: managed_etl, size: small, network_profile: private_vpc, job: make.sql }}
      outputs:
        - dataset: kpi.rows
          format: parquet
          mode: {mode}
          {more}
          partition_by: {partition_by}
          columns: {columns}
          tests:
            - {{ row_count: {{ min: 1 }} }}
"
        ),
    );
    place.write("make.sql", format!("INSERT INTO kpi.rows SELECT {row};\n"));
}

/// Runs it as work of its own name.
fn run(place: &Place, token: &str) -> Finished {
    let arguments = ["run", "pipeline.yaml", "--token", token];
    place.barecount(arguments).finish()
}

fn validate(place: &Place) -> Finished {
    place.barecount(["validate", "pipeline.yaml"]).finish()
}

#[track_caller]
fn holds(place: &Place, change: &str, header: &str, rows: &[&str]) {
    let export = place.barecount(["outputs", "export", "kpi.rows"]).finish();
    let export = export.exits_with(0);
    let mut lines: Vec<&str> = export.stdout.lines().collect();
    lines[1..].sort_unstable();
    assert_eq!(lines[0], header, "{change}");
    assert_eq!(lines[1..], *rows, "{change}");
}

/// What engines that others wrote find in the table.
fn outsiders(place: &Place, header: &str) -> Result<Value, barecount_e2e::Failure> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/evolved_tables.py");
    let listed = place.barecount(["outputs", "ls", "-o", "json"]).finish();
    let listed = listed.exits_with(0).json("outputs");
    let uri = listed["items"][0]["uri"]
        .as_str()
        .ok_or("a table has a uri")?;
    let mut command = Command::new(python::interpreter());
    let output = command.arg(script).arg(uri).arg(header).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn replacing_a_whole_dataset_replaces_its_schema_and_back() -> Outcome {
    let place = Place::new();
    write(&place, FIRST, "overwrite", "");
    run(&place, "first").exits_with(0);
    for (number, (change, _, schema)) in CHANGES.into_iter().enumerate() {
        write(&place, schema, "overwrite", "");
        validate(&place).exits_with(0);
        run(&place, &format!("there-{number}")).exits_with(0);
        holds(&place, change, schema.header, &[schema.csv]);
        if schema.partition_by != FIRST.partition_by || schema.header != FIRST.header {
            let found = outsiders(&place, schema.header)?;
            let names: Vec<&str> = schema.header.split(',').collect();
            assert_eq!(found["columns"], json!(names), "{change}");
            let rows = json!([schema.csv.split(',').collect::<Vec<_>>()]);
            assert_eq!(
                (&found["duckdb"], &found["deltalake"]),
                (&rows, &rows),
                "{change}"
            );
        }
        write(&place, FIRST, "overwrite", "");
        run(&place, &format!("back-{number}")).exits_with(0);
        holds(&place, change, FIRST.header, &[FIRST.csv]);
    }
    place.nothing_is_left();
    Ok(())
}

#[test]
fn adding_to_a_dataset_takes_what_is_true_of_earlier_rows_and_refuses_the_rest() -> Outcome {
    for (change, fits, schema) in CHANGES {
        let place = Place::new();
        write(&place, FIRST, "append", "");
        run(&place, "first").exits_with(0);
        write(&place, schema, "append", "");
        if fits {
            validate(&place).exits_with(0);
            run(&place, "second").exits_with(0);
            let width = schema.header.split(',').count();
            let mut earlier: Vec<&str> = FIRST.csv.split(',').collect();
            earlier.resize(width, "");
            if schema.csv.contains("1.5000") {
                earlier[1] = "1.5000";
            }
            let earlier = earlier.join(",");
            let mut rows = [earlier.as_str(), schema.csv];
            rows.sort_unstable();
            holds(&place, change, schema.header, &rows);
            let found = outsiders(&place, schema.header)?;
            let rows = json!(rows.map(|row| row.split(',').collect::<Vec<_>>()));
            assert_eq!(
                (&found["duckdb"], &found["deltalake"]),
                (&rows, &rows),
                "{change}"
            );
        } else {
            for refused in [validate(&place), run(&place, "second")] {
                let refused = refused.exits_with(2);
                refused.tells("BC0720").tells("schema_evolution: replace");
            }
            holds(&place, change, FIRST.header, &[FIRST.csv]);
        }
        // With the word for it, whatever is declared; and so back again.
        write(&place, schema, "append", "schema_evolution: replace");
        run(&place, "replaced").exits_with(0);
        if !fits {
            holds(&place, change, schema.header, &[schema.csv]);
        }
        write(&place, FIRST, "append", "schema_evolution: replace");
        run(&place, "back").exits_with(0);
        // What fits the earlier rows replaces nothing, whatever the word.
        let rows: &[&str] = match change {
            "a column dropped" => &["1,1.50,", FIRST.csv],
            "a column that may no longer be null" => &[FIRST.csv, FIRST.csv],
            _ => &[FIRST.csv],
        };
        holds(&place, change, FIRST.header, rows);
        place.nothing_is_left();
    }
    Ok(())
}

#[test]
fn a_schema_that_is_to_stay_is_kept_even_where_no_row_stays() {
    let place = Place::new();
    write(&place, FIRST, "overwrite", "schema_evolution: none");
    run(&place, "first").exits_with(0);
    let (_, _, schema) = CHANGES[2];
    write(&place, schema, "overwrite", "schema_evolution: none");
    run(&place, "second")
        .exits_with(2)
        .tells("BC0720")
        .tells("schema_evolution: none");
    let found = place
        .barecount(["validate", "pipeline.yaml", "-o", "json"])
        .finish();
    let found = found.exits_with(2).json("diagnostics");
    assert_eq!(found["items"][0]["code"], "BC0720");
    assert_eq!(found["items"][0]["line"], 14, "{found}");
    write(&place, schema, "overwrite", "");
    run(&place, "third").exits_with(0);
    holds(&place, "let go", schema.header, &[schema.csv]);
}
