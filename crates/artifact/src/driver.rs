//! Driver bundles: a tar of plain files with a `driver.json` that names them all.
//!
//! A bundle is pinned by the digest of the tar; `driver.json` says what is inside, so that a run's
//! evidence can name driver, version and every file, and so that a wrong bundle is told from a
//! damaged one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::HashingReader;
use crate::entry::{EntryFault, EntryPath, NameFault, Names};
use crate::limits::{Bounded, Exceeded, Spent};
use crate::store::{Blob, StoreError};
use crate::tarball::{self, TarEntry, TarFault};
use crate::tree::{FileError, Links, Tree, TreeError, Written};
use crate::walk::{self, Content, Contents, WalkError};
use crate::{Digest, Limits, Store};

/// The file that describes a bundle, at its top.
pub const DESCRIPTION: &str = "driver.json";

/// What a bundle holds: the file `driver.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Description {
    /// The driver's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The executable to start, by its path in the bundle.
    pub entry_point: String,
    /// Every file of the bundle but this one, by its path.
    pub files: BTreeMap<String, DescribedFile>,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribedFile {
    /// The digest of its content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it can be executed.
    pub executable: bool,
}

/// Which driver a stage asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its version, where that matters.
    pub version: Option<String>,
    /// The digest that the lock pins.
    pub digest: Digest,
}

/// A driver ready to use.
#[derive(Debug, Clone)]
pub struct Driver {
    /// What it is.
    pub description: Description,
    /// The digest of its bundle.
    pub digest: Digest,
    /// Its read-only folder.
    pub folder: PathBuf,
}

