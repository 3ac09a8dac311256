//! What this process has used, as the kernel counts it: unlike a rate, it is the same on a busy
//! machine.

use std::fs;

use crate::Failure;

/// A tick of the processor times that the kernel tells.
const TICK_US: f64 = 10_000.0;

/// The writer's thread, by as much of its name as the kernel keeps.
const WRITER: &str = "control-writer";

pub(crate) struct Cost {
    /// Processor time of all threads, clients and ledger included, in microseconds.
    pub(crate) cpu_us: f64,
    /// That of the journal's one writer.
    pub(crate) writer_us: f64,
    /// Bytes that went to storage: journal, its checkpoints, and the ledger's tiles.
    pub(crate) written_bytes: f64,
}

impl Cost {
    pub(crate) fn now() -> Result<Self, Failure> {
        let mut writer_us = 0.0;
        for thread in fs::read_dir("/proc/self/task")? {
            let thread = thread?.path();
            if fs::read_to_string(thread.join("comm"))?.trim() == WRITER {
                writer_us += cpu_us(&fs::read_to_string(thread.join("stat"))?)?;
            }
        }
        let io = fs::read_to_string("/proc/self/io")?;
        let written = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(Self {
            cpu_us: cpu_us(&fs::read_to_string("/proc/self/stat")?)?,
            writer_us,
            written_bytes: written
                .ok_or("the kernel tells what was written")?
                .parse()?,
        })
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu_us: self.cpu_us - before.cpu_us,
            writer_us: self.writer_us - before.writer_us,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

/// Of a `stat` file: what follows the name, which may hold anything, begins with the third field.
fn cpu_us(stat: &str) -> Result<f64, Failure> {
    let (_, fields) = stat
        .rsplit_once(") ")
        .ok_or("a stat file names its process")?;
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: Vec<f64> = ticks.map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() * TICK_US)
}
