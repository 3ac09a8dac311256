//! `barecount advise`.

use std::collections::BTreeMap;

use barecount_client::{details, failure::Failure, log::Log, state};
use barecount_model::manifest::Egress;
use barecount_network::{advice::advise, record::FlowRecord};
use clap::Subcommand;
use serde_json::json;

use crate::{flows, global::Global, printer::Printer};

/// Say what would serve better, from what was seen.
#[derive(Debug, Subcommand)]
pub(crate) enum Advise {
    /// Print the manifest lines that would allow what an audited run reached.
    Egress {
        /// The run, or the beginning of its identifier.
        run: String,
    },
}

impl Advise {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let Self::Egress { run } = self;
        let (reader, run, _) = state::find_run(&global.state, &run)?;
        let entries = details::of_run(&Log::open(&global.client())?, &reader, &run)?;
        let mut by_stage: BTreeMap<String, Vec<FlowRecord>> = BTreeMap::new();
        for entry in entries {
            let flows = flows::recorded(&global.state, &entry)?;
            by_stage.entry(entry.stage).or_default().extend(flows);
        }
        let advice: BTreeMap<String, Vec<Egress>> = by_stage
            .into_iter()
            .map(|(stage, flows)| (stage, advise(&flows)))
            .filter(|(_, lines)| !lines.is_empty())
            .collect();
        let stages: Vec<_> = advice
            .iter()
            .map(|(stage, egress)| json!({ "stage": stage, "egress": egress }))
            .collect();
        let value = json!({ "schema": "barecount/egress_advice/v1", "items": stages });
        printer.data(&value, || text(&advice))
    }
}

/// As it goes into the manifest.
fn text(advice: &BTreeMap<String, Vec<Egress>>) -> String {
    if advice.is_empty() {
        return "nothing was reached that is not declared\n".to_owned();
    }
    let mut text = String::new();
    for (stage, lines) in advice {
        text.push_str(&format!("# stage {stage}\negress:\n"));
        for Egress {
            host,
            port,
            protocol,
        } in lines
        {
            let protocol = json!(protocol);
            let protocol = protocol.as_str().unwrap_or_default();
            text.push_str(&format!(
                "  - {{ host: {host}, port: {port}, protocol: {protocol} }}\n"
            ));
        }
    }
    text
}
