//! Records of what attempts reached over the network and were given, each held against its entry in
//! the signed ledger.

use std::{collections::BTreeMap, path::Path};

use barecount_api::records::{Records, Selection};
use barecount_model::{manifest::Egress, run::AttemptState};
use barecount_network::{
    advice::advise,
    record::{FlowRecord, Verdict},
};
use barecount_secrets::Access;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Embedded, runs::stage_of};
use crate::{
    details::{self, Accesses, AttemptEntry},
    failure::{Failure, Status},
    log::Log,
    reporter::Reporter,
    state,
};

impl Embedded {
    pub(super) fn flows_of(
        &self,
        selection: &Selection,
        reporter: &dyn Reporter,
    ) -> Result<Records, Failure> {
        let mut records = Records::default();
        for entry in &self.selected(selection, reporter)? {
            for flow in flows(&self.state, entry)? {
                if !selection.refused || flow.verdict == Verdict::Refused {
                    records.items.push(flow_item(entry, &flow));
                }
            }
            let totals = entry.network().map(|network| &network.totals);
            let of_it = of_attempt(entry, json!({ "totals": totals }));
            records.attempts.push(of_it);
        }
        Ok(records)
    }

    pub(super) fn accesses_of(
        &self,
        selection: &Selection,
        reporter: &dyn Reporter,
    ) -> Result<Records, Failure> {
        let mut records = Records::default();
        for entry in &self.selected(selection, reporter)? {
            let items = accesses(&self.state, entry)?.into_iter();
            let wanted = items.filter(|item| !selection.refused || item["verdict"] != "allowed");
            records.items.extend(wanted);
            let totals = entry.accesses().map(|counted| {
                json!({
                    "allowed": counted.allowed, "refused": counted.refused,
                    "unlisted": Accesses::unlisted(counted),
                })
            });
            let of_it = of_attempt(entry, json!({ "totals": totals }));
            records.attempts.push(of_it);
        }
        Ok(records)
    }

    pub(super) fn advice_of(&self, run: &str) -> Result<BTreeMap<String, Vec<Egress>>, Failure> {
        let (reader, run, _) = state::find_run(&self.state, run)?;
        let entries = details::of_run(&Log::open(self)?, &reader, &run)?;
        let mut by_stage: BTreeMap<String, Vec<FlowRecord>> = BTreeMap::new();
        for entry in entries {
            let flows = flows(&self.state, &entry)?;
            by_stage.entry(entry.stage).or_default().extend(flows);
        }
        Ok(by_stage
            .into_iter()
            .map(|(stage, flows)| (stage, advise(&flows)))
            .filter(|(_, lines)| !lines.is_empty())
            .collect())
    }
}

impl Embedded {
    /// The entries of the selected attempts.
    fn selected(
        &self,
        selection: &Selection,
        reporter: &dyn Reporter,
    ) -> Result<Vec<AttemptEntry>, Failure> {
        let (reader, run, _) = state::find_run(&self.state, &selection.run)?;
        let stage = stage_of(&run, selection.stage.as_deref())?;
        let mut entries = details::of_run(&Log::open(self)?, &reader, &run)?;
        entries.retain(|entry| {
            stage.is_none_or(|stage| entry.stage == stage)
                && selection
                    .attempt
                    .is_none_or(|number| entry.number() == number)
        });
        let tasks = run.tasks.iter();
        let selected = tasks.filter(|task| stage.is_none_or(|stage| task.stage == stage));
        let attempts =
            selected.flat_map(|task| task.attempts.iter().map(move |tried| (task, tried)));
        let attempts = attempts.filter(|(_, attempt)| {
            let number = attempt.number;
            selection.attempt.is_none_or(|wanted| wanted == number)
        });
        let mut none = true;
        for (task, attempt) in attempts {
            none = false;
            let (name, number) = (task.name(), attempt.number);
            if attempt.state.is_open() {
                reporter.note(&format!("{name}, attempt {number}, is still under way"));
            } else if attempt.state == AttemptState::Lost {
                reporter.note(&format!(
                    "{name}, attempt {number}, was interrupted: the ledger has no record of what \
                     it did"
                ));
            }
        }
        if let (true, Some(number)) = (none, selection.attempt) {
            let what = format!("there is no attempt {number} in what was asked for");
            return Err(Failure::new(Status::NotFound, what).with_help(format!(
                "`barecount runs show {}` has how many attempts each task took.",
                run.id
            )));
        }
        Ok(entries)
    }
}

