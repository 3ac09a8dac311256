//! What logical work is called: the token of its first run, and those of the runs that do it again.

use serde_json::json;

use super::{InputPlan, Plan};
use crate::{digest::Digest, run::Window, version};

/// The token of the logical work: what runs, on which window, on which files and versions of other
/// pipelines' datasets.
pub fn of(plan: &Plan, window: Option<&Window>) -> String {
    let inputs = plan.stages.iter().flat_map(|stage| &stage.inputs);
    let files = inputs.filter_map(|input| match input {
        InputPlan::File { digest, .. } => Some(digest),
        InputPlan::Dataset { .. } => None,
    });
    let stages: Vec<&String> = plan.stages.iter().map(|stage| &stage.name).collect();
    let mut work = json!({
        "tenant": plan.tenant, "pipeline": plan.pipeline, "version": plan.version,
        "window": window, "files": files.collect::<Vec<_>>(), "stages": stages,
        "environment": plan.environment,
    });
    let pinned: Vec<_> = plan
        .pinned()
        .map(|(_, dataset, of)| (dataset, of))
        .collect();
    if !pinned.is_empty() {
        work["pinned"] = json!(pinned);
    }
    if !plan.forced.is_empty() {
        work["forced"] = json!(plan.forced);
    }
    Digest::of(version::canonical(&work).as_bytes()).hex()[..32].to_owned()
}

/// The token of a run that does the work of earlier runs again, `latest` being the last of them:
/// the work's own token, and how many runs it has had before.
pub fn successor(work: &str, latest: &str) -> String {
    let before = latest.strip_prefix(work).unwrap_or_default();
    let before: u64 = before.trim_start_matches('.').parse().unwrap_or(0);
    format!("{work}.{}", before.saturating_add(1))
}

/// The work's own token, of that of any run of it: see [`successor`].
pub fn first(token: &str) -> &str {
    token.split_once('.').map_or(token, |(work, _)| work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_is_done_again_is_counted_and_keeps_its_name() {
        let second = successor("abc", "abc");
        let third = successor("abc", &second);
        assert_eq!((second.as_str(), third.as_str()), ("abc.1", "abc.2"));
        assert_eq!([first("abc"), first(&third)], ["abc", "abc"]);
    }
}
