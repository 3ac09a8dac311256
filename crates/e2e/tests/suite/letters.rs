//! Records that do not fit are all kept, grouped by reason, within the limits that a manifest sets.

use barecount_e2e::{Outcome, place::Place, process::Finished, programs};
use serde_json::{Value, json};

use crate::pipelines;

const BAD: usize = 300_000;

/// `bad` rows of which the id is no number, then `good` that fit.
fn rows(bad: usize, good: usize) -> String {
    let mut text = "id,amount\n".to_owned();
    for number in 0..bad {
        text.push_str(&format!("no number {number},1.00\n"));
    }
    for number in 0..good {
        text.push_str(&format!("{number},1.00\n"));
    }
    text
}

/// Sets limits on the dead letters of a place's output.
fn limit(place: &Place, limits: &str) -> Outcome {
    let path = place.join("pipeline.yaml");
    let manifest = fs_err::read_to_string(&path)?;
    let mode = "          mode: overwrite\n";
    let limited = manifest.replace(mode, &format!("{mode}          dead_letters: {limits}\n"));
    fs_err::write(path, limited)?;
    Ok(())
}

fn run(place: &Place) -> Finished {
    place
        .barecount(["run", "pipeline.yaml", "-o", "json"])
        .finish()
}

fn groups(place: &Place) -> Vec<Value> {
    let listed = place
        .barecount(["dlq", "ls", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("dead_letters");
    listed["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn of_many_rows_that_do_not_fit_each_is_kept_and_they_are_one_group() -> Outcome {
    let place = pipelines::function_with("", "", rows(BAD, 10).as_bytes());
    let told = run(&place).exits_with(0).json("run");
    assert_eq!(told["dead_letters"], BAD);
    assert_eq!(told["outputs"][0]["rows"], 10);
    let groups = groups(&place);
    assert_eq!(groups.len(), 1, "{groups:#?}");
    assert_eq!(groups[0]["count"], BAD);
    assert_eq!(groups[0]["reason"], "column `id`: int64 expected");
    assert_eq!(groups[0]["record"], "no number 0,1.00");
    let id = groups[0]["id"].to_string();
    place
        .barecount(["dlq", "show", &id])
        .finish()
        .exits_with(0)
        .tells("and 299999 more");
    let all = place
        .barecount(["dlq", "show", &id, "--records"])
        .finish()
        .exits_with(0);
    let last = all.stdout.lines().last().ok_or("there are records")?;
    let last: Value = serde_json::from_str(last)?;
    assert_eq!(last["record"], format!("no number {},1.00", BAD - 1));
    assert_eq!(all.stdout.lines().count(), BAD);
    Ok(())
}

#[test]
fn a_file_of_dead_letters_that_was_changed_is_not_believed() -> Outcome {
    let place = pipelines::function_with("", "", rows(2, 1).as_bytes());
    run(&place).exits_with(0);
    let verify = || place.barecount(["evidence", "verify"]).finish();
    verify().exits_with(0);
    let logs = fs_err::read_dir(place.state().join("logs"))?;
    let file = logs
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(".dead_letters.jsonl"));
    let file = file.ok_or("there is a file")?;
    let text = fs_err::read_to_string(&file)?;
    fs_err::write(&file, text.replace("no number 1", "no number 7"))?;
    let id = groups(&place)[0]["id"].to_string();
    let shown = place.barecount(["dlq", "show", &id, "--records"]).finish();
    shown.fails_with(7, "BC0904");
    verify().exits_with(7).tells(".dead_letters.jsonl");
    Ok(())
}

#[test]
fn a_run_of_which_no_row_fits_fails_unless_its_manifest_says_that_it_may() -> Outcome {
    let place = pipelines::function_with("", "", rows(3, 0).as_bytes());
    run(&place)
        .exits_with(1)
        .tells("[BC0710]")
        .tells("none of its 3 rows fits");
    let kept = groups(&place);
    assert!(kept.iter().any(|group| group["count"] == 3), "{kept:#?}");
    limit(&place, "{ max_share: 1 }")?;
    let told = run(&place).exits_with(0).json("run");
    assert_eq!(told["dead_letters"], 3);
    Ok(())
}

#[test]
fn more_dead_letters_than_the_manifest_allows_fail_the_run_and_are_kept() -> Outcome {
    for (limits, holds) in [
        ("{ max_share: 0.4 }", true),
        ("{ max_share: 0.39 }", false),
        ("{ max_count: 4 }", true),
        ("{ max_count: 3 }", false),
    ] {
        let place = pipelines::function_with("", "", rows(4, 6).as_bytes());
        limit(&place, limits)?;
        let finished = run(&place);
        if holds {
            finished.exits_with(0);
            continue;
        }
        let told = finished.exits_with(1).tells("[BC0710]").json("run");
        assert_eq!(told["outputs"], json!([]), "{limits}");
        assert!(groups(&place).iter().any(|group| group["count"] == 4));
    }
    Ok(())
}

#[test]
fn a_limit_that_is_no_share_is_refused_with_its_place() -> Outcome {
    let place = pipelines::function("");
    limit(&place, "{ max_share: 2 }")?;
    place
        .barecount(["validate", "pipeline.yaml"])
        .finish()
        .exits_with(2)
        .tells("max_share");
    Ok(())
}

#[test]
fn what_work_writes_and_no_output_names_is_told() {
    let place = pipelines::function("");
    programs::package(
        &place,
        "worker.zip",
        "bootstrap",
        &[
            ("rows/raw.rows/part.csv", pipelines::GOOD_ROWS),
            ("rows/raw.row/part.csv", b"id\n1\n"),
        ],
    );
    let finished = run(&place).exits_with(0).tells("`raw.row`");
    let named = &finished.json("run")["undeclared"];
    assert_eq!(*named, json!([{ "stage": "work", "name": "raw.row" }]));
}

#[test]
fn a_key_that_is_there_twice_is_named() {
    let place = pipelines::function_with("", "", b"id,amount\n7,1.5\n7,2.5\n8,3.5\n");
    run(&place).exits_with(1).tells("[BC0704]").tells("id: 7");
}

#[test]
fn files_of_dead_letters_that_nobody_has_on_record_are_collected() -> Outcome {
    let place = pipelines::function_with("", "", rows(1, 1).as_bytes());
    run(&place).exits_with(0);
    let logs = place.state().join("logs");
    let stray = logs.join("task-ffff-1.dead_letters.jsonl");
    fs_err::write(&stray, "{}\n")?;
    place
        .barecount(["gc"])
        .finish()
        .exits_with(0)
        .tells("1 files of dead letters");
    assert!(!stray.exists());
    let id = groups(&place)[0]["id"].to_string();
    let shown = place.barecount(["dlq", "show", &id, "--records"]).finish();
    assert_eq!(shown.exits_with(0).stdout.lines().count(), 1);
    Ok(())
}
