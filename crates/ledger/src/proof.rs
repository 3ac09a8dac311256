//! Inclusion and consistency proofs after RFC 6962, section 2.1, made from tiles and checked.

use crate::storage::{Blobs, StoreError};
use crate::tile::{TileKind, TilePath, tile_hashes};
use crate::tree::{Hash, TILE_WIDTH, empty_root, node_hash, perfect_root};

/// A proof was asked for that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The entry or the smaller tree does not lie in the tree.
    #[error("{inner} does not lie in a tree of {size} entries")]
    OutOfRange {
        /// Entry index or size of the smaller tree.
        inner: u64,
        /// Size of the tree.
        size: u64,
    },
    /// A tile that the tree needs is not there.
    #[error("{path} is missing")]
    MissingTile {
        /// The tile.
        path: TilePath,
    },
    /// A tile has the wrong length.
    #[error("{path} does not have the length of its width")]
    MalformedTile {
        /// The tile.
        path: TilePath,
    },
    /// The store could not be read.
    #[error("cannot read the log's tiles")]
    Store(#[from] StoreError),
}

/// A proof does not prove what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProof {
    /// Too many or too few hashes, or an index outside of the tree.
    #[error("the proof has the wrong shape for these sizes")]
    Shape,
    /// The hashes lead to another root.
    #[error("the proof leads to another root hash")]
    Root,
}

/// Reads hashes of the tree of one size from the tiles of a store, which may be those of a
/// larger tree.
pub(crate) struct TileReader<'a, B: ?Sized> {
    blobs: &'a B,
    /// Size of the stored tree: decides which tiles are partial.
    stored: u64,
    cache: Vec<(TilePath, Vec<Hash>)>,
}

impl<'a, B: Blobs + ?Sized> TileReader<'a, B> {
    pub(crate) fn new(blobs: &'a B, stored: u64) -> Self {
        Self {
            blobs,
            stored,
            cache: Vec::new(),
        }
    }

    /// The hashes of the tile at `level` and `index`, as wide as the stored tree has it.
    pub(crate) fn tile(&mut self, level: u8, index: u64) -> Result<&[Hash], ProofError> {
        let path = TilePath::in_tree(TileKind::Hashes(level), index, self.stored).ok_or(
            ProofError::OutOfRange {
                inner: index * TILE_WIDTH as u64,
                size: self.stored,
            },
        )?;
        let at = match self.cache.iter().position(|(cached, _)| *cached == path) {
            Some(at) => at,
            None => {
                let hashes = read_tile(self.blobs, path)?;
                self.cache.push((path, hashes));
                self.cache.len() - 1
            }
        };
        Ok(&self.cache[at].1)
    }

    /// Root of the subtree over the leaves `from..to`, split as RFC 6962 splits a tree.
    pub(crate) fn range_root(&mut self, from: u64, to: u64) -> Result<Hash, ProofError> {
        let count = to - from;
        if count == 0 {
            return Ok(empty_root());
        }
        if !count.is_power_of_two() {
            let middle = from + split_point(count);
            return Ok(node_hash(
                &self.range_root(from, middle)?,
                &self.range_root(middle, to)?,
            ));
        }
        let height = count.trailing_zeros();
        let (level, within) = ((height / 8) as u8, height % 8);
        let first = from >> (8 * u32::from(level));
        let start = (first % TILE_WIDTH as u64) as usize;
        let tile = self.tile(level, first / TILE_WIDTH as u64)?;
        tile.get(start..start + (1 << within))
            .map(perfect_root)
            .ok_or(ProofError::OutOfRange {
                inner: to,
                size: self.stored,
            })
    }
}

/// Reads the tile at `path`, or its beginning from the full tile where the partial one has
/// been cleared away.
pub(crate) fn read_tile<B: Blobs + ?Sized>(
    blobs: &B,
    path: TilePath,
) -> Result<Vec<Hash>, ProofError> {
    if let Some(bytes) = blobs.get(path)? {
        return tile_hashes(&bytes, path.width()).ok_or(ProofError::MalformedTile { path });
    }
    let full = path
        .full()
        .filter(|_| path.is_partial())
        .ok_or(ProofError::MissingTile { path })?;
    let bytes = blobs.get(full)?.ok_or(ProofError::MissingTile { path })?;
    let mut hashes =
        tile_hashes(&bytes, TILE_WIDTH).ok_or(ProofError::MalformedTile { path: full })?;
    hashes.truncate(path.width());
    Ok(hashes)
}

