//! The control plane and the ledger alone: for acts that are put on record and start nothing.

use std::sync::Arc;

use barecount_control::{Control, clock::SystemClock, store::lock::FolderLock};
use tokio::sync::{mpsc, watch};

use super::{OpenLedger, ledger::Progress, open_failure, unusable};
use crate::{
    environment::Found,
    failure::{Failure, Status},
    rules,
};

/// An open state folder in which acts are put on record.
pub(crate) struct Recorder {
    /// The control plane.
    pub(crate) control: Control,
    ledger: watch::Receiver<Progress>,
}

impl Recorder {
    /// Opens a state folder that is held for writing, and holds it to its environment.
    ///
    /// # Errors
    /// If another process works in it, it belongs to another environment, or its ledger cannot be
    /// signed here.
    pub(crate) async fn open(lock: FolderLock, found: &Found) -> Result<Self, Failure> {
        let state = &lock.folder().to_owned();
        // Nobody asks what becomes of runs here.
        let (updates, _) = mpsc::unbounded_channel();
        let (entries_in, entries) = mpsc::unbounded_channel();
        let lock = super::layout::bring_held_up_to_date(lock)?;
        rules::bind(state, found)?;
        let ledger = OpenLedger::open(state, found)?;
        let held = (lock, ledger.sealing());
        let control = Control::open(held, Arc::new(SystemClock), updates, entries_in)
            .map_err(|error| open_failure(&error))?;
        let ledger = ledger.start(&control, entries)?;
        let recorder = Self { control, ledger };
        // What is held against the ledger has to be in it.
        signed(&recorder.control, recorder.ledger.clone()).await?;
        Ok(recorder)
    }

    /// Waits until what was put on record is signed.
    ///
    /// # Errors
    /// If the ledger could not be written.
    pub(crate) async fn close(self) -> Result<Progress, Failure> {
        close(self.control, self.ledger).await
    }
}

/// Waits until all that is durable is under a signed checkpoint, or the ledger has failed.
pub(super) async fn signed(
    control: &Control,
    mut ledger: watch::Receiver<Progress>,
) -> Result<Progress, Failure> {
    let wanted = *control.ledger_length().borrow();
    let progress = ledger
        .wait_for(|progress| progress.size() >= wanted || progress.failed.is_some())
        .await;
    progress
        .map(|progress| progress.clone())
        .map_err(|error| unusable("the ledger's thread has ended", &error))
}

/// Closes a control plane once all that is durable is signed.
///
/// # Errors
/// If the ledger could not be written.
pub(super) async fn close(
    control: Control,
    ledger: watch::Receiver<Progress>,
) -> Result<Progress, Failure> {
    let progress = signed(&control, ledger).await?;
    control.close().await;
    match progress.failed {
        Some(reason) => Err(Failure::new(
            Status::Unavailable,
            format!("the ledger could not be written: {reason}"),
        )
        .with_code("BC0902")
        .with_help("Nothing is lost: the next run enters what is missing.")),
        None => Ok(progress),
    }
}
