use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::export::{ExportError, export};
use crate::integrate::Integrator;
use crate::note::{Note, SigningKey};
use crate::storage::memory::{MemoryBlobs, MemoryCheckpoint};
use crate::storage::{Blob, DirCheckpoint};
use crate::tile::{TileKind, TilePath};
use proptest::prelude::*;

mod bytes;

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn key() -> SigningKey {
    SigningKey::from_seed("example.com/log", &[9; 32]).expect("a fit name")
}

fn trusted() -> Vec<VerifierKey> {
    vec![key().verifier().clone()]
}

fn entry(index: u64) -> Vec<u8> {
    format!("{index}{}", &"abcde"[..index as usize % 6]).into_bytes()
}

/// A log of these entries, exported, with the checkpoints at some sizes on the way.
struct Exported {
    folder: tempfile::TempDir,
    checkpoints: BTreeMap<u64, Vec<u8>>,
}

impl Exported {
    fn of(entries: &[Vec<u8>], stops: &[u64]) -> Result<Self, Box<dyn std::error::Error>> {
        let (blobs, store) = (MemoryBlobs::new(), MemoryCheckpoint::new());
        let mut log = Integrator::open(&blobs, &store, key(), &[])?;
        let mut checkpoints = BTreeMap::new();
        let mut from = 0;
        let mut last = log.integrate(0, &entries[..0])?;
        for &to in stops.iter().chain([&(entries.len() as u64)]) {
            last = log.integrate(from, &entries[from as usize..to as usize])?;
            checkpoints.insert(to, last.note().to_vec());
            from = to;
        }
        let folder = tempfile::tempdir()?;
        export(&blobs, &last, folder.path())?;
        Ok(Self {
            folder,
            checkpoints,
        })
    }

    fn of_size(size: u64) -> Result<Self, Box<dyn std::error::Error>> {
        Self::of(&(0..size).map(entry).collect::<Vec<_>>(), &[])
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn verify(&self) -> Result<Verification, VerifyError> {
        verify_dir(self.folder.path(), &trusted(), None)
    }

    fn problems(&self) -> Result<Vec<String>, VerifyError> {
        Ok(self
            .verify()?
            .problems
            .iter()
            .map(ToString::to_string)
            .collect())
    }

    fn since(&self, note: &[u8]) -> Result<Vec<ProblemKind>, VerifyError> {
        let found = verify_dir(self.folder.path(), &trusted(), Some(note))?;
        Ok(found
            .problems
            .into_iter()
            .map(|problem| problem.kind)
            .collect())
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> TestResult {
        let mut bytes = fs::read(self.path(file))?;
        change(&mut bytes);
        Ok(fs::write(self.path(file), bytes)?)
    }

    /// All files, relative.
    fn files(&self) -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for item in fs::read_dir(folder)? {
                let path = item?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(self.folder.path())?.display().to_string());
                }
            }
        }
        files.sort();
        Ok(files)
    }
}

#[test]
fn an_export_has_the_files_of_the_standard_and_verifies() -> TestResult {
    let log = Exported::of_size(600)?;
    assert_eq!(
        log.files()?,
        [
            "checkpoint",
            "key.vkey",
            "tile/0/000",
            "tile/0/001",
            "tile/0/002.p/88",
            "tile/1/000.p/2",
            "tile/entries/000",
            "tile/entries/001",
            "tile/entries/002.p/88",
        ]
    );
    let found = log.verify()?;
    assert_eq!(found.problems, []);
    assert!(found.valid && !found.gave_up);
    assert_eq!((found.entries, found.tree_size), (600, Some(600)));
    Ok(())
}

#[test]
fn logs_of_every_shape_verify() -> TestResult {
    for size in [
        0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_793,
    ] {
        let log = Exported::of_size(size)?;
        let found = log.verify()?;
        assert_eq!(
            (found.problems, found.entries, found.valid),
            (vec![], size, true),
            "{size}"
        );
    }
    Ok(())
}

