//! Tiles and entry bundles after C2SP tlog-tiles: their paths and their bytes.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::tree::{HASH_BYTES, Hash, MAX_LEVELS, MAX_TREE_SIZE, TILE_WIDTH};

/// Largest entry, in bytes: a bundle writes each entry's length as 16 bits.
pub const MAX_ENTRY_BYTES: usize = u16::MAX as usize;

/// Largest tile file, in bytes.
pub const MAX_TILE_BYTES: usize = TILE_WIDTH * HASH_BYTES;

/// Largest entry bundle, in bytes.
pub const MAX_BUNDLE_BYTES: usize = TILE_WIDTH * (2 + MAX_ENTRY_BYTES);

/// Longest tile path that is parsed, in bytes.
const MAX_PATH_BYTES: usize = 64;

/// What a tile file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes at this tile level; level 0 holds leaf hashes.
    Hashes(u8),
    /// The entries themselves, beside the level 0 tile of the same index.
    Entries,
}

impl TileKind {
    fn level(self) -> u8 {
        match self {
            Self::Hashes(level) => level,
            Self::Entries => 0,
        }
    }
}

/// The place of a tile or entry bundle: `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`.
///
/// A value of this type names a file inside a log and nothing else: it cannot climb out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TilePath {
    kind: TileKind,
    index: u64,
    width: u16,
}

impl TilePath {
    /// A tile's path; `None` where the level, the index or the width (1 to 256) cannot occur.
    #[must_use]
    pub fn new(kind: TileKind, index: u64, width: usize) -> Option<Self> {
        let level = kind.level();
        if usize::from(level) >= MAX_LEVELS || width == 0 || width > TILE_WIDTH {
            return None;
        }
        let end = index
            .checked_mul(TILE_WIDTH as u64)?
            .checked_add(width as u64)?;
        (end <= MAX_TREE_SIZE >> (8 * u32::from(level))).then_some(Self {
            kind,
            index,
            width: width as u16,
        })
    }

    /// The tile of this kind and index as a tree of `size` holds it, full or partial; `None`
    /// where that tree has nothing there.
    #[must_use]
    pub fn in_tree(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let nodes = size.checked_shr(8 * u32::from(kind.level()))?;
        let width = nodes.saturating_sub(index.checked_mul(TILE_WIDTH as u64)?);
        Self::new(kind, index, width.min(TILE_WIDTH as u64) as usize)
    }

    /// Hashes or entries.
    #[must_use]
    pub fn kind(self) -> TileKind {
        self.kind
    }

    /// Index within the level.
    #[must_use]
    pub fn index(self) -> u64 {
        self.index
    }

    /// Hashes or entries held, 1 to 256.
    #[must_use]
    pub fn width(self) -> usize {
        usize::from(self.width)
    }

    /// Whether fewer than 256 are held.
    #[must_use]
    pub fn is_partial(self) -> bool {
        self.width() < TILE_WIDTH
    }

    /// The same tile when it is full; `None` where the largest tree ends before it is.
    #[must_use]
    pub fn full(self) -> Option<Self> {
        Self::new(self.kind, self.index, TILE_WIDTH)
    }

    /// Index of the log's first entry that this tile speaks of.
    #[must_use]
    pub fn first_entry(self) -> u64 {
        (self.index * TILE_WIDTH as u64) << (8 * u32::from(self.kind.level()))
    }

    /// Largest file that can stand here, in bytes.
    #[must_use]
    pub fn max_bytes(self) -> usize {
        match self.kind {
            TileKind::Hashes(_) => self.width() * HASH_BYTES,
            TileKind::Entries => self.width() * (2 + MAX_ENTRY_BYTES),
        }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => write!(f, "tile/entries/")?,
        }
        let mut groups = 1;
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups += 1;
            rest /= 1000;
        }
        for group in (1..groups).rev() {
            write!(f, "x{:03}/", self.index / 1000_u64.pow(group) % 1000)?;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.is_partial() {
            write!(f, ".p/{}", self.width)
        } else {
            Ok(())
        }
    }
}

