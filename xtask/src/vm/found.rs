//! What came of a row in the guest, held against the table.

use std::{fs, io, path::Path, process::Command};

use serde_json::Value;

use super::{
    boot::Boot,
    rows::{Held, Outcome, Place, Row},
};

/// The most processes of the probes' size, less the probe itself.
const MOST_FORKS: u64 = 39;
/// Of half a processor, with what a coarse clock adds; two threads that nothing holds get two.
const MOST_CPU: f64 = 0.75;

/// A run as it was found.
struct Found {
    status: String,
    stderr: String,
    log: String,
    left: String,
    attempts: Vec<Value>,
}

impl Row {
    /// Every way in which what is in the folder differs from the table.
    pub(super) fn hold_against(&self, folder: &Path, binary: &Path, boot: &Boot) -> Vec<String> {
        let found = match Found::read(folder, binary) {
            Ok(found) => found,
            Err(error) => return vec![format!("cannot be read: {}: {error}", folder.display())],
        };
        let mut told = found.of_outcome(self);
        let ended = matches!(self.outcome, Outcome::Held { .. });
        if !(if ended {
            &["0", "1"][..]
        } else {
            &["1", "2", "6"]
        })
        .contains(&found.status.trim())
        {
            told.push(format!("it ended with {}", found.status.trim()));
        }
        if !found.left.trim().is_empty() {
            told.push(format!("control groups were left: {}", found.left.trim()));
        }
        if !told.is_empty() {
            told.push(format!("see {} ({})", folder.display(), boot.name));
        }
        told
    }
}

impl Found {
    /// Reads what the guest left; evidence is read by the program itself.
    fn read(folder: &Path, binary: &Path) -> io::Result<Self> {
        let text = |name: &str| fs::read_to_string(folder.join(name));
        let evidence = |arguments: &[&str]| -> io::Result<Value> {
            let ended = Command::new(binary)
                .arg("evidence")
                .args(arguments)
                .args(["-o", "json", "--state"])
                .arg(folder.join("state"))
                .env("XDG_CONFIG_HOME", folder.join("config"))
                .output()?;
            Ok(serde_json::from_slice(&ended.stdout)?)
        };
        let mut attempts = Vec::new();
        // Where nothing was begun there is no ledger.
        let listed = evidence(&["ls"]).unwrap_or_default();
        for entry in listed["items"].as_array().into_iter().flatten() {
            if entry["kind"] == "attempt" {
                let shown = evidence(&["show", &entry["index"].to_string()])?;
                let detail = &shown["statement"]["predicate"]["detail"];
                attempts.push(detail["enforcement"].clone());
            }
        }
        let mut log = String::new();
        if let Ok(entries) = fs::read_dir(folder.join("state/logs")) {
            for entry in entries {
                log.push_str(&fs::read_to_string(entry?.path())?);
            }
        }
        Ok(Self {
            status: text("status")?,
            stderr: text("stderr")? + &text("stdout")?,
            log,
            left: text("left")?,
            attempts,
        })
    }

    fn of_outcome(&self, row: &Row) -> Vec<String> {
        match row.outcome {
            Outcome::Refused { reason, remedy } => {
                let mut told = Vec::new();
                let missing = [reason, remedy]
                    .into_iter()
                    .filter(|words| !self.stderr.contains(words));
                told.extend(missing.map(|words| format!("nobody is told `{words}`")));
                if self.log.contains("forks ") {
                    told.push("it ran".to_owned());
                }
                if self.attempts.len() > 1 {
                    told.push(format!("it was tried {} times", self.attempts.len()));
                }
                told
            }
            Outcome::Held {
                memory,
                cpu,
                pids,
                place,
                hint,
                attempts,
            } => {
                let mut told = self.of_evidence(&[
                    ("memory", memory),
                    ("cpu", cpu),
                    ("pids", pids),
                    row.weaker.unwrap_or(("namespaces", Held::Enforced)),
                ]);
                told.extend(self.of_place(place));
                told.extend(self.of_hint(hint));
                told.extend(self.of_probe(memory, cpu));
                if self.attempts.len() != attempts {
                    told.push(format!("{} attempts, not {attempts}", self.attempts.len()));
                }
                told
            }
        }
    }

    fn of_evidence(&self, controls: &[(&str, Held)]) -> Vec<String> {
        let mut told = Vec::new();
        for enforcement in &self.attempts {
            for (control, held) in controls {
                let found = &enforcement["controls"][control];
                let wanted = match held {
                    Held::Enforced => "enforced",
                    Held::Degraded => "degraded",
                    Held::Absent => "absent",
                };
                if found["level"] != wanted {
                    told.push(format!("{control} is {found}, not {wanted}"));
                }
            }
        }
        told
    }

