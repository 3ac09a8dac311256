//! From a figure back to where it comes from.

use std::collections::BTreeSet;

use barecount_control::{
    governance::Explanation,
    store::reader::{Reader, Writer},
};
use barecount_dataset::{table::Tables, versions::Version};
use barecount_model::{
    cost,
    plan::Plan,
    run::{Attempt, Run, Task},
    text::DatasetName,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::datasets::{Dataset, unreadable};
use crate::{details::attempt, failure::Failure, runtime::runtime, state};

/// What brought a version of a dataset, and what brought that, as `barecount/trace/v1` has it.
///
/// # Errors
/// If the dataset or the store cannot be read. What cannot be told of an input is told in its place.
pub(super) fn trace(of: Dataset, version: Option<u64>) -> Result<Value, Failure> {
    let mut tracer = Tracer {
        runtime: runtime()?,
        reader: of.reader,
        tables: of.tables,
        told: BTreeSet::new(),
    };
    tracer.dataset(&of.table, version)
}

/// Walks back through versions, each told once.
struct Tracer {
    runtime: Runtime,
    reader: Reader,
    tables: Tables,
    told: BTreeSet<(String, u64)>,
}

impl Tracer {
    fn dataset(&mut self, table: &DatasetName, version: Option<u64>) -> Result<Value, Failure> {
        let found = self.runtime.block_on(self.tables.origins(table, version));
        let (last, brought) = found.map_err(|error| unreadable(&error))?;
        let name = table.to_string();
        let mut value = json!({
            "dataset": name, "version": last.version, "act": last.act.to_string(),
            "at": last.at(), "by": last.by, "rows": last.rows, "told_above": false,
            "brought_by": [],
        });
        if !self.told.insert((name.clone(), last.version)) {
            value["told_above"] = json!(true);
            return Ok(value);
        }
        let tenant = self.tables.tenant().to_string();
        let writers = self.reader.writers(&tenant, &name);
        let writers = writers.map_err(state::store_failure)?;
        let mut commits = Vec::with_capacity(brought.len());
        for version in brought.iter().rev() {
            commits.push(self.commit(version, &writers)?);
        }
        value["brought_by"] = json!(commits);
        Ok(value)
    }

    /// What brought rows in one version.
    fn commit(&mut self, version: &Version, writers: &[Writer]) -> Result<Value, Failure> {
        let mut value = json!({
            "version": version.version, "act": version.act.to_string(), "at": version.at(),
            "rows": version.added.rows, "run": null,
        });
        let Some(transaction) = &version.transaction else {
            return Ok(value);
        };
        let Some(writer) = writers
            .iter()
            .find(|found| found.task == transaction.app_id)
        else {
            return Ok(value);
        };
        let runs = self.reader.runs_by_prefix(&writer.run);
        let runs = runs.map_err(state::store_failure)?;
        let Some((run, plan)) = runs.into_iter().next() else {
            return Ok(value);
        };
        let task = run
            .tasks
            .iter()
            .find(|task| *task.id.printed() == *writer.task);
        let Some(task) = task else {
            return Ok(value);
        };
        value["run"] = run_facts(&run, &plan);
        value["code"] = code(&plan, task);
        value["decision"] = decision(&plan);
        value["task"] = json!({
            "id": task.id, "stage": task.stage, "partition": task.partition,
            "attempt": transaction.version, "class": task.class, "size": task.size,
        });
        value["cost"] = json!(cost::of_task(task, &plan));
        let attempts = &mut task.attempts.iter();
        let attempt = attempts.find(|attempt| i64::from(attempt.number) == transaction.version);
        if let Some(attempt) = attempt {
            value["inputs"] = json!(self.inputs(attempt)?);
            value["flows"] = attempt::network(attempt);
            value["secrets"] = attempt::secrets(attempt);
        }
        let entries = self.reader.ledger_entries(Some(&*run.id.printed()));
        let entries = entries.map_err(state::store_failure)?;
        let entry = |entry: &barecount_api::ledger::LedgerEntry| json!({ "index": entry.index, "kind": entry.kind, "leaf_hash": entry.leaf_hash });
        value["evidence"] = entries.iter().map(entry).collect();
        Ok(value)
    }

    /// What an attempt was given: files by digest, datasets with where they come from.
    fn inputs(&mut self, attempt: &Attempt) -> Result<Vec<Value>, Failure> {
        let given = attempt.detail["inputs"].as_array();
        let mut inputs = Vec::new();
        for input in given.into_iter().flatten() {
            let name = input["dataset"].as_str().map(str::parse::<DatasetName>);
            inputs.push(match (name, input["version"].as_u64()) {
                (Some(Ok(table)), Some(version)) => match self.dataset(&table, Some(version)) {
                    Ok(traced) => traced,
                    // What it was given is on record, whatever became of the table.
                    Err(failure) => json!({
                        "dataset": table.to_string(), "version": version,
                        "rows": input["rows"], "digest": input["digest"],
                        "untold": failure.to_string(), "brought_by": [],
                    }),
                },
                _ => input.clone(),
            });
        }
        Ok(inputs)
    }
}

fn run_facts(run: &Run, plan: &Plan) -> Value {
    json!({
        "id": run.id, "pipeline": run.pipeline, "version": run.version,
        "environment": run.environment, "window": run.window, "submitted_at": run.submitted_at,
        "requester": plan.requester, "owner": plan.owner,
        "classification": plan.classification,
    })
}

fn code(plan: &Plan, task: &Task) -> Value {
    let stage = plan.stage(&task.stage);
    json!({
        "artifact": stage.map(|stage| stage.work.artifact()),
        "drivers": stage.map(|stage| &stage.drivers),
        "manifest": plan.manifest_digest, "lock": plan.lock_digest,
    })
}

/// What permitted the run: by which rules, and whose approvals counted.
fn decision(plan: &Plan) -> Value {
    let rules = &plan.decision["rules"];
    let Ok(explanation) = serde_json::from_value::<Explanation>(plan.decision.clone()) else {
        // It is older than decisions in this form; evidence has it as it was.
        return plan.decision.clone();
    };
    let mut policies = BTreeSet::new();
    let mut approvals = Vec::new();
    for decided in &explanation.decisions {
        policies.extend(decided.determining.iter().map(|policy| policy.id.clone()));
        for approval in decided.approvals.iter().filter(|approval| approval.usable) {
            approvals.push(json!({
                "stage": decided.stage.as_ref().map(|stage| &stage.name),
                "approval": approval.id, "scope": approval.scope,
                "requester": approval.requester, "approver": approval.approver,
                "justification": approval.justification, "expires_at": approval.expires_at,
            }));
        }
    }
    json!({
        "decided_at": explanation.decided_at, "requester": explanation.requester,
        "policies_digest": explanation.policies_digest, "policies": policies,
        "approvals": approvals, "rules": rules,
    })
}
