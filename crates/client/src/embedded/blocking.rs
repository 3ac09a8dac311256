//! Work that blocks, off the runtime's own threads.

use barecount_agent::DataError;

/// Runs what blocks on the disk away from the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DataError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DataError::Host {
            code: "BC0612",
            message: format!("work on files did not come to its end: {error}"),
        })
}
