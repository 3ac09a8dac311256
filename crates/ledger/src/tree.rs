//! Merkle tree hashing after RFC 6962, section 2.1, and the right edge that an appender keeps.

use sha2::{Digest, Sha256};

/// A SHA-256 hash: of a leaf, of a node, or of the whole tree.
pub type Hash = [u8; HASH_BYTES];

/// Length of a [`type@Hash`] in bytes.
pub const HASH_BYTES: usize = 32;

/// Hashes in a full tile, and entries in a full bundle (C2SP tlog-tiles).
pub const TILE_WIDTH: usize = 256;

/// Largest tree that can be spoken about: other implementations hold sizes in a signed 64-bit
/// number.
pub const MAX_TREE_SIZE: u64 = i64::MAX as u64;

/// Tile levels that a tree of [`MAX_TREE_SIZE`] can have: eight bits of the size each.
pub(crate) const MAX_LEVELS: usize = 8;

/// Hash of an entry as a leaf: `SHA-256(0x00 || entry)`.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(entry);
    hasher.finalize().into()
}

/// Hash of an inner node: `SHA-256(0x01 || left || right)`.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut block = [0x01; 1 + 2 * HASH_BYTES];
    block[1..=HASH_BYTES].copy_from_slice(left);
    block[1 + HASH_BYTES..].copy_from_slice(right);
    Sha256::digest(block).into()
}

/// Root of the tree without entries: the hash of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Root of a perfect subtree over `hashes`, whose count is a power of two from 1 to 256.
pub(crate) fn perfect_root(hashes: &[Hash]) -> Hash {
    debug_assert!(hashes.len().is_power_of_two() && hashes.len() <= TILE_WIDTH);
    let mut level = [[0; HASH_BYTES]; TILE_WIDTH];
    let mut width = hashes.len();
    level[..width].copy_from_slice(hashes);
    while width > 1 {
        width /= 2;
        for i in 0..width {
            level[i] = node_hash(&level[2 * i], &level[2 * i + 1]);
        }
    }
    level[0]
}

/// Root of a tree from its right edge: per tile level the hashes of its partial tile, lowest
/// level first. An edge without a single hash is the empty tree.
pub(crate) fn root_of_edge<'a>(levels: impl IntoIterator<Item = &'a [Hash]>) -> Hash {
    let mut root: Option<Hash> = None;
    for hashes in levels {
        let mut end = hashes.len();
        // The set bits of a width, low to high, are its perfect subtrees, right to left.
        for bit in 0..usize::BITS.min(8) {
            let count = 1 << bit;
            if hashes.len() & count != 0 {
                let peak = perfect_root(&hashes[end - count..end]);
                end -= count;
                root = Some(root.map_or(peak, |right| node_hash(&peak, &right)));
            }
        }
    }
    root.unwrap_or_else(empty_root)
}

/// Hashes in the partial tile at `level` of a tree of `size`; 0 where that level ends in a full
/// tile or does not exist.
#[must_use]
pub fn edge_width(size: u64, level: u8) -> usize {
    let shift = 8 * u32::from(level);
    size.checked_shr(shift)
        .map_or(0, |nodes| nodes as usize % TILE_WIDTH)
}

/// A tile that [`Frontier::push`] has just filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullTile {
    /// Tile level; 0 holds leaf hashes.
    pub level: u8,
    /// Index of the tile within its level.
    pub index: u64,
    /// Its 256 hashes.
    pub hashes: Vec<Hash>,
}

/// The right edge of a growing tree: what must be remembered to append and to know the root.
///
/// It holds at most 255 hashes per tile level, 64 KiB in all, whatever the size of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Frontier {
    /// The edge of an empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The edge of a tree of `size`, from the hashes of its partial tiles, lowest level first;
    /// `None` where their widths do not fit that size.
    #[must_use]
    pub fn from_levels(size: u64, levels: Vec<Vec<Hash>>) -> Option<Self> {
        let fits = size <= MAX_TREE_SIZE
            && levels.len() <= MAX_LEVELS
            && (0..MAX_LEVELS as u8).all(|level| {
                levels.get(usize::from(level)).map_or(0, Vec::len) == edge_width(size, level)
            });
        fits.then_some(Self { size, levels })
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Hashes of the partial tile at `level`; empty where there is none.
    #[must_use]
    pub fn level(&self, level: u8) -> &[Hash] {
        self.levels
            .get(usize::from(level))
            .map_or(&[], Vec::as_slice)
    }

    /// Root hash of the tree so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        root_of_edge(self.levels.iter().map(Vec::as_slice))
    }

    /// Appends a leaf and hands over each tile that it fills, lowest level first.
    pub fn push(&mut self, leaf: Hash, mut filled: impl FnMut(FullTile)) {
        debug_assert!(self.size < MAX_TREE_SIZE, "callers check the size");
        self.size += 1;
        let mut carry = leaf;
        for level in 0..MAX_LEVELS {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(TILE_WIDTH));
            }
            let hashes = &mut self.levels[level];
            hashes.push(carry);
            if hashes.len() < TILE_WIDTH {
                return;
            }
            carry = perfect_root(hashes);
            filled(FullTile {
                level: level as u8,
                index: (self.size >> (8 * (level + 1))) - 1,
                hashes: std::mem::replace(hashes, Vec::with_capacity(TILE_WIDTH)),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of RFC 6962, word for word, without any cleverness.
    fn root_by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(split);
                node_hash(&root_by_definition(left), &root_by_definition(right))
            }
        }
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn the_empty_leaf_and_the_empty_tree_hash_as_rfc_6962_test_vectors_say() {
        let hex = |hash: Hash| hash.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(empty_root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            hex(leaf_hash(b"")),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
    }

    #[test]
    fn the_root_of_every_size_up_to_two_full_tiles_is_the_one_rfc_6962_defines() {
        let all = leaves(700);
        let mut frontier = Frontier::new();
        assert_eq!(frontier.root(), root_by_definition(&[]));
        for (i, leaf) in all.iter().enumerate() {
            frontier.push(*leaf, |_| {});
            assert_eq!(
                frontier.root(),
                root_by_definition(&all[..=i]),
                "size {}",
                i + 1
            );
        }
    }

    #[test]
    fn full_tiles_appear_in_order_and_a_second_level_after_65536_leaves() {
        let mut frontier = Frontier::new();
        let mut seen = Vec::new();
        for leaf in leaves(65_536 + 10) {
            frontier.push(leaf, |tile| {
                seen.push((tile.level, tile.index, tile.hashes.len()))
            });
        }
        assert_eq!(seen.len(), 257);
        assert_eq!(seen[254..], [(0, 254, 256), (0, 255, 256), (1, 0, 256)]);
        assert_eq!(frontier.level(0).len(), 10);
        assert_eq!(frontier.level(2).len(), 1);
    }

    proptest! {
        #[test]
        fn an_edge_is_accepted_only_where_its_widths_fit_the_size(size in 0u64..70_000, off in 1usize..9) {
            let levels: Vec<Vec<Hash>> =
                (0..8).map(|level| vec![[7; 32]; edge_width(size, level)]).collect();
            prop_assert!(Frontier::from_levels(size, levels.clone()).is_some());
            let mut wrong = levels;
            wrong[off % 8].push([7; 32]);
            prop_assert!(Frontier::from_levels(size, wrong).is_none());
        }
    }
}
