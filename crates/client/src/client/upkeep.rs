//! Looking after what is kept.

use std::time::Duration;

use barecount_artifact::store::Collected;

use crate::{failure::Failure, reporter::Reporter};

/// What is kept though nobody needs it now.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Data files that fell out of their dataset's latest version less long ago.
    pub data: Duration,
    /// Caches that the next run of a pipeline would find.
    pub caches: bool,
}

/// What was removed.
#[derive(Debug)]
pub struct Removed {
    /// Staging folders.
    pub staging: u64,
    /// Artifacts.
    pub artifacts: Collected,
    /// Data files of datasets.
    pub data_files: u64,
    /// Their bytes.
    pub data_bytes: u64,
    /// Caches of stages.
    pub caches: u64,
    /// Files of dead letters.
    pub letters: u64,
    /// What could not be removed, and was told of.
    pub left: u64,
}

/// Looking after what is kept.
pub trait Upkeep {
    /// Removes staging of ended attempts, artifacts that no run names, data files that no latest
    /// version of a dataset has, caches, and dead letters that no run has on record, but for what is
    /// `kept`. If `agreed` agrees.
    ///
    /// # Errors
    /// If another process works on the state for longer than is waited, and if something cannot be
    /// removed; and what `agreed` fails with.
    fn collect(
        &self,
        kept: Kept,
        agreed: &dyn Fn() -> Result<(), Failure>,
        reporter: &dyn Reporter,
    ) -> Result<Removed, Failure>;
}
