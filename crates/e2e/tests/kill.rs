//! The example, killed at random moments or at each durable step and run again until it ends, does
//! everything once.
//!
//! `BARECOUNT_KILLS` says how many times (8 unless set), `BARECOUNT_SEED` at which moments;
//! `BARECOUNT_APPENDS=every` has the process end at every append, and not only at some.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use barecount_e2e::{Failure, Outcome, example, place::Place, process::Finished, tree::Tree};
use rustix::process::Signal;
use serde_json::Value;

/// Runs in one place that may be killed before one is let through: else a place might never end.
const KILLS_IN_A_PLACE: u32 = 6;

#[test]
#[expect(
    clippy::print_stdout,
    reason = "a seed is of use only where it is shown"
)]
fn a_run_killed_at_any_moment_ends_as_if_nothing_had_happened() -> Outcome {
    let kills: u32 = number("BARECOUNT_KILLS")?.unwrap_or(8);
    let seed = match number("BARECOUNT_SEED")? {
        Some(seed) => seed,
        None => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_nanos() as u64,
    };
    println!("BARECOUNT_SEED={seed} BARECOUNT_KILLS={kills}");
    let mut moments = Moments(seed);
    let undisturbed = example::undisturbed();
    let expected = Committed::of(&undisturbed.finished)?;
    let mut done = 0;
    while done < kills {
        let place = example::place();
        let mut here = 0;
        let finished = loop {
            let alone = moments.next().is_multiple_of(2);
            let moment = undisturbed.seconds * moments.fraction();
            let last = done == kills || here == KILLS_IN_A_PLACE;
            let kill = (!last).then_some((moment, alone));
            match run(&place, kill) {
                Some(finished) => break finished,
                None => {
                    (done, here) = (done + 1, here + 1);
                    println!(
                        "kill {done} after {moment:.2} s, {}",
                        if alone { "the binary" } else { "all" }
                    );
                }
            }
        };
        let finished = finished.exits_with(0);
        assert_eq!(Committed::of(&finished)?, expected, "{finished}");
        each_version_is_committed_once(&place, &finished)?;
        evidence_is_whole(&place, &finished);
        place.nothing_is_left();
    }
    Ok(())
}

/// Where the process ends, unless it is to end everywhere.
const SOME_APPENDS: [&str; 4] = ["after:2", "before:9", "after:16", "before:23"];

/// The process ends before or after a batch is durable, and before anybody hears of it: in a place
/// of its own for each, until a run needs no more appends.
#[test]
#[expect(clippy::print_stdout, reason = "it takes long, and says how far it is")]
fn a_run_that_ends_at_any_append_ends_as_if_nothing_had_happened() -> Outcome {
    let expected = Committed::of(&example::undisturbed().finished)?;
    if std::env::var("BARECOUNT_APPENDS").is_ok_and(|which| which == "every") {
        let mut append = 1;
        while ends_as_if_nothing_had_happened(&format!("before:{append}"), &expected)? {
            ends_as_if_nothing_had_happened(&format!("after:{append}"), &expected)?;
            append += 1;
        }
        println!("a run has fewer than {append} appends");
        assert!(append > 8, "the process was ended: is this a test build?");
        return Ok(());
    }
    for at in SOME_APPENDS {
        assert!(ends_as_if_nothing_had_happened(at, &expected)?, "{at}");
    }
    Ok(())
}

/// Whether the run was ended there.
#[expect(clippy::print_stdout, reason = "it takes long, and says how far it is")]
fn ends_as_if_nothing_had_happened(at: &str, expected: &Committed) -> Result<bool, Failure> {
    let place = example::place();
    let run = || place.barecount(["run", "fx-rates/pipeline.yaml", "-o", "json"]);
    let first = run().env("BARECOUNT_END_AT_APPEND", at).finish();
    let was_ended = first.status.code().is_none();
    println!("{at}: {}", first.status);
    let finished = if was_ended {
        place.nothing_runs();
        run().finish()
    } else {
        first
    };
    let finished = finished.exits_with(0);
    assert_eq!(Committed::of(&finished)?, *expected, "{at}: {finished}");
    each_version_is_committed_once(&place, &finished)?;
    evidence_is_whole(&place, &finished);
    place.nothing_is_left();
    Ok(was_ended)
}

