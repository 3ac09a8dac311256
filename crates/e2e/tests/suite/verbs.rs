//! Every verb as a user meets it: as a table, as JSON, and asked for what there is not.

use std::{ffi::OsString, os::unix::fs::PermissionsExt};

use barecount_e2e::{Outcome, example, place::Place, process::Finished};
use serde_json::Value;

fn told(place: &Place, arguments: &[&str]) -> Finished {
    place.barecount(arguments).finish()
}

fn json(place: &Place, arguments: &[&str], kind: &str) -> Value {
    let asked = place.barecount(arguments).argument("-o").argument("json");
    asked.finish().exits_with(0).json(kind)
}

#[test]
fn a_pipeline_from_init_runs_at_once() {
    let place = Place::new();
    told(&place, &["init", "here"])
        .exits_with(0)
        .tells("barecount run here/pipeline.yaml");
    told(&place, &["init", "here"])
        .exits_with(5)
        .tells("exists already");
    told(&place, &["validate", "here/pipeline.yaml"])
        .exits_with(0)
        .tells("is valid");
    let run = told(&place, &["run", "here/pipeline.yaml"]).exits_with(0);
    run.tells("succeeded")
        .tells("kpi.weekdays")
        .tells("cost")
        .tells("evidence");
    let rows = told(&place, &["outputs", "export", "kpi.weekdays"]).exits_with(0);
    // 2024 began on a Monday and had 366 days.
    let expected = [
        "weekday,days",
        "0,52",
        "1,53",
        "2,53",
        "3,52",
        "4,52",
        "5,52",
        "6,52",
    ];
    let mut lines: Vec<&str> = rows.stdout.lines().collect();
    lines[1..].sort_unstable();
    assert_eq!(lines, expected);
    place.nothing_is_left();
}

#[test]
fn init_tells_what_it_wrote_as_json_too() {
    let place = Place::new();
    let wrote = json(&place, &["init"], "init");
    assert_eq!(wrote["files"].as_array().map(Vec::len), Some(2));
}

#[test]
fn validate_tells_of_each_file_and_fails_if_one_is_wrong() {
    let place = Place::new();
    told(&place, &["init"]).exits_with(0);
    place.write("wrong.yaml", "kind: Pipeline\n");
    told(&place, &["validate", "pipeline.yaml", "wrong.yaml"])
        .exits_with(2)
        .tells("`weekdays` is valid")
        .tells("wrong.yaml:1:1");
    let found = json(&place, &["validate", "pipeline.yaml"], "diagnostics");
    assert_eq!(found["items"], serde_json::json!([]));
    told(&place, &["validate"]).exits_with(2).tells("<FILE>");
    told(&place, &["validate", "none.yaml"])
        .exits_with(4)
        .tells("none.yaml");
}

#[test]
fn runs_are_listed_shown_and_their_logs_printed() -> Outcome {
    let place = &example::undisturbed().place;
    let listed = json(place, &["runs", "ls"], "runs");
    let id = listed["items"][0]["id"].as_str().ok_or("a run has an id")?;
    told(place, &["runs", "ls"])
        .exits_with(0)
        .tells(id)
        .tells("fx-rates")
        .tells("succeeded");
    told(place, &["runs", "show", id])
        .exits_with(0)
        .tells("archive/2024")
        .tells("kpi.fx_monthly");
    // The beginning of an identifier is enough.
    assert_eq!(json(place, &["runs", "show", &id[..10]], "run")["id"], id);
    told(place, &["runs", "logs", id])
        .exits_with(0)
        .tells("landed the published file");
    let logs = json(place, &["runs", "logs", id, "--stage", "ingest"], "logs");
    assert_eq!(logs["items"].as_array().map(Vec::len), Some(1));
    told(place, &["runs", "logs", id, "--stage", "none"])
        .exits_with(4)
        .tells("ingest");
    for verb in ["show", "logs"] {
        told(place, &["runs", verb, "run_ffffffff"])
            .exits_with(4)
            .tells("barecount runs ls");
    }
    Ok(())
}

