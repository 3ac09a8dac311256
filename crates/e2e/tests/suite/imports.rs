//! A pipeline reads what another one writes: by name, as it stands, and no other tenant's.

use barecount_e2e::{Outcome, place::Place, process::Finished};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::pipelines;

/// A pipeline of one SQL job.
fn pipeline(name: &str, tenant: &str, inputs: &str, output: &str, columns: &str) -> String {
    format!(
        "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: {name}, tenant: {tenant}, owner: you@example.com }}
spec:
  classification: public
  stages:
    - name: {name}
      phase: kpi
      runner: {{ class: managed_etl, size: small, network_profile: private_vpc, job: jobs/{name}.sql }}
{inputs}      outputs:
        - dataset: {output}
          format: parquet
          mode: overwrite
          columns: [{columns}]
          tests: [{{ row_count: {{ min: 1 }} }}]
"
    )
}

const ORDERS: &str = "{ name: region, type: string }, { name: amount, type: int64 }";
const TOTAL: &str = "{ name: total, type: int64 }";
const READS: &str = "      inputs: [{ dataset: raw.orders, from: shop }]\n";

/// Two pipelines over one state folder: `shop` writes orders, `report` sums them up.
fn place() -> Place {
    let place = Place::new();
    write_shop(
        &place,
        "('north', 1), ('south', 2)",
        ORDERS,
        "column1 AS region, column2 AS amount",
    );
    write_report(&place, "demo", READS);
    place
}

fn write_shop(place: &Place, rows: &str, columns: &str, select: &str) {
    place.write(
        "shop/shop.yaml",
        pipeline("shop", "demo", "", "raw.orders", columns),
    );
    place.write(
        "shop/jobs/shop.sql",
        format!("INSERT INTO raw.orders SELECT {select} FROM (VALUES {rows});\n"),
    );
}

fn write_report(place: &Place, tenant: &str, inputs: &str) {
    place.write(
        "report/report.yaml",
        pipeline("report", tenant, inputs, "kpi.total", TOTAL),
    );
    place.write(
        "report/jobs/report.sql",
        "INSERT INTO kpi.total SELECT sum(amount) AS total FROM raw.orders;\n",
    );
}

fn on(place: &Place, verb: &[&str], name: &str) -> Finished {
    place
        .barecount(verb)
        .argument(format!("{name}/{name}.yaml"))
        .argument("-o")
        .argument("json")
        .finish()
}

fn run(place: &Place, name: &str) -> Value {
    on(place, &["run"], name).exits_with(0).json("run")
}

