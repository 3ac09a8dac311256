//! The keys of a tunnel, as `wg genkey`, `wg pubkey` and `wg genpsk` write them: 32 bytes in base64.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};
use boringtun::x25519;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
/// Of 32 bytes in base64.
const TEXT_BYTES: usize = 44;

/// Bytes that are no key. They are not repeated: they might be one that is mistyped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 32 bytes in base64, 44 characters")]
pub struct InvalidKey;

/// Decodes a key; a line's end may follow it, as the tools write one.
fn decode(text: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, InvalidKey> {
    let text = text.trim_ascii_end();
    if text.len() != TEXT_BYTES {
        return Err(InvalidKey);
    }
    // The decoder wants room for what the longest text of this length could hold.
    let mut bytes = Zeroizing::new([0; KEY_BYTES + 1]);
    let length = BASE64_STANDARD
        .decode_slice(text, bytes.as_mut_slice())
        .map_err(|_| InvalidKey)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if length != KEY_BYTES {
        return Err(InvalidKey);
    }
    key.copy_from_slice(&bytes[..KEY_BYTES]);
    Ok(key)
}

/// Our key of a tunnel. Zeroed when dropped; never shown.
#[derive(Clone)]
pub struct PrivateKey(x25519::StaticSecret);

impl PrivateKey {
    /// Reads a key as `wg genkey` writes it.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_base64(text: &[u8]) -> Result<Self, InvalidKey> {
        let key = decode(text)?;
        if key.iter().all(|byte| *byte == 0) {
            return Err(InvalidKey);
        }
        Ok(Self(x25519::StaticSecret::from(*key)))
    }

    /// The key that peers know us by.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.0))
    }

    pub(super) fn secret(&self) -> &x25519::StaticSecret {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A key that two peers share besides their own. Zeroed when dropped; never shown.
#[derive(Clone)]
pub struct PresharedKey(Zeroizing<[u8; KEY_BYTES]>);

impl PresharedKey {
    /// Reads a key as `wg genpsk` writes it.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_base64(text: &[u8]) -> Result<Self, InvalidKey> {
        decode(text).map(Self)
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

/// A peer's key, which is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(x25519::PublicKey);

impl PublicKey {
    pub(super) fn point(&self) -> x25519::PublicKey {
        self.0
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        self.0.as_bytes()
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decode(text.as_bytes()).map(|key| Self(x25519::PublicKey::from(*key)))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alice's pair of RFC 7748 section 6.1.
    const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn a_private_key_has_the_public_key_of_the_standard() -> Result<(), InvalidKey> {
        let key = PrivateKey::from_base64(format!("{PRIVATE}\n").as_bytes())?;
        assert_eq!(key.public_key().to_string(), PUBLIC);
        assert_eq!(key.public_key(), PUBLIC.parse()?);
        Ok(())
    }

    #[test]
    fn secret_keys_are_never_shown() -> Result<(), InvalidKey> {
        let private = PrivateKey::from_base64(PRIVATE.as_bytes())?;
        let shared = PresharedKey::from_base64(PRIVATE.as_bytes())?;
        let shown = format!("{private:?} {shared:?}");
        assert_eq!(shown, "PrivateKey(..) PresharedKey(..)");
        Ok(())
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        let zero = BASE64_STANDARD.encode([0; KEY_BYTES]);
        for text in ["", "short", &PRIVATE[1..], &format!("{PRIVATE}="), &zero] {
            assert!(PrivateKey::from_base64(text.as_bytes()).is_err(), "{text}");
        }
        let error = "dwdtCnMYpX08".parse::<PublicKey>().expect_err("too short");
        assert!(!error.to_string().contains("dwdt"));
    }
}
