//! Managed ETL: SQL jobs and acceptance tests on DataFusion, bounded in memory and disk.
//!
//! [`process::engine_main`] is what a sandboxed child process runs: it reads a request as JSON,
//! carries it out in this one process, and leaves a result as JSON. Behind it, [`job`] turns
//! declared inputs into declared outputs by a script of SQL statements, and [`acceptance`] checks
//! a staged output before it is committed.
//!
//! What is absent: no Delta log (inputs and outputs are folders of Parquet files), no network,
//! no file that was not declared, no statement that could reach one. The engine does not decide
//! what may be read; the sandbox does.

pub mod acceptance;
pub mod check;
pub mod error;
pub mod job;
pub mod process;
pub mod session;

mod arithmetic;
mod float;
mod metrics;
mod output;
pub mod parameters;
mod plan;
mod script;
