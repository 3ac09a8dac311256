//! A value that must not be seen.

use std::io::{self, Read};

use barecount_sandbox::LockedBytes;
use subtle::ConstantTimeEq;

/// A secret value, overwritten with zeros when it is dropped.
///
/// It cannot be printed or serialized, and two of them are compared in time that depends on their
/// lengths alone. Its memory is in no dump and in no fork, and is not swapped as long as the host
/// lets the process lock that much ([`unlocked_bytes`](barecount_sandbox::unlocked_bytes)).
#[derive(Clone)]
pub struct Secret(LockedBytes);

impl Secret {
    /// Takes a copy of `bytes`; the caller overwrites the original.
    pub fn new(bytes: &[u8]) -> Self {
        Self(LockedBytes::copy_of(bytes))
    }

    /// Reads everything from `source`, which must not have more than `limit` bytes. No part of the
    /// value stays behind in a buffer.
    ///
    /// # Errors
    /// [`ReadError::TooLong`] after reading one byte more than allowed; [`ReadError::Io`].
    pub fn read(source: &mut dyn Read, limit: usize) -> Result<Self, ReadError> {
        // Never grown, since growing would leave a copy behind in freed memory.
        let mut locked = LockedBytes::zeroed(limit + 1);
        let buffer = locked.as_mut_slice();
        let mut filled = 0;
        while filled < buffer.len() {
            match source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
        if filled > limit {
            return Err(ReadError::TooLong { limit });
        }
        Ok(Self::new(&buffer[..filled]))
    }

    /// The value. Copy it nowhere but to where it is used.
    pub fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl From<LockedBytes> for Secret {
    fn from(bytes: LockedBytes) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for Secret {}

/// A value that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is more to read than a secret may have.
    #[error("the value has more than {limit} bytes")]
    TooLong {
        /// The bound in bytes.
        limit: usize,
    },
    /// The source failed.
    #[error("the value cannot be read")]
    Io(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_seen_in_debug_output() {
        let secret = Secret::new(b"canary-4711");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(format!("{:?}", Some(&secret)), "Some(Secret(..))");
    }

    #[test]
    fn secrets_are_equal_by_value() {
        assert_eq!(Secret::new(b"abcd"), Secret::new(b"abcd"));
        assert_ne!(Secret::new(b"abcd"), Secret::new(b"abce"));
        assert_ne!(Secret::new(b"abcd"), Secret::new(b"abcde"));
        assert!(Secret::new(b"").is_empty());
    }

    #[test]
    fn a_value_is_read_up_to_its_bound_and_not_beyond() -> Result<(), ReadError> {
        let secret = Secret::read(&mut &b"12345678"[..], 8)?;
        assert_eq!(secret.expose(), b"12345678");
        let refused = Secret::read(&mut &b"123456789"[..], 8);
        assert!(matches!(refused, Err(ReadError::TooLong { limit: 8 })));
        // A source without end is left after the bound.
        let refused = Secret::read(&mut io::repeat(b'x'), 64);
        assert!(matches!(refused, Err(ReadError::TooLong { limit: 64 })));
        Ok(())
    }
}
