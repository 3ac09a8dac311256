//! What a function is told: its event with the platform's part beside it, and its environment.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{
    protocol::{Invocation, PAYLOAD_MAX},
    slots::Placed,
};
use crate::{
    RunnerError,
    launch::{HandlerProgram, Launch, Places, inside},
    local::places::{self, Seen},
};

/// Where a function's package is.
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
/// Members of the platform's part that are text, by the variable that they come from. One that is
/// absent or empty, such as the window of a run without one, is null.
const TEXTS: [(&str, &str); 12] = [
    ("run_id", "BARECOUNT_RUN_ID"),
    ("run_token", "BARECOUNT_RUN_TOKEN"),
    ("task_id", "BARECOUNT_TASK_ID"),
    ("tenant", "BARECOUNT_TENANT"),
    ("pipeline", "BARECOUNT_PIPELINE"),
    ("pipeline_version", "BARECOUNT_PIPELINE_VERSION"),
    ("stage", "BARECOUNT_STAGE"),
    ("partition", "BARECOUNT_PARTITION"),
    ("window_start", "BARECOUNT_WINDOW_START"),
    ("window_end", "BARECOUNT_WINDOW_END"),
    ("correlation_id", "BARECOUNT_CORRELATION_ID"),
    ("traceparent", "TRACEPARENT"),
];

/// The variables of a launch that a function's process keeps for all that it serves.
pub(super) fn lasting(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    env.iter()
        .filter(|(key, _)| !PER_ATTEMPT.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The environment of a handler's process, with what Lambda's own clients look for.
pub(super) fn environment(
    launch: &Launch,
    program: &HandlerProgram,
    address: &str,
) -> Vec<(String, String)> {
    let name = function_name(launch);
    let memory_mib = launch.limits.memory_bytes >> 20;
    let given = |name: &str, usual: &str| {
        let given = launch.env.get(name).map(String::as_str);
        given.unwrap_or(usual).to_owned()
    };
    // As on Lambda: an image says itself where its code is, and its last argument is the handler.
    let (handler, task_root) = match program {
        HandlerProgram::Package(_) => (given(HANDLER, "bootstrap"), TASK_ROOT.to_owned()),
        HandlerProgram::Image {
            argv, working_dir, ..
        } => (
            given(HANDLER, argv.last().map_or("", String::as_str)),
            given("LAMBDA_TASK_ROOT", &working_dir.to_string_lossy()),
        ),
    };
    let mut of_backend = Seen::by(launch).lasting_variables();
    let lambda = [
        ("AWS_LAMBDA_RUNTIME_API", address.to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", name.to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mib.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", launch.token.to_string()),
        ("LAMBDA_TASK_ROOT", task_root),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime".to_owned()),
        (HANDLER, handler),
        ("TZ", ":UTC".to_owned()),
    ];
    of_backend.extend(lambda.map(|(key, value)| (key.to_owned(), value)));
    places::environment(launch, &lasting(&launch.env), of_backend)
}

/// The body of an event. Written as it is, since every invocation waits for it.
#[derive(Serialize)]
struct Payload<'a> {
    barecount: Platform<'a>,
    event: &'a Value,
}

/// The platform's part of it.
struct Platform<'a> {
    launch: &'a Launch,
    placed: &'a Placed,
    deadline_ms: u64,
}

impl Serialize for Platform<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            launch,
            placed,
            deadline_ms,
        } = self;
        let mut members = serializer.serialize_map(None)?;
        for (member, variable) in TEXTS {
            let value = launch.env.get(variable).filter(|value| !value.is_empty());
            members.serialize_entry(member, &value)?;
        }
        members.serialize_entry("attempt", &launch.token.number)?;
        members.serialize_entry("deadline_ms", deadline_ms)?;
        let Places { cache, drivers, .. } = &launch.places;
        for (member, place) in [
            ("input_dir", inside::INPUT),
            ("output_dir", inside::OUTPUT),
            ("checkpoint_dir", inside::CHECKPOINT),
        ] {
            members.serialize_entry(member, &placed.inside(place))?;
        }
        let cache = cache.as_ref().map(|_| inside::CACHE);
        let drivers = (!drivers.is_empty()).then_some(inside::DRIVERS);
        members.serialize_entry("secrets_dir", inside::SECRETS)?;
        members.serialize_entry("cache_dir", &cache)?;
        members.serialize_entry("drivers_dir", &drivers)?;
        members.serialize_entry("scratch_dir", inside::SCRATCH)?;
        members.end()
    }
}

