//! `barecount validate`.

use std::path::PathBuf;

use barecount_client::{
    client::{Checked, Pipelines as _},
    failure::{Failure, Status},
};
use barecount_model::{
    catalog::Catalog,
    cost::{self, Money},
    diagnostic,
};
use clap::Args;
use serde_json::json;

use crate::{global::Global, printer::Printer};

/// Check manifests: every problem with its place, and what would help. Nothing is changed.
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// The manifests.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Validate {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let mut all = Vec::new();
        let mut text = String::new();
        let (catalog, mut estimates) = (Catalog::builtin(), Vec::new());
        let mut readers = Vec::new();
        for file in &self.files {
            let Checked {
                found,
                rendered,
                read_by,
                pipeline,
            } = global.client().check(file)?;
            for rendered in rendered.iter().filter(|rendered| !rendered.is_empty()) {
                text.push_str(rendered);
                text.push('\n');
            }
            if let Some(pipeline) = pipeline.filter(|_| !diagnostic::has_errors(&found)) {
                let stages = pipeline.stages.len();
                let noun = if stages == 1 { "stage" } else { "stages" };
                text.push_str(&format!(
                    "{}: pipeline `{}` is valid, {stages} {noun}\n",
                    file.display(),
                    pipeline.name
                ));
                let estimate = cost::estimate(&catalog, &pipeline);
                text.push_str(&format!(
                    "  a run costs {} to {} {} at list prices: every task the shortest time that is \
                     billed, or once its whole timeout\n",
                    estimate.at_least,
                    estimate.at_most,
                    Money::CURRENCY
                ));
                estimates.push(json!({ "file": file, "estimate": estimate }));
                for reader in &read_by {
                    text.push_str(&format!("  {} is read by {reader}\n", reader.dataset));
                }
            }
            readers.extend(read_by);
            all.extend(found);
        }
        let mut value = diagnostic::report(&all);
        value["estimates"] = json!(estimates);
        value["read_by"] = json!(readers);
        printer.data(&value, || text)?;
        if diagnostic::has_errors(&all) {
            return Err(Failure::reported(Status::Usage));
        }
        Ok(())
    }
}
