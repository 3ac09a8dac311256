//! Entries of 1 KiB a second, appended and integrated durably into a folder, beside a file to which
//! the same entries are appended, synchronised a batch. Prints JSON lines.
//!
//! `throughput FOLDER [ENTRIES [BATCH]]` with an empty folder.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use barecount_ledger::integrate::Integrator;
use barecount_ledger::note::SigningKey;
use barecount_ledger::storage::{DirBlobs, DirCheckpoint};
use barecount_ledger::verify::verify_log;

#[expect(clippy::print_stdout, reason = "an example says what it measured")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name an empty folder")?;
    let total: usize = arguments.next().map_or(Ok(200_000), |n| n.parse())?;
    let batch: usize = arguments.next().map_or(Ok(5_000), |n| n.parse())?;
    let entries: Vec<Vec<u8>> = (0..batch)
        .map(|i| (0..1024).map(|j| (i * 31 + j * 7) as u8).collect())
        .collect();
    let (blobs, store) = (
        DirBlobs::new(&folder),
        DirCheckpoint::new(Path::new(&folder)),
    );
    let key = SigningKey::generate("example.com/log")?;
    let trusted = [key.verifier().clone()];
    let mut log = Integrator::open(&blobs, store, key, &[])?;
    let mut plain = File::create(Path::new(&folder).join("plain"))?;
    let (mut took, mut plainly) = (Vec::new(), Vec::new());
    // In turn, so that what else the disk does falls on both.
    while log.size() < total as u64 {
        let before = Instant::now();
        log.integrate(log.size(), &entries)?;
        took.push(before.elapsed());
        let before = Instant::now();
        append(&mut plain, &entries)?;
        plainly.push(before.elapsed());
    }
    let rate = |times: &[Duration]| {
        (log.size() as f64 / times.iter().sum::<Duration>().as_secs_f64()).round()
    };
    println!(
        "{{\"bench\":\"ledger\",\"case\":\"integrate\",\"entries\":{},\"batch\":{batch},\
         \"entries_per_second\":{},\"plain_entries_per_second\":{},\"wait_p99_ms\":{:.3}}}",
        log.size(),
        rate(&took),
        rate(&plainly),
        longest_waits(&took).as_secs_f64() * 1e3,
    );
    let start = Instant::now();
    let note = log.checkpoint().ok_or("a checkpoint")?.note();
    let found = verify_log(&blobs, note, &trusted, None)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{{\"bench\":\"ledger\",\"case\":\"verify\",\"valid\":{},\"entries_per_second\":{:.0}}}",
        found.valid,
        found.entries as f64 / seconds
    );
    Ok(())
}

/// What a plain log would do.
fn append(file: &mut File, entries: &[Vec<u8>]) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(entry);
    }
    file.write_all(&bytes)?;
    file.sync_data()
}

/// How long an entry waits, at the 99th percentile, that comes just when a batch begins without it:
/// for that batch, and for its own.
fn longest_waits(took: &[Duration]) -> Duration {
    let mut waits: Vec<_> = took.windows(2).map(|pair| pair[0] + pair[1]).collect();
    waits.sort();
    let p99 = (waits.len() * 99 / 100).min(waits.len().saturating_sub(1));
    waits.get(p99).copied().unwrap_or_default()
}
