//! `barecount gc`.

use std::{io::IsTerminal, time::Duration};

use barecount_client::{
    client::{Kept, Removed, Upkeep as _},
    failure::{Failure, Status},
    words::bytes,
};
use clap::Args;
use serde_json::json;

use crate::{global::Global, printer::Printer};

/// Remove what nobody needs any more: staging of ended attempts, artifacts that no run kept names,
/// data files that no version names, caches that no pipeline's latest run has, dead letters that no
/// run has on record.
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Keep data files that fell out of their dataset's latest version for so many hours, for
    /// those who still read an older one.
    #[arg(long, default_value_t = 168, value_name = "HOURS")]
    retention: u64,
    /// Remove the other caches as well: what the next runs would have found there they make anew.
    #[arg(long)]
    caches: bool,
    /// Do not ask before every older version is removed at once (`--retention 0`).
    #[arg(long)]
    yes: bool,
}

impl Gc {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let retention = Duration::from_secs(self.retention.saturating_mul(3600));
        let agreed = || match self.retention == 0 && !self.yes && !agreed()? {
            false => Ok(()),
            true => Err(Failure::new(
                Status::Usage,
                "every version of every dataset but the latest would be removed for good",
            )
            .with_help("Say `--yes` if that is meant, or keep some hours with `--retention`.")),
        };
        let kept = Kept {
            data: retention,
            caches: !self.caches,
        };
        let removed = global.client().collect(kept, &agreed, printer)?;
        let Removed {
            staging,
            artifacts,
            data_files: files,
            data_bytes: freed,
            caches,
            letters,
            left,
        } = removed;
        let value = json!({
            "schema": "barecount/gc/v1", "staging_folders": staging, "artifacts": artifacts,
            "data_files": files, "data_bytes": freed, "caches": caches, "dead_letter_files": letters,
            "left": left,
        });
        printer.data(&value, || {
            format!(
                "removed {staging} staging folders, {} artifacts ({}), {} unpacked artifacts, \
                 {files} data files ({}), {caches} caches, {letters} files of dead letters\n",
                artifacts.blobs,
                bytes(artifacts.blob_bytes),
                artifacts.trees,
                bytes(freed)
            )
        })
    }
}

/// Whether somebody at a terminal says that nothing but the latest versions is to be kept.
fn agreed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    crate::printer::ask("Remove every version of every dataset but the latest? [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Status::Usage, "no answer can be read").because(&error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
