//! What an attempt under test does, as data that a payload reads.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Below the input folder, the file that every launch under test finds there.
pub const INPUT_FILE: &str = "rates/part-0.csv";
/// What is in it.
pub const INPUT_CONTENTS: &str = "date,currency,rate\n2026-11-20,USD,1.0857\n";

/// What [`Behaviour::IgnoreStop`] prints once it ignores.
pub const IGNORING: &str = "ignoring";

/// What an attempt under test does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Nothing, well.
    Succeed,
    /// Exits with this status, without an answer.
    Exit(i32),
    /// Ends itself by this signal.
    Signal(i32),
    /// Goes on until it is asked to stop.
    Hang,
    /// Goes on, whatever it is asked, and prints [`IGNORING`] as soon as that is so.
    IgnoreStop,
    /// Uses more memory than it has.
    UseMemory,
    /// Prints this many bytes, half on each of its two streams, and succeeds.
    Print(u64),
    /// Adds the line to a file of this name in its output folder, and succeeds.
    Append(String),
    /// Puts this text into a file `state` in its checkpoint folder, and succeeds.
    Checkpoint(String),
    /// Succeeds if the input is there and cannot be changed in any way.
    KeepInput,
    /// Uses the processor for this many milliseconds, and succeeds.
    Burn(u64),
    /// Leaves a process running in the background, and succeeds.
    LeaveProcess,
    /// Leaves a file in its scratch folder, and succeeds if there was none before.
    FreshScratch,
}

/// The places as the payload sees them.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The inputs.
    pub input: &'a Path,
    /// The outputs.
    pub output: &'a Path,
    /// The checkpoint.
    pub checkpoint: &'a Path,
    /// The scratch folder.
    pub scratch: &'a Path,
}

/// What of a behaviour does not depend on the kind of work and needs nothing but the standard
/// library. `Exit`, `Signal`, `Hang` and `IgnoreStop` are the payload's own business.
///
/// # Errors
/// The behaviour could not be carried out, or what it was to find is not so.
pub fn behave(behaviour: &Behaviour, seen: Seen<'_>) -> io::Result<()> {
    match behaviour {
        Behaviour::Append(name) => OpenOptions::new()
            .append(true)
            .create(true)
            .open(seen.output.join(name))?
            .write_all(b"line\n"),
        Behaviour::Checkpoint(text) => fs_err::write(seen.checkpoint.join("state"), text),
        Behaviour::Print(bytes) => print(*bytes),
        Behaviour::KeepInput => keep_input(seen.input),
        Behaviour::Burn(millis) => {
            burn(Duration::from_millis(*millis));
            Ok(())
        }
        Behaviour::UseMemory => {
            use_memory();
            Err(io::Error::other("used all the memory and still lives"))
        }
        Behaviour::FreshScratch => fs_err::File::create_new(seen.scratch.join("mark")).map(drop),
        _ => Ok(()),
    }
}

fn print(bytes: u64) -> io::Result<()> {
    let chunk = [b'x'; 64 * 1024];
    let half = bytes / 2;
    let streams: [(u64, &mut dyn Write); 2] = [
        (half, &mut io::stdout().lock()),
        (bytes - half, &mut io::stderr().lock()),
    ];
    for (mut left, stream) in streams {
        while left > 0 {
            let size = left.min(chunk.len() as u64);
            let part = usize::try_from(size).map_or(chunk.as_slice(), |size| &chunk[..size]);
            stream.write_all(part)?;
            left -= size;
        }
        stream.flush()?;
    }
    Ok(())
}

fn keep_input(input: &Path) -> io::Result<()> {
    let file = input.join(INPUT_FILE);
    if fs_err::read_to_string(&file)? != INPUT_CONTENTS {
        return Err(io::Error::other("the input is not what was put there"));
    }
    let mode = fs_err::metadata(&file)?.permissions();
    let attempts = [
        OpenOptions::new().append(true).open(&file).map(drop),
        fs_err::write(input.join("new"), ""),
        fs_err::remove_file(&file),
        fs_err::rename(&file, input.join("other")),
        fs_err::set_permissions(&file, mode),
        fs_err::remove_dir_all(input.join("rates")),
    ];
    match attempts.iter().position(Result::is_ok) {
        Some(which) => Err(io::Error::other(format!(
            "attempt {which} to change the input went through"
        ))),
        None => Ok(()),
    }
}

fn burn(duration: Duration) {
    let start = Instant::now();
    let mut number = 1u64;
    while start.elapsed() < duration {
        for _ in 0..1000 {
            number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005) + 1);
        }
    }
}

fn use_memory() {
    // Bounded all the same, should no limit hold: 4 GiB.
    let mut held = Vec::new();
    for _ in 0..4096 {
        held.push(vec![1u8; 1 << 20]);
        std::hint::black_box(&held);
    }
}
