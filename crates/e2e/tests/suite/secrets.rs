//! Secrets from standard input to the work that declares them, and nowhere else.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use barecount_e2e::{Outcome, leftovers, place::Place, process::Finished, tree::Tree};
use serde_json::{Value, json};

use crate::pipelines;

/// The stage's keys by which it gets the secret `erp/token` as `token`.
const DECLARED: &str = "      secrets: { token: { from: erp/token } }\n";

/// A value that nobody else writes on this host; a label of a domain name, too.
fn canary() -> String {
    format!("canary-{}-yellow-bird-and-feathers", std::process::id())
}

fn sum(text: &str) -> u64 {
    text.bytes().map(u64::from).sum()
}

fn set(place: &Place, name: &str, tenant: &str, value: &str) -> Finished {
    place
        .barecount(["secrets", "set", name, "--tenant", tenant])
        .reads(value)
        .finish()
        .exits_with(0)
}

fn run(place: &Place) -> Finished {
    pipelines::start(place).finish()
}

/// A stage of the class that behaves so, with its secret set.
fn place(class: &str, behaviour: &str, more: &str) -> Place {
    let place = match class {
        "container" => pipelines::container_with(behaviour, more),
        _ => pipelines::function_with(behaviour, more, pipelines::GOOD_ROWS),
    };
    if class == "dedicated_compute" {
        rewrite(&place, |manifest| {
            let manifest = manifest.replace("class: serverless", "class: dedicated_compute");
            manifest.replace("      env:", "      command: [/app/bootstrap]\n      env:")
        });
    }
    set(&place, "erp/token", "demo", &canary());
    place
}

fn rewrite(place: &Place, change: impl Fn(String) -> String) {
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml")).expect("it was written");
    let changed = change(manifest.clone());
    assert_ne!(changed, manifest, "the manifest is another one");
    place.write("pipeline.yaml", changed);
}

fn logs(place: &Place, finished: &Finished) -> Finished {
    let id = finished.json("run")["id"].as_str().map(str::to_owned);
    place
        .barecount(["runs", "logs", &id.unwrap_or_default()])
        .finish()
        .exits_with(0)
}

/// Where the platform keeps the secrets of attempts under way.
fn memory(place: &Place) -> PathBuf {
    Path::new("/dev/shm").join(leftovers::host_name(&place.state()))
}

fn key_file(place: &Place) -> PathBuf {
    let keys = fs_err::read_dir(place.join("config/barecount/keys")).expect("there are keys");
    keys.flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "secrets-key"))
        .expect("there is a key of secrets")
}

fn last_failure(finished: &Finished) -> Value {
    let run = finished.json("run");
    let attempts = run["tasks"][0]["attempts"].as_array().cloned();
    attempts.unwrap_or_default().pop().unwrap_or_default()["failure"].clone()
}

#[track_caller]
fn fails(finished: Finished, kind: &str, code: &str) -> Finished {
    let finished = finished.exits_with(1).tells(&format!("[{code}]"));
    let failure = last_failure(&finished);
    assert_eq!(failure["kind"], kind, "{finished}");
    assert_eq!(failure["code"], code, "{finished}");
    finished
}

#[test]
fn work_of_every_class_reads_its_secrets_as_files_and_cannot_change_them() {
    let told = format!("token has {} bytes, sum {}", canary().len(), sum(&canary()));
    for class in ["container", "serverless", "dedicated_compute"] {
        let place = place(class, "read secrets", DECLARED);
        let finished = run(&place).exits_with(0);
        logs(&place, &finished).tells(&told).tells("written: false");
        let attempt = &finished.json("run")["tasks"][0]["attempts"][0];
        let record = &attempt["secrets"]["records"][0];
        assert_eq!(record["name"], "token", "{attempt:#}");
        assert_eq!(record["reference"], "erp/token@1", "{attempt:#}");
        assert_eq!(record["verdict"], "allowed", "{attempt:#}");
        let id = finished.json("run")["id"].as_str().map(str::to_owned);
        place
            .barecount(["runs", "show", &id.unwrap_or_default()])
            .finish()
            .exits_with(0)
            .tells("erp/token@1");
        assert!(!memory(&place).exists(), "nothing is left in memory");
        place.nothing_is_left();
    }
}

