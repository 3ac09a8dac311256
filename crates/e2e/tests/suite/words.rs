//! Whatever work, a server or a file says, and however much of it: nothing of it steers the terminal
//! of whoever is told, passes for a line of ours, or fills the store.

use std::path::Path;

use barecount_e2e::{Outcome, binary, place::Place, process::Finished, programs};
use serde_json::Value;

use crate::pipelines;

/// Stages, by what their work does; the first succeeds.
const STAGES: [(&str, &str); 5] = [
    ("says", "steer"),
    ("fails", "steer and report"),
    ("columns", "steer by columns"),
    ("files", "steer by a file"),
    ("ends", "steer and fail"),
];

/// What the store, the ledger and all records but logs may take, in bytes: of the tens of megabytes
/// that are said.
const STORED_BYTES: u64 = 4 << 20;
/// What a verb may print that prints no log, in bytes.
const PRINTED_BYTES: usize = 512 << 10;

/// Whether a terminal obeys it, or a reader is misled by it.
fn steers(c: char) -> bool {
    let kept = matches!(c, '\n' | '\t');
    c.is_control() && !kept
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{e01ef}')
}

fn stage(name: &str, behaviour: &str) -> String {
    format!(
        "    - name: {name}
      phase: ingestion
      runner: {{ class: serverless, size: small, network_profile: private_vpc, package: worker.zip }}
      env: {{ BEHAVIOUR: {behaviour}, DATASET: raw.{name} }}
      outputs:
        - dataset: raw.{name}
          format: csv
          mode: overwrite
          columns: [{{ name: id, type: int64 }}, {{ name: text, type: string }}]
"
    )
}

fn place() -> Place {
    let place = Place::new();
    programs::package(&place, "worker.zip", "bootstrap", &[]);
    let stages: String = STAGES.map(|(name, says)| stage(name, says)).concat();
    place.write("pipeline.yaml", pipelines::of_stages("words", &stages));
    place
}

/// What is wrong with what was printed for a person.
fn misled(printed: &str) -> Option<String> {
    if let Some(at) = printed.find(steers) {
        let from = printed.floor_char_boundary(at.saturating_sub(40));
        let upto = printed.ceil_char_boundary((at + 20).min(printed.len()));
        return Some(format!("{:?}", &printed[from..upto]));
    }
    let forged = printed
        .lines()
        .find(|line| line.starts_with("state     forged"));
    forged.map(|line| format!("a line of its own: {line:?}"))
}

/// What is wrong with how a verb ended and what it printed.
fn faults(finished: &Finished, format: &str, is_log: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let Finished { stdout, stderr, .. } = finished;
    if !matches!(finished.status.code(), Some(0..=7)) || stderr.contains("panicked") {
        faults.push(format!("{}: {stderr:.2000}", finished.status));
    }
    // A log has lines of its own.
    let forging = |fault: &String| !(is_log && fault.starts_with("a line"));
    faults.extend(misled(stdout).filter(forging));
    faults.extend(misled(stderr));
    if format == "json" && !stdout.is_empty() {
        let parsed = serde_json::from_str::<Value>(stdout);
        faults.extend(parsed.err().map(|error| format!("no JSON: {error}")));
    }
    if !is_log && stdout.len() + stderr.len() > PRINTED_BYTES {
        faults.push(format!("{} bytes", stdout.len() + stderr.len()));
    }
    faults
}

/// Everything that tells something of a run.
fn verbs(run: &str) -> Vec<Vec<&str>> {
    let mut verbs = vec![
        vec!["runs", "ls"],
        vec!["runs", "show", run],
        vec!["runs", "logs", run],
        vec!["runs", "flows", run],
        vec!["runs", "flows", run, "--refused"],
        vec!["runs", "accesses", run],
        vec!["dlq", "ls"],
        vec!["dlq", "ls", "--run", run],
        vec!["outputs", "ls"],
        vec!["outputs", "show", "raw.says"],
        vec!["datasets", "ls"],
        vec!["datasets", "show", "raw.says"],
        vec!["datasets", "history", "raw.says"],
        vec!["datasets", "diff", "raw.says"],
        vec!["trace", "raw.says"],
        vec!["evidence", "ls"],
        vec!["evidence", "verify"],
        vec!["advise", "egress", run],
        vec!["policy", "explain", "pipeline.yaml"],
        vec!["validate", "pipeline.yaml"],
        vec!["validate", "odd.yaml"],
        vec!["run", "pipeline.yaml", "--dry-run"],
        vec!["run", "\x1b]0;owned\x07\u{202e}.yaml"],
        vec!["approvals", "ls"],
        vec!["gc"],
        vec!["-v", "run", "pipeline.yaml"],
    ];
    let entries = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12",
    ];
    verbs.extend(entries.map(|entry| vec!["evidence", "show", entry]));
    let letters = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    verbs.extend(letters.map(|letter| vec!["dlq", "show", letter]));
    verbs
}

