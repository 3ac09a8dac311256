//! What a sandbox uses while it runs, told apart by the pieces of work that it does.

use std::os::fd::OwnedFd;

use crate::cgroup::Group;
use crate::report::{Source, Usage};

/// Reads the figures of a running sandbox, in laps: each begins where the one before ended, the
/// first with the sandbox. Reading takes some microseconds and does not block.
#[derive(Debug)]
pub struct Meter {
    group: Group,
    cpu_micros: u64,
    memory: Option<Memory>,
}

/// The highest memory use, which the kernel can be told to begin anew.
#[derive(Debug)]
struct Memory {
    peak: OwnedFd,
    /// Whether it was begun with this lap.
    current: bool,
}

impl Meter {
    /// `None` if the group measures no processor time, and so nothing that laps would tell apart.
    pub(crate) fn of(group: Group) -> Option<Self> {
        group.cpu_micros()?;
        let memory = group.memory_peak().map(|peak| Memory {
            peak,
            current: true,
        });
        Some(Self {
            group,
            cpu_micros: 0,
            memory,
        })
    }

    /// What was used in this lap; begins the next. Memory is the highest use within the lap, and
    /// absent after the first where the kernel does not begin anew (version 2 before Linux 6.12).
    /// Bytes of I/O are not told apart.
    pub fn lap(&mut self) -> Usage {
        let mut usage = Usage::default();
        if let Some(micros) = self.group.cpu_micros() {
            usage.cpu_micros = Some(micros.saturating_sub(self.cpu_micros));
            usage.cpu_source = Some(Source::ControlGroup);
            self.cpu_micros = micros;
        }
        if let Some(bytes) = self.memory.as_mut().and_then(Memory::lap) {
            usage.memory_peak_bytes = Some(bytes);
            usage.memory_source = Some(Source::ControlGroup);
        }
        usage
    }

    /// What was used in the last lap of a sandbox that has ended, having used `whole` in all.
    pub fn last(&self, whole: &Usage) -> Usage {
        let first = self.cpu_micros == 0;
        Usage {
            cpu_micros: whole
                .cpu_micros
                .map(|micros| micros.saturating_sub(self.cpu_micros)),
            cpu_source: whole.cpu_source,
            memory_peak_bytes: whole.memory_peak_bytes.filter(|_| first),
            memory_source: whole.memory_source.filter(|_| first),
            ..Usage::default()
        }
    }
}

impl Memory {
    fn lap(&mut self) -> Option<u64> {
        let mut text = [0; 32];
        let bytes = if self.current {
            let length = rustix::io::pread(&self.peak, &mut text, 0).ok()?;
            std::str::from_utf8(&text[..length])
                .ok()
                .and_then(|text| text.trim().parse().ok())
        } else {
            None
        };
        // Version 1 takes a zero. Version 2 takes anything, and from then on answers this descriptor
        // with what was highest since.
        self.current = rustix::io::pwrite(&self.peak, b"0\n", 0).is_ok();
        bytes
    }
}
