//! Every byte of every file of an export, changed one at a time.

use std::os::unix::fs::FileExt as _;

use super::*;

/// Sizes with every kind of right edge: a partial tile beside full ones, and a full one alone.
#[test]
fn any_flipped_byte_of_any_file_is_found_and_its_file_named() -> TestResult {
    // All bytes of the first, and a sample of the second, whose last tiles are full.
    for (size, step) in [(300, 1), (512, 29)] {
        let log = Exported::of_size(size)?;
        let first: usize = (0..5).map(|i| 2 + entry(i).len()).sum();
        for (folder, length) in [("tile/0/000", 5 * 32), ("tile/entries/000", first)] {
            let bytes = fs::read(log.path(folder))?;
            fs::create_dir_all(log.path(&format!("{folder}.p")))?;
            fs::write(log.path(&format!("{folder}.p/5")), &bytes[..length])?;
        }
        for file in log.files()? {
            let bytes = fs::read(log.path(&file))?;
            let open = fs::OpenOptions::new().write(true).open(log.path(&file))?;
            let text = !file.starts_with("tile/");
            for at in (0..bytes.len()).step_by(step) {
                // Text is tried with every bit: another case of a letter, another white space.
                let masks = if text {
                    0..8
                } else {
                    at as u32 % 8..at as u32 % 8 + 1
                };
                for mask in masks.map(|bit| 1_u8 << bit) {
                    // In place: some file systems make each rewriting of a whole file durable.
                    open.write_all_at(&[bytes[at] ^ mask], at as u64)?;
                    check(&log, &file, at, size)?;
                }
                open.write_all_at(&bytes[at..=at], at as u64)?;
            }
        }
        assert!(log.verify()?.valid, "all bytes are back");
    }
    Ok(())
}

fn check(log: &Exported, file: &str, at: usize, size: u64) -> TestResult {
    let found = log.verify()?;
    assert!(!found.valid, "{file} byte {at}");
    assert_eq!(
        found.problems[0].file, file,
        "byte {at}: {:?}",
        found.problems
    );
    assert!(
        found.problems.iter().all(|p| p.file == file),
        "byte {at}: {:?}",
        found.problems
    );
    if file.starts_with("tile/") && !file.starts_with("tile/entries/") {
        assert_eq!(found.problems[0].byte, Some(at as u64), "{file}");
        assert_eq!(
            found.entries, size,
            "{file} byte {at}: the entries are all right"
        );
    }
    if file.starts_with("tile/entries/") {
        let index: u64 = file[13..16].parse()?;
        let mut entry_at = 0;
        let changed = (index * 256..).find(|i| {
            entry_at += 2 + entry(*i).len();
            at < entry_at
        });
        assert_eq!(
            found.problems[0].entry, changed,
            "{file} byte {at}: {:?}",
            found.problems
        );
    }
    Ok(())
}
