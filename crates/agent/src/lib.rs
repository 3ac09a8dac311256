//! The agent: owns attempts. It takes [`Order`]s, drives a runner per class, stages outputs, and
//! tells what happened in [`Event`]s.
//!
//! Knows nothing of policies, budgets or commits: whether an attempt is to be repeated, and whether
//! what it staged becomes visible, is decided elsewhere. An order may come twice; an attempt's token
//! makes that harmless.

mod access;
mod assignment;
mod bounds;
mod classify;
mod contract;
mod data;
mod executor;
mod places;
mod secrets;
mod words;

pub use access::{AccessError, IdentityVerifier};
pub use assignment::{Assignment, Attempt, Event, Order};
pub use data::{Artifacts, DataError, DataPlane, Located, SetAside, StagedOutput};
pub use executor::{Agent, AgentConfig};
pub use places::StagingFolders;
pub use secrets::SecretsService;