    fn of_place(&self, place: Place) -> Vec<String> {
        let is = |enforcement: &&Value| {
            let found = &enforcement["placement"];
            match place {
                Place::None => found.is_null(),
                Place::Own => found["place"] == "own",
                Place::Above(group) => found["place"] == "above" && found["group"] == group,
            }
        };
        let differs = self.attempts.iter().filter(|enforcement| !is(enforcement));
        differs
            .map(|enforcement| format!("its place is {}, not {place:?}", enforcement["placement"]))
            .collect()
    }

    fn of_hint(&self, hint: Option<&str>) -> Vec<String> {
        let hints: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("hint: "))
            .collect();
        match (hint, hints.as_slice()) {
            (None, []) => Vec::new(),
            (Some(hint), [line]) if line.contains(hint) => Vec::new(),
            _ => vec![format!("the hints are {hints:?}, not {hint:?}")],
        }
    }

    /// What the payload itself could do.
    fn of_probe(&self, memory: Held, cpu: Held) -> Vec<String> {
        let mut told = Vec::new();
        let measures = |name: &str| -> Vec<Vec<f64>> {
            let lines = self.log.lines().filter_map(|line| line.strip_prefix(name));
            lines
                .map(|line| {
                    let numbers = line.split_ascii_whitespace();
                    numbers.filter_map(|word| word.parse().ok()).collect()
                })
                .collect()
        };
        for name in ["forks ", "cpu ", "eaters "] {
            if measures(name).len() != self.attempts.len() {
                told.push(format!(
                    "the probe said `{name}` {} times",
                    measures(name).len()
                ));
            }
        }
        for forks in measures("forks ").iter().flatten() {
            if *forks > MOST_FORKS as f64 {
                told.push(format!("{forks} processes were there at once"));
            }
        }
        for measure in measures("cpu ") {
            let [used, elapsed] = measure[..] else {
                continue;
            };
            let held = used / elapsed <= MOST_CPU;
            if held != (cpu == Held::Enforced) {
                told.push(format!("{used} s of processor time in {elapsed} s"));
            }
        }
        for measure in measures("eaters ") {
            let [holding, all] = measure[..] else {
                continue;
            };
            if (holding < all) != (memory == Held::Enforced) {
                told.push(format!(
                    "{holding} of {all} times 48 MiB were held within 96 MiB"
                ));
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::vm::rows::ROWS;

    fn row(name: &str) -> Result<&'static Row, String> {
        let found = ROWS.iter().find(|row| row.name == name);
        found.ok_or_else(|| format!("there is no row {name}"))
    }

    fn of_service() -> Found {
        let enforced = || json!({ "level": "enforced" });
        Found {
            status: "1".to_owned(),
            stderr: "run submitted\n".to_owned(),
            log: "forks 39\ncpu 1.010 of 2.001\neaters 1 of 4 held\n".to_owned(),
            left: String::new(),
            attempts: vec![json!({
                "placement": { "place": "above", "group": "/system.slice", "left": "/a.service" },
                "controls": {
                    "memory": enforced(),
                    "cpu": enforced(),
                    "pids": enforced(),
                    "namespaces": enforced(),
                },
            })],
        }
    }

    #[test]
    fn whatever_differs_from_the_table_is_told() -> Result<(), String> {
        let row = row("root-service")?;
        assert_eq!(of_service().of_outcome(row), [""; 0]);
        type Change = fn(&mut Found);
        let changes: [(&str, Change); 8] = [
            ("memory is", |found| {
                found.attempts[0]["controls"]["memory"]["level"] = json!("degraded");
            }),
            ("its place is", |found| {
                found.attempts[0]["placement"]["group"] = json!("/user.slice");
            }),
            ("the hints are", |found| {
                found.stderr.push_str("hint: limits\n")
            }),
            ("attempts, not", |found| found.attempts.clear()),
            ("the probe said", |found| found.log.clear()),
            ("processes were there", |found| {
                found.log = found.log.replace("forks 39", "forks 200");
            }),
            ("of processor time", |found| {
                found.log = found.log.replace("cpu 1.010", "cpu 3.900");
            }),
            ("were held within", |found| {
                found.log = found.log.replace("eaters 1", "eaters 4");
            }),
        ];
        for (words, change) in changes {
            let mut found = of_service();
            change(&mut found);
            let told = found.of_outcome(row);
            assert!(
                told.iter().any(|what| what.contains(words)),
                "{words}: {told:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_refusal_is_told_with_its_remedy_and_made_once() -> Result<(), String> {
        let row = row("no-overlay")?;
        let mut found = of_service();
        found.log = String::new();
        found.stderr = "no overlay file system; as root: modprobe overlay".to_owned();
        assert_eq!(found.of_outcome(row), [""; 0]);
        found.attempts = vec![Value::Null, Value::Null];
        found.stderr = "No such device".to_owned();
        assert_eq!(
            found.of_outcome(row).len(),
            3,
            "{:?}",
            found.of_outcome(row)
        );
        Ok(())
    }
}
