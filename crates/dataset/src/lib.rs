//! Datasets as Delta Lake tables: staging, one idempotent commit, reading, export and clean-up.
//!
//! The way of a row: an attempt writes files into its output folder; [`stage`] reads them as
//! hostile input, validates every row against the declared [`schema`], writes Parquet files into
//! a staging folder and syncs them; what they would make of the table is held against it
//! ([`evolution`]); the control plane records a [`decision::Decision`]; and
//! [`commit`] rolls that decision forward into the tables, as often as it takes, with the effect
//! of once. [`versions`] tells what brought each version, and goes back to one.
//! [`digest`] names content whatever its layout, [`read`] hands it out again.
//!
//! What is absent: no query engine, no clock (times are arguments), no retention policy, and no
//! opinion about who may commit. Functions that touch the Delta log are `async` and need a Tokio
//! runtime; staging, conversion and export are synchronous, and belong on a blocking thread.

pub mod commit;
pub mod dead_letter;
pub mod decision;
pub mod digest;
pub mod disk;
pub mod evolution;
pub mod export;
pub mod gc;
pub mod input;
pub mod layout;
pub mod name;
pub mod read;
pub mod schema;
pub mod stage;
pub mod table;
pub mod versions;

mod brought;
mod cell;
mod groups;
mod hashing;
mod identity;
mod partition;
mod seal;
mod sink;
mod store;
