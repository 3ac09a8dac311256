//! The second example: an order system behind a private network, with all that goes wrong there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use barecount_e2e::{
    Outcome, binary,
    erp::{self, Api},
    place::Place,
    process::{Finished, Invocation},
    tree,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// What tests that look at the results give the order system: 336 orders of 2024 on four pages, 164 of
/// 2025 on two; five of them are wrong.
const SPOILT: &str = "--orders 500 --spoil-every 97";

/// Asserts that the place has every right order of such an order system once, counted and summed up
/// as they are.
#[track_caller]
fn has_all_orders_once(place: &Place, flags: &str) {
    let orders: Vec<Value> = erp::orders(flags)
        .into_iter()
        .filter(|order| {
            order["lines"].is_u64()
                && order["customer"].is_string()
                && order["ordered_on"] != "31.12.2024"
        })
        .collect();
    let text = |order: &Value, name: &str| order[name].as_str().unwrap_or_default().to_owned();
    let mut ids: Vec<String> = exported(place, "raw.erp_orders")
        .iter()
        .map(|row| row["order_id"].clone())
        .collect();
    ids.sort();
    let expected: Vec<String> = orders.iter().map(|order| text(order, "order_id")).collect();
    assert_eq!(ids, expected, "each order once");
    let mut months: BTreeMap<(String, String), (u64, u64, u64)> = BTreeMap::new();
    for order in &orders {
        let month = format!("{}-01", &text(order, "ordered_on")[..7]);
        let sums = months.entry((month, text(order, "customer"))).or_default();
        sums.0 += 1;
        sums.1 += order["lines"].as_u64().unwrap_or_default();
        sums.2 += cents(&text(order, "amount"));
    }
    let found: BTreeMap<(String, String), (u64, u64, u64)> =
        exported(place, "kpi.erp_orders_monthly")
            .iter()
            .map(|row| {
                let number = |name: &str| row[name].parse().expect("a number");
                let key = (row["month"].clone(), row["customer"].clone());
                (
                    key,
                    (number("orders"), number("lines"), cents(&row["amount"])),
                )
            })
            .collect();
    assert_eq!(found, months);
}

fn cents(amount: &str) -> u64 {
    let digits: String = amount.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("an amount with two decimals")
}

/// The rows of a dataset. None of its values has a comma in it.
fn exported(place: &Place, dataset: &str) -> Vec<BTreeMap<String, String>> {
    let text = place
        .barecount(["outputs", "export", dataset, "--env", "local"])
        .finish()
        .exits_with(0)
        .stdout;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    lines
        .map(|line| {
            let names = header.iter().map(ToString::to_string);
            names.zip(line.split(',').map(str::to_owned)).collect()
        })
        .collect()
}

/// The attempts at each year, the first of which has most of the orders.
fn attempts_of_years(finished: &Finished) -> Vec<Vec<Value>> {
    let run = finished.json("run");
    let tasks = run["tasks"].as_array().into_iter().flatten();
    tasks
        .filter(|task| task["stage"] == "poll")
        .map(|task| task["attempts"].as_array().cloned().unwrap_or_default())
        .collect()
}

/// The attempts at the first year.
fn attempts(finished: &Finished) -> Vec<Value> {
    let mut years = attempts_of_years(finished);
    assert_eq!(years.len(), 3, "{finished}");
    years.remove(0)
}

/// What evidence has of the attempts at `poll`, oldest first.
fn evidence(place: &Place) -> Vec<Value> {
    let listed = place.barecount(["evidence", "ls", "-o", "json"]).finish();
    let listed = listed.exits_with(0).json("evidence");
    let entries = listed["items"].as_array().into_iter().flatten();
    let mut shown: Vec<(u64, Value)> = entries
        .filter(|entry| entry["kind"] == "attempt")
        .map(|entry| {
            let index = entry["index"].as_u64().expect("an entry has an index");
            let show = ["evidence", "show", &index.to_string(), "-o", "json"];
            let entry = place.barecount(show).finish().exits_with(0);
            let entry = entry.json("evidence_entry");
            (index, entry["statement"]["predicate"].clone())
        })
        .filter(|(_, predicate)| predicate["configuration"]["name"] == "poll")
        .collect();
    shown.sort_by_key(|(index, _)| *index);
    shown.into_iter().map(|(_, predicate)| predicate).collect()
}

fn log(place: &Place, finished: &Finished) -> String {
    let run = finished.json("run");
    let id = run["id"].as_str().unwrap_or_default();
    place
        .barecount(["runs", "logs", id])
        .finish()
        .exits_with(0)
        .stdout
}

