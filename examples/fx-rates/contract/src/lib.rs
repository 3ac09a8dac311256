//! What the example's tasks share of the platform's task contract: where inputs and outputs are,
//! how a failure is told, how the rows of a dataset are read and where bad ones go.
//!
//! It knows nothing of rates and invoices, and nothing of the Lambda runtime client.

pub mod day;
pub mod dead_letters;
pub mod digest;
pub mod invocation;
pub mod status;
pub mod table;
