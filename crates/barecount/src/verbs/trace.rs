//! `barecount trace`.

use barecount_client::{
    client::Datasets as _,
    failure::{Failure, Status},
    words::{counted, short},
};
use barecount_model::untrusted;
use clap::Args;
use serde_json::{Value, json};

use crate::{global::Global, printer::Printer, tenant::OfTenant};

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
        let traced = global.client().trace(&self.of.dataset(name), version)?;
        let value = json!({
            "schema": "barecount/trace/v1", "tenant": traced.tenant, "trace": traced.trace,
        });
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

/// A line of the text, indented. Evidence has what others wrote as they wrote it.
fn line(text: &mut String, depth: usize, label: &str, what: &str) {
    let what = untrusted::line(what);
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
        "{}@{}  {}",
        words(&traced["dataset"]),
        words(&traced["version"]),
        counted(traced["rows"].as_u64(), "row")
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
        "version {} {}, {}, {}",
        words(&commit["version"]),
        words(&commit["act"]),
        counted(commit["rows"].as_u64(), "row"),
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
            "{} of stage {} as {}, asked for by {}, granted by {}: {}",
            words(&approval["scope"]),
            words(&approval["stage"]),
            words(&approval["approval"]),
            words(&approval["requester"]),
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