#[test]
fn a_changed_entry_is_told_from_a_changed_hash() -> TestResult {
    let log = Exported::of_size(600)?;
    let offset: usize = (256..300).map(|i| 2 + entry(i).len()).sum();
    log.change("tile/entries/001", |bytes| bytes[offset + 2] ^= 1)?;
    log.change("tile/0/000", |bytes| bytes[7 * 32 + 3] ^= 1)?;
    assert_eq!(
        log.problems()?,
        [
            "tile/0/000, byte 227, entry 7: the tile was changed: what lies below it leads to \
             the signed root, this hash does not"
                .to_owned(),
            format!(
                "tile/entries/001, byte {offset}, entry 300: the entry was changed: it does not \
                 match the leaf hash that was signed"
            ),
        ]
    );
    assert_eq!(log.verify()?.entries, 599);
    Ok(())
}

#[test]
fn an_entry_and_another_ones_hash_in_the_same_tile_are_told_apart() -> TestResult {
    let log = Exported::of_size(300)?;
    log.change("tile/entries/000", |bytes| bytes[2] ^= 1)?;
    log.change("tile/0/000", |bytes| bytes[9 * 32] ^= 1)?;
    let places: Vec<_> = log
        .verify()?
        .problems
        .into_iter()
        .map(|p| (p.file, p.entry, p.kind))
        .collect();
    assert_eq!(
        places,
        [
            ("tile/0/000".to_owned(), Some(9), ProblemKind::TileChanged),
            (
                "tile/entries/000".to_owned(),
                Some(0),
                ProblemKind::EntryChanged
            ),
        ]
    );
    Ok(())
}

#[test]
fn an_entry_forged_together_with_its_hashes_is_still_found() -> TestResult {
    let mut entries: Vec<_> = (0..600).map(entry).collect();
    entries[300] = b"forged".to_vec();
    let (log, forged) = (Exported::of_size(600)?, Exported::of(&entries, &[])?);
    for file in ["tile/entries/001", "tile/0/001"] {
        fs::copy(forged.path(file), log.path(file))?;
    }
    let found = log.verify()?;
    assert_eq!(found.problems[0].file, "tile/0/001");
    assert_eq!(found.problems[0].kind, ProblemKind::TileUnproved);
    assert_eq!(found.entries, 344);
    fs::copy(forged.path("tile/1/000.p/2"), log.path("tile/1/000.p/2"))?;
    let found = log.verify()?;
    assert_eq!(found.problems[0].kind, ProblemKind::OtherRoot);
    assert_eq!(found.entries, 0);
    Ok(())
}

#[test]
fn missing_files_are_named_and_what_can_be_proved_without_them_is() -> TestResult {
    for file in Exported::of_size(600)?.files()? {
        let log = Exported::of_size(600)?;
        fs::remove_file(log.path(&file))?;
        let found = log.verify()?;
        assert_eq!(found.problems.len(), 1, "{file}: {:?}", found.problems);
        assert_eq!((&found.problems[0].file, found.valid), (&file, false));
        if file.starts_with("tile/") && !file.contains("entries") {
            assert_eq!(found.problems[0].kind, ProblemKind::Missing, "{file}");
            assert_eq!(
                found.entries, 600,
                "without {file}, the entries make the root"
            );
        }
    }
    Ok(())
}

#[test]
fn a_log_cut_short_is_not_whole_whatever_is_taken() -> TestResult {
    let log = Exported::of_size(600)?;
    fs::remove_dir_all(log.path("tile"))?;
    let found = log.verify()?;
    assert!(
        found
            .problems
            .iter()
            .all(|p| p.kind == ProblemKind::Missing)
    );
    assert_eq!((found.problems.len(), found.entries), (7, 0));
    Ok(())
}

