//! What a store of secrets and its key are read from.

use std::{
    error::Error,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use barecount_model::text::Name;
use barecount_secrets::{KeyFile, Limits, Store};
use jiff::Timestamp;

use super::{MEMORY_BYTES, Target};

const LONGEST: usize = 64 << 10;
const TENANT: &str = "fuzz";
/// A key of 32 bytes, so that inputs are found again.
const KEY: &str = "barecount/secrets-key/v1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";

const WORDS: &[&str] = &[
    "barecount/secrets-key/v1\n",
    "barecount/secrets/v1\n",
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
    "\"tenant\":",
    "\"generation\":",
    "\"primary\":",
    "\"slots\":[",
    "\"slot\":{",
    "\"derivation\":",
    "\"argon2id\"",
    "\"memory_kib\":",
    "\"root\":",
    "\"added\":",
    "\"fuzz\"",
    "18446744073709551615",
    "-1",
    "==",
    "\n",
    "{}",
    "[]",
    "null",
];

pub(crate) const KEY_FILE: Target = Target {
    name: "secrets-key",
    seeds: || {
        let two = format!("{KEY}HwABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4=\n");
        Ok(vec![KEY.into(), two.into()])
    },
    words: WORDS,
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: |input, scratch| told(key_file(input, scratch)),
};

pub(crate) const STORE: Target = Target {
    name: "secrets-store",
    seeds: || seeds().map_err(io::Error::other),
    words: WORDS,
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: |input, scratch| told(store(input, scratch)),
};

type Answer = Result<String, Box<dyn Error + Send + Sync>>;

fn told(answer: Answer) -> String {
    answer.unwrap_or_else(|error| error.to_string())
}

/// Nobody else may read it, or it is not read at all.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    io::Write::write_all(&mut file, bytes)
}

fn key_file(input: &[u8], scratch: &Path) -> Answer {
    let path = scratch.join("key");
    write_private(&path, input)?;
    let ids = KeyFile::open(&path).and_then(|file| file.ids());
    fs::remove_file(&path)?;
    let ids = ids?;
    assert!(!ids.is_empty(), "a key file has a key");
    Ok(format!("{} keys", ids.len()))
}

fn store(input: &[u8], scratch: &Path) -> Answer {
    let folder = scratch.join("secrets");
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let key = scratch.join("key");
    write_private(&key, KEY.as_bytes())?;
    write_private(&folder.join(format!("{TENANT}.secrets")), input)?;
    let answer = opened(&folder, &key);
    fs::remove_dir_all(&folder)?;
    fs::remove_file(&key)?;
    answer
}

fn opened(folder: &Path, key: &Path) -> Answer {
    let keys = Box::new(KeyFile::open(key)?);
    let tenant = TENANT.parse::<Name>()?;
    let store = Store::open(folder, tenant, keys, Limits::default())?;
    let names = store.list()?;
    Ok(format!("{} names", names.len()))
}

/// Stores with nothing in them, and with something.
fn seeds() -> Result<Vec<Vec<u8>>, Box<dyn Error + Send + Sync>> {
    let home = tempfile::tempdir()?;
    let key = home.path().join("key");
    write_private(&key, KEY.as_bytes())?;
    let folder = home.path().join("secrets");
    let keys = Box::new(KeyFile::open(&key)?);
    let now = Timestamp::UNIX_EPOCH;
    let tenant = TENANT.parse::<Name>()?;
    let store = Store::create(&folder, tenant, keys, Limits::default(), now)?;
    let file = folder.join(format!("{TENANT}.secrets"));
    let empty = fs::read(&file)?;
    store.set(&"name".parse()?, &mut &b"a value of some length"[..], now)?;
    Ok(vec![empty, fs::read(&file)?])
}
