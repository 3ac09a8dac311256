//! The log: objects of JSON, a line each, on standard output.

use std::io::{self, Write};

/// Writes a line. One that cannot be written changes nothing about the outcome.
pub(crate) fn line(fields: &serde_json::Value) {
    let _ = writeln!(io::stdout().lock(), "{fields}");
}