/// The largest power of two below `count`, which is at least 2.
fn split_point(count: u64) -> u64 {
    1 << (u64::BITS - 1 - (count - 1).leading_zeros())
}

/// The hashes that lead from entry `index` to the root of the tree of `size`, lowest first.
/// `stored` is the size of the tree whose tiles `blobs` holds.
///
/// # Errors
/// [`ProofError`].
pub fn inclusion_proof<B: Blobs + ?Sized>(
    blobs: &B,
    stored: u64,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, ProofError> {
    if index >= size || size > stored {
        let inner = if size > stored { size } else { index };
        return Err(ProofError::OutOfRange {
            inner,
            size: size.min(stored),
        });
    }
    let mut reader = TileReader::new(blobs, stored);
    let (mut from, mut to) = (0, size);
    let mut proof = Vec::new();
    while to - from > 1 {
        let middle = from + split_point(to - from);
        if index < middle {
            proof.push(reader.range_root(middle, to)?);
            to = middle;
        } else {
            proof.push(reader.range_root(from, middle)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The hashes that prove the tree of `older` entries to be the beginning of that of `newer`.
/// `stored` is the size of the tree whose tiles `blobs` holds. From 0, and between equal sizes,
/// the proof is empty.
///
/// # Errors
/// [`ProofError`].
pub fn consistency_proof<B: Blobs + ?Sized>(
    blobs: &B,
    stored: u64,
    older: u64,
    newer: u64,
) -> Result<Vec<Hash>, ProofError> {
    if older > newer || newer > stored {
        let inner = if newer > stored { newer } else { older };
        return Err(ProofError::OutOfRange {
            inner,
            size: newer.min(stored),
        });
    }
    let mut proof = Vec::new();
    if older == 0 || older == newer {
        return Ok(proof);
    }
    let mut reader = TileReader::new(blobs, stored);
    let (mut from, mut to) = (0, newer);
    while to != older {
        let middle = from + split_point(to - from);
        if older <= middle {
            proof.push(reader.range_root(middle, to)?);
            to = middle;
        } else {
            proof.push(reader.range_root(from, middle)?);
            from = middle;
        }
    }
    // Where the older tree is itself a whole left subtree, its root is known to the verifier.
    if from != 0 {
        proof.push(reader.range_root(from, to)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that `leaf` is entry `index` of the tree of `size` with this `root`
/// (RFC 9162, section 2.1.3.2).
///
/// # Errors
/// [`InvalidProof`].
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), InvalidProof> {
    if index >= size {
        return Err(InvalidProof::Shape);
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(InvalidProof::Shape);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(InvalidProof::Shape);
    }
    if hash == *root {
        Ok(())
    } else {
        Err(InvalidProof::Root)
    }
}

/// Checks that the tree of `older` entries with `older_root` is the beginning of that of `newer`
/// with `newer_root` (RFC 9162, section 2.1.4.2). From the empty tree everything follows.
///
/// # Errors
/// [`InvalidProof`].
pub fn verify_consistency(
    older: u64,
    older_root: &Hash,
    newer: u64,
    newer_root: &Hash,
    proof: &[Hash],
) -> Result<(), InvalidProof> {
    if older > newer {
        return Err(InvalidProof::Shape);
    }
    if older == 0 || older == newer {
        if !proof.is_empty() {
            return Err(InvalidProof::Shape);
        }
        let agree = if older == 0 {
            *older_root == empty_root()
        } else {
            older_root == newer_root
        };
        return if agree {
            Ok(())
        } else {
            Err(InvalidProof::Root)
        };
    }
    let (mut node, mut last) = (older - 1, newer - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old, rest) = if older.is_power_of_two() {
        (*older_root, proof)
    } else {
        let (first, rest) = proof.split_first().ok_or(InvalidProof::Shape)?;
        (*first, rest)
    };
    let mut new = old;
    for sibling in rest {
        if last == 0 {
            return Err(InvalidProof::Shape);
        }
        if node & 1 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(InvalidProof::Shape);
    }
    if old == *older_root && new == *newer_root {
        Ok(())
    } else {
        Err(InvalidProof::Root)
    }
}