#[test]
fn left_over_partial_tiles_are_held_against_the_wider_ones() -> TestResult {
    let log = Exported::of_size(600)?;
    let leftovers = [
        ("tile/0/000", "tile/0/000.p/9", 9 * 32),
        ("tile/0/002.p/88", "tile/0/002.p/40", 40 * 32),
        (
            "tile/entries/000",
            "tile/entries/000.p/3",
            (0..3).map(|i| 2 + entry(i).len()).sum(),
        ),
    ];
    for (from, to, length) in leftovers {
        fs::create_dir_all(log.path(to).parent().ok_or("a parent")?)?;
        fs::write(log.path(to), &fs::read(log.path(from))?[..length])?;
    }
    assert_eq!(log.problems()?, Vec::<String>::new());
    for (from, to, length) in leftovers {
        log.change(to, |bytes| bytes[length - 1] ^= 1)?;
        let found = log.verify()?;
        assert_eq!(found.problems.len(), 1);
        assert_eq!(found.problems[0].file, to);
        let (byte, kind) = if to.contains("entries") {
            (length - 2 - entry(2).len(), ProblemKind::EntryChanged)
        } else {
            (
                length - 1,
                ProblemKind::PartialDiffers {
                    wider: from.to_owned(),
                },
            )
        };
        assert_eq!(
            (found.problems[0].byte, &found.problems[0].kind),
            (Some(byte as u64), &kind)
        );
        log.change(to, |bytes| bytes.truncate(length - 1))?;
        assert_eq!(log.verify()?.problems.len(), 1);
        fs::remove_file(log.path(to))?;
    }
    Ok(())
}

#[test]
fn files_that_do_not_belong_to_the_log_are_named() -> TestResult {
    let log = Exported::of_size(300)?;
    fs::create_dir_all(log.path("tile/0/x001"))?;
    for file in [
        "notes.txt",
        "tile/0/002",
        "tile/0/001.p/45",
        "tile/9",
        "tile/0/x001/0",
    ] {
        fs::write(log.path(file), "x")?;
    }
    std::os::unix::fs::symlink("/", log.path("tile/root"))?;
    let found = log.verify()?;
    let names: Vec<_> = found
        .problems
        .iter()
        .map(|problem| &*problem.file)
        .collect();
    assert_eq!(
        names,
        [
            "notes.txt",
            "tile/0/001.p/45",
            "tile/0/002",
            "tile/0/x001/0",
            "tile/9",
            "tile/root"
        ]
    );
    Ok(())
}

#[test]
fn links_in_place_of_files_are_not_followed() -> TestResult {
    let log = Exported::of_size(300)?;
    for file in ["checkpoint", "key.vkey", "tile/0/000", "tile/entries/000"] {
        let elsewhere = Exported::of_size(300)?;
        fs::remove_file(log.path(file))?;
        std::os::unix::fs::symlink(elsewhere.path(file), log.path(file))?;
        let found = log.verify()?;
        assert!(
            !found.valid && found.problems.iter().any(|p| p.file == file),
            "{file}"
        );
        fs::remove_file(log.path(file))?;
        fs::copy(elsewhere.path(file), log.path(file))?;
    }
    Ok(())
}

#[test]
fn only_given_keys_are_trusted() -> TestResult {
    let log = Exported::of_size(3)?;
    assert!(matches!(
        verify_dir(log.folder.path(), &[], None),
        Err(VerifyError::NoKeys)
    ));
    let other = SigningKey::from_seed("example.com/log", &[1; 32])?;
    let found = verify_dir(log.folder.path(), &[other.verifier().clone()], None)?;
    assert!(!found.valid && found.tree_size.is_none());
    assert!(matches!(
        &found.problems[0].kind,
        ProblemKind::Checkpoint(CheckpointError::Signature(_))
    ));
    assert!(matches!(
        &found.problems[1].kind,
        ProblemKind::UntrustedKey { .. }
    ));
    let both = [key().verifier().clone(), other.verifier().clone()];
    fs::write(log.path("key.vkey"), format!("{}\n", other.verifier()))?;
    let found = verify_dir(log.folder.path(), &both, None)?;
    assert!(matches!(
        &found.problems[..],
        [Problem {
            kind: ProblemKind::OtherKey { .. },
            ..
        }]
    ));
    Ok(())
}

#[test]
fn a_checkpoint_for_another_origin_is_refused() -> TestResult {
    let log = Exported::of_size(3)?;
    let text = Note::parse(&fs::read(log.path("checkpoint"))?)?
        .text()
        .to_owned();
    let mut note = Note::new(text.replace("example.com/log", "example.com/other"))?;
    note.sign(&key());
    fs::write(log.path("checkpoint"), note.to_bytes())?;
    assert!(matches!(
        &log.verify()?.problems[..],
        [Problem {
            kind: ProblemKind::Checkpoint(CheckpointError::Origin { .. }),
            ..
        }]
    ));
    Ok(())
}

