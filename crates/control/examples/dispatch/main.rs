//! Measures how fast runs that do nothing are dispatched: submitted over a Unix socket, carried
//! through every state, and answered once the end is durable with its evidence. Prints JSON lines.
//!
//! `cargo run --release -p barecount-control --example dispatch [FOLDER [RUNS [QUEUED,…]]]` works in a new
//! folder beneath `FOLDER`, whose file system is what is measured. Clients and control plane share
//! a process, and so the machine; the ledger is integrated meanwhile, as it is in a real run.

mod client;
mod cost;
mod queue;
mod service;

use std::{
    error::Error,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use barecount_control::store::{OpenError, Sealing, lock::FolderLock};
use barecount_model::seal::SealKey;
use serde_json::{Value, json};

use client::{Load, run_load};
use cost::Cost;
use service::Service;

/// A folder that this process has to itself, and what seals its journal.
fn held(folder: &Path) -> Result<(FolderLock, Sealing), OpenError> {
    let sealing = Sealing::new(SealKey::new([7; 32].into()), 0);
    Ok((FolderLock::take(folder)?, sealing))
}

type Failure = Box<dyn Error + Send + Sync>;

const RUNS: usize = 20_000;
const IN_FLIGHT: usize = 128;
/// Runs in one call, where calls are batched.
const BATCH: usize = 100;
/// Of one in flight, a sample is taken so often: one durable run takes several synchronisations.
const SAMPLES: usize = 500;
/// Tasks that wait, in states of their own.
const QUEUED: [usize; 2] = [1_000, 1_000_000];
/// A page, as the store's log grows by.
const PAGE: [u8; 4096] = [7; 4096];

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if let [_, open, state, tasks] = &std::env::args().collect::<Vec<_>>()[..]
        && open == queue::OPEN
    {
        return runtime.block_on(queue::opened(Path::new(state), tasks));
    }
    let parent = arguments.next().map_or(PathBuf::from("."), PathBuf::from);
    let runs = arguments.next().map_or(Ok(RUNS), |text| text.parse())?;
    let queued: Vec<usize> = match arguments.next() {
        None => QUEUED.to_vec(),
        Some(sizes) => sizes
            .split_terminator(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?,
    };
    let folder = tempfile::tempdir_in(parent)?;
    runtime.block_on(async {
        measure(folder.path(), runs).await?;
        queue::measure(folder.path(), &queued).await
    })
}

async fn measure(folder: &Path, runs: usize) -> Result<(), Failure> {
    print(&description(folder));
    let service = Service::start(folder).await?;
    let socket = service.socket();
    let warm_up = Load::new("warm-up", IN_FLIGHT, 1, runs / 10);
    run_load(socket, &warm_up).await?;

    one_in_flight(folder, socket, SAMPLES.min(runs)).await?;
    let single = Load::new("single", IN_FLIGHT, 1, runs);
    throughput(socket, "128 in flight, one call each", &single).await?;
    let batched = Load::new("batched", IN_FLIGHT / 16, BATCH, runs);
    throughput(socket, "batches of 100, 8 in flight", &batched).await?;

    let answered = Instant::now();
    let entries = service.integrated().await?;
    print(&json!({
        "bench": "dispatch", "case": "ledger", "entries": entries,
        "integrated_ms_after_the_last_answer": millis(answered.elapsed()),
    }));
    queue::questions(&folder.join("state"), runs)
}

/// What is done for each run, in the words that peers of the benchmark are described in.
fn description(folder: &Path) -> Value {
    json!({
        "bench": "dispatch", "about": "BareCount Runners",
        "each_run": {
            "called": "over a Unix socket; control plane and callers share a process, and a stand-in \
                       for a runner succeeds at once",
            "durable": "the run with its plan before it is launched, and its end with its evidence \
                        before the caller is answered",
            "durable_writes": "two appends to the journal, each synchronised together with those of \
                               other runs; the tables and the ledger's tiles follow",
            "delivery": "one run per token; an attempt that fails is repeated, and one outcome counts",
            "fencing": "the owner's epoch in each append, the attempt's number in each report",
            "evidence": "entries of an append-only log, which a signed checkpoint covers soon after",
            "authorisation": "policies are asked for each run; the answer to an equal question is \
                              remembered",
        },
        "settings": { "journal": "SQLite, WAL, synchronous=FULL", "folder": folder },
    })
}

/// Turn by turn with a synchronised write of a page to the same file system.
async fn one_in_flight(folder: &Path, socket: &Path, count: usize) -> Result<(), Failure> {
    let mut file = File::create(folder.join("fdatasync"))?;
    let mut client = client::Client::connect(socket).await?;
    let (mut took, mut synced) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for number in 0..count {
        let begun = Instant::now();
        client.call(&[format!("alone-{number}")]).await?;
        took.push(begun.elapsed());
        let begun = Instant::now();
        file.write_all(&PAGE)?;
        file.sync_data()?;
        synced.push(begun.elapsed());
    }
    print(&json!({
        "bench": "dispatch", "case": "one in flight", "runs": count,
        "p50_ms": millis(quantile(&mut took, 0.5)), "p99_ms": millis(quantile(&mut took, 0.99)),
        "fdatasync_p50_ms": millis(quantile(&mut synced, 0.5)),
        "fdatasync_p99_ms": millis(quantile(&mut synced, 0.99)),
    }));
    Ok(())
}

async fn throughput(socket: &Path, case: &str, load: &Load) -> Result<(), Failure> {
    let (begun, before) = (Instant::now(), Cost::now()?);
    let mut calls = run_load(socket, load).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let cost = Cost::now()?.since(&before);
    let runs = calls.len() * load.batch;
    let per_run = |total: f64| (total / runs as f64 * 10.0).round() / 10.0;
    print(&json!({
        "bench": "dispatch", "case": case, "runs": runs,
        "runs_per_second": (runs as f64 / seconds).round(),
        "call_p50_ms": millis(quantile(&mut calls, 0.5)),
        "call_p99_ms": millis(quantile(&mut calls, 0.99)),
        "cpu_us_per_run": per_run(cost.cpu_us), "writer_us_per_run": per_run(cost.writer_us),
        "written_bytes_per_run": per_run(cost.written_bytes),
    }));
    Ok(())
}

fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let index = (times.len().saturating_sub(1) as f64 * part) as usize;
    times.get(index).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]
fn print(line: &Value) {
    println!("{line}");
}
