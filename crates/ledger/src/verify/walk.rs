//! From the signed root down to the entries.

use std::collections::BTreeMap;

use super::problem::{Problem, ProblemKind, Problems, of_store_error};
use crate::storage::Blobs;
use crate::tile::{BundleError, TileKind, TilePath, split_bundle, tile_hashes};
use crate::tree::{
    HASH_BYTES, Hash, MAX_LEVELS, TILE_WIDTH, edge_width, leaf_hash, perfect_root, root_of_edge,
};

/// Places at which a tile and what lies below it may differ and still be told apart hash by
/// hash: each doubles the combinations that are tried.
const MAX_MIXED: usize = 6;

/// One passage over a log.
pub(super) struct Walk<'a, B: ?Sized> {
    blobs: &'a B,
    size: u64,
    problems: &'a mut Problems,
    proved: u64,
    /// A smaller size whose right edge is to be picked up on the way, and what is picked up.
    watched: Option<(u64, Vec<Option<Vec<Hash>>>)>,
    /// The right hashes of tiles that were found wrong and could be made again.
    mended: Mended,
}

/// The tiles of a right edge, lowest level first, with their hashes where they are known.
type Edge = Vec<(TilePath, Option<Vec<Hash>>)>;

/// What tiles that were found wrong should have held; no more of them than problems are told.
pub(super) type Mended = BTreeMap<TilePath, Vec<Hash>>;

impl<'a, B: Blobs + ?Sized> Walk<'a, B> {
    pub(super) fn new(
        blobs: &'a B,
        size: u64,
        watched: Option<u64>,
        problems: &'a mut Problems,
    ) -> Self {
        let watched = watched.map(|size| (size, vec![None; MAX_LEVELS]));
        Self {
            blobs,
            size,
            problems,
            proved: 0,
            watched,
            mended: Mended::new(),
        }
    }

    /// Entries proved so far.
    pub(super) fn proved(&self) -> u64 {
        self.proved
    }

    /// The right edge that the log had at the watched size, if all of it was proved; and the
    /// tiles that were mended.
    pub(super) fn finish(self) -> (Option<Vec<Vec<Hash>>>, Mended) {
        let edge = self.watched.and_then(|(size, levels)| {
            let levels = levels.into_iter().enumerate();
            levels
                .map(|(level, hashes)| {
                    let empty = edge_width(size, level as u8) == 0;
                    if empty { Some(Vec::new()) } else { hashes }
                })
                .collect()
        });
        (edge, self.mended)
    }

    /// Checks everything under the signed root.
    pub(super) fn run(&mut self, root: &Hash) {
        let (edge, proven) = self.prove_edge(root);
        // From the highest tile, which is the leftmost, to the lowest: the order of the entries.
        for (path, hashes) in edge.into_iter().rev() {
            if let Some(hashes) = hashes {
                self.descend(path, hashes, proven);
            } else {
                self.check_unknown(path);
            }
        }
    }

    /// Finds the right edge that makes the signed root: as stored, or with some tiles made again
    /// from what lies below them. Lowest level first; the second value says whether it was found.
    fn prove_edge(&mut self, root: &Hash) -> (Edge, bool) {
        let mut stored = Vec::new();
        for level in 0..MAX_LEVELS as u8 {
            let index = self.size >> (8 * u32::from(level)) >> 8;
            let width = edge_width(self.size, level);
            if let Some(path) = TilePath::new(TileKind::Hashes(level), index, width) {
                stored.push((path, self.read_tile(path)));
            }
        }
        let as_stored: Option<Vec<&[Hash]>> =
            stored.iter().map(|(_, hashes)| hashes.as_deref()).collect();
        if as_stored.is_some_and(|levels| root_of_edge(levels) == *root) {
            return (stored, true);
        }
        let rebuilt: Vec<_> = stored.iter().map(|(path, _)| self.rebuild(*path)).collect();
        for choice in 1..1_usize << stored.len() {
            let chosen: Option<Vec<&[Hash]>> = (0..stored.len())
                .map(|i| {
                    let hashes = if choice >> i & 1 == 1 {
                        &rebuilt[i]
                    } else {
                        &stored[i].1
                    };
                    hashes.as_deref()
                })
                .collect();
            if chosen.is_none_or(|levels| root_of_edge(levels) != *root) {
                continue;
            }
            let edge = stored.into_iter().zip(rebuilt).enumerate();
            let proved = edge.map(|(i, ((path, stored), rebuilt))| {
                if choice >> i & 1 == 0 {
                    return (path, stored);
                }
                self.report_changed_tile(path, stored.as_deref(), rebuilt.as_deref());
                (path, rebuilt)
            });
            return (proved.collect(), true);
        }
        self.report_other_root(&stored, &rebuilt);
        let edge = stored.into_iter().zip(rebuilt);
        (
            edge.map(|((path, stored), rebuilt)| (path, stored.or(rebuilt)))
                .collect(),
            false,
        )
    }

