//! How fast streams are redacted, and secrets set, fetched and rotated. Prints JSON lines.
//! Redaction is timed by the processor's time, so that what else runs does not count.
//!
//! `throughput FOLDER` with an empty folder on the disk that is to be measured.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use barecount_secrets::{
    Argon2Cost, EmbeddedProvider, Gate, KeyFile, KeySource, Limits, Passphrase, Redactor, Scope,
    Secret, Store,
};
use futures::executor::block_on;
use jiff::{SignedDuration, Timestamp};

const MIB: usize = 1 << 20;

#[expect(clippy::print_stdout, reason = "an example says what it measured")]
fn report(line: &str) {
    println!("{line}");
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("name an empty folder")?;
    redaction()?;
    store(Path::new(&folder))?;
    stretching()
}

fn redaction() -> Result<(), Box<dyn Error>> {
    let token = |seed: usize, length: usize| {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut state = seed as u64 + 1;
        let value: Vec<u8> = (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                digits[(state >> 58) as usize]
            })
            .collect();
        Secret::new(&value)
    };
    let few: Vec<_> = (0..5).map(|seed| token(seed, 40)).collect();
    let large: Vec<_> = (0..20).map(|seed| token(seed, 2000)).collect();
    let plain = "2026-11-21T19:40:16.123Z INFO  poll: fetched page 17 of 200 in 83 ms, 1000 rows\n";
    let json = "{\"ts\":\"2026-11-21T19:40:16Z\",\"msg\":\"GET \\/v1\\/orders?page=17&x=%7B%22a%22%7D \\\"ok\\\"\"}\n";
    for (case, secrets) in [
        ("5 secrets of 40 bytes", &few),
        ("20 secrets of 2000 bytes", &large),
    ] {
        let before = Instant::now();
        let redactor = Redactor::new(secrets.iter().map(|secret| ("name", secret)))?;
        let build = before.elapsed().as_secs_f64() * 1e3;
        for (text, line) in [("plain", plain), ("escaped", json)] {
            let block = line.repeat(64 * 1024 / line.len());
            let mut taken = 0;
            let before = processor_time()?;
            let mut stream = redactor.stream();
            while taken < 256 * MIB && processor_time()? < before + Duration::from_secs(1) {
                black_box(stream.push(block.as_bytes()));
                taken += block.len();
            }
            black_box(stream.finish());
            let rate = taken as f64 / 1e6 / (processor_time()? - before).as_secs_f64();
            report(&format!(
                "{{\"bench\":\"redaction\",\"case\":\"{case}\",\"text\":\"{text}\",\
                 \"mb_per_processor_second\":{rate:.0},\"build_ms\":{build:.1}}}"
            ));
        }
    }
    Ok(())
}

/// How long this thread has run (proc_pid_schedstat(5), the first number).
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    let numbers = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = numbers.split(' ').next().ok_or("a number")?;
    Ok(Duration::from_nanos(first.parse()?))
}

fn store(folder: &Path) -> Result<(), Box<dyn Error>> {
    let now = Timestamp::UNIX_EPOCH;
    let key = KeyFile::create(folder.join("key"))?;
    let keys = Box::new(key.clone());
    let store = Store::create(
        &folder.join("store"),
        "acme".parse()?,
        keys,
        Limits::default(),
        now,
    )?;
    let mut sets = Vec::new();
    for number in 0..200 {
        let before = Instant::now();
        store.set(&format!("s{number}").parse()?, &mut &[7u8; 64][..], now)?;
        sets.push(before.elapsed());
    }
    key.add()?;
    let before = Instant::now();
    let rotation = store.rotate(now)?;
    let rotated = before.elapsed();
    let scope = Scope {
        tenant: "acme".parse()?,
        pipeline: "bench".parse()?,
        stage: "bench".parse()?,
        run: "run_00000000000000000000000000000001".parse()?,
        attempt: 1,
        declared: ["s7".parse()?].into(),
        lasts: SignedDuration::from_mins(5),
    };
    let gate = Gate::new(EmbeddedProvider::new(store), Mutex::new(Vec::new()));
    let mut fetches = Vec::new();
    for _ in 0..20_000 {
        let before = Instant::now();
        black_box(block_on(gate.fetch(&"s7".parse()?, &scope, now))?);
        fetches.push(before.elapsed());
    }
    for (case, times) in [("set", &mut sets), ("fetch", &mut fetches)] {
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
        report(&format!(
            "{{\"bench\":\"secrets\",\"case\":\"{case}\",\"secrets\":200,\"p50_us\":{:.1},\"p99_us\":{:.1}}}",
            at(50),
            at(99)
        ));
    }
    report(&format!(
        "{{\"bench\":\"secrets\",\"case\":\"rotate\",\"versions\":{},\"ms\":{:.1}}}",
        rotation.rewrapped,
        rotated.as_secs_f64() * 1e3
    ));
    Ok(())
}

fn stretching() -> Result<(), Box<dyn Error>> {
    let phrase = Secret::new(b"correct horse battery staple");
    let source = Passphrase::new(phrase, Vec::new(), Argon2Cost::RECOMMENDED)?;
    let before = Instant::now();
    black_box(source.current(&[])?);
    let stretched = before.elapsed().as_secs_f64() * 1e3;
    report(&format!(
        "{{\"bench\":\"secrets\",\"case\":\"stretch a passphrase\",\"ms\":{stretched:.0}}}"
    ));
    Ok(())
}
