//! The whole binary, as a user would use it. `kill.rs` beside this folder ends it the hard way.

mod battery;
mod boundary;
mod crossings;
mod documentation;
mod engines;
mod environments;
mod erp;
mod evidence;
mod evolution;
mod example;
mod functions;
mod images;
mod interruptions;
mod manifests;
mod ordinary;
mod pipelines;
mod policy;
mod probes;
mod records;
mod rerun;
mod rows;
mod secrets;
mod storage;
mod tenants;
mod verbs;
