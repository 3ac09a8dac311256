//! What carries a class of work out: the [`Runner`] contract, its embedded backends, a scriptable
//! fake, and the conformance suite that all of them pass.
//!
//! A runner knows nothing of pipelines, policies or commits. It starts one attempt in the places it
//! is given, says how it ended, and leaves nothing behind.

pub mod clock;
pub mod conformance;
pub mod container;
mod contract;
pub mod dedicated_compute;
pub mod fake;
pub mod handler;
pub mod launch;
pub mod local;
pub mod managed_etl;
mod registry;
pub mod serverless;

pub use barecount_model::capability::{Capabilities, Most};
pub use contract::{Handle, Health, Phase, Recovered, Runner, RunnerError};
pub use registry::Registry;
