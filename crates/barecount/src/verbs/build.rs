//! `barecount build`.

use std::path::PathBuf;

use barecount_artifact::build::Cancel;
use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::Global,
    embedded::{self, Platform},
    environment,
    failure::Failure,
    manifest,
    preparation::{self, Preparation},
    printer::{Printer, Table},
    view,
};

/// Build everything that a pipeline runs, and pin it by digest in `pipeline.lock`.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The manifest.
    file: PathBuf,
}

impl Build {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let loaded = manifest::load(&self.file, printer)?;
        let folder = manifest::folder(&self.file)?;
        let found = environment::find(&folder, global.environment.as_deref())?;
        let state = embedded::state_folder(&global.state)?;
        let launcher = embedded::start_launcher(&state)?;
        let runtime = preparation::runtime()?;
        let lock = runtime.block_on(async {
            let platform = Platform::open(launcher, &state, &found).await?;
            let preparation = Preparation {
                pipeline: &loaded.pipeline,
                manifest: &loaded.manifest,
                folder: &folder,
                state: &state,
                environment: &found.environment,
                rules: found.text.as_deref(),
                printer,
            };
            let cancel = Cancel::default();
            let built = preparation.build(&platform, &cancel).await;
            let closed = platform.close().await;
            let lock = built?;
            closed?;
            Ok::<_, Failure>(lock)
        })?;
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
                    view::bytes(pin.size),
                    view::short(&pin.digest.to_string()),
                ]);
            }
            table
        })
    }
}