#[test]
fn outputs_are_listed_shown_and_exported_in_every_format() -> Outcome {
    let place = &example::undisturbed().place;
    let listed = json(place, &["outputs", "ls"], "outputs");
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(6));
    told(place, &["outputs", "ls"])
        .exits_with(0)
        .tells("kpi.fx_drawdown")
        .tells("221702");
    let shown = json(
        place,
        &["outputs", "show", "kpi.fx_drawdown", "--rows", "3"],
        "output",
    );
    assert_eq!(shown["rows"], 41);
    assert_eq!(
        shown["first_rows"]["rows"].as_array().map(Vec::len),
        Some(3)
    );
    told(place, &["outputs", "show", "kpi.fx_drawdown"])
        .exits_with(0)
        .tells("worst_drawdown");
    let export = |arguments: &[&str]| told(place, &[&["outputs", "export"], arguments].concat());
    let csv = export(&["kpi.fx_drawdown"]).exits_with(0).stdout;
    assert_eq!(csv.lines().count(), 42);
    let ndjson = export(&["kpi.fx_drawdown", "--format", "ndjson"])
        .exits_with(0)
        .stdout;
    assert_eq!(ndjson.lines().count(), 41);
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    export(&[
        "kpi.fx_drawdown",
        "--format",
        "parquet",
        "--to",
        &path("d.parquet"),
    ])
    .exits_with(0);
    assert!(fs_err::read(path("d.parquet"))?.starts_with(b"PAR1"));
    export(&[
        "publish.fx_report",
        "--format",
        "files",
        "--to",
        &path("report"),
    ])
    .exits_with(0);
    assert!(fs_err::read_to_string(path("report/report.html"))?.contains("<html"));
    export(&["kpi.fx_drawdown", "--to", &path("d.parquet")])
        .exits_with(1)
        .tells("exists");
    export(&["publish.fx_report", "--format", "files"])
        .exits_with(2)
        .tells("--to");
    Ok(())
}

#[test]
fn a_dataset_or_version_that_does_not_exist_is_told() {
    let place = &example::undisturbed().place;
    for verb in ["show", "export"] {
        told(place, &["outputs", verb, "kpi.none"])
            .fails_with(4, "BC0701")
            .tells("kpi.none");
        told(place, &["outputs", verb, "none"])
            .exits_with(2)
            .tells("`none`");
        told(
            place,
            &["outputs", verb, "kpi.fx_drawdown", "--version", "9"],
        )
        .fails_with(4, "BC0701")
        .tells("9");
    }
}

#[test]
fn dead_letters_are_listed_and_shown() {
    let place = &example::undisturbed().place;
    told(place, &["dlq", "ls"])
        .exits_with(0)
        .tells("archive")
        .tells("no RUB rate");
    let listed = json(place, &["dlq", "ls"], "dead_letters");
    let id = listed["items"][0]["id"].to_string();
    told(place, &["dlq", "show", &id])
        .exits_with(0)
        .tells("RUB");
    assert_eq!(
        json(place, &["dlq", "show", &id], "dead_letter")["stage"],
        "archive"
    );
    told(place, &["dlq", "show", "999"])
        .exits_with(4)
        .tells("barecount dlq ls");
    told(place, &["dlq", "ls", "--run", "run_ffffffff"]).exits_with(4);
}

#[test]
fn evidence_is_listed_and_shown() {
    let place = &example::undisturbed().place;
    told(place, &["evidence", "ls"])
        .exits_with(0)
        .tells("attempt")
        .tells("commit");
    let listed = json(place, &["evidence", "ls"], "evidence");
    assert!(
        listed["items"]
            .as_array()
            .is_some_and(|items| items.len() > 8)
    );
    let entry = json(place, &["evidence", "show", "0"], "evidence_entry");
    assert_eq!(
        entry["statement"]["_type"],
        "https://in-toto.io/Statement/v1"
    );
    told(place, &["evidence", "show", "9999"])
        .exits_with(4)
        .tells("barecount evidence ls");
    let verified = told(place, &["evidence", "verify"]).exits_with(0);
    assert!(verified.stdout.starts_with("valid: "), "{verified}");
    told(place, &["evidence", "verify", "none", "--vkey", "none"])
        .exits_with(4)
        .tells("none");
}

#[test]
fn a_state_folder_that_is_not_there_is_not_an_empty_one() {
    let place = Place::new();
    for verb in [
        ["runs", "ls"].as_slice(),
        &["outputs", "ls"],
        &["dlq", "ls"],
        &["evidence", "ls"],
        &["secrets", "ls", "--tenant", "demo"],
        &["runs", "show", "run_00"],
        &["outputs", "show", "a.b"],
        &["dlq", "show", "1"],
        &["evidence", "show", "0"],
        &["evidence", "verify"],
        &["evidence", "export", "log"],
        &["gc"],
    ] {
        told(&place, verb)
            .exits_with(4)
            .tells("there is no state folder at ");
    }
    assert!(!place.state().exists(), "looking makes nothing");
}

