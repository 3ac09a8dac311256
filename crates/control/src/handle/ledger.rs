//! What the ledger says to the control plane.

use super::one;
use crate::{
    error::CommandError,
    seat::{Commands, WeakCommands},
    shard::Command,
};

/// What the ledger may tell the control plane. It keeps nothing alive.
#[derive(Clone)]
pub struct LedgerPort {
    commands: WeakCommands,
}

impl LedgerPort {
    pub(super) fn new(commands: &Commands) -> Self {
        Self {
            commands: commands.downgrade(),
        }
    }

    /// Lets the store forget the bytes of entries that a durable checkpoint covers, with its next
    /// batch.
    ///
    /// # Errors
    /// [`CommandError::Closed`] once the control plane has shut down.
    pub async fn integrated(&self, size: u64) -> Result<(), CommandError> {
        let commands = self.commands.upgrade().ok_or(CommandError::Closed)?;
        one(&commands, Command::Integrated { size }).await.map(drop)
    }
}
