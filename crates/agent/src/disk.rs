//! How work on files is done beside an agent's other work.

/// How an agent waits for its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// On threads of their own: nothing else waits meanwhile.
    Threads,
    /// On the caller's, between two of its turns, so that what happens in which order is decided by
    /// nobody else. For simulations.
    Inline,
}

impl Disk {
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        match self {
            Self::Threads => {
                let done = tokio::task::spawn_blocking(work).await;
                done.unwrap_or_else(|error| Err(error.into()))
            }
            Self::Inline => {
                tokio::task::yield_now().await;
                let done = work();
                tokio::task::yield_now().await;
                done
            }
        }
    }

    /// As [`run`](Self::run), of work that also awaits.
    pub(crate) async fn run_all<W>(self, work: W) -> Result<W::Output, tokio::task::JoinError>
    where
        W: Future<Output: Send> + Send + 'static,
    {
        match self {
            Self::Threads => {
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(work)).await
            }
            Self::Inline => Ok(work.await),
        }
    }
}