#[test]
fn a_log_that_only_grew_agrees_with_every_checkpoint_before() -> TestResult {
    let entries: Vec<_> = (0..900).map(entry).collect();
    let log = Exported::of(&entries, &[0, 1, 255, 256, 257, 512, 700])?;
    for (size, note) in &log.checkpoints {
        assert_eq!(log.since(note)?, [], "since {size}");
    }
    Ok(())
}

#[test]
fn what_the_keys_holder_took_back_is_found_against_a_checkpoint_from_before() -> TestResult {
    let entries: Vec<_> = (0..900).map(entry).collect();
    let before = Exported::of(&entries, &[300, 600])?;
    let (at_300, at_600) = (&before.checkpoints[&300], &before.checkpoints[&600]);

    let cut = Exported::of(&entries[..500], &[])?;
    assert!(cut.verify()?.valid);
    assert_eq!(
        cut.since(at_600)?,
        [ProblemKind::RolledBack {
            before: 600,
            now: 500
        }]
    );
    assert_eq!(cut.since(at_300)?, []);

    for changed in [0, 299, 300, 599] {
        let mut rewritten = entries.clone();
        rewritten[changed].push(b'!');
        let log = Exported::of(&rewritten, &[])?;
        assert!(log.verify()?.valid, "the key's holder signed it");
        assert_eq!(log.since(at_600)?, [ProblemKind::Rewritten { size: 600 }]);
        let expected: &[ProblemKind] = if changed < 300 {
            &[ProblemKind::Rewritten { size: 300 }]
        } else {
            &[]
        };
        assert_eq!(log.since(at_300)?, expected);
        let forked = Exported::of(&rewritten[..600], &[])?;
        assert_eq!(forked.since(at_600)?, [ProblemKind::Forked { size: 600 }]);
    }
    Ok(())
}

#[test]
fn a_damaged_tile_is_not_taken_for_a_rewritten_history() -> TestResult {
    let entries: Vec<_> = (0..900).map(entry).collect();
    let log = Exported::of(&entries, &[600])?;
    log.change("tile/0/002", |bytes| bytes[5] ^= 1)?;
    assert_eq!(
        log.since(&log.checkpoints[&600])?,
        [ProblemKind::TileChanged]
    );
    log.change("tile/entries/002", |bytes| bytes.truncate(100))?;
    let kinds = log.since(&log.checkpoints[&600])?;
    assert_eq!(
        kinds.last(),
        Some(&ProblemKind::HistoryUnproved { size: 600 })
    );
    Ok(())
}

#[test]
fn a_checkpoint_from_before_that_nobody_trusted_signed_is_an_error_of_its_own() -> TestResult {
    let log = Exported::of_size(3)?;
    for since in [&b"nonsense"[..], b""] {
        let refused = verify_dir(log.folder.path(), &trusted(), Some(since));
        assert!(matches!(refused, Err(VerifyError::Since(_))));
    }
    Ok(())
}

#[test]
fn a_size_that_was_signed_but_never_written_ends_the_search_in_time() -> TestResult {
    let log = Exported::of_size(300)?;
    let size = crate::tree::MAX_TREE_SIZE;
    let signed = SignedCheckpoint::sign(size, [3; 32], &key())?;
    fs::write(log.path("checkpoint"), signed.note())?;
    let found = log.verify()?;
    assert!(!found.valid && found.gave_up);
    assert_eq!(found.problems.len(), MAX_PROBLEMS);
    Ok(())
}

#[test]
fn a_log_is_verified_where_it_is_kept_too() -> TestResult {
    let folder = tempfile::tempdir()?;
    let blobs = DirBlobs::new(folder.path());
    let mut log = Integrator::open(&blobs, DirCheckpoint::new(folder.path()), key(), &[])?;
    let entries: Vec<_> = (0..400).map(entry).collect();
    let first = log.integrate(0, &entries[..100])?;
    let last = log.integrate(100, &entries[100..])?;
    let found = verify_log(&blobs, last.note(), &trusted(), Some(first.note()))?;
    assert_eq!((found.valid, found.entries), (true, 400));
    Ok(())
}