#[test]
fn where_nothing_ever_ran_lists_are_empty() {
    let place = Place::new();
    place.make_state();
    for (verb, says) in [
        (["runs", "ls"], "no runs yet"),
        (["outputs", "ls"], "nothing was committed yet"),
        (["dlq", "ls"], "no dead letters"),
        (["evidence", "ls"], "the ledger is empty"),
    ] {
        told(&place, &verb).exits_with(0).tells(says);
    }
}

#[test]
fn an_account_that_may_not_look_is_told_so_and_shown_nothing_empty() -> Outcome {
    let place = Place::new();
    place.make_state();
    std::fs::set_permissions(place.state(), PermissionsExt::from_mode(0o000))?;
    // Permissions hold for root as well, once it is without these capabilities.
    let held: Vec<OsString> = match rustix::process::geteuid().is_root() {
        true => ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
            .map(OsString::from)
            .to_vec(),
        false => Vec::new(),
    };
    for verb in [
        ["runs", "ls"].as_slice(),
        &["runs", "show", "run_00"],
        &["outputs", "ls"],
        &["outputs", "export", "kpi.rates"],
        &["dlq", "ls"],
        &["dlq", "show", "1"],
        &["evidence", "ls"],
        &["evidence", "show", "0"],
        &["evidence", "verify"],
        &["secrets", "ls", "--tenant", "demo"],
        &["gc"],
    ] {
        let looked = place.barecount(verb).behind(&held).finish();
        looked
            .exits_with(6)
            .tells("BC0815")
            .tells("Permission denied");
    }
    std::fs::set_permissions(place.state(), PermissionsExt::from_mode(0o700))?;
    Ok(())
}

#[test]
fn gc_removes_what_nobody_needs_and_keeps_what_runs_named() {
    let place = example::place();
    let folder = place.state().join("staging/task_0-1/output");
    fs_err::create_dir_all(folder).expect("a folder left behind");
    told(&place, &["init", "small"]).exits_with(0);
    told(&place, &["run", "small/pipeline.yaml"]).exits_with(0);
    let removed = json(&place, &["gc"], "gc");
    let blobs = removed["artifacts"]["blobs"].as_u64();
    assert!(blobs.is_some_and(|blobs| blobs > 0), "{removed}");
    told(&place, &["gc"]).exits_with(0).tells("removed");
    told(&place, &["outputs", "show", "kpi.weekdays"]).exits_with(0);
    told(&place, &["run", "small/pipeline.yaml"])
        .exits_with(0)
        .tells("nothing runs again");
}

#[test]
fn gc_that_would_keep_no_older_version_asks_first() {
    let place = Place::new();
    told(&place, &["init"]).exits_with(0);
    told(&place, &["run", "pipeline.yaml"]).exits_with(0);
    let job = fs_err::read_to_string(place.join("jobs/daily.sql")).expect("a job was written");
    place.write("jobs/daily.sql", format!("{job}-- anew\n"));
    told(&place, &["run", "pipeline.yaml"]).exits_with(0);
    let first = ["outputs", "show", "kpi.weekdays", "--version", "0"];
    // Nobody is there to be asked.
    told(&place, &["gc", "--retention", "0"])
        .exits_with(2)
        .tells("every version of every dataset but the latest would be removed")
        .tells("--yes");
    told(&place, &first).exits_with(0);
    let removed = json(&place, &["gc", "--retention", "0", "--yes"], "gc");
    assert_eq!(removed["data_files"], 1, "{removed}");
    told(&place, &["outputs", "export", "kpi.weekdays"]).exits_with(0);
    let export = ["outputs", "export", "kpi.weekdays", "--version", "0"];
    assert_ne!(told(&place, &export).status.code(), Some(0));
}

