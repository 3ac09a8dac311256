//! The runtime that a client works in.

use crate::failure::{Failure, Status};

/// A runtime with threads of its own.
///
/// # Errors
/// If they cannot be started.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Status::Unavailable, "the process cannot start its threads")
                .because(&error)
        })
}