#[test]
fn an_export_takes_nothing_but_an_empty_place_and_leaves_nothing_behind_when_it_fails() -> TestResult
{
    let blobs = MemoryBlobs::new();
    let store = MemoryCheckpoint::new();
    let mut log = Integrator::open(&blobs, &store, key(), &[])?;
    let entries: Vec<_> = (0..300).map(entry).collect();
    let signed = log.integrate(0, &entries)?;
    let place = tempfile::tempdir()?;
    fs::write(place.path().join("mine"), "")?;
    let refused = export(&blobs, &signed, place.path());
    assert!(matches!(refused, Err(ExportError::Occupied { .. })));
    let path = TilePath::new(TileKind::Entries, 0, 256).ok_or("a path")?;
    let bytes = blobs.get(path)?.ok_or("a bundle")?;
    blobs.tamper(path, None);
    assert!(export(&blobs, &signed, &place.path().join("log")).is_err());
    assert_eq!(fs::read_dir(place.path())?.count(), 1);
    blobs.put_all(&[Blob { path, bytes }])?;
    export(&blobs, &signed, &place.path().join("log"))?;
    assert!(verify_dir(&place.path().join("log"), &trusted(), None)?.valid);
    Ok(())
}

#[test]
fn what_is_beside_the_log_in_an_export_is_looked_at_unless_its_caller_does() -> TestResult {
    let log = Exported::of_size(3)?;
    fs::create_dir(log.path("details"))?;
    fs::write(log.path("details/mine"), "")?;
    assert_eq!(
        log.problems()?,
        ["details/mine: does not belong to the log"]
    );
    let verify = || verify_dir_beside(log.folder.path(), &trusted(), None, &["details"]);
    assert!(verify()?.valid);
    fs::create_dir(log.path("tile/details"))?;
    fs::write(log.path("tile/details/other"), "")?;
    assert!(!verify()?.valid, "only in the folder itself");
    Ok(())
}

#[test]
fn an_export_of_an_older_checkpoint_finds_its_partial_tiles_in_the_full_ones() -> TestResult {
    let (blobs, store) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    let mut log = Integrator::open(&blobs, &store, key(), &[])?;
    let entries: Vec<_> = (0..600).map(entry).collect();
    let older = log.integrate(0, &entries[..100])?;
    log.integrate(100, &entries[100..])?;
    let place = tempfile::tempdir()?;
    export(&blobs, &older, place.path())?;
    assert_eq!(verify_dir(place.path(), &trusted(), None)?.entries, 100);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_damage_to_any_files_is_found(
        size in 1u64..700,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8.., 0u8..4), 1..4),
    ) {
        let log = Exported::of_size(size).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let files = log.files().map_err(|e| TestCaseError::fail(e.to_string()))?;
        let before: Vec<_> = files.iter().map(|f| fs::read(log.path(f)).ok()).collect();
        for (file, at, mask, how) in damage {
            let path = log.path(&files[file.index(files.len())]);
            let Ok(mut bytes) = fs::read(&path) else { continue };
            let at = at.index(bytes.len().max(1));
            match how {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, mask),
                2 => { fs::remove_file(&path)?; continue }
                _ => if let Some(byte) = bytes.get_mut(at) { *byte ^= mask },
            }
            fs::write(&path, bytes)?;
        }
        let found = log.verify()?;
        for (file, before) in files.iter().zip(before) {
            if fs::read(log.path(file)).ok() == before { continue }
            prop_assert!(!found.valid);
            let doubted = found.tree_size.is_none() || found.problems.iter().any(|p| p.file == *file
                || matches!(p.kind, ProblemKind::TileUnproved | ProblemKind::BelowUnproved | ProblemKind::Disagrees { .. }));
            prop_assert!(doubted, "{} was changed: {:?}", file, found.problems);
        }
    }
}
