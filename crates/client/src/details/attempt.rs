//! What a run has of an attempt's records, as far as evidence shows them.

use barecount_model::run::Attempt;
use serde_json::Value;

/// What the attempt reached over the network and was refused; null if nothing is known.
pub fn network(attempt: &Attempt) -> Value {
    of(attempt, "network")
}

/// Which secrets the attempt was given and refused; null if nothing is known.
pub fn secrets(attempt: &Attempt) -> Value {
    of(attempt, "secrets")
}

fn of(attempt: &Attempt, key: &str) -> Value {
    attempt.detail.get(key).cloned().unwrap_or(Value::Null)
}
