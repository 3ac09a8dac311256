//! `barecount trace`.

use std::collections::BTreeSet;

use barecount_control::{
    governance::Explanation,
    store::reader::{Reader, Writer},
};
use barecount_dataset::{
    table::{StateTables, Tables},
    versions::Version,
};
use barecount_model::{
    cost,
    plan::Plan,
    run::{Attempt, Run, Task},
    text::DatasetName,
};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::datasets::unreadable;
use crate::{
    accesses,
    cli::Global,
    failure::{Failure, Status},
    flows, preparation,
    printer::Printer,
    state,
    tenant::OfTenant,
    view::short,
};

/// Walk from a figure to where it comes from: run, code, inputs and theirs, policy, approvers, what
/// was reached, cost, and evidence.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// The dataset, as `layer.name`, or a version of it, as `layer.name@3`.
    #[arg(value_name = "DATASET[@VERSION]")]
    what: String,
    #[command(flatten)]
    of: OfTenant,
}

impl Trace {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let (name, version) = named(&self.what)?;
        let table: DatasetName = name.parse().map_err(|error| {
            let what = format!("`{name}` does not name a dataset");
            Failure::new(Status::Usage, what).because(&error)
        })?;
        let folder = state::folder(&global.state)?;
        let reader = state::reader(&folder)?.ok_or_else(|| {
            let what = format!("nothing has ever run in {}", folder.display());
            Failure::new(Status::NotFound, what)
        })?;
        let tables = self.of.tables_with(&StateTables::new(folder), &table)?;
        let tenant = tables.tenant().to_string();
        let mut tracer = Tracer {
            runtime: preparation::runtime()?,
            reader,
            tables,
            told: BTreeSet::new(),
        };
        let traced = tracer.dataset(&table, version)?;
        let value = json!({ "schema": "barecount/trace/v1", "tenant": tenant, "trace": traced });
        printer.data(&value, || {
            let mut text = String::new();
            write_dataset(&mut text, 0, &value["trace"]);
            text
        })
    }
}

fn named(text: &str) -> Result<(&str, Option<u64>), Failure> {
    let Some((name, version)) = text.split_once('@') else {
        return Ok((text, None));
    };
    let version = version.parse().map_err(|_| {
        let what = format!("`{version}` is no version of a dataset");
        Failure::new(Status::Usage, what).with_help("`barecount datasets history` lists them.")
    })?;
    Ok((name, Some(version)))
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
            "at": at(&last), "by": last.by, "rows": last.rows, "told_above": false,
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
            "version": version.version, "act": version.act.to_string(), "at": at(version),
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
            .find(|task| task.id.as_str() == writer.task);
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
            value["flows"] = flows::of_attempt(attempt);
            value["secrets"] = accesses::of_attempt(attempt);
        }
        let entries = self.reader.ledger_entries(Some(run.id.as_str()));
        let entries = entries.map_err(state::store_failure)?;
        let entry = |entry: &barecount_control::store::LedgerEntry| json!({ "index": entry.index, "kind": entry.kind, "leaf_hash": entry.leaf_hash });
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

