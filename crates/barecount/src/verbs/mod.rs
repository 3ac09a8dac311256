//! One verb, one file: its arguments, whose comments are its help text, and what it does.

pub(crate) mod advise;
pub(crate) mod approvals;
pub(crate) mod build;
pub(crate) mod completions;
pub(crate) mod datasets;
pub(crate) mod dlq;
pub(crate) mod engine_job;
pub(crate) mod evidence;
pub(crate) mod gc;
pub(crate) mod init;
pub(crate) mod man;
pub(crate) mod outputs;
pub(crate) mod policy;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schema;
pub(crate) mod secrets;
pub(crate) mod state;
pub(crate) mod trace;
pub(crate) mod validate;
