//! The control plane: durable store, commands, governance, reconcilers.
//!
//! One writer owns the store and every active run. Commands reach it through
//! [`Control`], are applied in memory in the order they arrive, and are persisted in group commits:
//! a caller hears of its command only once the change is durable. Nothing here starts a process or
//! reads a dataset: what is to be done follows from the state ([`barecount_model::run::Pending`])
//! and is done by an agent.

mod assign;
mod authority;
pub mod clock;
pub mod desk;
mod entries;
mod error;
pub mod governance;
mod handle;
mod identity;
mod journal;
pub mod reconcile;
mod seat;
mod shard;
pub mod store;
#[cfg(test)]
mod tests;
mod told;
mod writer;

pub use authority::{Authorised, NotCovered};
pub use entries::{Entries, EntryQueue};
pub use error::CommandError;
pub use handle::{Control, LedgerPort};
pub use identity::IdentityError;
pub use journal::ending::{EndAt, NoAppend};
pub use told::{Fenced, Submission, Submitted, Update};
