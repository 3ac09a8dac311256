//! The process that runs one target's inputs.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{corpus::Corpus, mutation::mutate, targets::Target};

/// In the file of the current input, its number comes first.
pub(crate) const NUMBER_BYTES: usize = 8;

/// Where targets unpack: memory, where there is such a folder, as most of it is thrown away at once.
fn scratch() -> io::Result<tempfile::TempDir> {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
}

/// Gives the target one input.
pub(crate) fn once(target: &Target, input: &[u8]) -> io::Result<String> {
    let scratch = scratch()?;
    Ok((target.run)(input, scratch.path()))
}

/// Gives the target its seeds, and then mutations until the time is up. Each input is in the file
/// `current` before the target sees it.
#[expect(clippy::print_stdout, reason = "the starting process reads it")]
pub(crate) fn run(target: &Target, seed: u64, time: Duration, current: &Path) -> io::Result<()> {
    // An allocation beyond it aborts the process, which is what is looked for.
    let limit = Rlimit {
        current: Some(target.memory_bytes),
        maximum: Some(target.memory_bytes),
    };
    setrlimit(Resource::As, limit)?;
    let scratch = scratch()?;
    let file = OpenOptions::new().write(true).open(current)?;
    let mut random = StdRng::seed_from_u64(seed);
    let seeds = (target.seeds)()?;
    let mut corpus = Corpus::new(seeds.clone());
    let mut number = 0;
    for input in &seeds {
        let answer = one(target, number, input, &file, scratch.path())?;
        corpus.learn(input, &answer);
        number += 1;
    }
    let end = Instant::now() + time;
    while Instant::now() < end {
        let input = mutate(&corpus, target.words, target.longest, &mut random);
        let answer = one(target, number, &input, &file, scratch.path())?;
        corpus.learn(&input, &answer);
        number += 1;
    }
    println!("{number} inputs, {} kinds of answer", corpus.kinds());
    Ok(())
}

fn one(
    target: &Target,
    number: u64,
    input: &[u8],
    current: &File,
    scratch: &Path,
) -> io::Result<String> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend_from_slice(input);
    current.write_all_at(&bytes, 0)?;
    current.set_len(bytes.len() as u64)?;
    Ok((target.run)(input, scratch))
}
