//! How far a store had come: its generation, kept outside of its folder. A file that is put back to an
//! older copy of itself is whole in every other way, and what was removed or replaced since is there
//! again.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{StoreError, io_at};
use crate::{
    disk::{self, LocalDisk},
    seal::KeyBytes,
};

/// What the name of a store's mark is derived for.
const PURPOSE: &str = "barecount secrets 2026-11-30 name of a store's mark";
/// More than any number has digits.
const MAX_BYTES: u64 = 32;

/// Where stores are, and where it is kept how far each had come.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder of the stores: ciphertext alone.
    pub folder: PathBuf,
    /// A folder that whoever can write the stores cannot. Without one, an older copy of a store is
    /// noticed only by a process that has read the newer one.
    pub marks: Option<PathBuf>,
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Place {
    /// A folder of stores without marks.
    fn from(folder: &P) -> Self {
        Self {
            folder: folder.as_ref().to_owned(),
            marks: None,
        }
    }
}

/// The mark of one store.
#[derive(Debug)]
pub(super) struct Mark(PathBuf);

impl Mark {
    /// Of the store with this root key: the name tells nothing of the key, is the same whichever key
    /// that is wrapped under, and another one once the store is made anew.
    pub(super) fn of(marks: &Path, root: &KeyBytes) -> Self {
        let name = blake3::derive_key(PURPOSE, root.expose());
        Self(marks.join(format!("{}.generation", hex::encode(&name[..16]))))
    }

    /// The newest generation that anybody saw; 0 if nobody did.
    pub(super) fn seen(&self) -> Result<u64, StoreError> {
        let read = io_at("read", &self.0);
        let file = match disk::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(read(error)),
        };
        let bytes = disk::read_bounded(&file, MAX_BYTES).map_err(read)?;
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let number = text.and_then(|text| text.trim_end().parse().ok());
        number.ok_or_else(|| StoreError::Damaged {
            path: self.0.clone(),
            reason: "it is no number",
        })
    }

    /// Keeps a generation. Two that keep one at once may leave the older of both, which is true as
    /// well, as is the one from before where none can be kept: a service may have no home.
    pub(super) fn keep(&self, generation: u64) {
        let kept = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(disk::folder_of(&self.0))
            .and_then(|()| {
                disk::replace(&LocalDisk, &self.0, format!("{generation}\n").as_bytes())
            });
        if let Err(error) = kept {
            let path = self.0.display();
            tracing::warn!(%error, %path, "how far a store of secrets has come was not kept");
        }
    }
}
