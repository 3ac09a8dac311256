//! Another implementation, in another language and written from the standards alone, verifies
//! what this crate exports.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use barecount_ledger::export::export;
use barecount_ledger::integrate::Integrator;
use barecount_ledger::note::{SigningKey, VerifierKey};
use barecount_ledger::storage::memory::{MemoryBlobs, MemoryCheckpoint};

/// Runs the verifier; without `python3` this is an error, so that the test fails.
fn verify(folder: &Path, key: &VerifierKey) -> std::io::Result<Output> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/verify_export.py");
    Command::new("python3")
        .arg(script)
        .arg(folder)
        .arg(key.to_string())
        .output()
}

#[test]
fn an_independent_verifier_accepts_an_export_and_refuses_a_changed_one()
-> Result<(), Box<dyn Error>> {
    for size in [0_usize, 1, 256, 700, 65_600] {
        let entries: Vec<Vec<u8>> = (0..size).map(|i| vec![i as u8; i % 90]).collect();
        let (blobs, store) = (MemoryBlobs::new(), MemoryCheckpoint::new());
        let key = SigningKey::generate("example.com/log")?;
        let verifier = key.verifier().clone();
        let mut log = Integrator::open(&blobs, &store, key, &[])?;
        log.integrate(0, &entries[..size / 3])?;
        let signed = log.integrate(size as u64 / 3, &entries[size / 3..])?;
        let folder = tempfile::tempdir()?;
        export(&blobs, &signed, folder.path())?;

        let accepted = verify(folder.path(), &verifier)?;
        let mut expected = format!("{size} ");
        for byte in signed.checkpoint().root {
            write!(expected, "{byte:02x}")?;
        }
        let said = String::from_utf8(accepted.stderr)?;
        assert!(accepted.status.success(), "size {size}: {said}");
        assert_eq!(String::from_utf8(accepted.stdout)?.trim_end(), expected);

        // A character of the root hash, in the text that was signed.
        let checkpoint = folder.path().join("checkpoint");
        let mut note = std::fs::read(&checkpoint)?;
        let at = "example.com/log\n".len() + size.to_string().len() + 5;
        note[at] = if note[at] == b'A' { b'B' } else { b'A' };
        std::fs::write(&checkpoint, note)?;
        let refused = verify(folder.path(), &verifier)?;
        assert_eq!(
            String::from_utf8(refused.stderr)?.trim_end(),
            "bad signature"
        );
    }
    Ok(())
}
