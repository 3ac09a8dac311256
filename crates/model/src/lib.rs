//! The pure domain: identifiers, manifest, environment, catalog, run state machine, evidence.
//!
//! No clock, no randomness, no input or output: everything here is a function of its arguments.

pub mod class;
pub mod evidence;
pub mod id;
pub mod plan;
pub mod run;