/// Text that is not the path of a tile or entry bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a tile or an entry bundle")]
pub struct TilePathError;

impl FromStr for TilePath {
    type Err = TilePathError;

    fn from_str(text: &str) -> Result<Self, TilePathError> {
        let parsed = parse_path(text).ok_or(TilePathError)?;
        // One spelling per tile: whatever would be written otherwise is not its path.
        if parsed.to_string() == text {
            Ok(parsed)
        } else {
            Err(TilePathError)
        }
    }
}

fn parse_path(text: &str) -> Option<TilePath> {
    if text.len() > MAX_PATH_BYTES {
        return None;
    }
    let (kind, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        level => TileKind::Hashes(level.parse().ok()?),
    };
    let (number, width) = match rest.split_once(".p/") {
        Some((number, width)) => (number, width.parse().ok().filter(|w| *w < TILE_WIDTH)?),
        None => (rest, TILE_WIDTH),
    };
    let mut index: u64 = 0;
    for element in number.split('/') {
        let digits = element.strip_prefix('x').unwrap_or(element);
        if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    TilePath::new(kind, index, width)
}

/// Bytes that are not a bundle of the expected entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The bytes end inside an entry, or before the last one.
    #[error("the bundle ends at byte {byte}, inside entry {position} of it")]
    Truncated {
        /// Position within the bundle of the entry that is cut.
        position: usize,
        /// Length of the bundle in bytes.
        byte: usize,
    },
    /// Bytes follow the last entry.
    #[error("the bundle goes on at byte {byte}, after its last entry")]
    ExtraBytes {
        /// Where the surplus begins.
        byte: usize,
    },
}

/// An entry was too long for a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry of {bytes} bytes is longer than the {MAX_ENTRY_BYTES} that a bundle can hold")]
pub struct EntryTooLong {
    /// Length of the entry.
    pub bytes: usize,
}

/// Appends an entry to the bytes of a bundle: its length in two big-endian bytes, then itself.
///
/// # Errors
/// [`EntryTooLong`] above [`MAX_ENTRY_BYTES`]; `bundle` is then unchanged.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), EntryTooLong> {
    let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong { bytes: entry.len() })?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The bytes of a bundle, cut into entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Where each entry lies in the bytes, its length prefix left out.
    pub entries: Vec<Range<usize>>,
    /// What was wrong after those entries, if anything was.
    pub defect: Option<BundleError>,
}

/// Cuts a bundle that should hold `width` entries; what lies before a defect is still told.
#[must_use]
pub fn split_bundle(bytes: &[u8], width: usize) -> Bundle {
    let mut entries = Vec::with_capacity(width.min(TILE_WIDTH));
    let mut at = 0;
    for position in 0..width {
        let entry = bytes.get(at..at + 2).and_then(|prefix| {
            let start = at + 2;
            let end = start + usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
            (end <= bytes.len()).then_some(start..end)
        });
        let Some(entry) = entry else {
            let defect = Some(BundleError::Truncated {
                position,
                byte: bytes.len(),
            });
            return Bundle { entries, defect };
        };
        at = entry.end;
        entries.push(entry);
    }
    let defect = (at < bytes.len()).then_some(BundleError::ExtraBytes { byte: at });
    Bundle { entries, defect }
}

/// The bytes of a tile: its hashes, one after the other.
#[must_use]
pub fn tile_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.concat()
}

