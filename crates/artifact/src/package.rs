//! Function packages: a zip with an executable at its top, `bootstrap` unless told otherwise, as
//! AWS Lambda's `provided` runtimes take it.
//!
//! What is packed here depends on the content alone: names are sorted, times are 1980-01-01,
//! modes are 0755 or 0644, and nothing is compressed. What is read may come from anyone.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zip::read::ZipFileEntry;
use zip::result::ZipError;
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime, System, ZipArchive, ZipReadOptions};

use crate::entry::{EntryFault, EntryPath, Names, shown};
use crate::limits::{Bounded, Exceeded, Limits, Spent};
use crate::store::{Blob, StoreError};
use crate::tree::{Links, Tree, TreeError, Written};
use crate::walk::{self, Content, Contents, WalkError};
use crate::{Digest, Store};

pub use barecount_model::recipe::BOOTSTRAP;

/// A function package that could not be made or taken.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// It is no zip, or is cut off.
    #[error("the package is not a readable zip file")]
    NotAZip(#[source] io::Error),
    /// One entry is refused.
    #[error("the package's entry `{entry}` is refused")]
    Entry {
        /// Its name, escaped.
        entry: String,
        /// Why.
        source: EntryFault,
    },
    /// The package as a whole costs too much.
    #[error("the package is refused")]
    Bound(#[from] Exceeded),
    /// The executable is missing.
    #[error("the package has no `{entry_point}` at its top")]
    NoEntryPoint {
        /// What was looked for.
        entry_point: String,
    },
    /// The executable is none.
    #[error("the package's `{entry_point}` is not an executable file")]
    NotExecutable {
        /// What was looked for.
        entry_point: String,
    },
    /// The source cannot be read.
    #[error("the package's source cannot be read")]
    Source(#[from] WalkError),
    /// The zip cannot be written.
    #[error("the package cannot be written")]
    Write(#[source] io::Error),
    /// The folder to unpack into cannot be used.
    #[error("the package cannot be unpacked")]
    Tree(#[from] TreeError),
    /// The store refused.
    #[error("the package cannot be taken from or into the store")]
    Store(#[from] StoreError),
}

/// Packs `contents`, of which `entry_point` must be an executable file, into the store.
///
/// # Errors
/// See [`PackageError`]; links are refused, since packages travel to systems without them.
pub fn pack(store: &Store, contents: &Contents, entry_point: &str) -> Result<Blob, PackageError> {
    check_packable(contents, entry_point)?;
    let mut file = store.scratch_file()?;
    let mut zip = ZipWriter::new(&mut file);
    for (path, content) in contents {
        write_entry(&mut zip, path, content)?;
    }
    zip.finish()
        .map_err(|error| PackageError::Write(error.into()))?;
    file.seek(SeekFrom::Start(0)).map_err(PackageError::Write)?;
    Ok(store.put(file, None, u64::MAX)?)
}

fn check_packable(contents: &Contents, entry_point: &str) -> Result<(), PackageError> {
    let mut names = Names::ignoring_case();
    for (path, content) in contents {
        let fault = match content {
            Content::Link { .. } => Err(EntryFault::Link),
            Content::Folder | Content::File { .. } => {
                names.add(path, matches!(content, Content::Folder))
            }
        };
        fault.map_err(|source| PackageError::Entry {
            entry: path.to_string(),
            source,
        })?;
    }
    let entry_point_of = || entry_point.to_owned();
    match contents
        .iter()
        .find(|(path, _)| path.as_str() == entry_point)
    {
        None => Err(PackageError::NoEntryPoint {
            entry_point: entry_point_of(),
        }),
        Some((
            _,
            Content::File {
                executable: true, ..
            },
        )) => Ok(()),
        Some(_) => Err(PackageError::NotExecutable {
            entry_point: entry_point_of(),
        }),
    }
}

fn write_entry(
    zip: &mut ZipWriter<&mut File>,
    path: &EntryPath,
    content: &Content,
) -> Result<(), PackageError> {
    let write = |error: ZipError| PackageError::Write(error.into());
    let options = |mode| {
        SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .system(System::Unix)
            .unix_permissions(mode)
    };
    match content {
        Content::Folder => zip
            .add_directory(path.as_str(), options(0o755))
            .map_err(write),
        Content::Link { .. } => unreachable!("links were refused before"),
        Content::File { from, executable } => {
            let mut file = walk::open(from)?;
            let size = file.metadata().map_err(PackageError::Write)?.len();
            let options = options(if *executable { 0o755 } else { 0o644 });
            zip.start_file(
                path.as_str(),
                options.large_file(size >= u64::from(u32::MAX)),
            )
            .map_err(write)?;
            io::copy(&mut file, zip)
                .and_then(|_| zip.flush())
                .map_err(PackageError::Write)
        }
    }
}

/// Takes somebody's zip into the store after looking through all of it.
///
/// # Errors
/// See [`PackageError`].
pub fn import(
    store: &Store,
    zip: &Path,
    entry_point: &str,
    limits: &Limits,
) -> Result<Blob, PackageError> {
    let blob = store.put(walk::open(zip)?, None, limits.archive_bytes)?;
    unpack(store, &blob.digest, entry_point, limits)?;
    Ok(blob)
}

/// The read-only folder of a pinned package, unpacked now if it is not there yet.
///
/// # Errors
/// See [`PackageError`]; of a refused package nothing is left behind.
pub fn unpack(
    store: &Store,
    digest: &Digest,
    entry_point: &str,
    limits: &Limits,
) -> Result<PathBuf, PackageError> {
    let folder = store.unpack(digest, |folder| {
        let (file, blob) = store.blobs().open(digest, None)?;
        unpack_into(file, blob.size, folder, limits)
    })?;
    let entry_point_of = || entry_point.to_owned();
    match std::fs::symlink_metadata(folder.join(entry_point)) {
        Err(_) => Err(PackageError::NoEntryPoint {
            entry_point: entry_point_of(),
        }),
        Ok(found) if found.is_file() && found.permissions().mode() & 0o100 != 0 => Ok(folder),
        Ok(_) => Err(PackageError::NotExecutable {
            entry_point: entry_point_of(),
        }),
    }
}

/// Unpacks a zip of `size` bytes into the empty folder `folder` and makes that read-only; answers with
/// what it wrote.
///
/// # Errors
/// See [`PackageError`]; what was written until then stays in `folder`.
pub fn unpack_into(
    mut zip: impl Read + Seek,
    size: u64,
    folder: &Path,
    limits: &Limits,
) -> Result<Written, PackageError> {
    let mut spent = Spent::new(*limits);
    spent.archive(size)?;
    directory::refuse_zip64(&mut zip).map_err(PackageError::NotAZip)?;
    let mut archive =
        ZipArchive::new(&mut zip).map_err(|error| PackageError::NotAZip(error.into()))?;
    if archive.len() as u64 > limits.entries {
        return Err(Exceeded::Entries(limits.entries).into());
    }
    if archive.has_duplicate_names() {
        let start = archive.central_directory_start();
        let name = directory::repeated_name(&mut zip, start).map_err(PackageError::NotAZip)?;
        return Err(PackageError::Entry {
            entry: shown(&name),
            source: EntryFault::Duplicate,
        });
    }
    let tree = Tree::open(folder, Links::Refused)?;
    let mut names = Names::ignoring_case();
    for index in 0..archive.len() {
        let mut unpacking = Unpacking {
            tree: &tree,
            names: &mut names,
            spent: &mut spent,
            limits,
        };
        unpacking.entry(&mut archive, index)?;
    }
    Ok(tree.freeze()?)
}

const FILE_TYPE: u32 = 0o170_000;
const FILE_TYPE_LINK: u32 = 0o120_000;
const FILE_TYPE_FILE: u32 = 0o100_000;
const FILE_TYPE_FOLDER: u32 = 0o040_000;

/// What unpacking one entry needs to know of the whole.
struct Unpacking<'a> {
    tree: &'a Tree,
    names: &'a mut Names,
    spent: &'a mut Spent,
    limits: &'a Limits,
}

impl Unpacking<'_> {
    fn entry<R: Read + Seek>(
        &mut self,
        archive: &mut ZipArchive<R>,
        index: usize,
    ) -> Result<(), PackageError> {
        self.spent.entry()?;
        let metadata = archive.metadata();
        let entry = metadata
            .entry(index)
            .map_err(|error| PackageError::NotAZip(error.into()))?;
        self.unpack(archive, index, &entry)
            .map_err(|source| PackageError::Entry {
                entry: shown(entry.name_raw()),
                source,
            })
    }

    fn unpack<R: Read + Seek>(
        &mut self,
        archive: &mut ZipArchive<R>,
        index: usize,
        entry: &ZipFileEntry<'_>,
    ) -> Result<(), EntryFault> {
        let path = EntryPath::parse(entry.name_raw(), self.limits)?;
        if entry.encrypted() {
            return Err(EntryFault::Encrypted);
        }
        let mode = entry.unix_mode().unwrap_or(0);
        match mode & FILE_TYPE {
            0 | FILE_TYPE_FILE | FILE_TYPE_FOLDER => {}
            FILE_TYPE_LINK => return Err(EntryFault::Link),
            _ => return Err(EntryFault::Special),
        }
        self.names.add(&path, entry.is_dir())?;
        // Opened even if it is a folder: this compares the two headers of the entry.
        let options = ZipReadOptions::new().enforce_header_consistency(true);
        let content = archive
            .by_index_with_options(index, options)
            .map_err(|error| EntryFault::Header(error.into()))?;
        if entry.is_dir() {
            return Ok(self.tree.folder(&path)?);
        }
        let declared = entry.size();
        let (allowance, bound) = self.spent.file_allowance();
        if declared > allowance {
            return Err(bound.into());
        }
        let mut content = Bounded::new(content, (declared, Exceeded::EntryBytes(declared)));
        let written = self.tree.file(&path, mode & 0o100 != 0, &mut content);
        match written.map_err(EntryFault::from) {
            Ok(written) if written == declared => self.spent.file(written),
            Ok(_) | Err(EntryFault::Bound(_)) => return Err(EntryFault::DeclaredSize { declared }),
            Err(fault) => return Err(fault),
        }
        Ok(())
    }
}

mod directory;
#[cfg(test)]
mod tests;
