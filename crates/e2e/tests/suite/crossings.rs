//! Data stays inside: what crosses a boundary is declared, allowed and in evidence; what a private
//! stage works on is nowhere but in its own places; a state folder is its owner's alone.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use barecount_e2e::{Outcome, place::Place, process::Finished, programs};
use rusqlite::{Connection, OpenFlags, types::ValueRef};
use serde_json::{Value, json};

use crate::approvals;

/// What the private stage works on, and nobody else may ever see.
const CANARY: &str = "canary-7f3a91c2d4";
/// What the stage beside it works on.
const OTHER: &str = "sparrow-51be08aa77";

/// A stage that leaves the word of its input wherever it can.
fn stage(name: &str, behaviour: &str, boundary: &str) -> String {
    format!(
        "    - name: {name}
      phase: ingestion
      {boundary}
      env: {{ BEHAVIOUR: \"{behaviour}\", DATASET: raw.{name} }}
      inputs: [{{ file: data/{name}/word.txt, name: word }}]
      outputs:
        - dataset: raw.{name}
          format: csv
          mode: overwrite
          columns:
            - {{ name: id, type: int64, nullable: false }}
            - {{ name: word, type: string }}
"
    )
}

const PRIVATE: &str = "classification: restricted\n      runner: { network_profile: private_vpc }";
const PUBLIC: &str = "runner: { network_profile: public_vpc_egress }";

/// A place with the worker's image and these stages.
fn place(stages: &str) -> Place {
    let place = Place::new();
    let worker = fs_err::read(programs::worker()).expect("the worker was built");
    place.write("images/worker/worker", worker);
    place.write(
        "images/worker/build.yaml",
        "kind: image\nfiles:\n  - { from: worker, to: /app/worker, executable: true }\n\
         entrypoint: [/app/worker]\nuser: \"1000:1000\"\n",
    );
    place.write("data/private/word.txt", format!("{CANARY}\n"));
    place.write("data/other/word.txt", format!("{OTHER}\n"));
    place.write("pipeline.yaml", manifest(stages));
    place
}

fn manifest(stages: &str) -> String {
    format!(
        "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: words, tenant: demo, owner: you@example.com }}
spec:
  defaults:
    runner: {{ class: container, size: small, image: images/worker }}
    retries: {{ application: 0, infrastructure: 0, initial_backoff: 100ms, max_backoff: 1s }}
  stages:
{stages}"
    )
}

fn run(place: &Place) -> Finished {
    place
        .barecount(["run", "pipeline.yaml", "-o", "json"])
        .finish()
}

/// Every file below a folder in which a word stands, relative to it.
fn files_with(folder: &Path, word: &str) -> BTreeSet<PathBuf> {
    let (mut found, mut pending) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(path) = pending.pop() {
        let Ok(entry) = fs_err::symlink_metadata(&path) else {
            continue;
        };
        if entry.is_dir() {
            let entries = fs_err::read_dir(&path).expect("the test may read its own place");
            pending.extend(entries.map(|entry| entry.expect("it can be listed").path()));
        } else if entry.is_file() {
            let bytes = fs_err::read(&path).expect("the test may read its own place");
            if contains(&bytes, word) {
                found.insert(path.strip_prefix(folder).unwrap_or(&path).to_owned());
            }
        }
    }
    found
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes
        .windows(word.len())
        .any(|window| window == word.as_bytes())
}

/// The tables of a state folder's database in which a word stands.
fn tables_with(state: &Path, word: &str) -> Result<BTreeSet<String>, Box<dyn std::error::Error>> {
    let mut found = BTreeSet::new();
    let databases = fs_err::read_dir(state)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut opened = 0;
    for path in databases.filter(|path| path.extension().is_some_and(|end| end == "sqlite")) {
        opened += 1;
        let database = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut names = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
        let names = names.query_map([], |row| row.get::<_, String>(0))?;
        for name in names.collect::<Result<Vec<_>, _>>()? {
            let mut rows = database.prepare(&format!("SELECT * FROM \"{name}\""))?;
            let columns = rows.column_count();
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                for column in 0..columns {
                    if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = row.get_ref(column)?
                        && contains(bytes, word)
                    {
                        found.insert(name.clone());
                    }
                }
            }
        }
    }
    assert!(opened > 0, "there is no database in {}", state.display());
    Ok(found)
}

/// The tasks of a stage, as their logs are called.
fn attempts(run: &Value, stage: &str) -> Vec<String> {
    let tasks = run["tasks"].as_array().into_iter().flatten();
    tasks
        .filter(|task| task["stage"] == stage)
        .filter_map(|task| Some(task["id"].as_str()?.replace('_', "-")))
        .collect()
}

/// What every verb says that does not show records or logs on request.
fn told_by_others(place: &Place, id: &str) -> String {
    let mut text = String::new();
    let mut tell = |arguments: &[&str]| {
        let finished = place.barecount(arguments).finish().exits_with(0);
        text.push_str(&finished.stdout);
        text.push_str(&finished.stderr);
        finished
    };
    for verb in [
        &["runs", "ls"][..],
        &["runs", "show", id],
        &["runs", "show", id, "-o", "json"],
        &["runs", "flows", id],
        &["runs", "accesses", id],
        &["outputs", "ls"],
        &["evidence", "verify"],
        &["validate", "pipeline.yaml"],
    ] {
        tell(verb);
    }
    let listed = tell(&["evidence", "ls", "-o", "json"]).json("evidence");
    let entries = listed["items"].as_array().expect("a list of entries");
    assert!(!entries.is_empty(), "there is evidence to look at");
    for entry in entries {
        tell(&[
            "evidence",
            "show",
            &entry["index"].to_string(),
            "-o",
            "json",
        ]);
    }
    text
}

#[test]
fn canary_record() -> Outcome {
    let stages = [
        stage("private", "carry", PRIVATE),
        stage("other", "carry", PUBLIC),
    ];
    let place = place(&stages.concat());
    let finished = run(&place).exits_with(0);
    let ran = finished.json("run");
    let id = ran["id"].as_str().unwrap_or_default();
    for (word, whose, others) in [(CANARY, "private", "other"), (OTHER, "other", "private")] {
        let own = attempts(&ran, whose);
        let files = files_with(&place.state(), word);
        for path in &files {
            let text = path.display().to_string();
            let is_own = text.starts_with(&format!("datasets/demo/raw/{whose}/"))
                || own.iter().any(|task| text.starts_with(&format!("logs/{task}")))
                || text.starts_with("checkpoints/")
                || text.starts_with("cache/")
                // Its dead letters: which tables it stands in is looked at below.
                || text.starts_with("control.sqlite")
                || text.starts_with("journal.sqlite");
            assert!(
                is_own,
                "`{word}` of stage `{whose}` is in {text}: {files:?}"
            );
        }
        // It was worked on, so that there was something to be found.
        let in_folder = |folder: &str| files.iter().filter(|path| path.starts_with(folder)).count();
        // Its log, and its dead letters.
        assert_eq!(in_folder("logs"), 2, "{files:?}");
        assert_eq!(in_folder("checkpoints"), 1, "{files:?}");
        assert!(in_folder("cache") <= 1, "{files:?}");
        assert_eq!(in_folder("staging"), 0, "{files:?}");
        assert_eq!(in_folder("ledger"), 0, "{files:?}");
        let tables = tables_with(&place.state(), word)?;
        assert_eq!(tables, BTreeSet::from(["dead_letters".to_owned()]));
        // Rows are compressed on disk: what the tables hold is asked for.
        for (dataset, expected) in [(whose, true), (others, false)] {
            let shown = place
                .barecount(["outputs", "show", &format!("raw.{dataset}")])
                .finish()
                .exits_with(0);
            let found = contains(shown.stdout.as_bytes(), word);
            assert_eq!(found, expected, "`{word}` in raw.{dataset}: {shown}");
        }
        let config = files_with(&place.join("config"), word);
        assert_eq!(config, BTreeSet::new());
        let told = finished.stdout.clone() + &finished.stderr + &told_by_others(&place, id);
        assert!(
            !contains(told.as_bytes(), word),
            "`{word}` was told: {told}"
        );
    }
    place.nothing_is_left();
    Ok(())
}

#[test]
fn what_a_private_stage_says_as_it_fails_stays_in_its_log() -> Outcome {
    let place = place(&stage("private", "carry and fail", PRIVATE));
    let finished = run(&place).exits_with(1);
    let ran = finished.json("run");
    let id = ran["id"].as_str().unwrap_or_default();
    let files = files_with(&place.state(), CANARY);
    let beyond = |path: &&PathBuf| !path.starts_with("logs") && !path.starts_with("cache");
    assert_eq!(files.iter().find(beyond), None, "{files:?}");
    assert!(
        files.iter().any(|path| path.starts_with("logs")),
        "{files:?}"
    );
    let told = finished.stdout.clone() + &finished.stderr + &told_by_others(&place, id);
    assert!(!contains(told.as_bytes(), CANARY), "{told}");
    place
        .barecount(["runs", "logs", id])
        .finish()
        .exits_with(0)
        .tells(CANARY);
    Ok(())
}

/// A stage that reads the private one's dataset with public egress.
fn reader(crossing: &str) -> String {
    format!(
        "    - name: publish
      phase: publish
      env: {{ BEHAVIOUR: \"exit 0\" }}
      classification: restricted
      {PUBLIC}
      inputs:
        - dataset: raw.private
{crossing}"
    )
}

const DECLARED: &str = "          crossing: { reason: Words are published by contract. }\n";

/// An environment for staging in which everything but a crossing is granted.
fn staging(grants: &str, approvals: &str) -> String {
    format!(
        "apiVersion: barecount.dev/v1
kind: Environment
metadata: {{ name: rehearsal }}
spec:
  kind: staging
  backends: {{ container: local }}
  governance:
    matrix:
      - tenant: demo
{grants}        allow:
          - classes: [container]
            sizes: [small]
            network_profiles: [private_vpc, public_vpc_egress]
{approvals}"
    )
}

fn evidence(place: &Place, kind: &str) -> Vec<Value> {
    let listed = place
        .barecount(["evidence", "ls", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("evidence");
    let entries = listed["items"].as_array().cloned().unwrap_or_default();
    let of_kind = entries.iter().filter(|entry| entry["kind"] == kind);
    of_kind
        .map(|entry| {
            let index = entry["index"].to_string();
            let shown = place
                .barecount(["evidence", "show", &index, "-o", "json"])
                .finish()
                .exits_with(0)
                .json("evidence_entry");
            shown["statement"]["predicate"].clone()
        })
        .collect()
}

/// The crossing that is declared, as evidence has it.
fn crossing() -> Value {
    json!({
        "dataset": "raw.private",
        "from": {
            "network_profile": "private_vpc", "residency": null, "classification": "restricted",
        },
        "to": {
            "network_profile": "public_vpc_egress", "residency": null,
            "classification": "restricted",
        },
        "reason": "Words are published by contract.",
    })
}

#[test]
fn a_crossing_is_declared_allowed_and_in_evidence_or_nothing_runs() -> Outcome {
    let private = stage("private", "carry", PRIVATE);
    let place = place(&(private.clone() + &reader("")));
    place
        .barecount(["validate", "pipeline.yaml"])
        .finish()
        .exits_with(2)
        .tells("BC0232")
        .tells("crossing: { reason:");
    run(&place).exits_with(2);
    assert!(!place.state().exists(), "nothing was made");

    place.write("pipeline.yaml", manifest(&(private + &reader(DECLARED))));
    place
        .barecount(["validate", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    place
        .barecount(["build", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    let in_staging = |environment: String| {
        place.write("environments/rehearsal.yaml", environment);
        place
            .barecount(["run", "pipeline.yaml", "--env", "rehearsal", "-o", "json"])
            .finish()
    };
    in_staging(staging("", ""))
        .fails_with(3, "BC0401")
        .tells("`raw.private` across a boundary")
        .tells("an approval of scope `crossing`");
    let refusal = &evidence(&place, "refusal")[0]["decision"]["decisions"][1];
    assert_eq!(refusal["crossings"][0]["dataset"], "raw.private");
    assert_eq!(refusal["crossings"][0]["allowed_by"], json!([]));

    let approvers = approvals::approvers(&[&format!("uid-{}", approvals::OFFICER)]);
    place.write("environments/rehearsal.yaml", staging("", &approvers));
    let id = approvals::request(&place, "rehearsal")?;
    approvals::act(
        &place,
        approvals::OFFICER,
        "grant",
        &id,
        &["--env", "environments/rehearsal.yaml"],
    )
    .exits_with(0);
    in_staging(staging("", &approvers)).exits_with(0);
    let crossing = crossing();
    let submission = &evidence(&place, "submission")[0];
    let decided = &submission["decision"]["decisions"][1]["crossings"][0];
    assert_eq!(decided["allowed_by"][0]["kind"], "approval");
    assert_eq!(decided["allowed_by"][0]["approval"], id.as_str());
    assert_eq!(submission["stages"][1]["crossings"], json!([crossing]));
    let ended = &evidence(&place, "run")[0]["crossings"][0];
    assert_eq!(
        (&ended["stage"], &ended["from"]),
        (&json!("publish"), &crossing["from"])
    );
    Ok(())
}

#[test]
fn each_attempt_has_an_identity_whose_scopes_and_accesses_are_in_evidence() {
    let place = place(&(stage("private", "carry", PRIVATE) + &reader(DECLARED)));
    run(&place).exits_with(0);
    let attempts = evidence(&place, "attempt");
    assert_eq!(attempts.len(), 2);
    for attempt in &attempts {
        let identity = &attempt["detail"]["identity"];
        let (run, task) = (&attempt["run"]["id"], &attempt["task"]);
        let expected = format!(
            "spiffe://local/tenant/demo/pipeline/words/stage/{}/run/{}/task/{}/attempt/1",
            task["stage"].as_str().unwrap_or_default(),
            run.as_str().unwrap_or_default(),
            task["id"].as_str().unwrap_or_default(),
        );
        assert_eq!(identity["id"], expected);
        assert_eq!(identity["accesses"]["refused"], 0, "{identity}");
        let reads = task["stage"] == "publish";
        let scopes = if reads {
            json!(["raw.private"])
        } else {
            json!([])
        };
        assert_eq!(identity["scopes"]["datasets_read"], scopes);
        let records = identity["accesses"]["records"].as_array();
        let read = records.into_iter().flatten().any(|record| {
            record["action"] == "read"
                && record["object"] == "dataset raw.private"
                && record["verdict"] == "allowed"
        });
        assert_eq!(read, reads, "{identity}");
    }
}

#[test]
fn a_state_folder_that_others_can_enter_is_refused_with_the_command_that_closes_it() -> Outcome {
    let place = place(&stage("private", "carry", PRIVATE));
    fs_err::create_dir(place.state())?;
    fs_err::set_permissions(place.state(), PermissionsExt::from_mode(0o755))?;
    run(&place)
        .fails_with(2, "BC0808")
        .tells("mode is 0755")
        .tells("`chmod go-rwx .barecount`");
    assert_eq!(
        fs_err::read_dir(place.state())?.count(),
        0,
        "nothing was written"
    );
    fs_err::set_permissions(place.state(), PermissionsExt::from_mode(0o700))?;
    run(&place).exits_with(0);
    for private in [place.state(), place.join("config/barecount/keys")] {
        let mode = fs_err::metadata(&private)?.permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", private.display());
    }
    Ok(())
}
