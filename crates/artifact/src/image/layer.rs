//! One layer: verified as a whole first, then written over what lower layers left.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;

use super::ImageError;
use super::spec::{Descriptor, media_type};
use crate::digest::HashingReader;
use crate::entry::{EntryFault, EntryPath, Names};
use crate::limits::{Bounded, Exceeded, Spent};
use crate::tarball::{self, TarEntry, TarFault};
use crate::tree::{FileError, Tree};
use crate::{Digest, Limits};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
}

/// The compression that a layer's media type names.
pub(super) fn compression(layer: &Descriptor) -> Result<Compression, ImageError> {
    match layer.media_type.as_str() {
        media_type::LAYER => Ok(Compression::None),
        media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Ok(Compression::Gzip),
        other => Err(ImageError::Unsupported {
            document: "layer",
            name: layer.digest.to_string(),
            what: "media type",
            found: other.to_owned(),
        }),
    }
}

/// The prefix of a name that hides the rest of the name in lower layers.
const WHITEOUT: &str = ".wh.";
/// Hides all that lower layers have in the folder that it stands in.
const OPAQUE: &str = ".wh..wh..opq";
/// Notes of a union file system to itself.
const RESERVED: &str = ".wh..wh.";

/// What of an image cannot be had without privileges, and so is left out of its root folder:
/// devices, named pipes, and further names of those.
#[derive(Debug, Default)]
pub(super) struct LeftOut(BTreeSet<EntryPath>);

impl LeftOut {
    /// Whether an entry is left out, which its next layer may replace.
    fn takes(&mut self, path: &EntryPath, entry: &TarEntry<'_>) -> bool {
        let out = match entry {
            TarEntry::Node => true,
            TarEntry::HardLink { target } => self.0.contains(target),
            _ => false,
        };
        if out {
            self.0.insert(path.clone());
        } else {
            self.0.remove(path);
        }
        out
    }

    /// Adds what a layer has of these, without unpacking it.
    pub(super) fn read(
        &mut self,
        mut blob: File,
        layer: &Descriptor,
        spent: &mut Spent,
        limits: &Limits,
    ) -> Result<(), ImageError> {
        spent.archive(layer.size)?;
        let tar = decoded(&mut blob, compression(layer)?, spent.stream_allowance());
        tarball::read(tar, limits, EntryPath::of_layer, |path, entry| {
            spent.entry()?;
            self.takes(path, &entry);
            Ok(())
        })
        .map_err(|fault| refused(layer, fault))
    }

    /// The paths, in order.
    pub(super) fn paths(self) -> Vec<EntryPath> {
        self.0.into_iter().collect()
    }
}

/// Puts a layer, whose blob has been verified, over what is in `tree`.
pub(super) fn apply(
    mut blob: File,
    layer: &Descriptor,
    diff_id: &Digest,
    tree: &Tree,
    (spent, left_out): (&mut Spent, &mut LeftOut),
    limits: &Limits,
) -> Result<(), ImageError> {
    spent.archive(layer.size)?;
    let allowance = spent.stream_allowance();
    let compression = compression(layer)?;
    let hidden = verify(
        decoded(&mut blob, compression, allowance),
        layer,
        diff_id,
        spent,
        limits,
    )?;
    // A whiteout hides lower layers only, wherever it stands in its own: so all of them first.
    for hidden in hidden {
        let (path, outcome) = match &hidden {
            Hidden::Entry(path) => (path, tree.remove(path)),
            Hidden::Below(path) => (path, tree.clear(path)),
        };
        outcome.map_err(|error| ImageError::Entry {
            layer: layer.digest,
            entry: path.to_string(),
            source: error.into(),
        })?;
    }
    blob.seek(SeekFrom::Start(0))
        .map_err(|source| ImageError::Layer {
            layer: layer.digest,
            source,
        })?;
    tarball::read(
        decoded(&mut blob, compression, allowance),
        limits,
        EntryPath::of_layer,
        |path, entry| {
            if is_whiteout(path) {
                return Ok(());
            }
            if !path.is_root() && left_out.takes(path, &entry) {
                // It still hides what a lower layer has there.
                return Ok(tree.remove(path)?);
            }
            write(tree, path, entry)
        },
    )
    .map_err(|fault| refused(layer, fault))
}

