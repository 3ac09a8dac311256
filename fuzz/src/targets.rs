//! What is fuzzed.

mod archives;
mod documents;
mod ledger;
mod network;
mod rows;
mod secrets;
mod sections;
mod selftest;

use std::{io, path::Path};

/// A reader of foreign input.
pub(crate) struct Target {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Inputs to begin with.
    pub(crate) seeds: fn() -> io::Result<Vec<Vec<u8>>>,
    /// Words of its format.
    pub(crate) words: &'static [&'static str],
    /// The longest input, in bytes.
    pub(crate) longest: usize,
    /// Address space of its process.
    pub(crate) memory_bytes: u64,
    /// Reads an input, with an empty folder to work in that it leaves empty. Answers in a few words;
    /// panics if what must hold does not.
    pub(crate) run: fn(&[u8], &Path) -> String,
}

const MEMORY_BYTES: u64 = 1 << 30;

const TARGETS: &[&Target] = &[
    &documents::MANIFEST,
    &documents::ENVIRONMENT,
    &documents::LOCK,
    &archives::PACKAGE,
    &archives::IMAGE,
    &archives::DRIVER,
    &ledger::NOTE,
    &ledger::TILE,
    &ledger::EXPORT,
    &rows::CSV,
    &rows::NDJSON,
    &rows::PARQUET,
    &rows::ARROW,
    &network::REFUSALS,
    &network::CLIENT_HELLO,
    &network::HTTP_REQUESTS,
    &network::DNS_QUERY,
    &network::DNS_ANSWER,
    &network::PROXY_ANSWER,
    &secrets::KEY_FILE,
    &secrets::STORE,
];

/// No such target.
#[derive(Debug, thiserror::Error)]
#[error("there is no target `{name}`; there are {}", known())]
pub(crate) struct UnknownTarget {
    name: String,
}

fn known() -> String {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    names.join(", ")
}

/// The targets of those names; all, if there are none.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Target>, UnknownTarget> {
    if names.is_empty() {
        return Ok(TARGETS.to_vec());
    }
    let find = |name: &String| {
        let mut all = TARGETS.iter().chain(selftest::TARGETS);
        let found = all.find(|target| target.name == name);
        found
            .copied()
            .ok_or_else(|| UnknownTarget { name: name.clone() })
    };
    names.iter().map(find).collect()
}
