//! What the ledger says to the control plane.

use tokio::sync::mpsc;

use super::send;
use crate::error::CommandError;
use crate::{shard::Command, writer::Message};

/// What the ledger may tell the control plane. It keeps nothing alive.
#[derive(Debug, Clone)]
pub struct LedgerPort {
    commands: mpsc::WeakSender<Message>,
}

impl LedgerPort {
    pub(super) fn new(commands: &mpsc::Sender<Message>) -> Self {
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
        send(&commands, Command::Integrated { size })
            .await
            .map(drop)
    }
}
