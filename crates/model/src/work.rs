//! The identity of work: when a task's work was done before, and what it came to still is true.
//!
//! A task's [`Work`] is everything that can change what it comes to, and nothing else; two tasks of
//! the same key come to the same. Work that was done is an answer only while what it wrote
//! [`stands`]. [`decide`] is the whole rule; see `docs/identity-of-work.md`.

mod standing;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    digest::Digest,
    plan::{InputPlan, Plan, StagePlan},
    run::Window,
    version::canonical,
};

pub use standing::{Fallen, LiveFile, Partition, Wrote, stands};

/// Changes when the rule changes by which keys are made: then no earlier work answers.
const SCHEME: &str = "barecount/work/v1";

/// What of a stage's plan changes nothing of what its tasks come to. Whatever is not here is part of
/// the key, so that what is added to plans later counts until somebody says that it does not.
const IMMATERIAL: &[&str] = &[
    "name",
    "phase",
    "size",
    "egress_limits",
    "crossings",
    "resources",
    "concurrency_limit",
    "needs",
    "inputs",
    "partitions",
    "application_retries",
    "infrastructure_retries",
    "initial_backoff_ms",
    "max_backoff_ms",
    "timeout_ms",
    "grace_ms",
];

/// What a task works on: a dataset as it is when the task is placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The dataset.
    pub dataset: String,
    /// The version that the attempt is given; none where there is no such dataset yet.
    pub version: Option<u64>,
    /// Digest of the partitions that the task reads, in the order in which it reads them.
    pub content: String,
}

/// The identity of a task's work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The digest of the parts.
    pub key: Digest,
    /// What it is made of, by name, so that a difference can be told.
    pub parts: BTreeMap<String, String>,
    /// The versions of the datasets that are read. Not part of the key: another version may hold
    /// the same.
    pub reads: BTreeMap<String, u64>,
}

impl Work {
    /// The work of one task.
    pub fn of(
        plan: &Plan,
        stage: &StagePlan,
        partition: Option<&str>,
        window: Option<&Window>,
        reads: &[Read],
    ) -> Self {
        let mut parts = BTreeMap::new();
        let mut add = |name: &str, value: String| {
            parts.insert(name.to_owned(), value);
        };
        add("scheme", SCHEME.to_owned());
        add("tenant", plan.tenant.clone());
        add("environment", plan.environment.clone());
        add("pipeline", plan.pipeline.clone());
        add("stage", stage.name.clone());
        if let Some(partition) = partition {
            add("partition", partition.to_owned());
        }
        if let Some(window) = window.filter(|_| stage.work.sees_window()) {
            add("window", format!("{}/{}", window.start, window.end));
        }
        if let Some(named) = &plan.named {
            add("token", named.clone());
        }
        for (name, value) in material(stage) {
            add(&name, value);
        }
        for input in &stage.inputs {
            let (name, value) = declared(input);
            add(&name, value);
        }
        for read in reads {
            add(&format!("data of {}", read.dataset), read.content.clone());
        }
        let key = Digest::of(canonical(&json!(parts)).as_bytes());
        let reads = reads
            .iter()
            .filter_map(|read| Some((read.dataset.clone(), read.version?)));
        Self {
            key,
            parts,
            reads: reads.collect(),
        }
    }

    /// The names of the parts in which this work differs from other work of the same stage and
    /// partition, in order.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names = self.parts.keys().chain(other.parts.keys());
        let mut differing: Vec<String> = names
            .filter(|name| self.parts.get(*name) != other.parts.get(*name))
            .cloned()
            .collect();
        differing.sort();
        differing.dedup();
        differing
    }
}

