//! `barecount build`.

use std::path::PathBuf;

use barecount_client::{
    client::Pipelines as _,
    failure::Failure,
    words::{bytes, short},
};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    global::Global,
    printer::{Printer, Table},
};

/// Build everything that a pipeline runs, and pin it by digest in `pipeline.lock`.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The manifest.
    file: PathBuf,
}

impl Build {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let lock = global.client().build(&self.file, printer)?;
        let items: Vec<Value> = lock.pins().iter().map(|pin| json!(pin)).collect();
        printer.list("pins", &items, || {
            let mut table = Table::new(
                &["stage", "kind", "name", "size", "digest"],
                "the pipeline names nothing to build",
            );
            for pin in lock.pins() {
                table.row([
                    pin.stage.to_string(),
                    pin.kind.as_str().to_owned(),
                    pin.name.clone(),
                    bytes(pin.size),
                    short(&pin.digest.to_string()),
                ]);
            }
            table
        })
    }
}
