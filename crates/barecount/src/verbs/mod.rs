//! One verb, one file: its arguments, whose comments are its help text, and what it does.

pub(crate) mod dlq;
pub(crate) mod runs;
pub(crate) mod schema;
pub(crate) mod validate;