/// The bytes of a folder, but for logs and data, and what is kept back of the disk.
fn stored(folder: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.filter_map(Result::ok).map(|entry| {
        let (path, name) = (entry.path(), entry.file_name());
        let kept = ["datasets", "artifacts", "build", "reserve"]
            .iter()
            .any(|kept| name == **kept);
        match path.is_dir() {
            _ if kept || name.to_string_lossy().ends_with(".log") => 0,
            true => stored(&path),
            false => entry.metadata().map_or(0, |found| found.len()),
        }
    });
    sizes.sum()
}

/// Where the types are that people are told things with.
const TYPES: [&str; 5] = [
    "crates/api/src",
    "crates/client/src/client",
    "crates/model/src/run/outcome.rs",
    "crates/model/src/run/provisioned.rs",
    "crates/network/src/record.rs",
];

/// Fields of theirs that are plain texts, since nobody else chooses what is in them: names that
/// were parsed from a manifest, what a user says by a command, digests, times, and words of ours.
/// Those that elsewhere could be anybody's are named with their file.
const OURS: &[&str] = &[
    "amount",
    "at",
    "backend",
    "code",
    "committed_at",
    "currency",
    "dataset",
    "digest",
    "environment",
    "force",
    "key",
    "kind",
    "leaf_hash",
    "partition",
    "partition_by",
    "pattern",
    "pipeline",
    "reads",
    "rendered",
    "reuse",
    "run",
    "run_token",
    "runner",
    "schema",
    "stage",
    "task",
    "tenant",
    "token",
    "uri",
    "version",
    "approvals.rs reason",
    "evidence.rs text",
];

/// The fields of types in a file or folder that are plain texts.
fn plain_texts(path: &Path, found: &mut Vec<String>) -> Outcome {
    if path.is_dir() {
        for entry in fs_err::read_dir(path)? {
            plain_texts(&entry?.path(), found)?;
        }
        return Ok(());
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    for line in fs_err::read_to_string(path)?.lines() {
        let line = line.trim_start().trim_start_matches("pub ");
        let field = line.split_once(": ").filter(|_| line.ends_with(','));
        if let Some((name, _)) = field.filter(|(_, kind)| kind.contains("String"))
            && !OURS.contains(&name)
        {
            found.push(format!("{file} {name}"));
        }
    }
    Ok(())
}

#[test]
fn what_people_are_told_with_has_texts_of_others_as_untrusted_alone() -> Outcome {
    let mut found = Vec::new();
    for path in TYPES {
        plain_texts(&binary::workspace().join(path), &mut found)?;
    }
    found.retain(|field| !OURS.contains(&field.as_str()));
    assert!(
        found.is_empty(),
        "of {found:?} nobody has said that the platform alone chooses the text: make it \
         `Untrusted`, or name it above"
    );
    Ok(())
}

#[test]
fn nothing_that_others_write_steers_a_terminal_forges_a_line_or_fills_the_store() -> Outcome {
    let place = place();
    place.write(
        "odd.yaml",
        "kind: \"\\e]0;owned\\a\\u202e\"\n? \"\\e[2J\\n\\u009b\"\n: 1\n",
    );
    let mut found = Vec::new();
    let mut note = |verb: &[&str], format: &str, finished: &Finished| {
        let is_log = verb.first() == Some(&"runs") && verb.get(1) == Some(&"logs");
        let faults = faults(finished, format, is_log);
        found.extend(
            faults
                .into_iter()
                .map(|fault| format!("{verb:?} -o {format}: {fault}")),
        );
    };
    let finished = place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(1);
    note(&["run"], "table", &finished);
    let listed = place.barecount(["runs", "ls", "-o", "json"]).finish();
    let listed = listed.exits_with(0).json("runs");
    let run = listed["items"][0]["id"].as_str().ok_or("there is a run")?;
    for verb in verbs(run) {
        for format in ["table", "json", "yaml"] {
            let asked = place.barecount(&verb).arguments(["-o", format]);
            note(&verb, format, &asked.finish());
        }
    }
    let bytes = stored(&place.state());
    if bytes > STORED_BYTES {
        found.push(format!("{bytes} bytes are stored"));
    }
    place.nothing_is_left();
    assert!(
        found.is_empty(),
        "{} faults:\n{}",
        found.len(),
        found.join("\n")
    );
    Ok(())
}