/// The hashes of a tile of `width`; `None` where the length is another.
#[must_use]
pub fn tile_hashes(bytes: &[u8], width: usize) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    (rest.is_empty() && hashes.len() == width).then(|| hashes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(kind: TileKind, index: u64, width: usize) -> String {
        TilePath::new(kind, index, width)
            .expect("a possible tile")
            .to_string()
    }

    #[test]
    fn paths_are_spelt_as_the_standard_spells_them() {
        assert_eq!(
            path(TileKind::Hashes(0), 1_234_067, 256),
            "tile/0/x001/x234/067"
        );
        assert_eq!(path(TileKind::Hashes(1), 0, 17), "tile/1/000.p/17");
        assert_eq!(path(TileKind::Entries, 999, 256), "tile/entries/999");
        assert_eq!(
            path(TileKind::Entries, 1000, 255),
            "tile/entries/x001/000.p/255"
        );
    }

    #[test]
    fn a_tree_of_70000_has_the_tiles_that_the_standard_counts_for_it() {
        let in_tree = |kind, index| TilePath::in_tree(kind, index, 70_000).map(TilePath::width);
        assert_eq!(in_tree(TileKind::Hashes(0), 272), Some(256));
        assert_eq!(in_tree(TileKind::Hashes(0), 273), Some(112));
        assert_eq!(in_tree(TileKind::Hashes(0), 274), None);
        assert_eq!(in_tree(TileKind::Hashes(1), 0), Some(256));
        assert_eq!(in_tree(TileKind::Hashes(1), 1), Some(17));
        assert_eq!(in_tree(TileKind::Hashes(2), 0), Some(1));
        assert_eq!(in_tree(TileKind::Hashes(3), 0), None);
    }

    #[test]
    fn other_spellings_and_ways_out_of_the_folder_are_not_paths() {
        for text in [
            "tile/0/1234",
            "tile/0/x000/001",
            "tile/00/001",
            "tile/+1/001",
            "tile/8/000",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/+7",
            "tile/0/001.p/07",
            "tile/0/../001",
            "tile/entries/x001/x002",
            "/tile/0/001",
            "tile/0/001/",
            "tile/0/x999/x999/x999/x999/x999/x999/999",
            "",
        ] {
            assert_eq!(text.parse::<TilePath>(), Err(TilePathError), "{text:?}");
        }
    }

    #[test]
    fn an_entry_of_64_kib_is_refused_and_one_byte_less_is_held() {
        let mut bundle = Vec::new();
        assert_eq!(
            push_entry(&mut bundle, &vec![0; MAX_ENTRY_BYTES + 1]),
            Err(EntryTooLong { bytes: 65_536 })
        );
        assert!(bundle.is_empty());
        assert_eq!(push_entry(&mut bundle, &vec![0; MAX_ENTRY_BYTES]), Ok(()));
        assert_eq!(split_bundle(&bundle, 1).entries.first(), Some(&(2..65_537)));
    }

    proptest! {
        #[test]
        fn every_path_reads_back(level in 0u8..9, index in any::<u64>(), shift in 0u32..64, width in 1usize..=256) {
            let kind = if level == 8 { TileKind::Entries } else { TileKind::Hashes(level) };
            if let Some(path) = TilePath::new(kind, index >> shift, width) {
                prop_assert!(path.to_string().len() <= MAX_PATH_BYTES);
                prop_assert_eq!(path.to_string().parse(), Ok(path));
            }
        }

        #[test]
        fn any_text_parses_to_its_own_spelling_or_not_at_all(text in "tile/[0-9entris]{1,7}/[x0-9./p]{0,30}|.{0,40}") {
            if let Ok(path) = text.parse::<TilePath>() {
                prop_assert_eq!(path.to_string(), text);
            }
        }

        #[test]
        fn a_bundle_reads_back_whole(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..256)) {
            let mut bytes = Vec::new();
            for entry in &entries {
                push_entry(&mut bytes, entry)?;
            }
            let bundle = split_bundle(&bytes, entries.len());
            prop_assert_eq!(bundle.defect, None);
            let read: Vec<_> = bundle.entries.into_iter().map(|range| bytes[range].to_vec()).collect();
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn any_bytes_are_cut_within_their_bounds(bytes in prop::collection::vec(any::<u8>(), 0..600), width in 0usize..300) {
            let bundle = split_bundle(&bytes, width);
            prop_assert!(bundle.entries.iter().all(|range| range.end <= bytes.len()));
            prop_assert!(bundle.entries.len() == width || bundle.defect.is_some());
        }
    }
}
