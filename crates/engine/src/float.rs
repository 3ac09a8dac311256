//! Aggregates that do not depend on the order of rows.
//!
//! Adding floats one by one rounds at every step, so a sum depends on which rows come first, and
//! with that on the number of threads, on how rows are divided into files, and on what spills.
//! Here sums are exact until the very end and rounded once, after Kulisch's long accumulator; so
//! the order cannot matter, and nothing has to be sorted for it.

mod aggregate;
mod exact_sum;
mod percentile;
mod state;
mod whole;

pub(crate) use aggregate::replace_aggregates;
pub(crate) use percentile::replace_percentiles;