    fn report_other_root(&mut self, stored: &Edge, rebuilt: &[Option<Vec<Hash>>]) {
        let mut named = false;
        for ((path, stored), rebuilt) in stored.iter().zip(rebuilt) {
            // One that agrees with what lies below it is no suspect, as long as another is.
            if stored.is_none() || stored != rebuilt {
                self.report_unproved(*path, stored.is_some(), rebuilt.is_some(), None);
                named = true;
            }
        }
        if !named {
            let file = crate::export::CHECKPOINT_FILE;
            self.problems
                .add(Problem::of_file(file, ProblemKind::OtherRoot));
        }
    }

    /// Goes on below a tile whose hashes are known; `proven` says whether the signed root
    /// vouches for them.
    fn descend(&mut self, path: TilePath, hashes: Vec<Hash>, proven: bool) {
        let TileKind::Hashes(level) = path.kind() else {
            return;
        };
        if let Some((size, levels)) = self.watched.as_mut().filter(|_| proven) {
            let width = edge_width(*size, level);
            if *size >> (8 * u32::from(level)) >> 8 == path.index() && width > 0 {
                levels[usize::from(level)] = hashes.get(..width).map(<[Hash]>::to_vec);
            }
        }
        if level == 0 {
            return self.check_bundle(path, &hashes, proven);
        }
        for (i, hash) in hashes.into_iter().enumerate() {
            if self.problems.full() {
                return;
            }
            let index = path.index() * TILE_WIDTH as u64 + i as u64;
            if let Some(child) = TilePath::new(TileKind::Hashes(level - 1), index, TILE_WIDTH) {
                self.check_full(child, path, &hash, proven);
            }
        }
    }

    /// Checks a full tile against the hash that the tile above holds for it.
    fn check_full(&mut self, path: TilePath, above: TilePath, expected: &Hash, proven: bool) {
        let stored = self.read_tile(path);
        if let Some(hashes) = stored
            .as_ref()
            .filter(|hashes| perfect_root(hashes) == *expected)
        {
            let hashes = hashes.clone();
            return self.descend(path, hashes, proven);
        }
        let rebuilt = self.rebuild(path);
        if let Some(right) = reconcile(stored.as_deref(), rebuilt.as_deref(), expected) {
            self.report_changed_tile(path, stored.as_deref(), Some(&right));
            return self.descend(path, right, proven);
        }
        let above = Some(above).filter(|_| !proven);
        self.report_unproved(path, stored.is_some(), rebuilt.is_some(), above);
        match stored.or(rebuilt) {
            Some(hashes) => self.descend(path, hashes, false),
            None => self.check_unknown(path),
        }
    }

    /// Goes on below a tile of which nothing is known, to name what is missing there as well.
    fn check_unknown(&mut self, path: TilePath) {
        let TileKind::Hashes(level) = path.kind() else {
            return;
        };
        if level == 0 {
            let bundle = TilePath::new(TileKind::Entries, path.index(), path.width());
            if let Some((bundle, bytes)) = bundle.and_then(|b| Some((b, self.read(b)?))) {
                self.report_defect(bundle, split_bundle(&bytes, bundle.width()).defect);
            }
            return;
        }
        for i in 0..path.width() as u64 {
            if self.problems.full() {
                return;
            }
            let index = path.index() * TILE_WIDTH as u64 + i;
            let child = TilePath::new(TileKind::Hashes(level - 1), index, TILE_WIDTH);
            let Some(child) = child else { return };
            match self.read_tile(child) {
                Some(hashes) => self.descend(child, hashes, false),
                None => self.check_unknown(child),
            }
        }
    }

    /// Checks the entries beside a level 0 tile.
    fn check_bundle(&mut self, tile: TilePath, hashes: &[Hash], proven: bool) {
        let Some(path) = TilePath::new(TileKind::Entries, tile.index(), tile.width()) else {
            return;
        };
        let Some(bytes) = self.read(path) else { return };
        let bundle = split_bundle(&bytes, path.width());
        let first = path.first_entry();
        for (i, (range, hash)) in bundle.entries.iter().zip(hashes).enumerate() {
            if leaf_hash(&bytes[range.clone()]) == *hash {
                self.proved += u64::from(proven);
                continue;
            }
            let kind = if proven {
                ProblemKind::EntryChanged
            } else {
                ProblemKind::Disagrees {
                    other: tile.to_string(),
                }
            };
            let byte = range.start as u64 - 2;
            self.add(path, Some(byte), Some(first + i as u64), kind);
            if bundle.defect.is_some() {
                // With a wrong length all that follows is cut wrongly, and tells nothing.
                return;
            }
        }
        self.report_defect(path, bundle.defect);
    }

    fn report_defect(&mut self, path: TilePath, defect: Option<BundleError>) {
        match defect {
            Some(BundleError::ExtraBytes { byte }) => {
                self.add(path, Some(byte as u64), None, ProblemKind::ExtraBytes);
            }
            Some(BundleError::Truncated { position, byte }) => {
                let entry = Some(path.first_entry() + position as u64);
                self.add(path, Some(byte as u64), entry, ProblemKind::BundleTruncated);
            }
            None => {}
        }
    }