fn of_attempt(entry: &AttemptEntry, mut of_it: Value) -> Value {
    of_it["task"] = json!(entry.task());
    of_it["stage"] = json!(entry.stage);
    of_it["partition"] = json!(entry.partition);
    of_it["attempt"] = json!(entry.number());
    of_it["entry"] = json!(entry.index);
    of_it
}

/// Every flow of an attempt, from the record beside the ledger, which is held against its entry.
fn flows(state: &Path, entry: &AttemptEntry) -> Result<Vec<FlowRecord>, Failure> {
    match entry.flows_record() {
        Some(record) => record.lines(state),
        None => Ok(Vec::new()),
    }
}

/// A flow as `barecount/flows/v1` has it, of an attempt.
fn flow_item(entry: &AttemptEntry, flow: &FlowRecord) -> Value {
    json!({
        "task": entry.task(), "stage": entry.stage, "partition": entry.partition,
        "attempt": entry.number(), "entry": entry.index,
        "name": flow.name, "address": flow.address, "port": flow.port,
        "protocol": flow.protocol, "network_profile": flow.profile, "path": flow.path,
        "verdict": flow.verdict, "reason": flow.reason, "count": flow.count,
        "bytes_up": flow.bytes_up, "bytes_down": flow.bytes_down,
        "first_at": moment(flow.first_at), "last_at": moment(flow.last_at),
    })
}

/// A moment in milliseconds since 1970, as JSON has moments.
fn moment(milliseconds: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(milliseconds).ok()?).ok()
}

/// Every access of an attempt, as `barecount/accesses/v1` has them: to the platform's objects, then
/// to secrets; from records beside the ledger, which are held against the entry.
fn accesses(state: &Path, entry: &AttemptEntry) -> Result<Vec<Value>, Failure> {
    let objects = match entry.objects_record() {
        Some(record) => record.lines(state)?,
        None => {
            let accesses = entry.accesses();
            accesses.map_or_else(Vec::new, |accesses| accesses.records.records().to_vec())
        }
    };
    let objects = objects.iter().map(|record| {
        item(
            entry,
            "identity",
            [
                &record["action"],
                &record["object"],
                &record["verdict"],
                &record["at"],
                &Value::Null,
            ],
        )
    });
    let mut items: Vec<Value> = objects.collect();
    for access in secrets(state, entry)? {
        let object = json!(format!("secret {}", text(&access, "reference")));
        let fields = [
            &json!("fetch"),
            &object,
            &access["verdict"],
            &access["at"],
            &access["reason"],
        ];
        items.push(item(entry, "secrets", fields));
    }
    Ok(items)
}

/// The accesses of an attempt to secrets.
fn secrets(state: &Path, entry: &AttemptEntry) -> Result<Vec<Value>, Failure> {
    let Some(record) = entry.secrets_record() else {
        // Nothing to hold a record against; the entry itself has every access.
        let records = entry
            .secrets()
            .map(|secrets| secrets.records.records().to_vec());
        return Ok(records.unwrap_or_default());
    };
    let accesses: Vec<Access> = record.lines(state)?;
    Ok(accesses.iter().map(|access| json!(access)).collect())
}

/// An access: `record` says in which of the two records it stands.
fn item(entry: &AttemptEntry, record: &str, fields: [&Value; 5]) -> Value {
    let [action, object, verdict, at, reason] = fields;
    json!({
        "task": entry.task(), "stage": entry.stage, "partition": entry.partition,
        "attempt": entry.number(), "entry": entry.index, "record": record,
        "action": action, "object": object, "verdict": verdict, "at": at, "reason": reason,
    })
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or("-").to_owned()
}
