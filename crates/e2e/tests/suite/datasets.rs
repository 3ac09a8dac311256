//! Datasets by their versions: what brought each, how they differ, going back to one; and that each
//! has one writer.

use barecount_e2e::{Outcome, place::Place, process::Finished};
use serde_json::{Value, json};

/// A pipeline of one stage, which writes these rows into `kpi.rows`.
pub(crate) struct Writes<'a> {
    pub(crate) pipeline: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) mode: &'a str,
    pub(crate) columns: &'a str,
}

pub(crate) const NUMBERS: Writes<'static> = Writes {
    pipeline: "numbers",
    tenant: "demo",
    mode: "overwrite",
    columns: "[{ name: n, type: int64, nullable: false }]",
};

/// What changes in the schema of a dataset that gets a note.
pub(crate) const NOTED: &str =
    "[{ name: n, type: int64, nullable: false }, { name: note, type: string }]";

impl Writes<'_> {
    pub(crate) fn write(&self, place: &Place, select: &str) {
        let Self {
            pipeline,
            tenant,
            mode,
            columns,
        } = self;
        place.write(
            format!("{tenant}-{pipeline}/pipeline.yaml"),
            format!(
                "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: {pipeline}, tenant: {tenant}, owner: you@example.com }}
spec:
  classification: public
  stages:
    - name: make
      phase: kpi
      runner:
        {{ class: managed_etl, size: small, network_profile: private_vpc, job: make.sql }}
      outputs:
        - dataset: kpi.rows
          format: parquet
          mode: {mode}
          columns: {columns}
"
            ),
        );
        place.write(
            format!("{tenant}-{pipeline}/make.sql"),
            format!("INSERT INTO kpi.rows SELECT {select};\n"),
        );
    }

    fn file(&self) -> String {
        format!("{}-{}/pipeline.yaml", self.tenant, self.pipeline)
    }

    pub(crate) fn runs(&self, place: &Place, select: &str) -> Value {
        self.write(place, select);
        self.runs_again(place)
    }

    fn runs_again(&self, place: &Place) -> Value {
        asked(place, &["run", &self.file()], "run")
    }
}

const ONE: &str = "CAST(1 AS BIGINT) AS n";
pub(crate) const TWO: &str = "CAST(column1 AS BIGINT) AS n FROM (VALUES (1), (2))";

fn told(place: &Place, arguments: &[&str]) -> Finished {
    place.barecount(arguments).finish()
}

fn asked(place: &Place, arguments: &[&str], kind: &str) -> Value {
    let asked = place.barecount(arguments).argument("-o").argument("json");
    asked.finish().exits_with(0).json(kind)
}

