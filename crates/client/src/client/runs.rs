//! Runs: looked at, and ended.

use std::collections::BTreeMap;

use barecount_api::{
    page::{Page, PageRequest},
    records::{Records, Selection},
    run::{Log, RunSummary, RunView},
};
use barecount_model::manifest::Egress;

use crate::{failure::Failure, reporter::Reporter};

/// Runs.
pub trait Runs {
    /// Runs, newest first.
    ///
    /// # Errors
    /// If the state cannot be looked into.
    fn runs(&self, tenant: Option<&str>, page: &PageRequest) -> Result<Page<RunSummary>, Failure>;

    /// A run.
    ///
    /// # Errors
    /// If there is no such run, or several.
    fn show(&self, run: &str) -> Result<RunView, Failure>;

    /// What a run's attempts wrote, of one stage if one is named, in the order of tasks and
    /// attempts.
    ///
    /// # Errors
    /// If there is no such run or stage, or a log cannot be read.
    fn logs(&self, run: &str, stage: Option<&str>) -> Result<Vec<Log>, Failure>;

    /// What a run's attempts reached over the network and were refused, each held against the signed
    /// ledger.
    ///
    /// # Errors
    /// If there is no such run, stage or attempt; if a record is not the one that was signed.
    fn flows(&self, selection: &Selection, reporter: &dyn Reporter) -> Result<Records, Failure>;

    /// Which objects and secrets a run's attempts were given and refused, by name.
    ///
    /// # Errors
    /// As of [`flows`](Self::flows).
    fn accesses(&self, selection: &Selection, reporter: &dyn Reporter) -> Result<Records, Failure>;

    /// The lines of the manifest, by stage, that would allow what an audited run reached.
    ///
    /// # Errors
    /// As of [`flows`](Self::flows).
    fn egress_advice(&self, run: &str) -> Result<BTreeMap<String, Vec<Egress>>, Failure>;

    /// Ends a run in good order that nobody works on. Before there is a second thread.
    ///
    /// # Errors
    /// If a living process works on it, if it has ended, and if governance refuses.
    fn cancel(
        &self,
        run: &str,
        tenant: Option<&str>,
        reporter: &dyn Reporter,
    ) -> Result<RunView, Failure>;

    /// Ends a run whose decided outputs cannot be committed, with the reason on record. Before there
    /// is a second thread.
    ///
    /// # Errors
    /// As of [`cancel`](Self::cancel).
    fn abandon(
        &self,
        run: &str,
        tenant: Option<&str>,
        reason: &str,
        reporter: &dyn Reporter,
    ) -> Result<RunView, Failure>;
}
