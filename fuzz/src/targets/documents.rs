//! Manifest, environment and lock.

use std::{io, path::Path};

use barecount_model::{
    diagnostic::{self, Diagnostic},
    environment::Environment,
    lock::Lock,
    pipeline,
};

use super::{MEMORY_BYTES, Target};
use crate::corpus;

const LONGEST: usize = 64 << 10;

const WORDS: &[&str] = &[
    "apiVersion: barecount.dev/v1\n",
    "kind: Pipeline\n",
    "metadata:\n",
    "spec:\n",
    "- ",
    "? ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a ",
    "<<: *a",
    "!!str ",
    "!!binary ",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "null",
    "~",
    "true",
    "\u{feff}",
    "\u{0}",
    "\u{202e}",
    "é",
    "𝄞",
    "\"\\ud800\"",
    "\"\\x00\"",
    "# ",
    "'",
    "\"",
    "`",
    "xlarge",
    "serverless",
    "managed_etl",
    "dedicated_compute",
    "sha256:",
    "${window.start}",
    "P1D",
    "* * * * *",
    "1Gi",
    "../",
];

pub(crate) const MANIFEST: Target = Target {
    name: "manifest",
    seeds: || {
        let mut seeds = corpus::repository("examples/fx-rates", "yaml")?;
        seeds.extend(corpus::repository("crates/model/tests/wrong", "yaml")?);
        Ok(seeds)
    },
    words: WORDS,
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: |input, _: &Path| match pipeline::load("pipeline.yaml", input) {
        Ok(loaded) => format!("pipeline with {} warnings", codes(&loaded.warnings)),
        Err(diagnostics) => answer(&diagnostics, input),
    },
};

pub(crate) const ENVIRONMENT: Target = Target {
    name: "environment",
    seeds: || {
        let mut seeds = corpus::repository("examples/fx-rates/environments", "yaml")?;
        seeds.extend(corpus::seeds("environment")?);
        Ok(seeds)
    },
    words: WORDS,
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: |input, _: &Path| match Environment::load("environment.yaml", input) {
        Ok(_) => "environment".to_owned(),
        Err(diagnostics) => answer(&diagnostics, input),
    },
};

pub(crate) const LOCK: Target = Target {
    name: "lock",
    seeds: || -> io::Result<_> { corpus::seeds("lock") },
    words: WORDS,
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: |input, _: &Path| match Lock::parse("pipeline.lock", input) {
        Ok(lock) => {
            let again = Lock::parse("pipeline.lock", lock.to_json().as_bytes());
            assert_eq!(again.as_ref(), Ok(&lock), "what is written can be read");
            "lock".to_owned()
        }
        Err(diagnostics) => answer(&diagnostics, input),
    },
};

/// Checks what must hold of diagnostics, whatever they are about.
fn answer(diagnostics: &[Diagnostic], input: &[u8]) -> String {
    assert!(!diagnostics.is_empty(), "a failure says why");
    let source = String::from_utf8_lossy(input);
    for diagnostic in diagnostics {
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
        assert!(
            !diagnostic.message.raw().contains('\n'),
            "{}",
            diagnostic.message
        );
    }
    let text = diagnostic::render(diagnostics, &source);
    let printable = |character: char| character == '\n' || !character.is_control();
    assert!(text.chars().all(printable), "{text:?}");
    codes(diagnostics)
}

/// Each code once, with the first words of its first message.
fn codes(diagnostics: &[Diagnostic]) -> String {
    let mut codes: Vec<_> = diagnostics
        .iter()
        .map(|diagnostic| {
            let words: Vec<_> = diagnostic
                .message
                .raw()
                .split(['`', '"', '\''])
                .take(1)
                .collect();
            format!("{} {}", diagnostic.code, words.concat())
        })
        .collect();
    codes.sort();
    codes.dedup();
    codes.truncate(3);
    codes.join("; ")
}
