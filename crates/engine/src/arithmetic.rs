//! Arithmetic that fails rather than giving a number that is not the result.
//!
//! DataFusion's operators follow the machine: whole numbers wrap around, a float divided by zero is
//! an infinity, the quotient of decimals is cut off. Here operators follow PostgreSQL: what does
//! not fit its type is an error, and a quotient is rounded. `docs/sql.md` has the rules.
//!
//! Operators are replaced as statements are planned, by functions that nobody can call by name. So
//! nothing that folds, simplifies or pushes down expressions sees an operator that it could
//! evaluate in its own way.

mod cast;
mod finite;
mod operator;
mod quotient;
mod zero;

pub(crate) use cast::CheckedCasts;
pub(crate) use finite::replace_float_functions;
pub(crate) use operator::CheckedOperators;
pub(crate) use quotient::rounded as rounded_quotient;
