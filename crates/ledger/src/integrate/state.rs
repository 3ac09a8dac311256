//! The right edge of a log, in memory: hashes of the partial tiles and the partial bundle.

use super::IntegrateError;
use crate::checkpoint::Checkpoint;
use crate::proof::{ProofError, read_tile};
use crate::storage::{Blob, Blobs};
use crate::tile::{
    BundleError, EntryTooLong, TileKind, TilePath, push_entry, split_bundle, tile_bytes,
};
use crate::tree::{Frontier, Hash, MAX_LEVELS, TILE_WIDTH, edge_width, leaf_hash};

/// What appending needs to know: at most 64 KiB of hashes and one bundle.
#[derive(Debug, Default)]
pub(super) struct State {
    frontier: Frontier,
    /// The partial bundle's bytes.
    bundle: Vec<u8>,
}

impl State {
    /// Reads the edge of the log that `checkpoint` speaks of and holds it against the root.
    pub(super) fn read<B: Blobs>(
        blobs: &B,
        checkpoint: &Checkpoint,
    ) -> Result<Self, IntegrateError> {
        let size = checkpoint.size;
        let mut levels = Vec::new();
        let mut lowest = None;
        for level in 0..MAX_LEVELS as u8 {
            levels.push(match edge_path(TileKind::Hashes(level), size) {
                Some(path) => {
                    lowest = lowest.or(Some(path));
                    read_tile(blobs, path)?
                }
                None => Vec::new(),
            });
        }
        let frontier = Frontier::from_levels(size, levels).unwrap_or_default();
        if frontier.root() != checkpoint.root {
            let path = lowest.or(TilePath::new(TileKind::Hashes(0), 0, TILE_WIDTH));
            return Err(
                path.map_or(IntegrateError::Full, |path| IntegrateError::Damaged {
                    path,
                }),
            );
        }
        let bundle = match edge_path(TileKind::Entries, size) {
            Some(path) => read_bundle(blobs, path, frontier.level(0))?,
            None => Vec::new(),
        };
        Ok(Self { frontier, bundle })
    }

    pub(super) fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(super) fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Appends one entry; what it fills goes to `batch`.
    pub(super) fn append(
        &mut self,
        entry: &[u8],
        batch: &mut Vec<Blob>,
    ) -> Result<(), EntryTooLong> {
        push_entry(&mut self.bundle, entry)?;
        let bundle = &mut self.bundle;
        self.frontier.push(leaf_hash(entry), |tile| {
            if tile.level == 0 {
                batch.extend(blob(TileKind::Entries, tile.index, TILE_WIDTH, || {
                    std::mem::take(bundle)
                }));
            }
            let kind = TileKind::Hashes(tile.level);
            batch.extend(blob(kind, tile.index, TILE_WIDTH, || {
                tile_bytes(&tile.hashes)
            }));
        });
        Ok(())
    }

    /// The partial tiles and bundle as they stand, without those that a log of `before` entries
    /// had already.
    pub(super) fn edge_since(&self, before: u64) -> Vec<Blob> {
        let size = self.size();
        let mut edge = Vec::new();
        let mut add = |kind, bytes: &dyn Fn() -> Vec<u8>| {
            if let Some(path) =
                edge_path(kind, size).filter(|p| edge_path(kind, before) != Some(*p))
            {
                edge.push(Blob {
                    path,
                    bytes: bytes(),
                });
            }
        };
        add(TileKind::Entries, &|| self.bundle.clone());
        for level in 0..MAX_LEVELS as u8 {
            add(TileKind::Hashes(level), &|| {
                tile_bytes(self.frontier.level(level))
            });
        }
        edge
    }
}

fn blob(kind: TileKind, index: u64, width: usize, bytes: impl FnOnce() -> Vec<u8>) -> Option<Blob> {
    TilePath::new(kind, index, width).map(|path| Blob {
        path,
        bytes: bytes(),
    })
}

/// The partial tile at the right end of a level; `None` where it ends in a full one.
fn edge_path(kind: TileKind, size: u64) -> Option<TilePath> {
    let level = match kind {
        TileKind::Hashes(level) => level,
        TileKind::Entries => 0,
    };
    let index = size >> (8 * u32::from(level)) >> 8;
    TilePath::new(kind, index, edge_width(size, level))
}

/// Leaf hashes of the entries in a bundle, as far as it can be cut.
pub(super) fn bundle_hashes(bytes: &[u8], width: usize) -> Vec<Hash> {
    let bundle = split_bundle(bytes, width);
    bundle
        .entries
        .into_iter()
        .map(|range| leaf_hash(&bytes[range]))
        .collect()
}

/// Reads the partial bundle, or its beginning from the full one, and holds it against its tile.
fn read_bundle<B: Blobs>(
    blobs: &B,
    path: TilePath,
    hashes: &[Hash],
) -> Result<Vec<u8>, IntegrateError> {
    let mut bytes = match (blobs.get(path)?, path.full()) {
        (Some(bytes), _) => Some(bytes),
        (None, Some(full)) => blobs.get(full)?,
        (None, None) => None,
    }
    .ok_or(ProofError::MissingTile { path })?;
    if let Some(BundleError::ExtraBytes { byte }) = split_bundle(&bytes, path.width()).defect {
        bytes.truncate(byte);
    }
    if bundle_hashes(&bytes, path.width()) != hashes {
        return Err(IntegrateError::Damaged { path });
    }
    Ok(bytes)
}
