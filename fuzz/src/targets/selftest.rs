//! Targets that fail on purpose, so that a test can see that failures are found. Not among those
//! that run when none is named.

use std::{io, path::Path};

use super::Target;

pub(crate) const TARGETS: &[&Target] = &[
    &failing("selftest-panic", |_, _| panic!("as it is meant to")),
    &failing("selftest-memory", |_, _| {
        vec![1_u8; 2 << 30].len().to_string()
    }),
    &failing("selftest-hang", |_, _| {
        loop {
            std::hint::spin_loop();
        }
    }),
    &failing("selftest-stack", |input, _| deep(input.len()).to_string()),
];

const fn failing(name: &'static str, run: fn(&[u8], &Path) -> String) -> Target {
    Target {
        name,
        seeds,
        words: &[],
        longest: 16,
        memory_bytes: 1 << 30,
        run,
    }
}

fn seeds() -> io::Result<Vec<Vec<u8>>> {
    Ok(vec![b"input".to_vec()])
}

/// Never comes back for a depth above zero, in a way that the compiler does not see.
fn deep(depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    std::hint::black_box(deep(std::hint::black_box(depth + 1))) + 1
}
