use std::collections::BTreeMap;

use super::*;
use crate::proof::{InvalidProof, verify_consistency, verify_inclusion};
use crate::storage::memory::{Fault, MemoryBlobs, MemoryCheckpoint};
use crate::storage::{DirBlobs, DirCheckpoint};
use crate::tree::{Frontier, empty_root};
use proptest::prelude::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn key() -> SigningKey {
    SigningKey::from_seed("example.com/log", &[9; 32]).expect("a fit name")
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index} {}", "x".repeat(index as usize % 7)).into_bytes()
}

fn entries(from: u64, to: u64) -> Vec<Vec<u8>> {
    (from..to).map(entry).collect()
}

/// The root that a log of these first entries must have, computed apart.
fn expected_root(size: u64) -> Hash {
    let mut frontier = Frontier::new();
    (0..size).for_each(|i| frontier.push(leaf_hash(&entry(i)), |_| {}));
    frontier.root()
}

type MemoryLog<'a> = Integrator<&'a MemoryBlobs, &'a MemoryCheckpoint>;

fn open<'a>(
    blobs: &'a MemoryBlobs,
    checkpoints: &'a MemoryCheckpoint,
) -> Result<MemoryLog<'a>, IntegrateError> {
    Integrator::open(blobs, checkpoints, key(), &[])
}

#[test]
fn a_log_begins_with_the_checkpoint_of_nothing() -> TestResult {
    let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    let signed = open(&blobs, &checkpoints)?.integrate(0, &entries(0, 0))?;
    assert_eq!(
        (signed.checkpoint().size, signed.checkpoint().root),
        (0, empty_root())
    );
    assert_eq!(open(&blobs, &checkpoints)?.checkpoint(), Some(&signed));
    Ok(())
}