/// The latest attempt's entry in the ledger.
fn attempt(place: &Place) -> Result<Value, barecount_e2e::Failure> {
    let listed = place
        .barecount(["evidence", "ls", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("evidence");
    let entries = listed["items"].as_array().ok_or("a list")?;
    let last = entries
        .iter()
        .rev()
        .find(|entry| entry["kind"] == "attempt");
    let index = last.ok_or("an attempt")?["index"].to_string();
    let shown = place
        .barecount(["evidence", "show", &index, "-o", "json"])
        .finish()
        .exits_with(0)
        .json("evidence_entry");
    Ok(shown["statement"]["predicate"].clone())
}

#[test]
fn what_another_pipeline_writes_is_read_with_its_lineage_and_again_once_it_has_changed() -> Outcome
{
    let place = place();
    on(&place, &["run"], "report").fails_with(2, "BC0733");
    run(&place, "shop");
    let first = run(&place, "report");
    let given = &attempt(&place)?["detail"]["inputs"][0];
    assert_eq!(
        (&given["dataset"], &given["from"], &given["version"]),
        (&json!("raw.orders"), &json!("shop"), &json!(0))
    );
    assert_eq!(
        run(&place, "report")["id"],
        first["id"],
        "nothing has changed"
    );

    write_shop(
        &place,
        "('north', 1), ('south', 40)",
        ORDERS,
        "column1 AS region, column2 AS amount",
    );
    run(&place, "shop");
    let again = run(&place, "report");
    assert_ne!(again["id"], first["id"], "the orders are others");
    assert_eq!(attempt(&place)?["detail"]["inputs"][0]["version"], 1);
    place
        .barecount(["outputs", "show", "kpi.total"])
        .finish()
        .exits_with(0)
        .tells("41");
    place
        .barecount(["trace", "kpi.total"])
        .finish()
        .exits_with(0)
        .tells("of pipeline report")
        .tells("dataset     raw.orders@1")
        .tells("of pipeline shop");
    Ok(())
}

#[test]
fn a_schema_that_changes_under_a_reader_is_found_and_the_writer_is_told_who_reads() -> Outcome {
    let place = place();
    run(&place, "shop");
    run(&place, "report");
    let validated = on(&place, &["validate"], "shop").exits_with(0);
    let told = serde_json::from_str::<Value>(&validated.stdout)?;
    assert_eq!(
        told["read_by"],
        json!([{ "dataset": "raw.orders", "pipeline": "report", "stage": "report" }])
    );
    place
        .barecount(["datasets", "drop", "raw.orders"])
        .finish()
        .exits_with(2)
        .tells("it is read by stage `report` of pipeline `report`");

    let columns = "{ name: region, type: string }, { name: price, type: int64 }";
    write_shop(
        &place,
        "('north', 1)",
        columns,
        "column1 AS region, column2 AS price",
    );
    run(&place, "shop");
    on(&place, &["validate"], "report")
        .exits_with(2)
        .tells("BC0233")
        .tells("amount");
    on(&place, &["run"], "report").fails_with(2, "BC0233");
    Ok(())
}

#[test]
fn what_is_another_tenants_is_not_found_and_what_is_another_pipelines_is_not_taken_for_it() {
    let place = place();
    run(&place, "shop");
    write_report(&place, "other", READS);
    on(&place, &["validate"], "report")
        .exits_with(2)
        .tells("BC0733")
        .tells("tenant `other` has no dataset `raw.orders`");
    on(&place, &["run"], "report").fails_with(2, "BC0733");
    let inputs = "      inputs: [{ dataset: raw.orders, from: till }]\n";
    write_report(&place, "demo", inputs);
    on(&place, &["run"], "report").fails_with(2, "BC0734");
    write_report(&place, "demo", READS);
    run(&place, "report");
    place
        .barecount(["datasets", "give", "raw.orders", "--to", "till", "--yes"])
        .finish()
        .exits_with(0);
    on(&place, &["run"], "report")
        .fails_with(2, "BC0734")
        .tells("pipeline `till`'s, and not `shop`'s");
}

/// Names of the tasks, each with whether an earlier run answered it.
fn answered(run: &Value) -> Vec<bool> {
    let tasks = run["tasks"].as_array().into_iter().flatten();
    tasks.map(|task| !task["answered_by"].is_null()).collect()
}

fn change_orders(place: &Place, amount: u64) {
    write_shop(
        place,
        &format!("('north', 1), ('south', {amount})"),
        ORDERS,
        "column1 AS region, column2 AS amount",
    );
    run(place, "shop");
}

fn total(place: &Place) -> String {
    let exported = place.barecount(["outputs", "export", "kpi.total"]).finish();
    exported.exits_with(0).stdout
}

#[test]
fn a_restored_version_is_a_change_and_the_same_rows_once_more_are_none() {
    let place = place();
    run(&place, "shop");
    run(&place, "report");
    change_orders(&place, 40);
    run(&place, "report");
    assert!(total(&place).contains("41"));
    let restore = ["datasets", "restore", "raw.orders", "--version", "0"];
    place
        .barecount(restore)
        .finish()
        .exits_with(2)
        .tells("it is read by stage `report` of pipeline `report`");
    place
        .barecount(restore)
        .argument("--yes")
        .finish()
        .exits_with(0);
    let foreseen = on(&place, &["run", "--dry-run"], "report").exits_with(0);
    let foreseen = foreseen.json("dry_run");
    assert_eq!(
        foreseen["reads_from"],
        json!([{ "dataset": "raw.orders", "pipeline": "shop", "version": 2 }])
    );
    assert_eq!(foreseen["tasks"][0]["does"], "runs");
    assert_eq!(answered(&run(&place, "report")), [false]);
    assert!(total(&place).contains('3'), "as before");

    change_orders(&place, 2);
    on(&place, &["run", "--force", "shop"], "shop").exits_with(0);
    let same = on(&place, &["run"], "report")
        .exits_with(0)
        .tells("reads raw.orders@3 of pipeline shop");
    assert_eq!(answered(&same.json("run")), [true], "the rows are the same");
}

#[test]
fn a_run_that_is_taken_up_reads_what_it_was_accepted_with_whatever_was_swept_meanwhile() -> Outcome
{
    let reads = "      inputs: [{ dataset: raw.orders, from: shop, format: csv }]\n";
    let place = pipelines::function_with("linger", reads, pipelines::GOOD_ROWS);
    change_orders(&place, 2);
    let worker = || {
        place
            .barecount(["run", "pipeline.yaml", "--token", "monday", "-o", "json"])
            .start()
    };
    let killed = worker();
    pipelines::lingers(&killed);
    killed.signal(Signal::KILL);
    killed.finish();
    place.nothing_runs();
    change_orders(&place, 40);
    place
        .barecount(["gc", "--retention", "0", "--yes"])
        .finish()
        .exits_with(0);
    let again = worker();
    pipelines::let_go(&again);
    again.finish().exits_with(0);
    assert_eq!(attempt(&place)?["detail"]["inputs"][0]["version"], 0);
    // Nobody needs it any more.
    place
        .barecount(["gc", "--retention", "0", "--yes"])
        .finish()
        .exits_with(0);
    place
        .barecount(["outputs", "export", "raw.orders", "--version", "0"])
        .finish()
        .fails_with(1, "BC0701");
    Ok(())
}

#[test]
fn data_stays_in_its_boundary_whichever_pipeline_reads_it() {
    let place = place();
    let strict = pipeline("shop", "demo", "", "raw.orders", ORDERS)
        .replace("classification: public", "classification: restricted");
    place.write("shop/shop.yaml", strict);
    run(&place, "shop");
    on(&place, &["validate"], "report")
        .exits_with(2)
        .tells("BC0232")
        .tells("`raw.orders` was written within private_vpc, restricted");
    on(&place, &["run"], "report").fails_with(2, "BC0232");
    // A declared crossing is asked of governance, which knows which data it is of.
    let reason = "crossing: { reason: Totals are published by contract. }";
    let inputs = format!("      inputs: [{{ dataset: raw.orders, from: shop, {reason} }}]\n");
    write_report(&place, "demo", &inputs);
    on(&place, &["validate"], "report").exits_with(0);
    let explained = on(&place, &["policy", "explain"], "report");
    assert!(explained.stdout.contains("raw.orders"), "{explained}");
    // Nor does a stage in between make it laxer: what it writes is as strict as it is.
    let between = pipeline("report", "demo", READS, "kpi.total", TOTAL)
        .replace("classification: public", "classification: restricted");
    place.write("report/report.yaml", between);
    run(&place, "report");
    place.write(
        "chain/chain.yaml",
        pipeline(
            "chain",
            "demo",
            "      inputs: [{ dataset: kpi.total, from: report }]\n",
            "kpi.chain",
            TOTAL,
        ),
    );
    place.write(
        "chain/jobs/chain.sql",
        "INSERT INTO kpi.chain SELECT total FROM kpi.total;\n",
    );
    on(&place, &["run"], "chain").fails_with(2, "BC0232");
}

#[test]
fn a_dataset_names_its_readers_and_its_one_writer() {
    let place = place();
    run(&place, "shop");
    run(&place, "report");
    place
        .barecount(["datasets", "show", "raw.orders"])
        .finish()
        .exits_with(0)
        .tells("pipeline  shop")
        .tells("read by   stage `report` of pipeline `report`");
    let second = pipeline("report", "demo", "", "raw.orders", TOTAL);
    place.write("report/report.yaml", second);
    place.write(
        "report/jobs/report.sql",
        "INSERT INTO raw.orders SELECT 1 AS total;\n",
    );
    on(&place, &["validate"], "report")
        .exits_with(2)
        .tells("BC0730")
        .tells("dataset `raw.orders` is pipeline `shop`'s")
        .tells("datasets give raw.orders --to report");
    on(&place, &["run"], "report").fails_with(2, "BC0730");
}
