//! What a verifier reads: notes, checkpoints, keys, tiles, bundles, and whole exports.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use barecount_ledger::{
    checkpoint::{Checkpoint, SignedCheckpoint},
    export::{CHECKPOINT_FILE, KEY_FILE, export},
    integrate::Integrator,
    note::{Note, SigningKey, VerifierKey},
    storage::memory::{MemoryBlobs, MemoryCheckpoint},
    tile::{TilePath, split_bundle, tile_bytes, tile_hashes},
    verify::verify_dir,
};

use super::{MEMORY_BYTES, Target, sections};

const LONGEST: usize = 64 << 10;
const ENTRIES: usize = 300;

const WORDS: &[&str] = &[
    "\n\n",
    "— ",
    "\u{2014} example.com/fuzz ",
    "=== ",
    "example.com/fuzz\n",
    "+",
    "PRIVATE+KEY+",
    "tile/entries/",
    "tile/0/x001/000.p/1",
    ".p/255",
    "checkpoint",
    "key.vkey",
    "AAAA",
    "==",
];

pub(crate) const NOTE: Target = Target {
    name: "ledger-note",
    seeds: || {
        let (key, checkpoint, _) = log()?;
        let text = String::from_utf8_lossy(&checkpoint).into_owned();
        let body = text.split("\n\n").next().unwrap_or_default();
        Ok(vec![
            checkpoint,
            format!("{body}\n").into_bytes(),
            key.verifier().to_string().into_bytes(),
            key.encode().as_bytes().to_vec(),
        ])
    },
    words: WORDS,
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: note,
};