/// What of a stage's plan can change what its tasks come to, by name.
fn material(stage: &StagePlan) -> Vec<(String, String)> {
    let Ok(Value::Object(mut members)) = serde_json::to_value(stage) else {
        // a struct of texts, numbers and lists: always an object
        return Vec::new();
    };
    members.retain(|name, _| !IMMATERIAL.contains(&name.as_str()));
    // What an artifact is called is not what it is.
    if let Some(Value::Object(work)) = members.get_mut("work") {
        for pin in ["image", "package", "job"] {
            if let Some(Value::Object(pin)) = work.get_mut(pin) {
                pin.remove("name");
            }
        }
        // It follows from the text, which has a digest.
        work.remove("names_window");
    }
    if let Some(outputs) = members.get_mut("outputs") {
        without_words(outputs);
    }
    members
        .into_iter()
        .map(|(name, value)| (name, short(&value)))
        .collect()
}

/// How a stage reads something, but for what is in it where that is a dataset.
fn declared(input: &InputPlan) -> (String, String) {
    match input {
        InputPlan::Dataset { dataset, .. } => {
            let mut how = json!(input);
            without_words(&mut how);
            // Whose it is, and under which number, says nothing of what is in it.
            if let Some(members) = how.as_object_mut() {
                members.remove("from");
            }
            (format!("input {dataset}"), short(&how))
        }
        InputPlan::File {
            name, path, digest, ..
        } => {
            // The folder that the manifest is in changes nothing; the work sees the file's own name.
            let file = path.rsplit('/').next().unwrap_or(path);
            (
                format!("file {name}"),
                short(&json!({ "file": file, "digest": digest })),
            )
        }
    }
}

/// Leaves out what columns mean to people.
fn without_words(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_words),
        Value::Object(members) => {
            if let Some(Value::Array(columns)) = members.get_mut("columns") {
                for column in columns.iter_mut().filter_map(Value::as_object_mut) {
                    column.remove("description");
                    column.remove("sensitive");
                }
            }
        }
        _ => {}
    }
}

/// 128 bits of a digest: parts are kept with every task.
fn short(value: &Value) -> String {
    Digest::of(canonical(value).as_bytes()).hex()[..32].to_owned()
}

/// What is known of earlier work of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before<'a> {
    /// None was done.
    Never,
    /// It was, and what it wrote stands.
    Stands,
    /// It was, and something that it wrote does not stand any more.
    Fallen {
        /// The dataset.
        dataset: &'a str,
        /// What became of it.
        fallen: Fallen,
    },
}

/// What becomes of a task that could be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Its work was done, and what it wrote stands.
    Unchanged,
    /// It is done.
    Run(Why),
}

/// Why work is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Somebody wants it done, whatever was before.
    Forced,
    /// Nothing of the kind was done before.
    First,
    /// These parts of it differ from the last time.
    Changed(Vec<String>),
    /// It was done, but what it wrote in this dataset does not stand.
    Fallen {
        /// The dataset.
        dataset: String,
        /// What became of it.
        fallen: Fallen,
    },
}

/// The rule: a task is answered by work of the same key whose outputs stand, unless somebody
/// wants it done again. `last` is the work that the task's stage and partition did last, whatever
/// its key, and serves only to say why.
pub fn decide(work: &Work, forced: bool, before: Before<'_>, last: Option<&Work>) -> Decision {
    if forced {
        return Decision::Run(Why::Forced);
    }
    match before {
        Before::Stands => Decision::Unchanged,
        Before::Fallen { dataset, fallen } => Decision::Run(Why::Fallen {
            dataset: dataset.to_owned(),
            fallen,
        }),
        Before::Never => Decision::Run(match last {
            Some(last) => Why::Changed(work.differences(last)),
            None => Why::First,
        }),
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forced => f.write_str("forced"),
            Self::First => f.write_str("nothing like it was done before"),
            Self::Changed(parts) => {
                write!(f, "differs from the last time in {}", parts.join(", "))
            }
            Self::Fallen { dataset, fallen } => write!(f, "what it wrote in {dataset} {fallen}"),
        }
    }
}

#[cfg(test)]
mod tests;