fn decoded<'a>(
    blob: &'a mut File,
    compression: Compression,
    allowance: (u64, Exceeded),
) -> Box<dyn Read + 'a> {
    let blob = BufReader::with_capacity(128 << 10, blob);
    match compression {
        Compression::None => Box::new(Bounded::new(blob, allowance)),
        Compression::Gzip => Box::new(Bounded::new(MultiGzDecoder::new(blob), allowance)),
    }
}

/// What a layer hides of those below it.
enum Hidden {
    Entry(EntryPath),
    Below(EntryPath),
}

/// Reads all of a layer without writing anything; answers with what it hides.
fn verify(
    tar: impl Read,
    layer: &Descriptor,
    diff_id: &Digest,
    spent: &mut Spent,
    limits: &Limits,
) -> Result<Vec<Hidden>, ImageError> {
    let mut tar = HashingReader::new(tar);
    let mut names = Names::exact();
    let mut hidden = Vec::new();
    tarball::read(&mut tar, limits, EntryPath::of_layer, |path, entry| {
        spent.entry()?;
        names.add(path, matches!(entry, TarEntry::Folder))?;
        if let Some((folder, name)) = path.split() {
            if name == OPAQUE {
                hidden.push(Hidden::Below(folder));
            } else if let Some(name) = name.strip_prefix(WHITEOUT)
                && !path_has_reserved(path)
            {
                // `.wh...` would hide the parent of its folder.
                if matches!(name, "" | "." | "..") {
                    return Err(crate::entry::NameFault::Parent.into());
                }
                hidden.push(Hidden::Entry(folder.join(name)));
            }
        }
        Ok(())
    })
    .map_err(|fault| refused(layer, fault))?;
    // What follows the end of the tar counts too: it is part of what `diff_id` names.
    let (actual, size) = tar
        .finish()
        .map_err(|error| refused(layer, TarFault::from_stream(error)))?;
    spent.file(size);
    if actual != *diff_id {
        return Err(ImageError::DiffId {
            layer: layer.digest,
            expected: *diff_id,
            actual,
        });
    }
    Ok(hidden)
}

fn path_has_reserved(path: &EntryPath) -> bool {
    path.as_str()
        .split('/')
        .any(|part| part.starts_with(RESERVED))
}

fn is_whiteout(path: &EntryPath) -> bool {
    path_has_reserved(path)
        || path
            .split()
            .is_some_and(|(_, name)| name.starts_with(WHITEOUT))
}

fn write(tree: &Tree, path: &EntryPath, entry: TarEntry<'_>) -> Result<(), EntryFault> {
    if path.is_root() {
        return match entry {
            TarEntry::Folder => Ok(()),
            _ => Err(EntryFault::Special),
        };
    }
    match entry {
        TarEntry::Folder => tree.folder(path)?,
        TarEntry::File {
            executable,
            content,
        } => {
            tree.remove(path)?;
            tree.file(path, executable, content)
                .map_err(|error| match error {
                    FileError::Content(error) => EntryFault::Damaged(error),
                    FileError::Tree(error) => EntryFault::Write(error),
                })?;
        }
        TarEntry::Symlink { target } => {
            tree.remove(path)?;
            tree.symlink(path, &target)?;
        }
        TarEntry::HardLink { target } => {
            if target == *path {
                return Err(EntryFault::Link);
            }
            tree.remove(path)?;
            tree.hard_link(path, &target)?;
        }
        TarEntry::Node => return Err(EntryFault::Special),
    }
    Ok(())
}

fn refused(layer: &Descriptor, fault: TarFault) -> ImageError {
    let layer = layer.digest;
    match fault {
        TarFault::Stream(source) => ImageError::Layer { layer, source },
        TarFault::Bound(bound) => ImageError::Bound(bound),
        TarFault::Entry { entry, source } => ImageError::Entry {
            layer,
            entry,
            source,
        },
    }
}