fn note(input: &[u8], _: &Path) -> String {
    let mut answer = String::new();
    match Note::parse(input) {
        Ok(note) => {
            assert_eq!(note.to_bytes(), input, "a note has one spelling");
            let _ = write!(answer, "note; ");
        }
        Err(error) => {
            let _ = write!(answer, "{error}; ");
        }
    }
    if let Ok(key) = key() {
        match SignedCheckpoint::open(input, &[key.verifier().clone()]) {
            Ok(signed) => {
                // Whoever has no key cannot make another.
                let (size, expected) = (signed.checkpoint().size, ENTRIES as u64);
                assert_eq!(size, expected, "a forged checkpoint");
                let _ = write!(answer, "checkpoint; ");
            }
            Err(error) => {
                let _ = write!(answer, "{error}; ");
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = match Checkpoint::parse(text) {
            Ok(_) => write!(answer, "checkpoint text; "),
            Err(error) => write!(answer, "{error}; "),
        };
        let _ = match text.parse::<VerifierKey>() {
            Ok(key) => {
                assert_eq!(key.to_string(), text, "a key has one spelling");
                write!(answer, "verifier key; ")
            }
            Err(error) => write!(answer, "{error}; "),
        };
        let _ = match SigningKey::parse(text) {
            Ok(_) => write!(answer, "signing key"),
            Err(error) => write!(answer, "{error}"),
        };
    }
    answer
}

pub(crate) const TILE: Target = Target {
    name: "ledger-tile",
    seeds: || {
        let (_, _, files) = log()?;
        let mut seeds: Vec<_> = files
            .iter()
            .map(|(path, _)| path.clone().into_bytes())
            .collect();
        seeds.extend(files.into_iter().map(|(_, bytes)| bytes));
        Ok(seeds)
    },
    words: WORDS,
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: tile,
};

fn tile(input: &[u8], _: &Path) -> String {
    let mut answer = String::new();
    if let Some(path) = std::str::from_utf8(input).ok().map(str::parse::<TilePath>) {
        let _ = match path {
            Ok(path) => {
                assert_eq!(
                    path.to_string().as_bytes(),
                    input,
                    "a path has one spelling"
                );
                write!(answer, "path; ")
            }
            Err(error) => write!(answer, "{error}; "),
        };
    }
    for width in [0, 1, 44, 256, usize::MAX] {
        if width <= 256
            && let Some(hashes) = tile_hashes(input, width)
        {
            assert_eq!(tile_bytes(&hashes), input);
            let _ = write!(answer, "tile; ");
        }
        let bundle = split_bundle(input, width);
        assert!(bundle.entries.len() <= width);
        assert!(bundle.entries.iter().all(|entry| entry.end <= input.len()));
        match bundle.defect {
            None => assert_eq!(bundle.entries.len(), width),
            Some(defect) => {
                let _ = write!(answer, "{defect}; ");
            }
        }
    }
    answer
}

pub(crate) const EXPORT: Target = Target {
    name: "ledger-export",
    seeds: || {
        let (_, _, files) = log()?;
        let files = files
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
        Ok(vec![sections::join(files)])
    },
    words: WORDS,
    longest: 2 * LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: exported,
};

fn exported(input: &[u8], scratch: &Path) -> String {
    let (Ok(key), Ok((_, _, original))) = (key(), log()) else {
        panic!("the log is made in memory");
    };
    let folder = scratch.join("export");
    let files = sections::split(input);
    for (path, bytes) in &files {
        let path = Path::new(path);
        let plain = path
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        let path = folder.join(path);
        // Names that no file can have, or that are folders already, are left out.
        if plain && fs::create_dir_all(path.parent().unwrap_or(&folder)).is_ok() {
            let _ = fs::write(path, bytes);
        }
    }
    let answer = match verify_dir(&folder, &[key.verifier().clone()], None) {
        Ok(verification) if verification.valid => {
            let unchanged = original.iter().all(|(path, bytes)| {
                fs::read(folder.join(path)).is_ok_and(|found| found == *bytes)
            });
            assert!(unchanged, "a changed log verifies");
            "valid".to_owned()
        }
        Ok(verification) => {
            let problems = verification.problems.iter().take(2);
            problems
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        }
        Err(error) => error.to_string(),
    };
    let _ = fs::remove_dir_all(&folder);
    answer
}

fn key() -> io::Result<SigningKey> {
    SigningKey::from_seed("example.com/fuzz", &[7; 32]).map_err(io::Error::other)
}

type Files = Vec<(String, Vec<u8>)>;

/// A log of its own, always the same: the key, the checkpoint's note, and the files of its export.
fn log() -> io::Result<(SigningKey, Vec<u8>, Files)> {
    thread_local! {
        static LOG: io::Result<(Vec<u8>, Files)> = make_log();
    }
    let (note, files) = LOG.with(|log| match log {
        Ok(log) => Ok(log.clone()),
        Err(error) => Err(io::Error::other(error.to_string())),
    })?;
    Ok((key()?, note, files))
}

fn make_log() -> io::Result<(Vec<u8>, Files)> {
    let (blobs, store) = (MemoryBlobs::new(), MemoryCheckpoint::new());
    let mut log = Integrator::open(&blobs, &store, key()?, &[]).map_err(io::Error::other)?;
    let entries: Vec<Vec<u8>> = (0..ENTRIES)
        .map(|index| vec![index as u8; index % 7])
        .collect();
    let signed = log.integrate(0, &entries).map_err(io::Error::other)?;
    let folder = tempfile::tempdir()?;
    export(&blobs, &signed, folder.path()).map_err(io::Error::other)?;
    let mut files = Vec::new();
    read_all(folder.path(), &PathBuf::new(), &mut files)?;
    let rank = |path: &str| (path != CHECKPOINT_FILE, path != KEY_FILE);
    files.sort_by(|(one, _), (other, _)| (rank(one), one).cmp(&(rank(other), other)));
    Ok((signed.note().to_vec(), files))
}

fn read_all(root: &Path, below: &Path, files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            read_all(root, &path, files)?;
        } else {
            files.push((path.display().to_string(), fs::read(entry.path())?));
        }
    }
    Ok(())
}
