//! `barecount validate`.

use std::path::PathBuf;

use barecount_client::{
    embedded::{evolution, owners, script},
    failure::{Failure, Status},
    manifest,
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
        for file in &self.files {
            let read = manifest::read(file)?;
            let mut found = read.diagnostics().to_vec();
            if let Ok(loaded) = &read.result {
                let name = file.display().to_string();
                let unfit = evolution::diagnose(&global.state, loaded, &name, &read.source)?;
                found.extend(unfit);
                let taken = owners::diagnose(&global.state, loaded, &name, &read.source)?;
                found.extend(taken);
            }
            let mut rendered = vec![diagnostic::render(&found, &read.source)];
            if let Ok(loaded) = &read.result {
                for job in script::unplannable(loaded, file, None, true) {
                    rendered.push(job.diagnostic.render(&job.source));
                    found.push(job.diagnostic);
                }
            }
            for rendered in rendered.iter().filter(|rendered| !rendered.is_empty()) {
                text.push_str(rendered);
                text.push('\n');
            }
            if let Ok(loaded) = &read.result
                && !diagnostic::has_errors(&found)
            {
                let stages = loaded.pipeline.stages.len();
                let noun = if stages == 1 { "stage" } else { "stages" };
                text.push_str(&format!(
                    "{}: pipeline `{}` is valid, {stages} {noun}\n",
                    file.display(),
                    loaded.pipeline.name
                ));
                let estimate = cost::estimate(&catalog, &loaded.pipeline);
                text.push_str(&format!(
                    "  a run costs {} to {} {} at list prices: every task the shortest time that is \
                     billed, or once its whole timeout\n",
                    estimate.at_least,
                    estimate.at_most,
                    Money::CURRENCY
                ));
                estimates.push(json!({ "file": file, "estimate": estimate }));
            }
            all.extend(found);
        }
        let mut value = diagnostic::report(&all);
        value["estimates"] = json!(estimates);
        printer.data(&value, || text)?;
        if diagnostic::has_errors(&all) {
            return Err(Failure::reported(Status::Usage));
        }
        Ok(())
    }
}
