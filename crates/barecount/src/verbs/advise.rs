//! `barecount advise`.

use std::collections::BTreeMap;

use barecount_client::{client::Runs as _, failure::Failure};
use barecount_model::manifest::Egress;
use clap::Subcommand;
use serde_json::json;

use crate::{global::Global, printer::Printer};

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
        let advice = global.client().egress_advice(&run)?;
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
