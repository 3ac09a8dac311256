//! What it takes to set secrets, to fetch one through the gate, to mount it in memory, and to rotate
//! a store of 200, beside the reading of a plain file. Prints JSON lines.
//!
//! `fetch FOLDER` with an empty folder on the disk that is to be measured.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use barecount_model::text::Name;
use barecount_secrets::{
    Access, AccessLog, EmbeddedStores, Gate, KeyFile, Limits, MemoryFolder, NotRecorded, Reference,
    Scope, Store,
};
use futures::executor::block_on;
use jiff::{SignedDuration, Timestamp};

const SECRETS: usize = 200;
const FETCHES: usize = 20_000;
/// Of what waits for the disk.
const SYNCHRONISED: usize = 500;

#[expect(clippy::print_stdout, reason = "an example says what it measured")]
fn report(line: &str) {
    println!("{line}");
}

/// Does it so often, and reports how long it took.
fn measure(
    case: &str,
    times: usize,
    mut work: impl FnMut(usize) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut taken = Vec::with_capacity(times);
    for number in 0..times {
        let before = Instant::now();
        work(number)?;
        taken.push(before.elapsed());
    }
    taken.sort_unstable();
    let at = |part: usize| micros(taken[(taken.len() - 1) * part / 100]);
    report(&format!(
        "{{\"bench\":\"secrets\",\"case\":\"{case}\",\"secrets\":{SECRETS},\"p50_us\":{:.1},\"p99_us\":{:.1}}}",
        at(50),
        at(99)
    ));
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A record as an agent keeps it: on the disk before a value is given.
struct Record(Mutex<File>);

#[async_trait]
impl AccessLog for Record {
    async fn record(&self, access: &Access) -> Result<(), NotRecorded> {
        let mut line = serde_json::to_vec(access).map_err(|error| NotRecorded(Box::new(error)))?;
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)
            .and_then(|()| file.sync_data())
            .map_err(|error| NotRecorded(Box::new(error)))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("name an empty folder")?;
    let folder = Path::new(&folder);
    let (tenant, now): (Name, _) = ("acme".parse()?, Timestamp::UNIX_EPOCH);
    let key = KeyFile::create(folder.join("key"))?;
    let stores = folder.join("store");
    let store = Store::create(
        &stores,
        tenant.clone(),
        Box::new(key.clone()),
        Limits::default(),
        now,
    )?;
    measure("set", SECRETS, |number| {
        store.set(&format!("s{number}").parse()?, &mut &[7u8; 64][..], now)?;
        Ok(())
    })?;
    key.add()?;
    let before = Instant::now();
    let rotation = store.rotate(now)?;
    report(&format!(
        "{{\"bench\":\"secrets\",\"case\":\"rotate\",\"versions\":{},\"ms\":{:.1}}}",
        rotation.rewrapped,
        micros(before.elapsed()) / 1e3
    ));
    fetches(folder, &stores, key, tenant, now)
}

fn fetches(
    folder: &Path,
    stores: &Path,
    key: KeyFile,
    tenant: Name,
    now: Timestamp,
) -> Result<(), Box<dyn Error>> {
    let plain = folder.join("plain");
    std::fs::write(&plain, [7u8; 64])?;
    measure("plain file", FETCHES, |_| {
        black_box(std::fs::read(&plain)?);
        Ok(())
    })?;
    let wanted: Reference = "s7".parse()?;
    let scope = Scope {
        tenant,
        pipeline: "bench".parse()?,
        stage: "bench".parse()?,
        run: "run_00000000000000000000000000000001".parse()?,
        attempt: 1,
        declared: [wanted.clone()].into(),
        lasts: SignedDuration::from_mins(5),
    };
    let provider = Arc::new(EmbeddedStores::new(stores, Arc::new(key)));
    let gate = Gate::new(provider.clone(), Mutex::new(Vec::new()));
    measure("fetch", FETCHES, |_| {
        black_box(block_on(gate.fetch(&wanted, &scope, now))?);
        Ok(())
    })?;
    let memory = MemoryFolder::new(
        Path::new("/dev/shm"),
        &format!("barecount-bench-{}", std::process::id()),
    );
    let name: Name = "token".parse()?;
    measure("fetch and mount", FETCHES, |number| {
        let lease = block_on(gate.fetch(&wanted, &scope, now))?;
        let mounted = memory.mount(&number.to_string(), [(&name, lease.value(now)?)])?;
        Ok(mounted.remove()?)
    })?;
    memory.close()?;
    let mut file = File::create(folder.join("line"))?;
    measure("fdatasync", SYNCHRONISED, |_| {
        file.write_all(&[b'x'; 300])?;
        Ok(file.sync_data()?)
    })?;
    let record = Record(Mutex::new(File::create(folder.join("record"))?));
    let gate = Gate::new(provider, record);
    measure("recorded fetch", SYNCHRONISED, |_| {
        black_box(block_on(gate.fetch(&wanted, &scope, now))?);
        Ok(())
    })
}
