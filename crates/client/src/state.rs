//! Reading a state folder.

use std::path::{Path, PathBuf};

use barecount_api::page::Cursor;
use barecount_control::store::{FILE, StoreError, reader::Reader};
use barecount_model::{codes, plan::Plan, run::Run};

use crate::{
    embedded::layout,
    failure::{Failure, Status},
    reserve,
};

/// The state folder that a verb looks at, named absolutely. Looking makes nothing.
///
/// # Errors
/// One that is not there is not found; one that may not be looked into says so, and is never
/// taken for an empty one.
pub(crate) fn folder(path: &Path) -> Result<PathBuf, Failure> {
    let entered = path
        .canonicalize()
        .and_then(|folder| std::fs::read_dir(&folder).map(|_| folder));
    entered
        .inspect(|folder| {
            reserve::give_up_if_full(folder);
        })
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let what = format!("there is no state folder at {}", path.display());
                Failure::new(Status::NotFound, what).with_help(
                "`barecount run FILE` makes one; `--state` names another, from where it is called.",
            )
            }
            _ => {
                let what = format!("the state folder {} cannot be looked into", path.display());
                Failure::new(Status::Unavailable, what)
                .because(&error)
                .with_code(codes::STATE_CLOSED.id)
                .with_help(
                    "Look as the account that ran the pipelines, or name another with `--state`.",
                )
            }
        })
}

/// The store of a state folder; `None` where nothing has ever run. One that an older program wrote
/// is brought up to date first.
pub(crate) fn reader(path: &Path) -> Result<Option<Reader>, Failure> {
    let folder = folder(path)?;
    // Where that cannot be told, opening it says why.
    if folder.join(FILE).exists() {
        if let Some(reader) = layout::present(&folder)? {
            return Ok(Some(reader));
        }
        layout::bring_up_to_date(&folder)?;
    }
    Reader::open(&folder)
        .map_err(|error| Failure::from_error(Status::Unavailable, &error).with_code("BC0802"))
}

/// The failure of who asks for something of a state folder in which nothing has ever run.
pub(crate) fn nothing_ran(folder: &Path) -> Failure {
    let what = format!("nothing has ever run in {}", folder.display());
    Failure::new(Status::NotFound, what)
}

/// What a cursor says that was made of a number.
///
/// # Errors
/// If it was made of something else.
pub(crate) fn number(cursor: &Cursor) -> Result<u64, Failure> {
    cursor.0.parse().map_err(|_| {
        let what = format!("`{}` is not where a page of this list ended", cursor.0);
        Failure::new(Status::Usage, what)
    })
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
