//! What passes between the parts of the platform, and what others read as JSON: versioned, and
//! without any logic.
//!
//! Each type is its own JSON. A field is added with a default, and never given another meaning; what
//! can no longer be read by an older program is another version in the name of its schema.

pub mod activity;
pub mod assignment;
pub mod attempt;
pub mod dataset;
pub mod holder;
pub mod ledger;
pub mod letter;
pub mod page;
pub mod problem;
pub mod records;
pub mod run;
