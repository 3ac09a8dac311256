//! Ctrl-C and the request to terminate, as they reach what a process carries out.

use barecount_artifact::build::Cancel;

use crate::failure::{Failure, Status};

/// Ctrl-C and the request to terminate: the first ends what goes on in good order, the second ends
/// the process, and with it, by the launcher, everything that it runs.
pub(super) struct Interrupts {
    receiver: tokio::sync::mpsc::UnboundedReceiver<()>,
    /// Whether there was one.
    pub(super) heard: bool,
}

impl Interrupts {
    /// Listens from here on; the first one also ends a build.
    ///
    /// # Errors
    /// If signals cannot be received.
    pub(super) fn listen(cancel: Cancel) -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |error: std::io::Error| {
            Failure::new(Status::Unavailable, "signals cannot be received").because(&error)
        };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let (told, receiver) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut count = 0;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                count += 1;
                if count > 1 {
                    std::process::exit(130);
                }
                cancel.cancel();
                // Nobody listens before the run is submitted; then the build ends.
                let _ = told.send(());
            }
        });
        Ok(Self {
            receiver,
            heard: false,
        })
    }

    /// Resolves at the next one. Cancel-safe.
    pub(super) async fn next(&mut self) {
        if self.receiver.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.heard = true;
    }
}