/// A driver bundle that could not be made or taken.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// It is not in the store.
    #[error("driver `{name}` ({digest}) is missing")]
    Missing {
        /// The driver.
        name: String,
        /// The digest that is pinned.
        digest: Digest,
    },
    /// The pinned bundle is another driver.
    #[error("the bundle pinned for driver `{wanted}` is driver `{found}`")]
    WrongName {
        /// The driver that was asked for.
        wanted: String,
        /// The driver in the bundle.
        found: String,
    },
    /// The pinned bundle is another version.
    #[error("driver `{name}` is of version {found}, not {wanted}")]
    WrongVersion {
        /// The driver.
        name: String,
        /// The version that was asked for.
        wanted: String,
        /// The version in the bundle.
        found: String,
    },
    /// The bundle's content is not what its digest says.
    #[error("driver `{name}` has the digest {found}, not {wanted}")]
    WrongDigest {
        /// The driver.
        name: String,
        /// The digest that is pinned.
        wanted: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// It is no tar, or cut off.
    #[error("the driver bundle is not a readable tar file")]
    NotATar(#[source] io::Error),
    /// One entry is refused.
    #[error("the driver bundle's entry `{entry}` is refused")]
    Entry {
        /// Its name, escaped.
        entry: String,
        /// Why.
        source: EntryFault,
    },
    /// It costs too much.
    #[error("the driver bundle is refused")]
    Bound(#[from] Exceeded),
    /// `driver.json` is missing.
    #[error("the driver bundle has no {DESCRIPTION}")]
    NoDescription,
    /// `driver.json` cannot be understood.
    #[error("the driver bundle's {DESCRIPTION} cannot be understood")]
    Description(#[source] serde_json::Error),
    /// `driver.json` and the files disagree.
    #[error("the driver bundle's file `{file}` {what}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Its source cannot be read.
    #[error("the driver's source cannot be read")]
    Source(#[from] WalkError),
    /// It cannot be written.
    #[error("the driver bundle cannot be written")]
    Write(#[source] io::Error),
    /// The folder to unpack into cannot be used.
    #[error("the driver bundle cannot be unpacked")]
    Tree(#[from] TreeError),
    /// The store refused.
    #[error("the driver bundle cannot be taken from or into the store")]
    Store(#[from] StoreError),
}

/// Packs `contents` as driver `name` in `version`; `entry_point` must be an executable among them.
///
/// The same contents, name and version give the same digest at any time and place.
///
/// # Errors
/// See [`DriverError`]; links are refused.
pub fn pack(
    store: &Store,
    contents: &Contents,
    name: &str,
    version: &str,
    entry_point: &str,
) -> Result<Blob, DriverError> {
    let description = describe(contents, name, version, entry_point)?;
    let json = serde_json::to_vec_pretty(&description).map_err(DriverError::Description)?;
    let mut file = tempfile::NamedTempFile::new_in(store.root()).map_err(DriverError::Write)?;
    file.write_all(&json)
        .and_then(|()| file.flush())
        .map_err(DriverError::Write)?;
    let mut contents = contents.clone();
    let place = EntryPath::parse(DESCRIPTION.as_bytes(), &Limits::default()).map_err(|fault| {
        DriverError::Entry {
            entry: DESCRIPTION.into(),
            source: fault.into(),
        }
    })?;
    contents.insert(
        place,
        Content::File {
            from: file.path().to_owned(),
            executable: false,
        },
    );
    let (blob, ()) = store.write(None, |writer| {
        tarball::write(&contents, writer).map_err(DriverError::Write)
    })?;
    Ok(blob)
}

fn describe(
    contents: &Contents,
    name: &str,
    version: &str,
    entry_point: &str,
) -> Result<Description, DriverError> {
    let mut files = BTreeMap::new();
    for (path, content) in contents {
        match content {
            Content::Folder => {}
            Content::Link { .. } => {
                let entry = path.to_string();
                return Err(DriverError::Entry {
                    entry,
                    source: EntryFault::Link,
                });
            }
            Content::File { .. } if path.as_str() == DESCRIPTION => {
                let file = path.to_string();
                return Err(DriverError::File {
                    file,
                    what: "is written by the packing itself",
                });
            }
            Content::File { from, executable } => {
                let (digest, size) =
                    crate::digest::of_reader(walk::open(from)?).map_err(DriverError::Write)?;
                let file = DescribedFile {
                    digest,
                    size,
                    executable: *executable,
                };
                files.insert(path.to_string(), file);
            }
        }
    }
    let description = Description {
        name: name.to_owned(),
        version: version.to_owned(),
        entry_point: entry_point.to_owned(),
        files,
    };
    check_entry_point(&description)?;
    Ok(description)
}

fn check_entry_point(description: &Description) -> Result<(), DriverError> {
    let Description {
        entry_point, files, ..
    } = description;
    let what = match files.get(entry_point) {
        None => "is the entry point, but missing",
        Some(file) if !file.executable => "is the entry point, but not executable",
        Some(_) => return Ok(()),
    };
    Err(DriverError::File {
        file: entry_point.clone(),
        what,
    })
}

/// The driver that a stage asks for, unpacked now if it is not yet.
///
/// # Errors
/// [`DriverError::Missing`], [`DriverError::WrongName`], [`DriverError::WrongVersion`],
/// [`DriverError::WrongDigest`] where another driver is pinned or there is none; the rest where
/// the bundle is unusable. Of a refused bundle nothing is left behind.
pub fn open(store: &Store, wanted: &Wanted, limits: &Limits) -> Result<Driver, DriverError> {
    let folder = store.unpack(&wanted.digest, |folder| {
        let (bundle, blob) = store.blobs().open(&wanted.digest, None)?;
        unpack_into(bundle, blob.size, folder, limits).map(|(_, written)| written)
    });
    let folder = folder.map_err(|error| match error {
        DriverError::Store(StoreError::Missing { digest }) => DriverError::Missing {
            name: wanted.name.clone(),
            digest,
        },
        DriverError::Store(StoreError::DigestMismatch { expected, actual }) => {
            let name = wanted.name.clone();
            DriverError::WrongDigest {
                name,
                wanted: expected,
                found: actual,
            }
        }
        error => error,
    })?;
    let description = read_description(&folder, limits)?;
    if description.name != wanted.name {
        let wanted = wanted.name.clone();
        return Err(DriverError::WrongName {
            wanted,
            found: description.name,
        });
    }
    match &wanted.version {
        Some(version) if *version != description.version => Err(DriverError::WrongVersion {
            name: description.name,
            wanted: version.clone(),
            found: description.version,
        }),
        _ => Ok(Driver {
            description,
            digest: wanted.digest,
            folder,
        }),
    }
}

/// Unpacks a bundle of `size` bytes into the empty folder `folder`, compares every file with
/// `driver.json` and makes the folder read-only; answers with what it describes and what it wrote.
///
/// # Errors
/// See [`DriverError`]; what was written until then stays in `folder`.
pub fn unpack_into(
    bundle: impl Read,
    size: u64,
    folder: &Path,
    limits: &Limits,
) -> Result<(Description, Written), DriverError> {
    let mut spent = Spent::new(*limits);
    spent.archive(size)?;
    let tree = Tree::open(folder, Links::Refused)?;
    let mut names = Names::ignoring_case();
    let mut found = BTreeMap::new();
    let bundle = Bounded::new(bundle, spent.stream_allowance());
    tarball::read(bundle, limits, EntryPath::parse, |path, entry| {
        names.add(path, matches!(entry, TarEntry::Folder))?;
        match entry {
            TarEntry::Folder => tree.folder(path)?,
            TarEntry::Symlink { .. } | TarEntry::HardLink { .. } => return Err(EntryFault::Link),
            TarEntry::Node => return Err(EntryFault::Special),
            TarEntry::File { .. } if path.is_root() => return Err(NameFault::Empty.into()),
            TarEntry::File {
                executable,
                content,
            } => {
                let mut content = HashingReader::new(content);
                tree.file(path, executable, &mut content)
                    .map_err(|error| match error {
                        FileError::Content(error) => EntryFault::Damaged(error),
                        FileError::Tree(error) => EntryFault::Write(error),
                    })?;
                let (digest, size) = content.finish().map_err(EntryFault::Damaged)?;
                found.insert(
                    path.to_string(),
                    DescribedFile {
                        digest,
                        size,
                        executable,
                    },
                );
            }
        }
        Ok(())
    })
    .map_err(|fault| match fault {
        TarFault::Stream(error) => DriverError::NotATar(error),
        TarFault::Bound(bound) => DriverError::Bound(bound),
        TarFault::Entry { entry, source } => DriverError::Entry { entry, source },
    })?;
    let description = read_description(folder, limits)?;
    compare(&description, found)?;
    Ok((description, tree.freeze()?))
}

fn compare(
    description: &Description,
    mut found: BTreeMap<String, DescribedFile>,
) -> Result<(), DriverError> {
    found.remove(DESCRIPTION);
    for (file, described) in &description.files {
        let what = match found.remove(file) {
            None => "is missing",
            Some(found) if found == *described => continue,
            Some(_) => "is not what driver.json describes",
        };
        return Err(DriverError::File {
            file: file.clone(),
            what,
        });
    }
    if let Some((file, _)) = found.pop_first() {
        return Err(DriverError::File {
            file,
            what: "is not described by driver.json",
        });
    }
    check_entry_point(description)
}

fn read_description(folder: &Path, limits: &Limits) -> Result<Description, DriverError> {
    let mut json = Vec::new();
    File::open(folder.join(DESCRIPTION))
        .and_then(|file| file.take(limits.document_bytes).read_to_end(&mut json))
        .map_err(|_| DriverError::NoDescription)?;
    serde_json::from_slice(&json).map_err(DriverError::Description)
}

#[cfg(test)]
mod tests;
