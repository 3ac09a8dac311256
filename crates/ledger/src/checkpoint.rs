//! Checkpoints after C2SP tlog-checkpoint: the signed statement of a log's size and root hash.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::note::{KeyName, Note, NoteError, SignatureError, SigningKey, VerifierKey};
use crate::tree::{HASH_BYTES, Hash, MAX_TREE_SIZE};

/// What a log states about itself at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Identity of the log.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root hash of the tree of that size.
    pub root: Hash,
    /// Further lines, opaque; none of them empty. This project writes none.
    pub extensions: Vec<String>,
}

/// Text that is not a checkpoint's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointTextError {
    /// Fewer than three lines, an empty line, or no newline at the end.
    #[error("a checkpoint has three or more lines, none of them empty")]
    Lines,
    /// The second line is no size.
    #[error("the tree size is not a decimal number up to {MAX_TREE_SIZE} without leading zeroes")]
    Size,
    /// The third line is no hash.
    #[error("the root hash is not {HASH_BYTES} bytes of base64")]
    Root,
}

impl Checkpoint {
    /// Reads the text of a checkpoint's note.
    ///
    /// # Errors
    /// [`CheckpointTextError`].
    pub fn parse(text: &str) -> Result<Self, CheckpointTextError> {
        let body = text.strip_suffix('\n').ok_or(CheckpointTextError::Lines)?;
        let mut lines = body.split('\n');
        if lines.clone().any(str::is_empty) {
            return Err(CheckpointTextError::Lines);
        }
        let mut next = || lines.next().ok_or(CheckpointTextError::Lines);
        let (origin, size, root) = (next()?, next()?, next()?);
        let size = Some(size)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .filter(|digits| *digits == "0" || !digits.starts_with('0'))
            .and_then(|digits| digits.parse().ok())
            .filter(|size| *size <= MAX_TREE_SIZE)
            .ok_or(CheckpointTextError::Size)?;
        let root = BASE64.decode(root).map_err(|_| CheckpointTextError::Root)?;
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root: root.try_into().map_err(|_| CheckpointTextError::Root)?,
            extensions: lines.map(str::to_owned).collect(),
        })
    }
}

