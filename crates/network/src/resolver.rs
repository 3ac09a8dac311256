//! Finding a name's addresses when a connection is dialled.

use std::{fmt, io, net::IpAddr};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::name::HostName;

/// Finds the addresses of names.
#[async_trait]
pub trait Resolver: Send + Sync + fmt::Debug {
    /// The addresses of a name, the preferred first. Whether they may be dialled is the path's
    /// business. Cancel-safe.
    async fn resolve(&self, name: &HostName) -> Result<Vec<IpAddr>, ResolveError>;
}

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no such name.
    #[error("there is no such name")]
    NoSuchName,
    /// There is the name, and no address of it.
    #[error("the name has no address")]
    NoAddress,
    /// The name server could not say.
    #[error("the name server answered with code {0}")]
    ServerFailure(u16),
    /// The name server's answer is no answer to the question.
    #[error("the name server's answer is malformed")]
    Malformed,
    /// The name server could not be asked.
    #[error("the name server cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The name server did not answer.
    #[error("the name server did not answer in time")]
    Timeout,
}

/// Resolves as the host does (`getaddrinfo`).
#[derive(Debug)]
pub struct HostResolver {
    lookups: Semaphore,
}

impl HostResolver {
    /// Lookups at a time; each holds a thread that cannot be cancelled.
    const LOOKUPS: usize = 16;
}

impl Default for HostResolver {
    fn default() -> Self {
        Self {
            lookups: Semaphore::new(Self::LOOKUPS),
        }
    }
}

#[async_trait]
impl Resolver for HostResolver {
    async fn resolve(&self, name: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        let _lookup = self.lookups.acquire().await.expect("never closed");
        let found = tokio::net::lookup_host((name.as_str(), 0)).await;
        let addresses: Vec<IpAddr> = match found {
            Ok(found) => found.map(|address| address.ip()).collect(),
            // The standard library keeps the code of `getaddrinfo` to itself.
            Err(error) if error.raw_os_error().is_none() => return Err(ResolveError::NoSuchName),
            Err(error) => return Err(ResolveError::Unreachable(error)),
        };
        if addresses.is_empty() {
            return Err(ResolveError::NoAddress);
        }
        Ok(addresses)
    }
}
