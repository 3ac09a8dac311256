//! The files of an export that the signed log does not need: named, or held against those it
//! does.

use std::fs::FileType;
use std::io;
use std::path::Path;

use fs_err as fs;

use super::problem::{Problem, ProblemKind, Problems, of_store_error};
use super::walk::Mended;
use crate::export::{CHECKPOINT_FILE, KEY_FILE};
use crate::storage::{Blobs, DirBlobs};
use crate::tile::{BundleError, TileKind, TilePath, split_bundle, tile_bytes, tile_hashes};
use crate::tree::{HASH_BYTES, Hash, leaf_hash};

/// Folders inside one another in the deepest possible log: `tile`, level, six groups of digits,
/// and a folder of partial tiles.
const MAX_DEPTH: usize = 9;

pub(super) fn check_readable(folder: &Path) -> io::Result<()> {
    fs::read_dir(folder).map(drop)
}

/// Looks at every file that the check of the log itself did not, but for those in the folder that
/// are `beside` the log.
pub(super) fn check_others(
    folder: &Path,
    blobs: &DirBlobs,
    size: u64,
    mended: &Mended,
    beside: &[&str],
    problems: &mut Problems,
) {
    let mut others = Others {
        blobs,
        size,
        mended,
        beside,
        found: Vec::new(),
    };
    others.visit(folder, "", 0);
    others.found.sort_by(|a, b| a.file.cmp(&b.file));
    for problem in others.found {
        if !problems.concern(&problem.file) {
            problems.add(problem);
        }
    }
}

struct Others<'a> {
    blobs: &'a DirBlobs,
    size: u64,
    mended: &'a Mended,
    beside: &'a [&'a str],
    found: Vec<Problem>,
}

impl Others<'_> {
    fn add(&mut self, file: &str, kind: ProblemKind) {
        self.found.push(Problem::of_file(file, kind));
    }

    fn full(&self) -> bool {
        self.found.len() > super::MAX_PROBLEMS
    }

    fn visit(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                let reason = error.to_string();
                return self.add(prefix, ProblemKind::Unreadable { reason });
            }
        };
        for entry in entries {
            if self.full() {
                return;
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let reason = error.to_string();
                    return self.add(prefix, ProblemKind::Unreadable { reason });
                }
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            if prefix.is_empty() && self.beside.contains(&name.as_str()) {
                continue;
            }
            let path = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => {
                    self.visit(&entry.path(), &path, depth + 1);
                }
                Ok(kind) => self.check(&path, kind),
                Err(error) => {
                    let reason = error.to_string();
                    self.add(&path, ProblemKind::Unreadable { reason });
                }
            }
        }
    }

    fn check(&mut self, file: &str, kind: FileType) {
        if file == CHECKPOINT_FILE || file == KEY_FILE {
            return;
        }
        let Ok(path) = file.parse::<TilePath>() else {
            return self.add(file, ProblemKind::Unexpected);
        };
        match TilePath::in_tree(path.kind(), path.index(), self.size) {
            // Read, and if need be complained about, with the log.
            Some(needed) if needed == path => {}
            Some(needed) if path.width() < needed.width() && kind.is_file() => {
                let problem = self.compare(path);
                self.found.extend(problem);
            }
            Some(needed) if path.width() < needed.width() => {
                self.add(file, ProblemKind::Unexpected);
            }
            _ => self.add(file, ProblemKind::BeyondEnd { size: self.size }),
        }
    }

    /// Holds a left-over partial tile or bundle against the tile that the log needs instead.
    fn compare(&self, partial: TilePath) -> Option<Problem> {
        let bytes = match self.blobs.get(partial) {
            Ok(bytes) => bytes?,
            Err(error) => return Some(of_store_error(partial, &error)),
        };
        let TileKind::Hashes(level) = partial.kind() else {
            return self.compare_entries(partial, &bytes);
        };
        let needed = TilePath::in_tree(partial.kind(), partial.index(), self.size)?;
        let right = self.right_hashes(needed);
        let right = right
            .get(..partial.width())
            .map(tile_bytes)
            .unwrap_or_default();
        if bytes == right {
            return None;
        }
        let at = bytes.iter().zip(&right).take_while(|(a, b)| a == b).count();
        let entry = partial.first_entry() + (((at / HASH_BYTES) as u64) << (8 * u32::from(level)));
        Some(Problem {
            file: partial.to_string(),
            byte: Some(at as u64),
            entry: Some(entry),
            kind: ProblemKind::PartialDiffers {
                wider: needed.to_string(),
            },
        })
    }

    fn compare_entries(&self, partial: TilePath, bytes: &[u8]) -> Option<Problem> {
        let tile = TilePath::in_tree(TileKind::Hashes(0), partial.index(), self.size)?;
        let right = self.right_hashes(tile);
        let bundle = split_bundle(bytes, partial.width());
        let changed = (bundle.entries.iter().enumerate())
            .find(|(i, range)| right.get(*i) != Some(&leaf_hash(&bytes[(*range).clone()])))
            .map(|(i, range)| (range.start - 2, Some(i), ProblemKind::EntryChanged));
        let (byte, position, kind) = changed.or_else(|| match bundle.defect? {
            BundleError::ExtraBytes { byte } => Some((byte, None, ProblemKind::ExtraBytes)),
            BundleError::Truncated { position, byte } => {
                Some((byte, Some(position), ProblemKind::BundleTruncated))
            }
        })?;
        Some(Problem {
            file: partial.to_string(),
            byte: Some(byte as u64),
            entry: position.map(|position| partial.first_entry() + position as u64),
            kind,
        })
    }

    /// The hashes that a tile of the log should hold: as mended, or else as stored; none where
    /// it is missing, and nothing can prove what is compared with it.
    fn right_hashes(&self, needed: TilePath) -> Vec<Hash> {
        self.mended.get(&needed).cloned().unwrap_or_else(|| {
            let stored = self.blobs.get(needed).ok().flatten();
            stored
                .and_then(|bytes| tile_hashes(&bytes, needed.width()))
                .unwrap_or_default()
        })
    }
}