/// Cursors behind each full page of the first year, from one page to another.
fn behind(pages: std::ops::RangeInclusive<u64>) -> Vec<String> {
    pages
        .map(|page| match page {
            0 => String::new(),
            page => format!("after-{}", page * 100),
        })
        .collect()
}

#[test]
fn every_right_order_is_counted_once_and_every_wrong_one_is_set_aside_with_its_reason() {
    let (place, api) = erp::place_for(SPOILT);
    let finished = erp::poll(&place, "first").finish().exits_with(0);
    has_all_orders_once(&place, SPOILT);
    assert_eq!(finished.json("run")["dead_letters"], 5);
    let letters = place
        .barecount(["dlq", "ls", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("dead_letters");
    let letters = letters["items"].as_array().cloned().unwrap_or_default();
    let has = |order: &str, error: &str| {
        letters.iter().any(|letter| {
            letter["error"].as_str() == Some(error)
                && letter["record"]
                    .as_str()
                    .is_some_and(|record| record.contains(order))
        })
    };
    for (order, error) in [
        (
            "SO-0000097",
            "`ordered_on` should be a day, as in 2024-12-31, and is \"31.12.2024\"",
        ),
        ("SO-0000194", "`customer` is missing"),
        (
            "SO-0000291",
            "`lines` should be a whole number, and is \"twelve\"",
        ),
    ] {
        assert!(has(order, error), "{order}: {error}: {letters:#?}");
    }
    // For each year one connection, to what was declared; the secret by its reference.
    for attempts in attempts_of_years(&finished) {
        let attempt = &attempts[0];
        let flows = &attempt["network"]["records"];
        assert_eq!(flows.as_array().map(Vec::len), Some(1), "{attempt:#}");
        assert_eq!(flows[0]["name"], "erp.corp.example", "{attempt:#}");
        assert_eq!(flows[0]["port"], api.address.port(), "{attempt:#}");
        assert_eq!(flows[0]["verdict"], "allowed", "{attempt:#}");
        let secret = &attempt["secrets"]["records"][0];
        assert_eq!(secret["reference"], "erp/client-secret@1", "{attempt:#}");
        assert_eq!(secret["verdict"], "allowed", "{attempt:#}");
    }
    place
        .barecount(["evidence", "verify"])
        .finish()
        .exits_with(0);
    place.nothing_is_left();
}

#[test]
fn one_container_polls_one_year_after_the_other_with_one_token_and_one_schema() {
    let (place, api) = erp::place_for("--orders 500");
    let finished = erp::poll(&place, "first").finish().exits_with(0);
    has_all_orders_once(&place, "--orders 500");
    for (year, cursors) in [
        ("2024", behind(0..=3)),
        ("2025", vec![String::new(), "after-436".to_owned()]),
        ("2026", vec![String::new()]),
    ] {
        assert_eq!(api.cursors(year), cursors, "{year}");
    }
    assert_eq!(api.statuses("/oauth/token"), [(200, 1)].into());
    assert_eq!(api.statuses("/v1/orders/schema"), [(200, 1)].into());
    let attempts = evidence(&place);
    let warm: Vec<&Value> = attempts
        .iter()
        .map(|attempt| &attempt["detail"]["warm"])
        .collect();
    assert_eq!(warm, [false, true, true], "{attempts:#?}");
    // What is in memory is not what the attempts are told: each asked for the secret of its own.
    let told = log(&place, &finished);
    assert_eq!(
        told.matches("the API gave a new token").count(),
        1,
        "{told}"
    );
    assert_eq!(told.matches("the one in memory").count(), 2, "{told}");
    // A warm container ends with its run, and the next one finds in the cache what this one knew.
    place.nothing_is_left();
    erp::poll(&place, "second").finish().exits_with(0);
    assert_eq!(api.statuses("/oauth/token"), [(200, 1)].into());
    assert_eq!(
        api.statuses("/v1/orders/schema"),
        [(200, 1), (304, 1)].into()
    );
    assert_eq!(evidence(&place)[3]["detail"]["warm"], false);
}

#[test]
fn the_next_poll_takes_what_is_new_and_asks_for_nothing_that_it_knows() {
    let (place, api) = erp::place_for("--orders 250");
    erp::poll(&place, "first").finish().exits_with(0);
    assert_eq!(api.cursors("2024"), behind(0..=2));
    let addresses = api.addresses();
    drop(api);
    let api = Api::start_again("--orders 430", addresses);
    let finished = erp::poll(&place, "second").finish().exits_with(0);
    assert_eq!(api.cursors("2024"), ["after-250"]);
    assert_eq!(api.cursors("2025"), ["after-336"]);
    assert_eq!(
        api.statuses("/v1/orders/schema"),
        [(304, 1), (401, 1)].into()
    );
    let second = finished.json("run");
    let added = second["outputs"].as_array().into_iter().flatten();
    let rows: Vec<&Value> = added
        .filter(|output| output["dataset"] == "raw.erp_orders")
        .map(|output| &output["rows"])
        .collect();
    assert_eq!(rows, [&json!(86), &json!(94), &json!(0)]);
    has_all_orders_once(&place, "--orders 430");
    // A schema that has changed is fetched again, and may have more fields.
    let addresses = api.addresses();
    drop(api);
    let api = Api::start_again("--orders 430 --schema-version 2", addresses);
    erp::poll(&place, "third").finish().exits_with(0);
    assert_eq!(
        api.statuses("/v1/orders/schema"),
        [(200, 1), (401, 1)].into()
    );
    has_all_orders_once(&place, "--orders 430");
}

#[test]
fn a_rate_limit_is_kept_to_whether_it_is_told_in_seconds_or_as_a_date() {
    let (place, api) = erp::place_for("--orders 500 --limit-every 3 --retry-after 1");
    let finished = erp::poll(&place, "first").finish().exits_with(0);
    has_all_orders_once(&place, "--orders 500");
    // Each is tried again once: whoever comes back too soon is told so again.
    assert_eq!(api.statuses("/v1/orders"), [(200, 7), (429, 3)].into());
    let attempts = attempts_of_years(&finished);
    assert!(attempts.iter().all(|year| year.len() == 1), "{finished}");
}

#[test]
fn a_rate_limit_beyond_all_patience_and_every_clock_is_left_to_another_attempt() {
    let flags = format!("--limit-every 1 --retry-after {}", u64::MAX);
    let (place, api) = erp::place_for(&flags);
    erp::rewrite(
        &place,
        "erp-poll/pipeline.yaml",
        "application: 3",
        "application: 1",
    );
    let failed = erp::poll(&place, "first")
        .finish()
        .exits_with(1)
        .tells("[BC0606]");
    let tried = attempts(&failed);
    assert_eq!(tried.len(), 2, "{failed}");
    for attempt in &tried {
        assert_eq!(attempt["failure"]["code"], "BC0606", "{attempt:#}");
    }
    // Each attempt asked once, and none of them came back too soon.
    let asked = attempts_of_years(&failed).iter().map(Vec::len).sum();
    assert_eq!(api.statuses("/v1/orders"), [(429, asked)].into());
}

#[test]
fn a_token_that_is_refused_is_replaced_and_one_that_is_good_is_used_again() {
    let (place, api) = erp::place_for("--orders 500 --token-uses 3");
    erp::poll(&place, "first").finish().exits_with(0);
    has_all_orders_once(&place, "--orders 500");
    assert_eq!(api.statuses("/v1/orders"), [(200, 7), (401, 2)].into());
    assert_eq!(api.statuses("/oauth/token"), [(200, 3)].into());
}

#[test]
fn an_attempt_goes_on_where_an_earlier_one_gave_up_with_its_token_and_its_schema() {
    // Each attempt tries five times.
    let flags = "--orders 500 --drop-page 2 --fail-page 3 --fail-times 6";
    let (place, api) = erp::place_for(flags);
    let finished = erp::poll(&place, "first").finish().exits_with(0);
    has_all_orders_once(&place, "--orders 500");
    let attempts = attempts(&finished);
    assert_eq!(attempts.len(), 2, "{attempts:#?}");
    assert_eq!(attempts[0]["failure"]["code"], "BC0606", "{attempts:#?}");
    let mut asked = behind(0..=1);
    asked.extend(behind(1..=1));
    asked.extend(std::iter::repeat_n("after-200".to_owned(), 7));
    asked.extend(behind(3..=3));
    assert_eq!(api.cursors("2024"), asked);
    // A year that is not well holds no other up, and its container is not ended by it.
    for attempts in &attempts_of_years(&finished)[1..] {
        assert_eq!(attempts.len(), 1, "{finished}");
    }
    let evidence = evidence(&place);
    let cold = evidence
        .iter()
        .filter(|attempt| attempt["detail"]["warm"] == false);
    assert_eq!(cold.count(), 1, "{evidence:#?}");
    assert_eq!(api.statuses("/oauth/token"), [(200, 1)].into());
    assert_eq!(api.statuses("/v1/orders/schema"), [(200, 1)].into());
}

#[test]
fn a_poll_that_is_asked_to_stop_is_taken_up_again_and_one_that_is_killed_is_done_anew() {
    for (signal, again_from) in [(Signal::TERM, 2), (Signal::KILL, 0)] {
        let (place, api) = erp::place_for("--orders 500 --hold-page 3");
        let run = erp::poll(&place, "first").start();
        run.wait_until("the third page is waited for", || {
            api.cursors("2024").len() == 3
        });
        let program = run
            .tree()
            .find(|pid| tree::command_line(pid).starts_with("/app/poll"));
        let program = program.expect("the program runs");
        rustix::process::kill_process(program, signal).expect("it can be sent a signal");
        let finished = run.finish().exits_with(0);
        has_all_orders_once(&place, "--orders 500");
        assert_eq!(attempts(&finished).len(), 2, "{finished}");
        let mut asked = behind(0..=2);
        asked.extend(behind(again_from..=3));
        assert_eq!(api.cursors("2024"), asked, "{signal:?}");
        // Another container took over, with what the first had left in the cache.
        assert_eq!(api.statuses("/oauth/token"), [(200, 1)].into());
        place.nothing_is_left();
    }
}

#[test]
fn a_platform_that_is_killed_in_the_middle_of_a_poll_takes_no_order_twice() {
    let (place, api) = erp::place_for("--orders 500 --hold-page 4");
    let run = erp::poll(&place, "first").start();
    run.wait_until("the fourth page is waited for", || {
        api.cursors("2024").len() == 4
    });
    run.signal(Signal::KILL);
    run.finish();
    place.nothing_runs();
    let finished = erp::poll(&place, "first").finish().exits_with(0);
    assert_eq!(attempts(&finished).len(), 2, "{finished}");
    has_all_orders_once(&place, "--orders 500");
    place.nothing_is_left();
}

#[test]
fn a_run_that_finds_nobody_asks_to_be_tried_again_fails_and_is_resumed_once_somebody_is_there() {
    let (place, api) = erp::place_for("--orders 150");
    erp::rewrite(
        &place,
        "erp-poll/pipeline.yaml",
        "application: 3",
        "application: 1",
    );
    let addresses = api.addresses();
    drop(api);
    let failed = erp::poll(&place, "first")
        .finish()
        .exits_with(1)
        .tells("[BC0606]");
    let before = attempts(&failed);
    assert_eq!(before.len(), 2, "{failed}");
    for attempt in &before {
        assert_eq!(attempt["failure"]["code"], "BC0606", "{attempt:#}");
    }
    let told = log(&place, &failed);
    assert!(told.contains("could not be had"), "{told}");
    let _api = Api::start_again("--orders 150", addresses);
    let finished = erp::poll(&place, "first").finish().exits_with(0);
    assert_eq!(finished.json("run")["id"], failed.json("run")["id"]);
    has_all_orders_once(&place, "--orders 150");
}

#[test]
fn a_client_that_is_refused_is_not_tried_again_and_its_secret_is_not_told() {
    let (place, api) = erp::place_for("--orders 100");
    let wrong = format!("not the {} one", erp::secret());
    erp::keep(&place, &wrong);
    let failed = erp::poll(&place, "first")
        .finish()
        .exits_with(1)
        .tells("[BC0607]");
    let tried = attempts_of_years(&failed);
    assert!(tried.iter().all(|year| year.len() <= 1), "{failed}");
    let tried = tried.iter().flatten().count();
    assert_eq!(api.statuses("/oauth/token"), [(401, tried)].into());
    let told = log(&place, &failed);
    assert!(
        told.contains("the API refuses client `barecount-poll`: invalid_client"),
        "{told}"
    );
    assert!(found_in(place.path(), wrong.as_bytes()).is_empty());
}

#[test]
fn neither_secret_nor_token_is_anywhere_but_in_the_cache_of_the_work() -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let flags = "--orders 500 --spoil-every 97 --limit-every 2 --drop-page 2 --token-uses 2";
    let (place, api) = erp::place_for(flags);
    let finished = erp::poll(&place, "first").finish().exits_with(0);
    let caches = place.state().join("cache");
    let mut tokens = Vec::new();
    for cache in fs_err::read_dir(&caches)? {
        let path = cache?.path().join("token.json");
        if path.exists() {
            let mode = fs_err::metadata(&path)?.permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
            let token: Value = serde_json::from_slice(&fs_err::read(&path)?)?;
            tokens.push(token["value"].as_str().unwrap_or_default().to_owned());
        }
    }
    assert_eq!(tokens.len(), 1, "the last token is in the cache");
    let token = tokens[0].as_bytes();
    assert!(token.len() > 20, "it is a token");
    let found = found_in(place.path(), token);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(&caches), "{found:?}");
    for shown in [
        finished.stdout.as_str(),
        &finished.stderr,
        &log(&place, &finished),
    ] {
        assert!(!shown.contains(&tokens[0]), "{shown}");
        assert!(!shown.contains(&erp::secret()), "{shown}");
    }
    let requests = serde_json::to_vec(&api.requests())?;
    let secret = erp::secret();
    let hex = hex::encode(&secret);
    // What HTTP Basic makes of the client's id and a colon, whatever secret follows.
    let basic = b"YmFyZWNvdW50LXBvbGw6";
    for form in [
        secret.as_bytes(),
        hex.as_bytes(),
        &form_encoded(&secret),
        basic,
    ] {
        assert!(!contains(&requests, form));
        assert_eq!(found_in(place.path(), form), Vec::<PathBuf>::new());
        // The search finds what is there, however deep and amid whatever else.
        let planted = [b"\0\xff".repeat(5_000).as_slice(), form, b"\n"].concat();
        let planted = place.write(".barecount/planted/deep/down", planted);
        assert_eq!(found_in(place.path(), form), [planted.as_path()]);
        fs_err::remove_file(planted)?;
    }
    Ok(())
}