impl fmt::Display for Checkpoint {
    /// The text of the note, its last newline included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\n{}\n{}",
            self.origin,
            self.size,
            BASE64.encode(self.root)
        )?;
        self.extensions
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Bytes that are not a checkpoint signed by a trusted key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a signed note.
    #[error("the checkpoint is not a signed note")]
    Note(#[from] NoteError),
    /// Not signed by a trusted key.
    #[error("the checkpoint cannot be trusted")]
    Signature(#[from] SignatureError),
    /// A signed note, but of another kind.
    #[error("the signed text is not a checkpoint")]
    Text(#[from] CheckpointTextError),
    /// Signed by a key of another log.
    #[error("the checkpoint speaks for {origin:?}, but the key that signed it for {key:?}")]
    Origin {
        /// Origin in the checkpoint.
        origin: String,
        /// Name of the key that signed.
        key: KeyName,
    },
}

/// A checkpoint with the note that carries it, signature checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Vec<u8>,
    signer: VerifierKey,
}

impl SignedCheckpoint {
    /// Signs a checkpoint without extension lines, the key's name being the origin.
    ///
    /// # Errors
    /// [`NoteError`] where the text cannot be a note's; a [`KeyName`] makes that impossible.
    pub fn sign(size: u64, root: Hash, key: &SigningKey) -> Result<Self, NoteError> {
        let origin = key.name().to_string();
        let checkpoint = Checkpoint {
            origin,
            size,
            root,
            extensions: Vec::new(),
        };
        let mut note = Note::new(checkpoint.to_string())?;
        note.sign(key);
        Ok(Self {
            checkpoint,
            note: note.to_bytes(),
            signer: key.verifier().clone(),
        })
    }

    /// Reads a checkpoint that one of the trusted keys signed in its own log's name.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(note: &[u8], trusted: &[VerifierKey]) -> Result<Self, CheckpointError> {
        let parsed = Note::parse(note)?;
        let signers = parsed.verify(trusted)?;
        let checkpoint = Checkpoint::parse(parsed.text())?;
        let own = signers
            .iter()
            .find(|key| key.name().as_str() == checkpoint.origin);
        match own {
            Some(key) => Ok(Self {
                checkpoint,
                note: note.to_vec(),
                signer: (*key).clone(),
            }),
            None => Err(CheckpointError::Origin {
                origin: checkpoint.origin,
                key: signers[0].name().clone(),
            }),
        }
    }

    /// What was signed.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The signed note, byte for byte; what `--since` is later given.
    #[must_use]
    pub fn note(&self) -> &[u8] {
        &self.note
    }

    /// The log's key that signed.
    #[must_use]
    pub fn signer(&self) -> &VerifierKey {
        &self.signer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of the C2SP text.
    const EXAMPLE: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_standards_example_reads_and_writes_back() -> Result<(), CheckpointTextError> {
        let checkpoint = Checkpoint::parse(EXAMPLE)?;
        assert_eq!(checkpoint.size, 20_852_163);
        assert_eq!(checkpoint.root[..3], [0x0a, 0xc5, 0x18]);
        assert_eq!(checkpoint.to_string(), EXAMPLE);
        let extended = format!("{EXAMPLE}more\nand more\n");
        assert_eq!(
            Checkpoint::parse(&extended)?.extensions,
            ["more", "and more"]
        );
        assert_eq!(Checkpoint::parse(&extended)?.to_string(), extended);
        Ok(())
    }

    #[test]
    fn other_spellings_of_a_checkpoint_are_refused() {
        let size = |text: &str| EXAMPLE.replace("20852163", text);
        let cases = [
            (String::new(), CheckpointTextError::Lines),
            (EXAMPLE.trim_end().to_owned(), CheckpointTextError::Lines),
            (format!("{EXAMPLE}\n"), CheckpointTextError::Lines),
            (format!("\n{EXAMPLE}"), CheckpointTextError::Lines),
            ("log\n1\n".to_owned(), CheckpointTextError::Lines),
            (size("01"), CheckpointTextError::Size),
            (size("+1"), CheckpointTextError::Size),
            (size("-1"), CheckpointTextError::Size),
            (size("9223372036854775808"), CheckpointTextError::Size),
            (EXAMPLE.replace("q2I=", "q2J="), CheckpointTextError::Root),
            (EXAMPLE.replace("q2I=", "q2I"), CheckpointTextError::Root),
            (EXAMPLE.replace("jxq2I=", ""), CheckpointTextError::Root),
        ];
        for (text, error) in cases {
            assert_eq!(Checkpoint::parse(&text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_key_signs_for_its_own_log_alone() -> Result<(), Box<dyn std::error::Error>> {
        let key = SigningKey::from_seed("log-a", &[1; 32])?;
        let trusted = [key.verifier().clone()];
        let signed = SignedCheckpoint::sign(3, [5; 32], &key)?;
        assert_eq!(SignedCheckpoint::open(signed.note(), &trusted)?, signed);
        let mut foreign = Note::new(signed.checkpoint().to_string().replace("log-a", "log-b"))?;
        foreign.sign(&key);
        assert_eq!(
            SignedCheckpoint::open(&foreign.to_bytes(), &trusted),
            Err(CheckpointError::Origin {
                origin: "log-b".to_owned(),
                key: key.name().clone()
            })
        );
        Ok(())
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_writes_back_unchanged(text in "[a-z\n]{0,4}\n[0-9]{0,3}\n([A-Za-z0-9+/]{42}[AEIM]=)?\n[a\n]{0,3}|.{0,30}") {
            if let Ok(checkpoint) = Checkpoint::parse(&text) {
                prop_assert_eq!(checkpoint.to_string(), text);
            }
        }
    }
}
