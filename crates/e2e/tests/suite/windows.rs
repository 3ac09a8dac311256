//! The window of a run reaches its SQL, and chooses its partitions.

use barecount_e2e::{Outcome, place::Place, process::Finished};
use serde_json::Value;

/// A pipeline whose one stage lists the days of its window, in partitions of this kind.
fn days(partitions: &str, select: &str) -> Place {
    let place = Place::new();
    place.write(
        "pipeline.yaml",
        format!(
            "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: days, tenant: demo, owner: you@example.com }}
spec:
  classification: public
  stages:
    - name: days
      phase: kpi
      runner:
        {{ class: managed_etl, size: small, network_profile: private_vpc, job: days.sql }}
      partitions: {partitions}
      outputs:
        - dataset: kpi.days
          format: parquet
          partition_by: [month]
          columns:
            - {{ name: month, type: string, nullable: false }}
            - {{ name: since, type: timestamp, nullable: false }}
            - {{ name: days, type: int64, nullable: false }}
"
        ),
    );
    place.write(
        "days.sql",
        format!("INSERT INTO kpi.days SELECT {select};\n"),
    );
    place
}

const OF_WINDOW: &str = "$partition AS month, $window_start AS since, \
     CAST(date_part('day', $window_end - INTERVAL '1 day') AS BIGINT) AS days";

fn run(place: &Place, more: &[&str]) -> Finished {
    let arguments = [&["run", "pipeline.yaml", "-o", "json"], more].concat();
    place.barecount(arguments).finish()
}

fn partitions(run: &Value) -> Vec<&str> {
    let tasks = run["tasks"].as_array().expect("there are tasks");
    tasks
        .iter()
        .filter_map(|task| task["partition"].as_str())
        .collect()
}

#[test]
fn sql_names_the_window_and_the_partition_that_it_is_run_for() {
    let place = days("{ by: month }", OF_WINDOW);
    let run = run(&place, &["--window", "2024-02"])
        .exits_with(0)
        .json("run");
    assert_eq!(partitions(&run), ["2024-02"]);
    let export = place.barecount(["outputs", "export", "kpi.days"]).finish();
    let export = export.exits_with(0).stdout;
    let row = export.lines().nth(1).unwrap_or_default();
    assert!(
        row.contains("2024-02,2024-02-01T00:00:00") || row.contains("2024-02-01"),
        "{export}"
    );
    assert!(row.contains("29"), "{export}");
}

#[test]
fn a_window_chooses_partitions_of_those_that_there_are() -> Outcome {
    let fixed = "$partition AS month, TIMESTAMP '2024-01-01T00:00:00Z' AS since, \
                 CAST(1 AS BIGINT) AS days";
    let place = days("{ by: month, from: \"2024-01\", to: \"2024-04\" }", fixed);
    let two = run(&place, &["--window", "2024-02-15/2024-03-02"]);
    assert_eq!(
        partitions(&two.exits_with(0).json("run")),
        ["2024-02", "2024-03"]
    );
    // The end is not part of a window.
    let one = run(&place, &["--window", "2024-04-01/2024-05-01"]);
    assert_eq!(partitions(&one.exits_with(0).json("run")), ["2024-04"]);
    run(&place, &["--window", "2025"])
        .fails_with(2, "BC0223")
        .tells("no partition between 2025-01-01");
    let all = run(&place, &[]).exits_with(0).json("run");
    assert_eq!(partitions(&all).len(), 4);
    Ok(())
}

#[test]
fn what_a_run_without_a_window_lacks_is_said_with_the_way_out() {
    let fixed = "$partition AS month, TIMESTAMP '2024-01-01T00:00:00Z' AS since, \
                 CAST(1 AS BIGINT) AS days";
    run(&days("{ by: month }", fixed), &[])
        .fails_with(2, "BC0223")
        .tells("the partitions of the window")
        .tells("--window");
    let place = days("{ by: month }", OF_WINDOW);
    place
        .barecount(["validate", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    let place = days(
        "{ by: month, from: \"2024-01\", to: \"2024-01\" }",
        OF_WINDOW,
    );
    run(&place, &[])
        .fails_with(2, "BC0233")
        .tells("`$window_start` at line 1")
        .tells("--window");
    let place = days("{ by: month, from: \"2024-01\" }", OF_WINDOW);
    place
        .barecount(["validate", "pipeline.yaml"])
        .finish()
        .fails_with(2, "BC0223")
        .tells("both `from` and `to`");
}

/// A pipeline of two jobs without partitions: the first names no window, the second does.
fn two_jobs() -> Place {
    let place = Place::new();
    let stage = |name: &str| {
        format!(
            "    - name: {name}
      phase: kpi
      runner: {{ class: managed_etl, size: small, network_profile: private_vpc, job: {name}.sql }}
      outputs:
        - dataset: kpi.{name}
          format: parquet
          columns: [{{ name: since, type: timestamp, nullable: false }}]
"
        )
    };
    place.write(
        "pipeline.yaml",
        format!(
            "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: two, tenant: demo, owner: you@example.com }}
spec:
  classification: public
  stages:
{}{}",
            stage("blind"),
            stage("seeing")
        ),
    );
    let now = "arrow_cast('2024-02-01T00:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))')";
    let blind = format!("-- never $window_start\nINSERT INTO kpi.blind SELECT {now} AS since;\n");
    place.write("blind.sql", blind);
    let seeing = "INSERT INTO kpi.seeing SELECT $window_start AS since;\n";
    place.write("seeing.sql", seeing);
    place
}

#[test]
fn another_window_is_other_work_only_for_those_who_can_see_it() {
    let place = two_jobs();
    let states = |window: &str| {
        let run = run(&place, &["--window", window]).exits_with(0);
        let run = run.json("run");
        let tasks = run["tasks"].as_array().into_iter().flatten();
        tasks
            .map(|task| !task["answered_by"].is_null())
            .collect::<Vec<_>>()
    };
    assert_eq!(states("2024-01"), [false, false]);
    assert_eq!(
        states("2024-02"),
        [true, false],
        "answered by the first run"
    );
    run(&place, &["--window", "2024-03", "--dry-run"])
        .exits_with(0)
        .tells("unchanged")
        .tells("window");
}