fn rows(place: &Place) -> Vec<String> {
    let export = told(place, &["outputs", "export", "kpi.rows"]).exits_with(0);
    let mut rows: Vec<String> = export.stdout.lines().skip(1).map(str::to_owned).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn a_history_names_run_writer_rows_and_the_change_of_the_schema() -> Outcome {
    let place = Place::new();
    let first = NUMBERS.runs(&place, ONE);
    let noted = Writes {
        columns: NOTED,
        ..NUMBERS
    };
    let second = noted.runs(&place, "CAST(3 AS BIGINT) AS n, 'x' AS note");
    let history = asked(&place, &["datasets", "history", "kpi.rows"], "history");
    let items = history["items"].as_array().ok_or("a list")?;
    assert_eq!(items.len(), 2, "{history}");
    let newest = &items[0];
    assert_eq!(newest["version"], 1);
    assert_eq!(
        (&newest["run"], &newest["pipeline"]),
        (&second["id"], &json!("numbers"))
    );
    assert_eq!(
        (&newest["act"], &newest["rows"]),
        (&json!("overwritten"), &json!(1))
    );
    assert_eq!(
        (&newest["added"]["rows"], &newest["removed"]["rows"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(newest["schema_changes"][0]["column"], "note");
    assert_eq!(items[1]["run"], first["id"]);
    told(&place, &["datasets", "history", "kpi.rows"])
        .exits_with(0)
        .tells("column `note` (string, may be null) is new")
        .tells(second["id"].as_str().ok_or("an id")?);

    let diff = asked(&place, &["datasets", "diff", "kpi.rows"], "diff");
    assert_eq!(
        (&diff["from"]["version"], &diff["to"]["version"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(diff["columns"][0]["change"], "added");
    let same = ["datasets", "diff", "kpi.rows", "--from", "1", "--to", "1"];
    told(&place, &same).exits_with(0).tells("no difference");
    told(&place, &["datasets", "diff", "kpi.rows", "--to", "0"]).exits_with(2);
    told(&place, &["datasets", "diff", "kpi.rows", "--to", "9"]).fails_with(4, "BC0701");

    let listed = asked(&place, &["datasets", "ls"], "datasets");
    assert_eq!(listed["items"][0]["pipeline"], "numbers", "{listed}");
    let shown = asked(
        &place,
        &["datasets", "show", "kpi.rows", "--version", "0"],
        "dataset",
    );
    assert_eq!(shown["columns"].as_array().map(Vec::len), Some(1));
    told(&place, &["datasets", "show", "kpi.none"]).fails_with(4, "BC0701");
    Ok(())
}

#[test]
fn what_is_restored_is_what_stands_and_runs_know_it() -> Outcome {
    let place = Place::new();
    let first = NUMBERS.runs(&place, ONE);
    let second = NUMBERS.runs(&place, TWO);
    let restore = ["datasets", "restore", "kpi.rows", "--version", "0"];
    // Nobody is there to be asked.
    told(&place, &restore)
        .exits_with(2)
        .tells("goes from version 1 back to 0; added: 1 row in 1 file; removed: 2 rows in 1 file")
        .tells("--yes");
    assert_eq!(rows(&place), ["1", "2"]);
    let yes = [&restore[..], &["--yes"]].concat();
    let changed = asked(&place, &yes, "change");
    assert_eq!(
        (&changed["version"], &changed["rows"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(rows(&place), ["1"]);
    told(&place, &yes).exits_with(0).tells("is that already");

    // What wrote two rows does not stand, so that it is done again; what wrote one row did.
    let third = NUMBERS.runs_again(&place);
    assert_ne!(third["id"], second["id"]);
    assert_eq!(rows(&place), ["1", "2"]);
    asked(&place, &yes, "change");
    let again = NUMBERS.runs(&place, ONE);
    assert_eq!(
        again["id"], first["id"],
        "the first run's work stands again"
    );

    let kinds = asked(&place, &["evidence", "ls"], "evidence");
    let entries = kinds["items"].as_array().ok_or("a list")?;
    let by_hand = entries.iter().filter(|entry| entry["kind"] == "dataset");
    assert_eq!(by_hand.count(), 2, "{kinds}");
    told(&place, &["evidence", "verify"]).exits_with(0);
    let history = asked(&place, &["datasets", "history", "kpi.rows"], "history");
    assert_eq!(history["items"][0]["act"], "restored");
    assert_eq!(history["items"][0]["restored"], 0);
    told(
        &place,
        &[
            "datasets",
            "restore",
            "kpi.rows",
            "--version",
            "99",
            "--yes",
        ],
    )
    .fails_with(4, "BC0701");
    place.nothing_is_left();
    Ok(())
}

#[test]
fn what_is_dropped_is_gone_for_all_who_read_and_can_be_had_again() {
    let place = Place::new();
    let first = NUMBERS.runs(&place, ONE);
    told(&place, &["datasets", "drop", "kpi.rows"])
        .exits_with(2)
        .tells("--version 0` brings it back");
    let changed = asked(&place, &["datasets", "drop", "kpi.rows", "--yes"], "change");
    assert_eq!(changed["act"], "dropped");
    for verb in [
        &["outputs", "show", "kpi.rows"][..],
        &["outputs", "export", "kpi.rows"],
        &["datasets", "show", "kpi.rows"],
        &["datasets", "drop", "kpi.rows", "--yes"],
    ] {
        told(&place, verb).fails_with(4, "BC0701");
    }
    let listed = asked(&place, &["datasets", "ls"], "datasets");
    assert_eq!(listed["items"], json!([]));
    let second = NUMBERS.runs_again(&place);
    assert_ne!(second["id"], first["id"], "what the first wrote is gone");
    assert_eq!(rows(&place), ["1"]);
    asked(&place, &["datasets", "drop", "kpi.rows", "--yes"], "change");
    let restore = ["datasets", "restore", "kpi.rows", "--version", "2", "--yes"];
    asked(&place, &restore, "change");
    assert_eq!(rows(&place), ["1"]);
    let third = NUMBERS.runs_again(&place);
    assert_eq!(
        third["id"], second["id"],
        "what the second wrote stands again"
    );
}

#[test]
fn a_running_run_is_not_disturbed_by_whoever_would_change_what_it_works_on() {
    let place = crate::pipelines::function("linger");
    let run = crate::pipelines::start(&place);
    crate::pipelines::let_go(&run);
    run.finish().exits_with(0);
    // Another token is other work.
    let other = ["run", "pipeline.yaml", "--token", "other"];
    let run = place.barecount(other).start();
    crate::pipelines::lingers(&run);
    let drop = ["--wait", "0", "datasets", "drop", "raw.rows", "--yes"];
    told(&place, &drop).fails_with(6, "BC0803");
    crate::pipelines::let_go(&run);
    run.finish().exits_with(0);
}

#[test]
fn a_dataset_has_one_writer_and_changes_hands_by_name() -> Outcome {
    let place = Place::new();
    NUMBERS.runs(&place, ONE);
    let second = Writes {
        pipeline: "others",
        ..NUMBERS
    };
    second.write(&place, TWO);
    let file = second.file();
    for verb in ["validate", "run"] {
        told(&place, &[verb, &file])
            .fails_with(2, "BC0730")
            .tells("dataset `kpi.rows` is pipeline `numbers`'s")
            .tells("barecount datasets give kpi.rows --to others");
    }
    let found = place.barecount(["validate", &file, "-o", "json"]).finish();
    let found = found.exits_with(2).json("diagnostics");
    assert_eq!(found["items"][0]["line"], 12, "{found}");
    assert_eq!(rows(&place), ["1"]);

    // Another tenant's dataset of that name is another dataset.
    let elsewhere = Writes {
        tenant: "globex",
        ..second
    };
    elsewhere.runs(&place, TWO);
    let give = ["datasets", "give", "kpi.rows", "--to", "others", "--yes"];
    told(&place, &give).fails_with(2, "BC0821");
    let give = [&give[..], &["--tenant", "demo"]].concat();
    asked(&place, &give, "change");
    asked(&place, &["run", &file], "run");
    told(&place, &["run", &NUMBERS.file()])
        .fails_with(2, "BC0730")
        .tells("is pipeline `others`'s");
    let drop = ["datasets", "drop", "kpi.rows", "--yes", "--tenant", "demo"];
    asked(&place, &drop, "change");
    // It is nobody's then, and whoever writes it first has it.
    NUMBERS.runs_again(&place);
    told(&place, &["run", &file]).fails_with(2, "BC0730");
    Ok(())
}
