//! The built binary, used as a user uses it: processes, files, exit statuses, nothing else.
//!
//! Start at [`place::Place`]: a folder of its own for each test, with a pipeline, a state folder and
//! a configuration folder in it. [`process`] starts the binary there and waits for it, [`leftovers`]
//! looks for what it may have left behind. Knows nothing of the crates of which the binary is made.

pub mod binary;
pub mod erp;
pub mod example;
pub mod flights;
pub mod leftovers;
pub mod mounts;
pub mod pages;
pub mod place;
pub mod process;
pub mod programs;
pub mod python;
pub mod tree;
pub mod world;

/// Why a test could not be carried out, or did not hold.
pub type Failure = Box<dyn std::error::Error>;

/// What a test answers.
pub type Outcome = Result<(), Failure>;
