//! What verbs ask of the platform, and what is answered: plain data. Whoever answers, in this process
//! or elsewhere, needs nothing beside these traits.

mod approvals;
mod datasets;
mod evidence;
mod letters;
mod pipelines;
mod runs;
mod secrets;
mod upkeep;

pub use self::{
    approvals::{Answering, ApprovalRequest, Approvals, AskedFor, End},
    datasets::{Brought, DatasetChange, Datasets, Diff, Export, ExportFormat, Trace},
    evidence::{Check, Entry, EntryRules, Evidence, ExportedLog, Findings},
    letters::DeadLetters,
    pipelines::{Checked, DryRun, Fate, Pipelines},
    runs::Runs,
    secrets::{KeyPlace, Secrets},
    upkeep::{Kept, Removed, Upkeep},
};

/// Everything that a verb asks of the platform. An identifier may be the beginning of one, as long
/// as it is that of one thing only; a tenant that is named is the one that has what is asked for.
pub trait Client:
    Pipelines + Approvals + Runs + Datasets + DeadLetters + Evidence + Secrets + Upkeep
{
}

impl<T> Client for T where
    T: Pipelines + Approvals + Runs + Datasets + DeadLetters + Evidence + Secrets + Upkeep
{
}