#[test]
fn work_without_a_sandbox_is_told_where_its_secrets_are() {
    let more = format!("      isolation: process\n{DECLARED}");
    let place = place("dedicated_compute", "read secrets", &more);
    let finished = run(&place).exits_with(0);
    logs(&place, &finished).tells(&format!("sum {}", sum(&canary())));
    assert!(!memory(&place).exists(), "nothing is left in memory");
}

#[test]
fn a_secret_is_a_variable_only_where_it_is_asked_for_and_policy_allows_it() -> Outcome {
    let declared = "      secrets: { token: { from: erp/token, env: TOKEN } }\n";
    let place = place("serverless", "read secrets", declared);
    let finished = run(&place).exits_with(0);
    logs(&place, &finished).tells(&format!("TOKEN has {} bytes", canary().len()));
    place.write(
        "environments/stage.yaml",
        "apiVersion: barecount.dev/v1\nkind: Environment\nmetadata: { name: stage }\nspec:\n  \
         kind: staging\n  backends: { serverless: local }\n  secrets: {}\n  governance:\n    \
         matrix:\n      - tenant: '*'\n        allow:\n          - { classes: [serverless], \
         sizes: [small], network_profiles: [private_vpc] }\n",
    );
    // A state folder is of one environment.
    let set = [
        "secrets",
        "set",
        "erp/token",
        "--tenant",
        "demo",
        "--state",
        "staged",
    ];
    let set = place.barecount(set).reads(canary()).finish();
    set.exits_with(0);
    let staged = || {
        let arguments = [
            "run",
            "pipeline.yaml",
            "--env",
            "stage",
            "--state",
            "staged",
        ];
        place.barecount(arguments).finish()
    };
    staged()
        .fails_with(3, "BC0401")
        .tells("secret-variables-only-development");
    rewrite(&place, |manifest| manifest.replace(", env: TOKEN", ""));
    place
        .barecount(["build", "pipeline.yaml", "--state", "staged"])
        .finish()
        .exits_with(0);
    staged().exits_with(0);
    // Outside of development an environment has secrets only if its file says so.
    let file = place.join("environments/stage.yaml");
    let text = fs_err::read_to_string(&file)?;
    fs_err::write(&file, text.replace("  secrets: {}\n", ""))?;
    staged().fails_with(2, "BC0309").tells("secret `token`");
    Ok(())
}