#[test]
fn an_export_that_fails_names_its_file_and_leaves_none() {
    let place = Place::new();
    told(&place, &["init"]).exits_with(0);
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml")).expect("it was written");
    let (untested, _) = manifest.split_once("          tests:").unwrap_or_default();
    place.write("pipeline.yaml", untested);
    // Forty thousand rows that nothing compresses to less than what may be written.
    let digit = "VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)";
    let job = format!(
        "CREATE VIEW digit AS SELECT CAST(column1 AS BIGINT) AS n FROM ({digit});
         CREATE VIEW number AS SELECT a.n * 10000 + b.n * 1000 + c.n * 100 + d.n * 10 + e.n AS n
         FROM digit AS a CROSS JOIN digit AS b CROSS JOIN digit AS c CROSS JOIN digit AS d
         CROSS JOIN digit AS e WHERE a.n < 4;
         INSERT INTO kpi.weekdays SELECT n AS weekday, n * n * 7919 % 1000003 AS days FROM number;\n"
    );
    place.write("jobs/daily.sql", job);
    told(&place, &["run", "pipeline.yaml"]).exits_with(0);
    // As on a full disk, but for files of 64 KiB alone.
    let limit = "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\"";
    let limited = ["sh", "-c", limit].map(OsString::from);
    for format in ["csv", "ndjson", "parquet"] {
        let to = place.join(format!("days.{format}"));
        let export = [
            "outputs",
            "export",
            "kpi.weekdays",
            "--format",
            format,
            "--to",
        ];
        let export = place.barecount(export).argument(&to).behind(&limited);
        export
            .finish()
            .exits_with(6)
            .tells(&format!("could not be exported to {}", to.display()))
            .tells("File too large");
        assert!(!to.exists(), "{} is gone", to.display());
    }
}

#[test]
fn validate_tells_between_what_a_run_costs_and_the_run_lies_there() -> Outcome {
    let place = Place::new();
    told(&place, &["init"]).exits_with(0);
    told(&place, &["validate", "pipeline.yaml"])
        .exits_with(0)
        .tells("a run costs ")
        .tells(" USD at list prices");
    let found = json(&place, &["validate", "pipeline.yaml"], "diagnostics");
    let estimate = &found["estimates"][0]["estimate"];
    let money = |amount: &Value| -> Result<f64, barecount_e2e::Failure> {
        Ok(amount["amount"]
            .as_str()
            .ok_or("an amount is a text")?
            .parse()?)
    };
    let run = json(&place, &["run", "pipeline.yaml"], "run");
    let (least, most) = (money(&estimate["at_least"])?, money(&estimate["at_most"])?);
    let cost = money(&run["cost"])?;
    assert!(
        0.0 < least && least <= cost && cost < most,
        "{estimate}: {cost}"
    );
    Ok(())
}

#[test]
fn schemas_are_printed_and_a_schema_that_does_not_exist_is_told_with_those_that_do() -> Outcome {
    let place = Place::new();
    for name in ["manifest", "environment", "lock", "build", "evidence"] {
        let printed = told(&place, &["schema", name]).exits_with(0);
        let schema: Value = serde_json::from_str(&printed.stdout)?;
        assert!(
            schema["$schema"].is_string() || schema["oneOf"].is_array(),
            "{name}"
        );
    }
    told(&place, &["schema", "none"])
        .exits_with(2)
        .tells("manifest, environment");
    Ok(())
}

#[test]
fn wrong_usage_is_told_and_help_and_version_are_there() {
    let place = Place::new();
    told(&place, &["--version"])
        .exits_with(0)
        .tells("barecount 0.");
    told(&place, &["--help"]).exits_with(0).tells("evidence");
    for verb in [
        "init",
        "validate",
        "run",
        "runs",
        "dlq",
        "outputs",
        "policy",
        "build",
        "gc",
        "evidence",
        "schema",
        "secrets",
        "advise",
        "completions",
        "man",
    ] {
        told(&place, &[verb, "--help"]).exits_with(0).tells("Usage");
    }
    told(&place, &["rnu"]).exits_with(2).tells("run");
    told(&place, &["run"]).exits_with(2).tells("<FILE>");
    told(&place, &["run", "x", "--window", "May"])
        .exits_with(2)
        .tells("a window is");
    told(&place, &["run", "x", "--token", "a b"])
        .exits_with(2)
        .tells("a token has");
    told(&place, &["runs", "ls", "-o", "xml"])
        .exits_with(2)
        .tells("json");
}

#[test]
fn quiet_keeps_standard_error_empty_and_yaml_says_what_json_does() -> Outcome {
    let place = Place::new();
    told(&place, &["init"]).exits_with(0);
    let quiet = told(&place, &["run", "pipeline.yaml", "--quiet"]).exits_with(0);
    assert_eq!(quiet.stderr, "");
    let yaml = told(&place, &["runs", "ls", "-o", "yaml"]).exits_with(0);
    assert!(yaml.stdout.contains("schema: barecount/runs/v1"), "{yaml}");
    Ok(())
}

#[test]
fn a_stage_that_the_pipeline_does_not_have_cannot_be_run_alone() {
    let place = &example::undisturbed().place;
    told(place, &["run", "fx-rates/pipeline.yaml", "--stage", "none"])
        .exits_with(4)
        .tells("ingest");
}
