//! Signed notes after C2SP signed-note: text with Ed25519 signatures, and room for others.

mod key;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

pub use key::{KeyError, KeyName, MAX_KEY_NAME_BYTES, SigningKey, VerifierKey};

/// Largest note that is read, in bytes.
pub const MAX_NOTE_BYTES: usize = 1_000_000;

/// Most signatures that are read from one note.
pub const MAX_SIGNATURES: usize = 100;

/// What separates the text from its signatures: the last empty line.
const SEPARATOR: &str = "\n\n";

/// How a signature line begins.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// A note could not be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// More bytes than [`MAX_NOTE_BYTES`].
    #[error("the note is {bytes} bytes long; at most {MAX_NOTE_BYTES} are read")]
    TooLong {
        /// Length of the note.
        bytes: usize,
    },
    /// Not UTF-8.
    #[error("the note is not UTF-8 at byte {byte}")]
    NotUtf8 {
        /// Where it stops being UTF-8.
        byte: usize,
    },
    /// A control character other than newline.
    #[error("the note has a control character at byte {byte}")]
    ControlCharacter {
        /// Where it stands.
        byte: usize,
    },
    /// The text is empty or does not end with a newline.
    #[error("the text of the note does not end with a newline")]
    UnterminatedText,
    /// No empty line, and so no signatures.
    #[error("the note has no empty line before its signatures")]
    NoSignatures,
    /// A signature line that is not one.
    #[error("line {line} of the note is not a signature")]
    MalformedSignature {
        /// Line number, from 1.
        line: usize,
    },
    /// More signatures than [`MAX_SIGNATURES`].
    #[error("the note has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
}

/// A note is not what a trusted key signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// None of the signatures belongs to a trusted key.
    #[error("no signature is by a trusted key; signed by {signers}")]
    UnknownKey {
        /// Names and ids of the keys that claim to have signed.
        signers: String,
    },
    /// A signature that claims a trusted key does not verify.
    #[error("the signature of key {key} does not verify")]
    Invalid {
        /// Name and id of the key.
        key: String,
    },
}

/// One signature line of a note; of any algorithm, known here or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    name: KeyName,
    key_id: u32,
    bytes: Vec<u8>,
}

impl Signature {
    /// Name of the key that claims to have signed.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Id of that key.
    #[must_use]
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// The signature itself, without the key id.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(SIGNATURE_MARK)?.split_once(' ')?;
        let bytes = BASE64.decode(encoded).ok()?;
        let (key_id, signature) = bytes.split_first_chunk::<4>()?;
        if signature.is_empty() {
            return None;
        }
        Some(Self {
            name: name.parse().ok()?,
            key_id: u32::from_be_bytes(*key_id),
            bytes: signature.to_vec(),
        })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_id.to_be_bytes()[..], &self.bytes].concat();
        write!(f, "{SIGNATURE_MARK}{} {}", self.name, BASE64.encode(bytes))
    }
}

/// A text and the signatures under it. Reading one proves nothing: call [`Note::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// A note yet without signatures. The text may have several lines, empty ones too, and ends
    /// with a newline.
    ///
    /// # Errors
    /// [`NoteError`] where the text cannot be a note's.
    pub fn new(text: impl Into<String>) -> Result<Self, NoteError> {
        let text = text.into();
        check_characters(text.as_bytes())?;
        if !text.ends_with('\n') {
            return Err(NoteError::UnterminatedText);
        }
        Ok(Self {
            text,
            signatures: Vec::new(),
        })
    }

    /// Reads a signed note; what comes out writes back the very same bytes.
    ///
    /// # Errors
    /// [`NoteError`]: not a signed note, or beyond the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let note = check_characters(bytes)?;
        let split = note.rfind(SEPARATOR).ok_or(NoteError::NoSignatures)?;
        let (text, signed) = (&note[..=split], &note[split + SEPARATOR.len()..]);
        let first_line = text.lines().count() + 2;
        let lines = signed.strip_suffix('\n').ok_or(NoteError::NoSignatures)?;
        let mut signatures = Vec::new();
        for (i, line) in lines.split('\n').enumerate() {
            if i == MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            let malformed = NoteError::MalformedSignature {
                line: first_line + i,
            };
            signatures.push(Signature::parse(line).ok_or(malformed)?);
        }
        Ok(Self {
            text: text.to_owned(),
            signatures,
        })
    }

    /// The text, its last newline included. Not to be believed before [`Note::verify`].
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All signatures, known or not.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds this key's signature, in place of one that it made before.
    pub fn sign(&mut self, key: &SigningKey) {
        let verifier = key.verifier();
        self.signatures.retain(|s| !verifier.claims(s));
        self.signatures.push(Signature {
            name: verifier.name().clone(),
            key_id: verifier.key_id(),
            bytes: key.sign_bytes(self.text.as_bytes()).to_vec(),
        });
    }

    /// Adds a signature made elsewhere (a witness's cosignature) without looking into it.
    ///
    /// # Errors
    /// [`NoteError::TooManySignatures`].
    pub fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(NoteError::TooManySignatures);
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// The trusted keys that signed: at least one. Signatures of other keys are passed over;
    /// one that claims a trusted key and fails condemns the note.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify<'k>(
        &self,
        trusted: &'k [VerifierKey],
    ) -> Result<Vec<&'k VerifierKey>, SignatureError> {
        let mut signers: Vec<&VerifierKey> = Vec::new();
        for signature in &self.signatures {
            for key in trusted.iter().filter(|key| key.claims(signature)) {
                if !key.verifies(self.text.as_bytes(), &signature.bytes) {
                    return Err(SignatureError::Invalid { key: key.label() });
                }
                if !signers.contains(&key) {
                    signers.push(key);
                }
            }
        }
        if signers.is_empty() {
            let claimed = self.signatures.iter().take(4);
            let labels: Vec<_> = claimed
                .map(|s| format!("{}+{:08x}", s.name, s.key_id))
                .collect();
            return Err(SignatureError::UnknownKey {
                signers: labels.join(", "),
            });
        }
        Ok(signers)
    }

    /// The note as it is written.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

fn check_characters(bytes: &[u8]) -> Result<&str, NoteError> {
    if bytes.len() > MAX_NOTE_BYTES {
        return Err(NoteError::TooLong { bytes: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| NoteError::NotUtf8 {
        byte: error.valid_up_to(),
    })?;
    match bytes.iter().position(|byte| *byte < 0x20 && *byte != b'\n') {
        Some(byte) => Err(NoteError::ControlCharacter { byte }),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests;
