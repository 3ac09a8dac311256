//! What a function is told: its event with the platform's part beside it, and its environment.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    protocol::{Invocation, PAYLOAD_MAX},
    slots::Placed,
};
use crate::{
    RunnerError,
    launch::{Launch, inside},
    local::places::{self, Seen},
};

/// Where the function's package is.
pub(super) const TASK_ROOT: &str = "/var/task";
/// Room for the platform's part of a payload, in bytes.
const PLATFORM_MAX: usize = 16 * 1024;
/// The handler's name, if the package has several; the package's own business.
const HANDLER: &str = "_HANDLER";
/// Variables that differ from attempt to attempt: a process that serves several is told them in the
/// event.
const PER_ATTEMPT: [&str; 11] = [
    "BARECOUNT_RUN_ID",
    "BARECOUNT_RUN_TOKEN",
    "BARECOUNT_TASK_ID",
    "BARECOUNT_ATTEMPT",
    "BARECOUNT_PARTITION",
    "BARECOUNT_WINDOW_START",
    "BARECOUNT_WINDOW_END",
    "BARECOUNT_DEADLINE_MS",
    "BARECOUNT_CORRELATION_ID",
    "TRACEPARENT",
    "TRACESTATE",
];
/// Members of the platform's part, by the variable that they come from.
const MEMBERS: [(&str, &str); 9] = [
    ("run_id", "BARECOUNT_RUN_ID"),
    ("run_token", "BARECOUNT_RUN_TOKEN"),
    ("task_id", "BARECOUNT_TASK_ID"),
    ("attempt", "BARECOUNT_ATTEMPT"),
    ("stage", "BARECOUNT_STAGE"),
    ("partition", "BARECOUNT_PARTITION"),
    ("window_start", "BARECOUNT_WINDOW_START"),
    ("window_end", "BARECOUNT_WINDOW_END"),
    ("correlation_id", "BARECOUNT_CORRELATION_ID"),
];

/// The variables of a launch that a function's process keeps for all that it serves.
pub(super) fn lasting(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    env.iter()
        .filter(|(key, _)| !PER_ATTEMPT.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The environment of a function's process, with what Lambda's own clients look for.
pub(super) fn environment(launch: &Launch, address: &str) -> Vec<(String, String)> {
    let name = function_name(launch);
    let memory_mib = launch.limits.memory_bytes >> 20;
    let handler = launch.env.get(HANDLER).map_or("bootstrap", String::as_str);
    let mut of_backend = Seen::by(launch).lasting_variables();
    let lambda = [
        ("AWS_LAMBDA_RUNTIME_API", address.to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", name.to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mib.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", launch.token.to_string()),
        ("LAMBDA_TASK_ROOT", TASK_ROOT.to_owned()),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime".to_owned()),
        (HANDLER, handler.to_owned()),
        ("TZ", ":UTC".to_owned()),
    ];
    of_backend.extend(lambda.map(|(key, value)| (key.to_owned(), value)));
    places::environment(&lasting(&launch.env), of_backend)
}

/// The invocation of an attempt whose places are inside.
pub(super) fn invocation(
    launch: &Launch,
    event: &Value,
    placed: &Placed,
    deadline_ms: u64,
) -> Invocation {
    let mut platform = serde_json::Map::new();
    for (member, variable) in MEMBERS {
        let value = launch.env.get(variable).map(String::as_str);
        platform.insert(member.to_owned(), json!(value));
    }
    let folders = [
        ("input_dir", Some(placed.inside(inside::INPUT))),
        ("output_dir", Some(placed.inside(inside::OUTPUT))),
        ("checkpoint_dir", Some(placed.inside(inside::CHECKPOINT))),
        ("secrets_dir", Some(inside::SECRETS.to_owned())),
        (
            "cache_dir",
            launch
                .places
                .cache
                .as_ref()
                .map(|_| inside::CACHE.to_owned()),
        ),
        ("scratch_dir", Some(inside::SCRATCH.to_owned())),
    ];
    for (member, folder) in folders {
        platform.insert(member.to_owned(), json!(folder));
    }
    let payload = json!({ "barecount": platform, "event": event });
    let name = function_name(launch);
    Invocation {
        id: launch.token.to_string(),
        deadline_ms,
        function: format!("arn:aws:lambda:local:000000000000:function:{name}"),
        trace: launch
            .env
            .get("TRACEPARENT")
            .and_then(|parent| trace_id(parent)),
        payload: Bytes::from(payload.to_string()),
    }
}

/// Refuses an event that leaves no room for the platform's part in what the interface allows.
pub(super) fn check_size(event: &Value) -> Result<(), RunnerError> {
    let size = event.to_string().len();
    let limit = PAYLOAD_MAX - PLATFORM_MAX;
    if size <= limit {
        return Ok(());
    }
    Err(RunnerError::Unlaunchable {
        reason: format!("the event is {size} bytes, and a function takes {limit} at most"),
        remedy: "Hand the data over as an input, and only its name in the event.".to_owned(),
    })
}

fn function_name(launch: &Launch) -> &str {
    launch
        .env
        .get("BARECOUNT_STAGE")
        .map_or("function", String::as_str)
}

/// A W3C `traceparent` as an X-Ray trace header, which is what the interface carries.
fn trace_id(parent: &str) -> Option<String> {
    let mut parts = parent.split('-');
    let (_version, trace) = (parts.next()?, parts.next()?);
    let (span, flags) = (parts.next()?, parts.next()?);
    let hexadecimal = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if !(hexadecimal(trace, 32) && hexadecimal(span, 16) && hexadecimal(flags, 2)) {
        return None;
    }
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
    let (epoch, rest) = trace.split_at(8);
    Some(format!(
        "Root=1-{epoch}-{rest};Parent={span};Sampled={sampled}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_becomes_an_x_ray_header_and_rubbish_becomes_none() {
        assert_eq!(
            trace_id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").as_deref(),
            Some("Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1")
        );
        for rubbish in ["", "00", "00-zz-00-01", "00-4bf9\u{e9}-00f0-01"] {
            assert_eq!(trace_id(rubbish), None);
        }
    }
}