fn at(version: &Version) -> Option<Timestamp> {
    Timestamp::from_millisecond(version.at_ms?).ok()
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
                "scope": approval.scope, "approver": approval.approver,
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

/// A line of the text, indented.
fn line(text: &mut String, depth: usize, label: &str, what: &str) {
    text.push_str(&format!(
        "{:width$}{label:<12}{what}\n",
        "",
        width = depth * 2
    ));
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn write_dataset(text: &mut String, depth: usize, traced: &Value) {
    let head = format!(
        "{}@{}  {} rows",
        words(&traced["dataset"]),
        words(&traced["version"]),
        words(&traced["rows"])
    );
    if traced["told_above"] == true {
        return line(text, depth, "dataset", &format!("{head}  (told above)"));
    }
    line(text, depth, "dataset", &head);
    if let Some(by) = traced["by"].as_str() {
        line(
            text,
            depth + 1,
            "by hand",
            &format!("{} by {by}", words(&traced["act"])),
        );
    }
    if let Some(untold) = traced["untold"].as_str() {
        line(text, depth + 1, "untold", untold.trim());
    }
    for commit in traced["brought_by"].as_array().into_iter().flatten() {
        write_commit(text, depth + 1, commit);
    }
}

fn write_commit(text: &mut String, depth: usize, commit: &Value) {
    let what = format!(
        "version {} {}, {} rows, {}",
        words(&commit["version"]),
        words(&commit["act"]),
        words(&commit["rows"]),
        words(&commit["at"])
    );
    line(text, depth, "brought by", &what);
    if commit["run"].is_null() {
        return line(text, depth + 1, "run", "none on record");
    }
    write_work(text, depth + 1, commit);
    write_permit(text, depth + 1, &commit["decision"]);
    write_effects(text, depth + 1, commit);
    for input in commit["inputs"].as_array().into_iter().flatten() {
        match input["file"].as_str() {
            Some(file) => {
                let what = format!("{file} {}", short(&words(&input["digest"])));
                line(text, depth + 1, "file", &what);
            }
            None => write_dataset(text, depth + 1, input),
        }
    }
}

/// Which run and task it was, and what code it ran.
fn write_work(text: &mut String, depth: usize, commit: &Value) {
    let (run, task, code) = (&commit["run"], &commit["task"], &commit["code"]);
    let text_of = |value: &Value| short(&words(value));
    let asked = format!(
        "{} of pipeline {} ({}), asked for by {}",
        words(&run["id"]),
        words(&run["pipeline"]),
        text_of(&run["version"]),
        words(&run["requester"])
    );
    line(text, depth, "run", &asked);
    let partition = task["partition"].as_str().map(|of| format!("/{of}"));
    let stage = format!(
        "{}{}, attempt {}",
        words(&task["stage"]),
        partition.unwrap_or_default(),
        words(&task["attempt"])
    );
    line(text, depth, "task", &stage);
    let artifact = &code["artifact"];
    let code = format!(
        "{} {}, manifest {}, lock {}",
        words(&artifact["name"]),
        text_of(&artifact["digest"]),
        text_of(&code["manifest"]),
        text_of(&code["lock"])
    );
    line(text, depth, "code", &code);
}

/// What permitted it, and who approved of it.
fn write_permit(text: &mut String, depth: usize, decision: &Value) {
    let policy = format!(
        "policies {}, decided {}",
        short(&words(&decision["policies_digest"])),
        words(&decision["decided_at"])
    );
    line(text, depth, "permitted", &policy);
    for approval in decision["approvals"].as_array().into_iter().flatten() {
        let approved = format!(
            "{} of stage {} by {}: {}",
            words(&approval["scope"]),
            words(&approval["stage"]),
            words(&approval["approver"]),
            words(&approval["justification"])
        );
        line(text, depth, "approved", &approved);
    }
}

/// What it reached, what it cost, and which entries vouch for it.
fn write_effects(text: &mut String, depth: usize, commit: &Value) {
    for flow in commit["flows"]["records"].as_array().into_iter().flatten() {
        let name = flow["name"].as_str().or(flow["address"].as_str());
        let reached = format!(
            "{}:{} {}, {} times",
            name.unwrap_or("?"),
            words(&flow["port"]),
            words(&flow["verdict"]),
            words(&flow["count"])
        );
        line(text, depth, "flow", &reached);
    }
    let cost = &commit["cost"];
    let cost = format!("{} {}", words(&cost["amount"]), words(&cost["currency"]));
    line(text, depth, "cost", &cost);
    let entries = commit["evidence"].as_array().into_iter().flatten();
    let entries: Vec<String> = entries
        .map(|entry| format!("{} {}", words(&entry["index"]), words(&entry["kind"])))
        .collect();
    line(text, depth, "evidence", &entries.join(", "));
}
