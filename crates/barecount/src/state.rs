//! Reading a state folder.

use std::path::Path;

use barecount_control::store::{FILE, StoreError, reader::Reader};
use barecount_model::{plan::Plan, run::Run};

use crate::{
    embedded::layout,
    failure::{Failure, Status},
};

/// The store of a state folder; `None` where nothing has ever run. One that an older program wrote
/// is brought up to date first.
pub(crate) fn reader(folder: &Path) -> Result<Option<Reader>, Failure> {
    if folder.join(FILE).exists() {
        layout::bring_up_to_date(folder)?;
    }
    Reader::open(folder)
        .map_err(|error| Failure::from_error(Status::Unavailable, &error).with_code("BC0802"))
}

/// A failure of the store.
pub(crate) fn store_failure(error: StoreError) -> Failure {
    Failure::from_error(Status::Unavailable, &error).with_code("BC0802")
}

/// The run that an identifier, or the beginning of one, names.
pub(crate) fn find_run(folder: &Path, text: &str) -> Result<(Reader, Run, Plan), Failure> {
    let not_found = || {
        Failure::new(
            Status::NotFound,
            format!("there is no run `{text}` in {}", folder.display()),
        )
        .with_help("`barecount runs ls` lists the runs; `--state` names another state folder.")
    };
    let reader = reader(folder)?.ok_or_else(not_found)?;
    let prefix = if text.starts_with("run_") {
        text.to_owned()
    } else {
        format!("run_{text}")
    };
    let mut found = reader.runs_by_prefix(&prefix).map_err(store_failure)?;
    if found.len() > 1 {
        return Err(
            Failure::new(Status::Usage, format!("several runs begin with `{text}`"))
                .with_help("Give more of the identifier."),
        );
    }
    let (run, plan) = found.pop().ok_or_else(not_found)?;
    Ok((reader, run, plan))
}
