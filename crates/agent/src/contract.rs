//! The variables of the task contract.

use std::collections::BTreeMap;

use barecount_api::assignment::Assignment;
use barecount_model::plan::WorkPlan;

/// The environment of an attempt, but for the places, which its backend adds.
pub(crate) fn variables(assignment: &Assignment, deadline_ms: i64) -> BTreeMap<String, String> {
    let mut variables = match &assignment.stage.work {
        WorkPlan::Image { env, .. } | WorkPlan::ImageHandler { env, .. } => env.clone(),
        _ => BTreeMap::new(),
    };
    variables.extend(assignment.stage.env.clone());
    let (start, end) = match &assignment.window {
        Some(window) => (window.start.to_string(), window.end.to_string()),
        None => (String::new(), String::new()),
    };
    let attempt = &assignment.attempt;
    let contract = [
        ("RUN_ID", attempt.run.to_string()),
        ("RUN_TOKEN", assignment.run_token.clone()),
        ("TASK_ID", attempt.task.to_string()),
        ("ATTEMPT", attempt.number.to_string()),
        ("TENANT", assignment.tenant.clone()),
        ("PIPELINE", assignment.pipeline.clone()),
        ("PIPELINE_VERSION", assignment.version.clone()),
        ("STAGE", assignment.stage.name.clone()),
        (
            "PARTITION",
            assignment.partition.clone().unwrap_or_default(),
        ),
        ("WINDOW_START", start),
        ("WINDOW_END", end),
        ("DEADLINE_MS", deadline_ms.to_string()),
        ("CORRELATION_ID", attempt.run.to_string()),
    ];
    variables.extend(contract.map(|(name, value)| (format!("BARECOUNT_{name}"), value)));
    variables.insert("TRACEPARENT".to_owned(), trace_parent(assignment));
    variables
}

/// A W3C trace context: the run is the trace, the attempt is the span, so that spans of user code
/// join the run's trace whichever process made them.
fn trace_parent(assignment: &Assignment) -> String {
    let digits = |id: &str| id.rsplit('_').next().unwrap_or_default().to_owned();
    let trace = digits(&assignment.attempt.run.printed());
    let task = digits(&assignment.attempt.task.printed());
    let span = format!(
        "{}{:04x}",
        &task[..task.len().min(12)],
        assignment.attempt.number & 0xffff
    );
    format!("00-{trace}-{span}-01")
}
