//! Errors with their causes, for logs and messages.

use barecount_api::attempt::AttemptRef;

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(crate) fn warn(attempt: &AttemptRef, what: &'static str, error: &dyn std::error::Error) {
    tracing::warn!(attempt = %attempt.token(), error = chain(error), "{what}");
}