/// The invocation of an attempt whose places are inside.
pub(super) fn invocation(
    launch: &Launch,
    event: &Value,
    placed: &Placed,
    deadline_ms: u64,
) -> Invocation {
    let payload = Payload {
        barecount: Platform {
            launch,
            placed,
            deadline_ms,
        },
        event,
    };
    let name = function_name(launch);
    Invocation {
        id: launch.token.to_string(),
        deadline_ms,
        function: format!("arn:aws:lambda:local:000000000000:function:{name}"),
        trace: launch
            .env
            .get("TRACEPARENT")
            .and_then(|parent| trace_id(parent)),
        // Text, numbers and JSON that has been parsed always have a JSON form.
        payload: Bytes::from(serde_json::to_vec(&payload).unwrap_or_default()),
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
    use std::{error::Error, path::Path, time::Duration};

    use barecount_model::{class::Size, id::TaskId};
    use serde_json::json;

    use super::*;
    use crate::{
        handler::slots::Slots,
        launch::{AttemptToken, Isolation, Limits, Places, Work},
    };

    fn launch(folder: &Path, env: &[(&str, &str)]) -> std::io::Result<Launch> {
        for name in ["input", "output", "checkpoint"] {
            fs_err::create_dir_all(folder.join(name))?;
        }
        Ok(Launch {
            token: AttemptToken {
                task: TaskId::from_bytes([7; 16]),
                number: 3,
            },
            size: Size::Small,
            work: Work::Handler {
                program: HandlerProgram::Package(folder.to_owned()),
                event: Value::Null,
            },
            limits: Limits {
                memory_bytes: 64 << 20,
                cpu_millis: 1000,
                pids: 8,
                open_files: 64,
                scratch_bytes: 1 << 20,
                file_bytes: None,
                log_bytes: 1 << 20,
            },
            places: Places {
                input: folder.join("input"),
                output: folder.join("output"),
                checkpoint: folder.join("checkpoint"),
                cache: None,
                drivers: BTreeMap::new(),
            },
            env: env
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            isolation: Isolation::Sandbox,
            reuse: None,
            secrets: None,
            network: None,
            timeout: Duration::from_secs(1),
            log: folder.join("log"),
        })
    }

    #[test]
    fn a_function_is_told_all_of_the_task_contract_with_numbers_as_numbers()
    -> Result<(), Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let launch = launch(
            folder.path(),
            &[
                ("BARECOUNT_RUN_ID", "run_1"),
                ("BARECOUNT_RUN_TOKEN", "token"),
                ("BARECOUNT_TASK_ID", "task_1"),
                ("BARECOUNT_ATTEMPT", "3"),
                ("BARECOUNT_TENANT", "demo"),
                ("BARECOUNT_PIPELINE", "fx"),
                ("BARECOUNT_PIPELINE_VERSION", "v1"),
                ("BARECOUNT_STAGE", "ingest"),
                ("BARECOUNT_PARTITION", ""),
                ("BARECOUNT_WINDOW_START", "2026-11-20T00:00:00Z"),
                ("BARECOUNT_DEADLINE_MS", "1"),
                ("BARECOUNT_CORRELATION_ID", "run_1"),
                ("TRACEPARENT", "00-a-b-01"),
                ("SETTING", "the manifest's own"),
            ],
        )?;
        let mut slots = Slots::create(folder.path().join("slots"))?;
        let placed = slots.place(&launch.places)?;
        let invocation = invocation(&launch, &json!({"key": 1}), &placed, 1_763_000_000_000);
        let told: Value = serde_json::from_slice(&invocation.payload)?;
        let expected = json!({
            "barecount": {
                "run_id": "run_1",
                "run_token": "token",
                "task_id": "task_1",
                "attempt": 3,
                "tenant": "demo",
                "pipeline": "fx",
                "pipeline_version": "v1",
                "stage": "ingest",
                "partition": null,
                "window_start": "2026-11-20T00:00:00Z",
                "window_end": null,
                "deadline_ms": 1_763_000_000_000_u64,
                "correlation_id": "run_1",
                "traceparent": "00-a-b-01",
                "input_dir": "/barecount/input/1",
                "output_dir": "/barecount/output/1",
                "checkpoint_dir": "/barecount/checkpoint/1",
                "secrets_dir": "/barecount/secrets",
                "cache_dir": null,
                "drivers_dir": null,
                "scratch_dir": "/tmp",
            },
            "event": {"key": 1},
        });
        assert_eq!(told, expected);
        assert_eq!(invocation.id, launch.token.to_string());
        assert_eq!(invocation.deadline_ms, 1_763_000_000_000);
        Ok(())
    }

    #[test]
    fn a_process_that_serves_several_attempts_knows_nothing_of_one_by_its_variables()
    -> Result<(), Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let launch = launch(
            folder.path(),
            &[
                ("BARECOUNT_ATTEMPT", "3"),
                ("BARECOUNT_TENANT", "demo"),
                ("SETTING", "kept"),
                ("TRACEPARENT", "00-a-b-01"),
            ],
        )?;
        let kept: Vec<_> = lasting(&launch.env).into_keys().collect();
        assert_eq!(kept, ["BARECOUNT_TENANT", "SETTING"]);
        Ok(())
    }

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
