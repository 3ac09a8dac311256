//! Copying a log out as C2SP lays it out, beside the key that verifies it.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::checkpoint::SignedCheckpoint;
use crate::proof::{ProofError, read_tile};
use crate::storage::{Blob, Blobs, DirBlobs, STAGING, StoreError, sync_folder};
use crate::tile::{BundleError, TileKind, TilePath, split_bundle, tile_bytes};
use crate::tree::MAX_LEVELS;

/// File name of the signed checkpoint in an export.
pub const CHECKPOINT_FILE: &str = "checkpoint";

/// File name of the verifier key in an export: the key in note form and a newline.
pub const KEY_FILE: &str = "key.vkey";

/// Bytes that are gathered before they are written together.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// A log could not be exported; nothing stands at the destination then.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Something is there already.
    #[error("{} is there already and not an empty folder", folder.display())]
    Occupied {
        /// The destination.
        folder: PathBuf,
    },
    /// The destination has no name or no folder above it.
    #[error("{} cannot be made", folder.display())]
    NoPlace {
        /// The destination.
        folder: PathBuf,
    },
    /// The destination could not be written.
    #[error("cannot write the export")]
    Write(#[source] io::Error),
    /// A tile of the log could not be read.
    #[error("cannot read the log")]
    Read(#[from] ProofError),
    /// A bundle of the log is missing entries.
    #[error("{path} does not hold its entries")]
    Bundle {
        /// The bundle.
        path: TilePath,
        /// What is wrong with it.
        source: BundleError,
    },
    /// A store failed.
    #[error("cannot copy the log's tiles")]
    Store(#[from] StoreError),
}

/// Writes the log that `checkpoint` speaks of to `folder`, which does not exist yet or is empty:
/// `checkpoint`, `key.vkey`, `tile/<level>/<index>` and `tile/entries/<index>`, and not a file
/// more. The copy is not verified: [`crate::verify::verify_dir`] does that.
///
/// The folder is made under another name beside `folder`, the checkpoint last, and renamed when
/// all is durable. Dying before that leaves a folder beginning with a dot, which can be deleted;
/// dying after it, the whole export.
///
/// # Errors
/// [`ExportError`].
pub fn export<B: Blobs + ?Sized>(
    blobs: &B,
    checkpoint: &SignedCheckpoint,
    folder: &Path,
) -> Result<(), ExportError> {
    let no_place = || ExportError::NoPlace {
        folder: folder.to_path_buf(),
    };
    let name = folder.file_name().ok_or_else(no_place)?.to_string_lossy();
    let above = match folder.parent().ok_or_else(no_place)? {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    if !is_free(folder).map_err(ExportError::Write)? {
        return Err(ExportError::Occupied {
            folder: folder.to_path_buf(),
        });
    }
    let making = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir_in(above)
        .map_err(ExportError::Write)?;
    copy_tiles(blobs, checkpoint.checkpoint().size, making.path())?;
    let key = format!("{}\n", checkpoint.signer());
    write_file(&making.path().join(KEY_FILE), key.as_bytes()).map_err(ExportError::Write)?;
    write_file(&making.path().join(CHECKPOINT_FILE), checkpoint.note())
        .and_then(|()| sync_folder(making.path()))
        .and_then(|()| fs::rename(making.path(), folder))
        .and_then(|()| sync_folder(above))
        .map_err(ExportError::Write)?;
    // Renamed away: there is nothing left for the guard to delete.
    drop(making.keep());
    Ok(())
}

fn is_free(folder: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => Ok(fs::read_dir(folder)?.next().is_none()),
        Ok(_) => Ok(false),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn copy_tiles<B: Blobs + ?Sized>(blobs: &B, size: u64, to: &Path) -> Result<(), ExportError> {
    let target = DirBlobs::new(to);
    let mut batch = Vec::new();
    let mut gathered = 0;
    for path in tiles_of(size) {
        let bytes = match path.kind() {
            TileKind::Hashes(_) => tile_bytes(&read_tile(blobs, path)?),
            TileKind::Entries => read_bundle(blobs, path)?,
        };
        gathered += bytes.len();
        batch.push(Blob { path, bytes });
        if gathered >= BATCH_BYTES {
            target.put_all(&batch)?;
            batch.clear();
            gathered = 0;
        }
    }
    target.put_all(&batch)?;
    drop(target);
    match fs::remove_dir_all(to.join(STAGING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ExportError::Write(error)),
        _ => Ok(()),
    }
}

/// Every tile and bundle of a tree of `size`, in the order of their entries.
fn tiles_of(size: u64) -> impl Iterator<Item = TilePath> {
    let kinds = (0..MAX_LEVELS as u8)
        .map(TileKind::Hashes)
        .chain([TileKind::Entries]);
    kinds.flat_map(move |kind| (0..).map_while(move |index| TilePath::in_tree(kind, index, size)))
}

/// Reads a bundle, or its beginning from the full one where the partial has been cleared away
/// since the checkpoint was read.
fn read_bundle<B: Blobs + ?Sized>(blobs: &B, path: TilePath) -> Result<Vec<u8>, ExportError> {
    if let Some(bytes) = blobs.get(path)? {
        return match split_bundle(&bytes, path.width()).defect {
            None => Ok(bytes),
            Some(source) => Err(ExportError::Bundle { path, source }),
        };
    }
    let missing = ProofError::MissingTile { path };
    let full = path.full().filter(|_| path.is_partial());
    let found = full.map(|full| blobs.get(full)).transpose()?.flatten();
    let mut bytes = found.ok_or(missing)?;
    match split_bundle(&bytes, path.width()).defect {
        Some(BundleError::ExtraBytes { byte }) => bytes.truncate(byte),
        Some(source) => return Err(ExportError::Bundle { path, source }),
        None => {}
    }
    Ok(bytes)
}
