//! Authenticated encryption: XChaCha20-Poly1305 with random nonces of 192 bits
//! (draft-irtf-cfrg-xchacha), and the associated data that binds each box to its place.

use barecount_sandbox::LockedBytes;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The length of every key, in bytes.
pub(crate) const KEY_BYTES: usize = 32;

/// The length of a nonce, in bytes.
pub(crate) const NONCE_BYTES: usize = 24;

/// The length of an authentication tag, in bytes.
pub(crate) const TAG_BYTES: usize = 16;

/// Symmetric key material, in memory as a [`Secret`](crate::Secret) is.
#[derive(Clone)]
pub(crate) struct KeyBytes(LockedBytes);

impl KeyBytes {
    /// A key from the operating system's random source.
    pub(crate) fn generate() -> Result<Self, RandomError> {
        let mut key = LockedBytes::zeroed(KEY_BYTES);
        getrandom::fill(key.as_mut_slice()).map_err(RandomError)?;
        Ok(Self(key))
    }

    /// The key in `bytes`, if it has the right length.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == KEY_BYTES).then(|| Self(LockedBytes::copy_of(bytes)))
    }

    pub(crate) fn expose(&self) -> &[u8; KEY_BYTES] {
        let bytes = self.0.as_slice().try_into();
        bytes.expect("a key has its length")
    }
}

impl std::fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyBytes(..)")
    }
}

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random source failed")]
pub struct RandomError(#[source] pub(crate) getrandom::Error);

/// A box does not open: another key, another place, or not the bytes that were sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unauthentic;

/// Ciphertext with its nonce before and its tag behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Sealed(Vec<u8>);

/// A text that is not a sealed box.
#[derive(Debug, thiserror::Error)]
#[error("not a sealed box in base64")]
pub(crate) struct InvalidSealed;

impl TryFrom<String> for Sealed {
    type Error = InvalidSealed;

    fn try_from(text: String) -> Result<Self, InvalidSealed> {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|_| InvalidSealed)?;
        Self::from_bytes(bytes).ok_or(InvalidSealed)
    }
}

impl From<Sealed> for String {
    fn from(sealed: Sealed) -> Self {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(sealed.0)
    }
}

impl Sealed {
    /// Takes bytes that are long enough to be a box.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() >= NONCE_BYTES + TAG_BYTES).then_some(Self(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Encrypts `plaintext` under `key`, bound to `place`.
    pub(crate) fn seal(
        key: &KeyBytes,
        place: &Place,
        plaintext: &[u8],
    ) -> Result<Self, RandomError> {
        let mut bytes = Vec::with_capacity(NONCE_BYTES + plaintext.len() + TAG_BYTES);
        bytes.resize(NONCE_BYTES, 0);
        getrandom::fill(&mut bytes).map_err(RandomError)?;
        bytes.extend_from_slice(plaintext);
        let (nonce, text) = bytes.split_at_mut(NONCE_BYTES);
        let nonce = XNonce::try_from(&*nonce).expect("the nonce has its length");
        let tag = cipher(key)
            .encrypt_inout_detached(&nonce, &place.0, text.into())
            .expect("a secret is shorter than the cipher's bound of 256 GiB");
        bytes.extend_from_slice(&tag);
        Ok(Self(bytes))
    }

    /// Decrypts a key or a value that was sealed under `key` for `place`.
    pub(crate) fn open(&self, key: &KeyBytes, place: &Place) -> Result<LockedBytes, Unauthentic> {
        let mut text = LockedBytes::zeroed(self.text_bytes()?);
        self.open_into(key, place, text.as_mut_slice())?;
        Ok(text)
    }

    /// The same for what has no secret in it but sealed ones, and may be too long to be locked.
    pub(crate) fn open_document(
        &self,
        key: &KeyBytes,
        place: &Place,
    ) -> Result<Zeroizing<Vec<u8>>, Unauthentic> {
        let mut text = Zeroizing::new(vec![0; self.text_bytes()?]);
        self.open_into(key, place, &mut text)?;
        Ok(text)
    }

    fn text_bytes(&self) -> Result<usize, Unauthentic> {
        let length = self.0.len().checked_sub(NONCE_BYTES + TAG_BYTES);
        length.ok_or(Unauthentic)
    }

    fn open_into(&self, key: &KeyBytes, place: &Place, text: &mut [u8]) -> Result<(), Unauthentic> {
        let (nonce, rest) = self.0.split_at_checked(NONCE_BYTES).ok_or(Unauthentic)?;
        let (sealed, tag) = rest.split_at_checked(text.len()).ok_or(Unauthentic)?;
        let nonce = XNonce::try_from(nonce).map_err(|_| Unauthentic)?;
        let tag = Tag::try_from(tag).map_err(|_| Unauthentic)?;
        text.copy_from_slice(sealed);
        cipher(key)
            .decrypt_inout_detached(&nonce, &place.0, text.into(), &tag)
            .map_err(|_| Unauthentic)
    }
}

fn cipher(key: &KeyBytes) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}

/// Associated data: where a box belongs. A box opens nowhere else.
///
/// Encoded as the purpose and then each part, all preceded by their lengths as 64-bit
/// little-endian numbers, so that no two lists of parts have the same encoding.
pub(crate) struct Place(Vec<u8>);

impl Place {
    pub(crate) fn new(purpose: &str, parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_opens_with_its_key_in_its_place_only() -> Result<(), RandomError> {
        let (key, place) = (KeyBytes::generate()?, Place::new("test", &[b"a", b"b"]));
        let sealed = Sealed::seal(&key, &place, b"canary")?;
        let opened = sealed.open(&key, &place).expect("key and place are right");
        assert_eq!(opened.as_slice(), b"canary");
        assert!(sealed.open(&KeyBytes::generate()?, &place).is_err());
        for elsewhere in [
            Place::new("test", &[b"ab", b""]),
            Place::new("test", &[b"a", b"b", b""]),
            Place::new("tests", &[b"a", b"b"]),
        ] {
            assert!(sealed.open(&key, &elsewhere).is_err());
        }
        Ok(())
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() -> Result<(), RandomError> {
        let (key, place) = (KeyBytes::generate()?, Place::new("test", &[]));
        let sealed = Sealed::seal(&key, &place, b"canary")?;
        for bit in 0..sealed.0.len() * 8 {
            let mut bytes = sealed.0.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Sealed(bytes).open(&key, &place).err(), Some(Unauthentic));
        }
        for length in 0..sealed.0.len() {
            let cut = Sealed(sealed.0[..length].to_vec());
            assert_eq!(cut.open(&key, &place).err(), Some(Unauthentic));
        }
        Ok(())
    }
}
