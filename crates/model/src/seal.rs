//! What tells the records of this program from those that somebody else put among them.
//!
//! Much of a state folder is believed because it lies there: what waits for the ledger, what a table's
//! log says of its files. Whoever can write the folder could put something else there. So it has a
//! message authentication code under a key that is not in the folder: HMAC-SHA256 (RFC 2104).

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes of a seal.
pub const SEAL_BYTES: usize = 32;

/// A key of seals, for one purpose. Wiped from memory when dropped, and never shown.
#[derive(Clone)]
pub struct SealKey(Zeroizing<[u8; 32]>);

impl SealKey {
    /// A key from its bytes.
    #[must_use]
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    /// The seal of a record, which is these parts in this order.
    #[must_use]
    pub fn seal(&self, parts: &[&[u8]]) -> [u8; SEAL_BYTES] {
        self.over(parts).finalize().into_bytes().into()
    }

    /// Whether a record has its seal. Takes as long for a wrong one as for a right one.
    #[must_use]
    pub fn holds(&self, parts: &[&[u8]], seal: &[u8]) -> bool {
        self.over(parts).verify_slice(seal).is_ok()
    }

    fn over(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(&*self.0);
        let mut code = <Hmac<Sha256> as hmac::digest::KeyInit>::new((&*block).into());
        for part in parts {
            // With its length before it: no two lists of parts are the same bytes.
            code.update(&(part.len() as u64).to_le_bytes());
            code.update(part);
        }
        code
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_of_its_parts_where_they_begin_and_of_its_key() {
        let key = SealKey::new([7; 32].into());
        let seal = key.seal(&[b"ab", b"c"]);
        assert!(key.holds(&[b"ab", b"c"], &seal));
        for parts in [&[&b"a"[..], b"bc"][..], &[b"abc"], &[b"ab", b"c", b""], &[]] {
            assert!(!key.holds(parts, &seal), "{parts:?}");
        }
        assert!(!key.holds(&[b"ab", b"c"], &seal[..16]));
        assert!(!SealKey::new([8; 32].into()).holds(&[b"ab", b"c"], &seal));
    }

    #[test]
    fn it_is_hmac_of_rfc_4231() {
        // Test case 1, whose key has 20 bytes: padded with zeros it is the same key.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let mut code = SealKey::new(key.into()).over(&[]);
        code.update(b"Hi There");
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex::encode(code.finalize().into_bytes()), expected);
    }
}