/// Runs the example; killed after so many seconds, with `alone` the binary, else its whole tree.
/// `None` if it was.
fn run(place: &Place, kill: Option<(f64, bool)>) -> Option<Finished> {
    let run = place
        .barecount(["run", "fx-rates/pipeline.yaml", "-o", "json"])
        .start();
    let Some((seconds, alone)) = kill else {
        return Some(run.finish());
    };
    if run.ends_before(Instant::now() + Duration::from_secs_f64(seconds)) {
        return Some(run.finish());
    }
    if alone {
        run.signal(Signal::KILL);
    } else {
        Tree::of(run.pid).kill();
    }
    let killed = run.finish();
    // Else it had ended in that very moment.
    let was_killed = killed.status.code().is_none();
    place.nothing_runs();
    if was_killed { None } else { Some(killed) }
}

/// What became visible: rows and digest of each part of each dataset.
#[derive(Debug, PartialEq)]
struct Committed(BTreeMap<(String, String), (u64, String)>);

impl Committed {
    fn of(finished: &Finished) -> Result<Self, Failure> {
        let run = finished.json("run");
        assert_eq!(run["state"], "succeeded", "{finished}");
        assert_eq!(run["dead_letters"], 2, "{finished}");
        let mut parts = BTreeMap::new();
        for output in run["outputs"].as_array().ok_or("outputs")? {
            let name = output["dataset"].as_str().ok_or("a name")?.to_owned();
            let partition = output["partition"].as_str().unwrap_or_default().to_owned();
            let rows = output["rows"].as_u64().ok_or("rows")?;
            let digest = output["digest"].as_str().ok_or("a digest")?.to_owned();
            let before = parts.insert((name, partition), (rows, digest));
            assert!(before.is_none(), "a part is committed once: {finished}");
        }
        Ok(Self(parts))
    }
}

/// Asserts that a table has as many versions as tasks committed to it, each by another transaction.
fn each_version_is_committed_once(place: &Place, finished: &Finished) -> Outcome {
    let run = finished.json("run");
    let mut versions: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for output in run["outputs"].as_array().ok_or("outputs")? {
        let name = output["dataset"].as_str().ok_or("a name")?.to_owned();
        versions
            .entry(name)
            .or_default()
            .extend(output["version"].as_u64());
    }
    for (name, versions) in versions {
        let folder = place
            .state()
            .join("datasets/demo")
            .join(name.replace('.', "/"));
        let log = log_files(&folder.join("_delta_log"))?;
        let expected: BTreeSet<u64> = (0..log.len() as u64).collect();
        assert_eq!(versions, expected, "versions of {name}");
        let mut transactions = BTreeSet::new();
        for file in log {
            for line in fs_err::read_to_string(&file)?.lines() {
                let action: Value = serde_json::from_str(line)?;
                if let Some(id) = action["txn"]["appId"].as_str() {
                    assert!(
                        transactions.insert(id.to_owned()),
                        "{id} commits to {name} twice"
                    );
                }
            }
        }
        assert_eq!(
            transactions.len(),
            expected.len(),
            "each version of {name} has a transaction"
        );
    }
    Ok(())
}

fn log_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Asserts that the ledger verifies, and tells of each commit, and of the run's end, once.
fn evidence_is_whole(place: &Place, finished: &Finished) {
    let verified = place
        .barecount(["evidence", "verify", "-o", "json"])
        .finish()
        .exits_with(0);
    let verified = verified.json("verification");
    assert_eq!(verified["entries"], verified["tree_size"]);
    let run = finished.json("run");
    let kinds: Vec<&str> = run["evidence"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["kind"].as_str())
        .collect();
    let count = |kind: &str| kinds.iter().filter(|found| **found == kind).count();
    let tasks = run["tasks"].as_array().map_or(0, Vec::len);
    assert_eq!(count("commit"), tasks, "{kinds:?}");
    assert_eq!(count("run"), 1, "{kinds:?}");
    let attempts: usize = run["tasks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|task| task["attempts"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(count("attempt"), attempts, "{kinds:?}");
    let letters = place
        .barecount(["dlq", "ls", "-o", "json"])
        .finish()
        .exits_with(0);
    let letters = letters.json("dead_letters");
    assert_eq!(
        letters["items"].as_array().map(Vec::len),
        Some(2),
        "{letters}"
    );
}

fn number<T: std::str::FromStr>(name: &str) -> Result<Option<T>, Failure> {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{name} is a number, not `{text}`").into()),
        },
        Err(_) => Ok(None),
    }
}

/// A sequence of numbers that a seed decides (SplitMix64).
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0, less than 1.
    fn fraction(&mut self) -> f64 {
        // The upper 53 bits are what a float holds exactly.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