#[test]
fn a_function_that_was_given_secrets_serves_the_attempts_of_one_run_alone() {
    let more = format!("      retries: {{ application: 1 }}\n{DECLARED}");
    let place = place("serverless", "leak and report", &more);
    let finished = fails(run(&place), "application", "BC0604");
    let mut warm = Vec::new();
    let shown = place
        .barecount(["evidence", "ls", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("evidence");
    let attempts = shown["items"].as_array().into_iter().flatten();
    for entry in attempts.filter(|entry| entry["kind"] == "attempt") {
        let index = entry["index"].to_string();
        let entry = place.barecount(["evidence", "show", &index, "-o", "json"]);
        let entry = entry.finish().exits_with(0).json("evidence_entry");
        let detail = &entry["statement"]["predicate"]["detail"];
        warm.push(detail["warm"].clone());
        let record = &detail["secrets"]["records"][0];
        assert_eq!(record["verdict"], "allowed", "{entry:#}");
    }
    warm.sort_by_key(|warm| warm == true);
    assert_eq!(warm, [false, true], "{finished}");
    assert!(!memory(&place).exists(), "nothing is left in memory");
    place.nothing_is_left();
}

#[test]
fn a_secret_that_work_tells_is_redacted_in_every_encoding() {
    for class in ["container", "serverless"] {
        let place = place(class, "leak", DECLARED);
        let finished = run(&place).exits_with(0);
        logs(&place, &finished)
            .tells("raw <[redacted:erp/token]>")
            .tells("hex <[redacted:erp/token]>")
            .tells("[redacted:erp/token]>")
            .tells("{\"json\": \"[redacted:erp/token]\"}")
            .tells("split <[redacted:erp/token]>");
        let letters = place
            .barecount(["dlq", "show", "1", "-o", "json"])
            .finish()
            .exits_with(0)
            .tells("refused [redacted:erp/token]");
        assert!(!letters.stdout.contains(&canary()), "{letters}");
    }
}

/// The texts in which a value would show.
fn traces(value: &str) -> Vec<Vec<u8>> {
    let bytes = value.as_bytes();
    let json: String = value
        .chars()
        .map(|c| format!("\\u{:04x}", c as u32))
        .collect();
    let mut traces = vec![
        bytes.to_vec(),
        bytes[..20].to_vec(),
        bytes[bytes.len() - 20..].to_vec(),
        hex::encode(bytes).into_bytes(),
        hex::encode_upper(bytes).into_bytes(),
        json.into_bytes(),
    ];
    for before in 0..3 {
        let padded = [&[0; 3][..before], bytes].concat();
        let digits = base64(&padded);
        traces.push(digits.as_bytes()[4..digits.len() - 4].to_vec());
    }
    traces
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |part: &[u8], index: usize| {
        let at = |byte: usize| u32::from(part.get(byte).copied().unwrap_or(0));
        let number = at(0) << 16 | at(1) << 8 | at(2);
        DIGITS[(number >> (18 - 6 * index) & 63) as usize] as char
    };
    bytes
        .chunks(3)
        .flat_map(|part| (0..4).map(move |index| digit(part, index)))
        .collect()
}

fn shows(bytes: &[u8], traces: &[Vec<u8>]) -> bool {
    traces.iter().any(|trace| {
        let first = trace[0];
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == first) {
            if rest[at..].starts_with(trace) {
                return true;
            }
            rest = &rest[at + 1..];
        }
        false
    })
}

/// The files below a folder that show a value, by their names, or in what they hold.
fn search(folder: &Path, traces: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).expect("what is searched can be listed") {
        let entry = entry.expect("what is searched can be listed");
        let path = entry.path();
        let kind = entry.file_type().expect("an entry has a type");
        let content = if kind.is_dir() {
            found.extend(search(&path, traces));
            Vec::new()
        } else if kind.is_file() {
            fs_err::read(&path).expect("what is searched can be read")
        } else {
            Vec::new()
        };
        let name = entry.file_name();
        if shows(name.as_encoded_bytes(), traces) || shows(&content, traces) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_canary_is_found_nowhere_after_runs_that_tell_it_in_every_way() {
    let traces = traces(&canary());
    let mut places = Vec::new();
    for (class, behaviour, status) in [
        ("container", "leak", 0),
        ("container", "leak and fail", 1),
        ("serverless", "leak and report", 1),
        ("dedicated_compute", "leak and fail", 1),
    ] {
        let place = place(class, behaviour, DECLARED);
        let finished = run(&place).exits_with(status);
        let id = finished.json("run")["id"].as_str().map(str::to_owned);
        places.push((place, finished, id.unwrap_or_default()));
    }
    for (place, finished, id) in &places {
        let mut told = vec![finished.to_string()];
        for arguments in [
            vec!["runs", "ls"],
            vec!["runs", "show", id],
            vec!["runs", "show", id, "-o", "json"],
            vec!["runs", "logs", id],
            vec!["runs", "flows", id],
            vec!["runs", "accesses", id, "-o", "json"],
            vec!["dlq", "ls"],
            vec!["dlq", "ls", "-o", "json"],
            vec!["outputs", "ls"],
            vec!["evidence", "ls"],
            vec!["evidence", "verify"],
            vec!["evidence", "export", "exported"],
            vec!["secrets", "ls", "-o", "json"],
            vec!["policy", "explain", "pipeline.yaml"],
            vec!["secrets", "rotate"],
            vec!["gc"],
        ] {
            // What fails at once tells nothing, a value neither.
            let finished = place.barecount(arguments).finish().exits_with(0);
            told.push(finished.to_string());
        }
        for text in &told {
            assert!(
                !shows(text.as_bytes(), &traces),
                "a value is told by {text}"
            );
        }
        let found = search(place.path(), &traces);
        assert_eq!(found, Vec::<PathBuf>::new(), "{finished}");
        let left = fs_err::read_dir(memory(place));
        assert!(left.is_err(), "left in memory: {left:?} by {finished}");
    }
    // The control: what is planted is found, in each encoding, by content and by name.
    let control = Place::new();
    for trace in &traces {
        let planted = control.write("a/b", [b"<", &trace[..], b">"].concat());
        assert_eq!(search(control.path(), &traces), [planted]);
    }
    let named = control.write(format!("a/{}", canary()), "");
    control.write("a/b", "");
    assert_eq!(search(control.path(), &traces), [named]);
}

#[test]
fn what_is_not_there_is_told_and_not_tried_again() -> Outcome {
    let retries = "      retries: { application: 2, infrastructure: 2 }\n";
    let more = format!("{retries}      secrets: {{ key: {{ from: erp/missing }} }}\n");
    let missing = place("container", "read secrets", &more);
    let finished = fails(run(&missing), "policy", "BC1002")
        .tells("erp/missing")
        .tells("barecount secrets set erp/missing --tenant demo");
    let attempts = finished.json("run")["tasks"][0]["attempts"].clone();
    assert_eq!(attempts.as_array().map(Vec::len), Some(1), "{finished}");
    let record = &attempts[0]["secrets"]["records"][0];
    assert_eq!(record["verdict"], "failed", "{attempts:#}");
    // Once it is set, the run goes on.
    set(&missing, "erp/missing", "demo", "a value for it");
    run(&missing).exits_with(0);
    // Another tenant's secret is as one that is not there.
    let foreign = pipelines::container_with("read secrets", DECLARED);
    set(&foreign, "erp/token", "other", &canary());
    fails(run(&foreign), "policy", "BC1002");
    let listed = foreign.barecount(["secrets", "ls", "-o", "json"]).finish();
    assert_eq!(listed.exits_with(0).json("secrets")["items"], json!([]));
    // So is everything once the store is gone.
    let gone = place("container", "read secrets", DECLARED);
    fs_err::remove_dir_all(gone.state().join("secrets"))?;
    fails(run(&gone), "policy", "BC1002").tells("there is no store");
    Ok(())
}

#[test]
fn a_store_whose_key_is_wrong_missing_or_exposed_gives_nothing() -> Outcome {
    let retries = "      retries: { infrastructure: 1 }\n";
    let place = place("container", "read secrets", &format!("{retries}{DECLARED}"));
    let key = key_file(&place);
    let right = fs_err::read(&key)?;
    let set_again = || {
        let set = ["secrets", "set", "erp/other", "--tenant", "demo"];
        place.barecount(set).reads("another value").finish()
    };
    fs_err::set_permissions(&key, PermissionsExt::from_mode(0o644))?;
    set_again().fails_with(6, "BC1004").tells("chmod 600");
    let finished = fails(run(&place), "infrastructure", "BC1004").tells("mode 0644");
    let attempts = finished.json("run")["tasks"][0]["attempts"].clone();
    assert_eq!(attempts.as_array().map(Vec::len), Some(2), "{finished}");
    fs_err::set_permissions(&key, PermissionsExt::from_mode(0o600))?;
    fs_err::remove_file(&key)?;
    set_again().fails_with(6, "BC1004").tells("backup");
    fails(run(&place), "infrastructure", "BC1004");
    assert!(
        !key.exists(),
        "no other key is made for a store that has one"
    );
    // The key of another store.
    let other = Place::new();
    set(&other, "a", "demo", "a value of another store");
    fs_err::copy(key_file(&other), &key)?;
    fails(run(&place), "infrastructure", "BC1004").tells("is not the one");
    fs_err::write(&key, right)?;
    run(&place).exits_with(0);
    Ok(())
}

#[test]
fn what_a_killed_process_leaves_in_memory_is_gone_after_the_next_start() {
    let place = place("container", "leak and linger", DECLARED);
    let first = pipelines::start(&place);
    pipelines::lingers(&first);
    let memory = memory(&place);
    let left = || search(&memory, &traces(&canary()));
    assert_eq!(left().len(), 1, "the work has its secret");
    let mode = memory
        .metadata()
        .map(|found| found.permissions().mode() & 0o777);
    assert_eq!(mode.ok(), Some(0o700), "nobody else enters");
    Tree::of(first.pid).kill();
    drop(first);
    place.nothing_runs();
    assert_eq!(left().len(), 1, "nobody was there to remove it");
    rewrite(&place, |manifest| {
        manifest.replace("leak and linger", "read secrets")
    });
    run(&place).exits_with(0);
    assert!(!memory.exists(), "nothing is left in memory");
    assert_eq!(
        search(place.path(), &traces(&canary())),
        Vec::<PathBuf>::new()
    );
    place.nothing_is_left();
}

#[test]
fn a_stage_gets_the_version_that_it_names_whatever_came_later() {
    let declared =
        "      secrets: { old: { from: erp/token, version: 1 }, new: { from: erp/token } }\n";
    let place = place("container", "read secrets", declared);
    set(&place, "erp/token", "demo", "a second value").tells("erp/token@2");
    let finished = run(&place).exits_with(0);
    logs(&place, &finished)
        .tells(&format!("old has {} bytes", canary().len()))
        .tells("new has 14 bytes");
    let records = &finished.json("run")["tasks"][0]["attempts"][0]["secrets"]["records"];
    assert_eq!(records[0]["reference"], "erp/token@2", "{records:#}");
    assert_eq!(records[1]["reference"], "erp/token@1", "{records:#}");
}

#[test]
fn secrets_are_set_listed_rotated_and_removed_by_name() {
    let place = place("container", "read secrets", DECLARED);
    let first = set(&place, "erp/other", "demo", "a value with a line feed\n");
    assert!(first.stderr.is_empty(), "the key was made before: {first}");
    let list = || {
        let listed = place.barecount(["secrets", "ls", "-o", "json"]).finish();
        listed.exits_with(0).json("secrets")["items"].clone()
    };
    let listed = list();
    assert_eq!(listed[0]["name"], "erp/other", "{listed:#}");
    assert_eq!(listed[1]["versions"][0]["number"], 1, "{listed:#}");
    let key = listed[1]["versions"][0]["key"].clone();
    let table = place.barecount(["secrets", "ls"]).finish().exits_with(0);
    table.tells("erp/token").tells("SECRET");
    let rotated = place
        .barecount(["secrets", "rotate", "-o", "json"])
        .finish();
    let rotated = rotated.exits_with(0).json("secrets_rotations");
    assert_eq!(rotated["items"][0]["rewrapped"], 2, "{rotated:#}");
    assert_ne!(list()[1]["versions"][0]["key"], key);
    run(&place).exits_with(0);
    // To another file, which the environment names from then on.
    let to = ["secrets", "rotate", "--new-key-file", "other.key"];
    let moved = place.barecount(to).finish().exits_with(0);
    moved.tells("key_file: other.key").tells("back it up");
    place
        .barecount(["secrets", "ls"])
        .finish()
        .fails_with(6, "BC1004");
    place.write(
        "environments/local.yaml",
        "apiVersion: barecount.dev/v1\nkind: Environment\nmetadata: { name: local }\nspec:\n  \
         kind: development\n  backends: { container: local }\n  secrets: { key_file: ../other.key \
         }\n  governance:\n    matrix:\n      - tenant: '*'\n        allow:\n          - { \
         classes: [container], sizes: [small], network_profiles: [private_vpc] }\n",
    );
    let again = ["run", "pipeline.yaml", "--token", "again"];
    place.barecount(again).finish().exits_with(0);
    place
        .barecount(["secrets", "rm", "erp/other"])
        .finish()
        .exits_with(0);
    place
        .barecount(["secrets", "rm", "erp/other"])
        .finish()
        .fails_with(4, "BC1002");
    assert_eq!(list().as_array().map(Vec::len), Some(1));
}

#[test]
fn a_value_on_the_command_line_is_refused_and_not_repeated() {
    let place = Place::new();
    for arguments in [
        vec![
            "secrets",
            "set",
            "erp/token",
            "hunter22",
            "--tenant",
            "demo",
        ],
        vec!["secrets", "set", "erp/token=hunter22", "--tenant", "demo"],
    ] {
        let refused = place.barecount(arguments).finish().fails_with(2, "BC1005");
        let refused = refused.tells("history");
        assert!(!refused.stderr.contains("hunter22"), "{refused}");
    }
    let listed = place.barecount(["secrets", "ls", "--tenant", "demo"]);
    let listed = listed.finish().exits_with(4);
    listed.tells("there is no state folder at ");
    assert!(!place.state().exists(), "nothing was made");
    let short = ["secrets", "set", "erp/token", "--tenant", "demo"];
    place
        .barecount(short)
        .reads("abc")
        .finish()
        .fails_with(2, "BC1005");
    let unnamed = ["secrets", "set", "Erp Token", "--tenant", "demo"];
    place
        .barecount(unnamed)
        .reads("a value")
        .finish()
        .fails_with(2, "BC0207");
    place
        .barecount(["secrets", "set", "erp/token"])
        .reads("a value")
        .finish()
        .exits_with(2)
        .tells("--tenant");
}