#[test]
#[should_panic(expected = "can be listed")]
fn a_search_of_a_folder_that_cannot_be_listed_does_not_pass() {
    found_in(&Place::new().join("nowhere"), b"canary");
}

/// As the secret goes over the wire before it is put into base64.
fn form_encoded(text: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for byte in text.bytes() {
        match byte {
            b' ' => encoded.push(b'+'),
            b'*' | b'-' | b'.' | b'_' => encoded.push(byte),
            byte if byte.is_ascii_alphanumeric() => encoded.push(byte),
            byte => encoded.extend(format!("%{byte:02X}").bytes()),
        }
    }
    encoded
}

/// The files below a folder that have these bytes in them. What cannot be searched fails the test: it
/// may be where they are.
fn found_in(folder: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).expect("what is searched can be listed") {
        let entry = entry.expect("what is searched can be listed");
        let path = entry.path();
        let kind = entry.file_type().expect("an entry has a type");
        if kind.is_dir() {
            found.extend(found_in(&path, bytes));
        } else if kind.is_file() {
            let content = fs_err::read(&path).expect("what is searched can be read");
            if contains(&content, bytes) {
                found.push(path);
            }
        }
    }
    found
}

fn contains(content: &[u8], bytes: &[u8]) -> bool {
    content.windows(bytes.len()).any(|window| window == bytes)
}

