//! `barecount approvals request`.

use std::path::PathBuf;

use barecount_client::{
    client::{ApprovalRequest, Approvals as _, AskedFor},
    failure::Failure,
};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{facts, reason};
use crate::{global::Global, printer::Printer};

/// Asks for an approval.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// The manifest.
    file: PathBuf,
    /// Only for this stage.
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Why the exception is needed, for those who answer and those who read the evidence.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
}

impl Request {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let request = ApprovalRequest {
            manifest: self.file,
            stage: self.stage,
            reason: self.reason,
        };
        tell(
            &global.client().request_approvals(&request, printer)?,
            printer,
        )
    }
}

/// `barecount/approvals/v1`, as `ls` prints it.
fn tell(asked: &AskedFor, printer: &Printer) -> Result<(), Failure> {
    let (approvals, now) = (&asked.approvals, Timestamp::now());
    let items: Vec<Value> = approvals.iter().map(|one| facts(one, now)).collect();
    let value = json!({ "schema": "barecount/approvals/v1", "items": items });
    printer.data(&value, || {
        let lines = approvals.iter().map(|approval| {
            let (id, stage) = (&approval.id, &approval.asked.stage);
            format!(
                "asked for approval {id} of stage {stage}\nan approver grants it with:  barecount \
                 approvals grant {id} --reason TEXT\n"
            )
        });
        lines.collect()
    })?;
    if !asked.answerable {
        printer.warn(&format!(
            "environment `{}` names no approver for tenant `{}`, so nobody can grant it: its file \
             names them under `governance.approvers`",
            asked.environment, asked.tenant
        ));
    }
    Ok(())
}
