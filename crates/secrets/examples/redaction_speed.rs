//! How fast streams are redacted, and a passphrase is stretched. Prints JSON lines. Redaction is
//! timed by the processor's time, so that what else runs does not count.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use barecount_secrets::{Argon2Cost, KeySource, Passphrase, Redactor, Secret};

const MIB: usize = 1 << 20;

#[expect(clippy::print_stdout, reason = "an example says what it measured")]
fn report(line: &str) {
    println!("{line}");
}

fn main() -> Result<(), Box<dyn Error>> {
    redaction()?;
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