#[test]
fn the_example_makes_a_test_host_of_its_own_and_leaves_nothing_of_it() {
    let place = erp::place();
    let finished = Invocation::of(
        place.join("erp-poll/run"),
        place.path(),
        ["--orders", "300"],
    )
    .env("BARECOUNT_BIN", binary::barecount())
    .env("BARECOUNT_STATE", place.state())
    .env("ERP_TARGET", erp::target())
    .env("XDG_CONFIG_HOME", place.join("config"))
    .finish()
    .exits_with(0)
    .tells("erp.corp.example (10.20.0.5):8080")
    .tells("erp/client-secret@2");
    has_all_orders_once(&place, "--orders 300 --spoil-every 97");
    assert!(!finished.stderr.contains("unbound"), "{finished}");
    // The log of requests is whole: five pages of three years, and the addresses before them.
    let log = fs_err::read_to_string(erp::target().join("api.jsonl")).expect("a log of requests");
    assert!(log.ends_with('\n'), "{log}");
    assert_eq!(
        erp::statuses(&erp::lines(&log), "/v1/orders"),
        [(200, 5)].into(),
        "{log}"
    );
    place.nothing_is_left();
}

#[test]
fn a_poll_that_was_cancelled_goes_on_from_its_checkpoint_and_takes_no_order_twice() {
    let (place, api) = erp::place_for("--orders 500 --hold-page 3");
    let run = erp::poll(&place, "first").start();
    run.wait_until("the third page is waited for", || {
        api.cursors("2024").len() == 3
    });
    run.signal(Signal::INT);
    let cancelled = run.finish().exits_with(1);
    assert_eq!(cancelled.json("run")["state"], "cancelled");
    let asked_before = api.cursors("2024");
    let finished = erp::poll(&place, "first").finish().exits_with(0);
    assert_eq!(finished.json("run")["id"], cancelled.json("run")["id"]);
    let asked = api.cursors("2024");
    let again = &asked[asked_before.len()..];
    assert_eq!(
        again.first(),
        asked_before.last(),
        "it went on where it was stopped: {asked:?}"
    );
    has_all_orders_once(&place, "--orders 500");
    place.nothing_is_left();
}
