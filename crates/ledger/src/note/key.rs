//! Keys in the text forms of signed notes: `name+id+base64` and `PRIVATE+KEY+name+id+base64`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature as RawSignature, Signer as _};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Signature;

/// Longest key name, in bytes.
pub const MAX_KEY_NAME_BYTES: usize = 255;

/// The byte that stands for Ed25519 in keys and key ids.
const ED25519: u8 = 0x01;

/// How a signing key begins.
const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";

/// Longest text that is looked at as a key, in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// A key or a key name could not be read or made. Never shows the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Empty, too long, or with a space, a plus sign or a control character.
    #[error(
        "a key name has 1 to {MAX_KEY_NAME_BYTES} bytes without spaces, plus signs and control characters"
    )]
    Name,
    /// Not of the form `name+id+base64`.
    #[error("the key is not of the form {expected}")]
    Form {
        /// The form that was expected.
        expected: &'static str,
    },
    /// An algorithm other than Ed25519.
    #[error("the key is of algorithm {algorithm}; only Ed25519 (1) is read")]
    Algorithm {
        /// The algorithm's byte.
        algorithm: u8,
    },
    /// The id does not belong to this name and key.
    #[error("the key id {found:08x} does not belong to the key, whose id is {expected:08x}")]
    Id {
        /// Id in the text.
        found: u32,
        /// Id computed from name and key.
        expected: u32,
    },
    /// The bytes are no Ed25519 public key, or one that anybody can sign for.
    #[error("the key is not a usable Ed25519 public key")]
    Point,
    /// The system has no randomness to give.
    #[error("the system gave no randomness for a new key")]
    Randomness(#[source] getrandom::Error),
}

/// The name of a key, which is also the origin of the log that it signs, such as
/// `example.com/log`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

impl KeyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        let unfit = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.len() > MAX_KEY_NAME_BYTES || name.contains(unfit) {
            return Err(KeyError::Name);
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn key_id(name: &KeyName, public: &[u8; 32]) -> u32 {
    let digest = Sha256::new()
        .chain_update(name.as_str())
        .chain_update([b'\n', ED25519])
        .chain_update(public)
        .finalize();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Cuts `name+id+base64` into name, id and the 32 bytes behind the algorithm's byte.
fn split(
    text: &str,
    expected: &'static str,
) -> Result<(KeyName, u32, Zeroizing<[u8; 32]>), KeyError> {
    let form = || KeyError::Form { expected };
    if text.len() > MAX_KEY_BYTES {
        return Err(form());
    }
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(form());
    };
    let name: KeyName = name.parse()?;
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if id.len() != 8 || !id.bytes().all(lower_hex) {
        return Err(form());
    }
    let id = u32::from_str_radix(id, 16).map_err(|_| form())?;
    let key = Zeroizing::new(BASE64.decode(key).map_err(|_| form())?);
    let (algorithm, key) = key.split_first().ok_or_else(form)?;
    if *algorithm != ED25519 {
        return Err(KeyError::Algorithm {
            algorithm: *algorithm,
        });
    }
    let key = Zeroizing::new(<[u8; 32]>::try_from(key).map_err(|_| form())?);
    Ok((name, id, key))
}

/// A public key that is trusted to sign, as `name+id+base64` in text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    key_id: u32,
    key: ed25519_dalek::VerifyingKey,
}

impl VerifierKey {
    /// Name of the key.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Id of the key: the first four bytes of the hash over name, algorithm and key.
    #[must_use]
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// `name+id`, to speak of the key.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}+{:08x}", self.name, self.key_id)
    }

    pub(super) fn claims(&self, signature: &Signature) -> bool {
        self.key_id == signature.key_id && self.name == signature.name
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        RawSignature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, found, bytes) = split(text, "name+id+base64")?;
        let expected = key_id(&name, &bytes);
        if found != expected {
            return Err(KeyError::Id { found, expected });
        }
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Point)?;
        if key.is_weak() {
            return Err(KeyError::Point);
        }
        Ok(Self {
            name,
            key_id: found,
            key,
        })
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[ED25519][..], self.key.as_bytes()].concat();
        write!(
            f,
            "{}+{:08x}+{}",
            self.name,
            self.key_id,
            BASE64.encode(bytes)
        )
    }
}

/// A private key. Wiped from memory when dropped, and never shown by `Debug`.
pub struct SigningKey {
    verifier: VerifierKey,
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Name`], [`KeyError::Randomness`].
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(KeyError::Randomness)?;
        Self::from_seed(name, &seed)
    }

    /// The key of an Ed25519 seed (RFC 8032's private key).
    ///
    /// # Errors
    /// [`KeyError::Name`].
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let name: KeyName = name.parse()?;
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let public = key.verifying_key();
        let verifier = VerifierKey {
            key_id: key_id(&name, public.as_bytes()),
            name,
            key: public,
        };
        Ok(Self { verifier, key })
    }

    /// Reads `PRIVATE+KEY+name+id+base64`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        const FORM: &str = "PRIVATE+KEY+name+id+base64";
        let rest = text
            .strip_prefix(PRIVATE_PREFIX)
            .ok_or(KeyError::Form { expected: FORM })?;
        let (name, found, seed) = split(rest, FORM)?;
        let key = Self::from_seed(name.as_str(), &seed)?;
        let expected = key.verifier.key_id;
        if found == expected {
            Ok(key)
        } else {
            Err(KeyError::Id { found, expected })
        }
    }

    /// The key as text, to be kept where only the log can read it.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; 33]);
        bytes[0] = ED25519;
        bytes[1..].copy_from_slice(self.key.as_bytes());
        let encoded = Zeroizing::new(BASE64.encode(bytes.as_slice()));
        Zeroizing::new(format!(
            "{PRIVATE_PREFIX}{}+{}",
            self.verifier.label(),
            encoded.as_str()
        ))
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Name of the key.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        self.verifier.name()
    }

    /// A key for something else than notes, which says nothing of this one: HMAC-SHA256 (RFC 2104) of
    /// `purpose` under the seed.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        // The seed is shorter than a block, so there is no length that it could be refused for.
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(self.key.as_bytes());
        let mut keyed = <Hmac<Sha256> as hmac::digest::KeyInit>::new((&*block).into());
        keyed.update(purpose.as_bytes());
        Zeroizing::new(keyed.finalize().into_bytes().into())
    }

    pub(super) fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("verifier", &self.verifier.label())
            .finish_non_exhaustive()
    }
}
