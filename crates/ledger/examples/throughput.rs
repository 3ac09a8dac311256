//! Entries a second, appended and integrated durably into a folder: `throughput FOLDER [ENTRIES] [BATCH]`.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use barecount_ledger::integrate::Integrator;
use barecount_ledger::note::SigningKey;
use barecount_ledger::storage::{DirBlobs, DirCheckpoint};
use barecount_ledger::verify::verify_log;

#[expect(clippy::print_stdout, reason = "an example says what it measured")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name an empty folder")?;
    let total: usize = arguments.next().map_or(Ok(200_000), |n| n.parse())?;
    let batch: usize = arguments.next().map_or(Ok(10_000), |n| n.parse())?;
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
    let start = Instant::now();
    let mut took = Vec::new();
    while log.size() < total as u64 {
        let before = Instant::now();
        log.integrate(log.size(), &entries)?;
        took.push(before.elapsed());
    }
    let seconds = start.elapsed().as_secs_f64();
    took.sort();
    let p99 = took[(took.len() * 99 / 100).min(took.len() - 1)];
    println!(
        "{:.0} entries/s of 1 KiB, {:?} a batch of {batch} at p99",
        log.size() as f64 / seconds,
        p99
    );
    let start = Instant::now();
    let note = log.checkpoint().ok_or("a checkpoint")?.note();
    let found = verify_log(&blobs, note, &trusted, None)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "verified: {}, {:.0} entries/s",
        found.valid,
        found.entries as f64 / seconds
    );
    Ok(())
}
