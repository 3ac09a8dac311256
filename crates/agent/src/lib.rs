//! The agent: owns attempts. It takes orders, drives a runner per class, stages outputs, and tells
//! what happened in events ([`barecount_api::assignment`]). An end is kept on disk until it is
//! acknowledged.
//!
//! It is joined to a control plane by a [`link`], and by nothing else.
//!
//! The way in is the dispatcher, which decides what an order changes; the executor carries one
//! attempt out.
//!
//! Knows nothing of policies, budgets or commits: whether an attempt is to be repeated, and whether
//! what it staged becomes visible, is decided elsewhere. An order may come twice, or late, and
//! changes nothing then.

mod access;
mod bounds;
mod budget;
mod chain;
mod classify;
mod config;
mod contract;
mod data;
mod disk;
mod dispatcher;
mod executor;
mod files;
mod letters;
pub mod link;
mod live;
mod outbox;
mod places;
mod refused;
mod register;
mod secrets;
mod words;

pub use access::IdentityVerifier;
pub use config::{Agent, AgentConfig};
pub use data::{Artifacts, DataError, DataPlane, Located, StagedOutput};
pub use disk::Disk;
pub use files::{Files, HostFiles, Room};
pub use letters::{Letters, LettersFull};
pub use live::StagingWatch;
pub use places::{StagingFolders, Swept};
pub use refused::AccessError;
pub use secrets::{Hints, SecretsService};