    /// Makes a tile from what lies below it: the entries, or the roots of the tiles there.
    fn rebuild(&self, path: TilePath) -> Option<Vec<Hash>> {
        let TileKind::Hashes(level) = path.kind() else {
            return None;
        };
        if level == 0 {
            let path = TilePath::new(TileKind::Entries, path.index(), path.width())?;
            let bytes = self.blobs.get(path).ok()??;
            let bundle = split_bundle(&bytes, path.width());
            let complete = bundle.entries.len() == path.width();
            return complete.then(|| {
                bundle
                    .entries
                    .into_iter()
                    .map(|r| leaf_hash(&bytes[r]))
                    .collect()
            });
        }
        let first = path.index() * TILE_WIDTH as u64;
        (first..first + path.width() as u64)
            .map(|index| {
                let child = TilePath::new(TileKind::Hashes(level - 1), index, TILE_WIDTH)?;
                let stored = self.blobs.get(child).ok().flatten();
                let stored = stored.and_then(|bytes| tile_hashes(&bytes, TILE_WIDTH));
                // The first thing that is missing ends it: what is not there is not searched.
                stored
                    .or_else(|| self.rebuild(child))
                    .map(|hashes| perfect_root(&hashes))
            })
            .collect()
    }

    /// Names a tile that nothing proves; where it is missing, which was told, what lies below it.
    fn report_unproved(
        &mut self,
        path: TilePath,
        stored: bool,
        rebuilt: bool,
        unproved_above: Option<TilePath>,
    ) {
        let entry = Some(path.first_entry());
        if stored {
            let kind =
                unproved_above.map_or(ProblemKind::TileUnproved, |above| ProblemKind::Disagrees {
                    other: above.to_string(),
                });
            self.add(path, None, entry, kind);
        } else if rebuilt {
            let bundle = TilePath::new(TileKind::Entries, path.index(), path.width());
            let below = bundle.filter(|_| path.kind() == TileKind::Hashes(0));
            self.add(
                below.unwrap_or(path),
                None,
                entry,
                ProblemKind::BelowUnproved,
            );
        }
    }

    fn read_tile(&mut self, path: TilePath) -> Option<Vec<Hash>> {
        let bytes = self.read(path)?;
        let hashes = tile_hashes(&bytes, path.width());
        if hashes.is_none() {
            let (expected, found) = (path.max_bytes() as u64, bytes.len() as u64);
            self.add(path, None, None, ProblemKind::Length { expected, found });
        }
        hashes
    }

    fn read(&mut self, path: TilePath) -> Option<Vec<u8>> {
        match self.blobs.get(path) {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => {
                self.add(path, None, Some(path.first_entry()), ProblemKind::Missing);
            }
            Err(error) => self.problems.add(of_store_error(path, &error)),
        }
        None
    }

    /// Names each hash of a stored tile that is not the right one.
    fn report_changed_tile(
        &mut self,
        path: TilePath,
        stored: Option<&[Hash]>,
        right: Option<&[Hash]>,
    ) {
        let (Some(right), TileKind::Hashes(level)) = (right, path.kind()) else {
            return;
        };
        if !self.problems.full() {
            self.mended.insert(path, right.to_vec());
        }
        // A missing tile was named when it was read.
        let stored = stored.unwrap_or_default();
        for (i, (found, right)) in stored.iter().zip(right).enumerate() {
            if found == right {
                continue;
            }
            let within = found.iter().zip(right).take_while(|(a, b)| a == b).count();
            let byte = (i * HASH_BYTES + within) as u64;
            let entry = path.first_entry() + ((i as u64) << (8 * u32::from(level)));
            self.add(path, Some(byte), Some(entry), ProblemKind::TileChanged);
        }
    }

    fn add(&mut self, path: TilePath, byte: Option<u64>, entry: Option<u64>, kind: ProblemKind) {
        self.problems.add(Problem {
            file: path.to_string(),
            byte,
            entry,
            kind,
        });
    }
}

/// The hashes of a full tile that make the expected root, each from the stored tile or from what
/// lies below it.
fn reconcile(
    stored: Option<&[Hash]>,
    rebuilt: Option<&[Hash]>,
    expected: &Hash,
) -> Option<Vec<Hash>> {
    let rebuilt = rebuilt?;
    if perfect_root(rebuilt) == *expected {
        return Some(rebuilt.to_vec());
    }
    let stored = stored?;
    let differing: Vec<usize> = (0..rebuilt.len())
        .filter(|i| stored[*i] != rebuilt[*i])
        .collect();
    if differing.len() > MAX_MIXED {
        return None;
    }
    (1..(1_usize << differing.len()).saturating_sub(1)).find_map(|choice| {
        let mut mixed = stored.to_vec();
        for (bit, &i) in differing
            .iter()
            .enumerate()
            .filter(|(bit, _)| choice >> bit & 1 == 1)
        {
            debug_assert!(bit < MAX_MIXED);
            mixed[i] = rebuilt[i];
        }
        (perfect_root(&mixed) == *expected).then_some(mixed)
    })
}