#[test]
fn the_same_sequence_makes_the_same_log_however_it_is_cut() -> TestResult {
    let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    let whole = open(&blobs, &checkpoints)?.integrate(0, &entries(0, 1_000))?;
    let (cut_blobs, cut_checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    let mut log = open(&cut_blobs, &cut_checkpoints)?;
    for (from, to) in [
        (0, 1),
        (1, 2),
        (2, 255),
        (255, 256),
        (256, 257),
        (257, 900),
        (900, 1_000),
    ] {
        let signed = log.integrate(from, &entries(from, to))?;
        assert_eq!(signed.checkpoint().root, expected_root(to), "size {to}");
    }
    assert_eq!(log.checkpoint(), Some(&whole));
    let cut = cut_blobs.contents();
    // Smaller partial tiles of the last, still partial tile stay; all that the whole has is there.
    assert!(
        blobs
            .contents()
            .iter()
            .all(|(path, bytes)| cut.get(path) == Some(bytes))
    );
    assert!(cut.keys().all(|path| !(path.is_partial()
        && path.index() < 3
        && path.kind() != TileKind::Hashes(1))));
    Ok(())
}

#[test]
fn entries_given_again_are_accepted_and_a_changed_one_is_named() -> TestResult {
    let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    let mut log = open(&blobs, &checkpoints)?;
    log.integrate(0, &entries(0, 600))?;
    let again = log.integrate(200, &entries(200, 700))?;
    assert_eq!(again.checkpoint().root, expected_root(700));
    let mut changed = entries(100, 705);
    changed[412].push(b'!');
    assert!(matches!(
        log.integrate(100, &changed),
        Err(IntegrateError::Contradiction { index: 512 })
    ));
    assert_eq!(
        log.integrate(700, &entries(700, 705))?.checkpoint().root,
        expected_root(705)
    );
    Ok(())
}

#[test]
fn gaps_and_entries_too_long_are_refused_and_change_nothing() -> TestResult {
    let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    let mut log = open(&blobs, &checkpoints)?;
    let before = log.integrate(0, &entries(0, 10))?;
    assert!(matches!(
        log.integrate(12, &entries(12, 13)),
        Err(IntegrateError::Gap {
            first_index: 12,
            size: 10
        })
    ));
    let long = [vec![1], vec![0; MAX_ENTRY_BYTES + 1]];
    assert!(matches!(
        log.integrate(10, &long),
        Err(IntegrateError::EntryTooLong { index: 11, .. })
    ));
    assert_eq!(log.checkpoint(), Some(&before));
    assert_eq!(log.integrate(10, &entries(10, 11))?.checkpoint().size, 11);
    Ok(())
}

#[test]
fn after_every_fault_at_every_write_the_same_log_comes_out() -> TestResult {
    for fault in [
        Fault::Failed,
        Fault::FailedHalfway,
        Fault::FailedButPersisted,
    ] {
        for (in_blobs, reopen) in [(true, true), (true, false), (false, true), (false, false)] {
            for nth in 0..3 {
                let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
                let mut log = open(&blobs, &checkpoints)?;
                if in_blobs {
                    blobs.fail_after(nth, fault);
                } else {
                    checkpoints.fail_after(nth, fault);
                }
                let mut failures = 0;
                for (from, to) in [(0, 100), (100, 300), (300, 600)] {
                    if log.integrate(from, &entries(from, to)).is_err() {
                        failures += 1;
                        if reopen {
                            log = open(&blobs, &checkpoints)?;
                        }
                        // Cut elsewhere than before: the crash may have left tiles of another size.
                        let to_now = to - 30;
                        log.integrate(from, &entries(from, to_now))?;
                        log.integrate(from, &entries(from, to))?;
                    }
                }
                assert_eq!(failures, 1, "the fault struck");
                let last = log.checkpoint().ok_or("a checkpoint")?.checkpoint();
                assert_eq!((last.size, last.root), (600, expected_root(600)));
            }
        }
    }
    Ok(())
}

#[test]
fn a_database_that_lost_entries_after_their_tiles_were_written_is_told_which() -> TestResult {
    let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    let mut log = open(&blobs, &checkpoints)?;
    checkpoints.fail_after(0, Fault::Failed);
    assert!(log.integrate(0, &entries(0, 300)).is_err());
    let mut other = entries(0, 300);
    other[17] = b"another".to_vec();
    assert!(matches!(
        log.integrate(0, &other),
        Err(IntegrateError::Contradiction { index: 17 })
    ));
    Ok(())
}

#[test]
fn a_checkpoint_that_went_back_or_forked_is_not_taken() -> TestResult {
    let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    let mut log = open(&blobs, &checkpoints)?;
    let small = log.integrate(0, &entries(0, 10))?;
    log.integrate(10, &entries(10, 20))?;
    checkpoints.tamper(Some(small.note().to_vec()));
    assert!(matches!(
        log.integrate(20, &entries(20, 21)),
        Err(IntegrateError::Store(StoreError::Swapped))
    ));
    assert!(matches!(
        log.integrate(20, &entries(20, 21)),
        Err(IntegrateError::RolledBack { from: 20, to: 10 })
    ));
    checkpoints.tamper(None);
    assert!(matches!(
        log.integrate(20, &entries(20, 21)),
        Err(IntegrateError::RolledBack { from: 20, to: 0 })
    ));
    Ok(())
}

#[test]
fn a_damaged_right_edge_is_found_on_opening() -> TestResult {
    let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    open(&blobs, &checkpoints)?.integrate(0, &entries(0, 300))?;
    for (path, bytes) in blobs.contents() {
        let mut changed = bytes.clone();
        changed[5] ^= 1;
        blobs.tamper(path, Some(changed));
        // Full tiles are not read on opening; `verify` reads them.
        assert_eq!(
            open(&blobs, &checkpoints).is_err(),
            path.is_partial(),
            "{path}"
        );
        blobs.tamper(path, Some(bytes));
    }
    assert!(open(&blobs, &checkpoints).is_ok());
    Ok(())
}

#[test]
fn a_new_key_takes_over_from_a_former_one_and_from_no_other() -> TestResult {
    let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    open(&blobs, &checkpoints)?.integrate(0, &entries(0, 5))?;
    let new = || SigningKey::from_seed("example.com/log", &[10; 32]);
    assert!(matches!(
        Integrator::open(&blobs, &checkpoints, new()?, &[]),
        Err(IntegrateError::Checkpoint(_))
    ));
    let former = [key().verifier().clone()];
    let mut log = Integrator::open(&blobs, &checkpoints, new()?, &former)?;
    let signed = log.integrate(5, &entries(5, 5))?;
    assert_eq!(signed.signer(), new()?.verifier());
    assert_eq!(signed.checkpoint().root, expected_root(5));
    Ok(())
}

#[test]
fn every_proof_between_some_sizes_verifies_and_fails_when_anything_is_changed() -> TestResult {
    let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    let mut log = open(&blobs, &checkpoints)?;
    log.integrate(0, &entries(0, 777))?;
    let sizes = [1, 2, 3, 7, 8, 255, 256, 257, 300, 511, 512, 513, 776, 777];
    let roots: BTreeMap<u64, Hash> = sizes.iter().map(|s| (*s, expected_root(*s))).collect();
    for (&size, root) in &roots {
        for index in [0, 1, size / 2, size - 1] {
            if index >= size {
                continue;
            }
            let leaf = leaf_hash(&entry(index));
            let mut proof = log.inclusion_proof(index, size)?;
            assert_eq!(verify_inclusion(&leaf, index, size, &proof, root), Ok(()));
            assert!(verify_inclusion(&[0; 32], index, size, &proof, root).is_err());
            assert!(verify_inclusion(&leaf, index ^ 1, size, &proof, root).is_err() || size == 1);
            proof.push([0; 32]);
            assert!(verify_inclusion(&leaf, index, size, &proof, root).is_err());
        }
        for (&older, older_root) in roots.range(..=size) {
            let mut proof = log.consistency_proof(older, size)?;
            assert_eq!(
                verify_consistency(older, older_root, size, root, &proof),
                Ok(())
            );
            assert_eq!(
                verify_consistency(older, &[0; 32], size, root, &proof),
                Err(InvalidProof::Root)
            );
            if let Some(hash) = proof.first_mut() {
                hash[0] ^= 1;
                assert!(verify_consistency(older, older_root, size, root, &proof).is_err());
            }
        }
    }
    assert!(log.inclusion_proof(777, 777).is_err() && log.inclusion_proof(0, 778).is_err());
    assert!(log.consistency_proof(5, 4).is_err() && log.consistency_proof(5, 778).is_err());
    Ok(())
}

#[test]
fn a_log_in_a_folder_survives_reopening() -> TestResult {
    let folder = tempfile::tempdir()?;
    for (from, to) in [(0, 300), (300, 301), (301, 600)] {
        let blobs = DirBlobs::new(folder.path());
        let checkpoints = DirCheckpoint::new(folder.path());
        let mut log = Integrator::open(blobs, checkpoints, key(), &[])?;
        assert_eq!(log.size(), from);
        log.integrate(from, &entries(from, to))?;
        assert_eq!(
            log.checkpoint().ok_or("stored")?.checkpoint().root,
            expected_root(to)
        );
    }
    assert!(!folder.path().join("tile/entries/001.p").exists());
    Ok(())
}

proptest! {
    #[test]
    fn any_proof_is_refused_or_right_without_panic(
        index in any::<u64>(), size in any::<u64>(),
        proof in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        prop_assert!(verify_inclusion(&[1; 32], index, size, &proof, &[2; 32]).is_err());
        let consistent = verify_consistency(index, &[1; 32], size, &[2; 32], &proof);
        prop_assert!(consistent.is_err());
    }

    #[test]
    fn any_entry_of_any_size_is_proved(size in 1u64..600, at in any::<prop::sample::Index>(), older in any::<prop::sample::Index>()) {
        let (blobs, checkpoints) = (MemoryBlobs::new(), MemoryCheckpoint::new());
        let mut log = open(&blobs, &checkpoints)?;
        let root = log.integrate(0, &entries(0, size))?.checkpoint().root;
        let index = at.index(size as usize) as u64;
        let proof = log.inclusion_proof(index, size)?;
        prop_assert_eq!(verify_inclusion(&leaf_hash(&entry(index)), index, size, &proof, &root), Ok(()));
        let older = older.index(size as usize) as u64;
        let proof = log.consistency_proof(older, size)?;
        prop_assert_eq!(verify_consistency(older, &expected_root(older), size, &root, &proof), Ok(()));
    }
}
