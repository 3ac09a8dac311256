//! The pure domain: identifiers, manifest, environment, catalog, run state machine, evidence.
//!
//! No clock, no randomness, no input or output: everything here is a function of its arguments.

pub mod approval;
pub mod boundary;
pub mod capability;
pub mod catalog;
pub mod class;
pub mod codes;
pub mod cost;
pub mod diagnostic;
pub mod digest;
pub mod document;
pub mod environment;
pub mod evidence;
pub mod id;
pub mod identity;
pub mod lack;
pub mod lock;
pub mod manifest;
pub mod meter;
pub mod pipeline;
pub mod plan;
pub mod recipe;
pub mod run;
pub mod schema;
pub mod seal;
pub mod share;
pub mod text;
pub mod untrusted;
pub mod version;
pub mod work;
