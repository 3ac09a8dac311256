//! What earlier processes and their work left behind: it is removed where that is possible, and
//! keeps nobody from starting where it is not.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use barecount_agent::{StagingFolders, Swept};
use barecount_runner::launch::AttemptToken;
use barecount_tree::Left;

use super::{blocking::blocking, runners, unusable};
use crate::{failure::Failure, reporter::Reporter};

/// Whoever starts waits so long for others' leavings, and no longer. `gc` has the time that it takes.
const AT_START: Duration = Duration::from_secs(5);

/// Tells of what could not be removed.
pub(super) fn tell(left: &[Left], reporter: &dyn Reporter) {
    for left in left {
        reporter.warn(&format!("{left}; `barecount gc` tries once more"));
    }
}

/// Whether the time of whoever starts is over.
fn in_time() -> impl Fn() -> bool + Send + 'static {
    let end = Instant::now() + AT_START;
    move || Instant::now() >= end
}

/// Removes what an earlier process's runners left, before this one's begin.
pub(super) async fn of_runners(state: &Path, reporter: &dyn Reporter) -> Result<(), Failure> {
    let state = state.to_owned();
    let cleared = blocking(move || runners::clear(&state, &in_time())).await;
    let left = cleared.map_err(|error| unusable("the runners' folders cannot be made", &error))?;
    tell(&left, reporter);
    Ok(())
}

/// Removes attempts' folders but for those to keep.
pub(super) async fn of_attempts(
    folders: &StagingFolders,
    keep: Vec<AttemptToken>,
    reporter: &dyn Reporter,
) -> Result<(), Failure> {
    let what = "it cannot be told what an earlier process staged";
    let folders = folders.clone();
    let swept = blocking(move || folders.sweep_all_but(&keep, &in_time())).await;
    let swept = swept.map_err(|error| unusable(what, &error))?;
    let Swept { left, .. } = swept.map_err(|error| unusable(what, &error))?;
    tell(&left, reporter);
    Ok(())
}
