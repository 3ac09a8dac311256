//! Whatever bytes arrive, reading a document ends with a value or with diagnostics.

use barecount_model::diagnostic::{self, Diagnostic};
use barecount_model::environment::Environment;
use barecount_model::lock::Lock;
use barecount_model::pipeline;
use proptest::prelude::*;

const MANIFEST: &str = include_str!("../../../examples/fx-rates/pipeline.yaml");
const ENVIRONMENT: &str = include_str!("../../../examples/fx-rates/environments/local.yaml");

/// Reads bytes in every way there is, and checks what holds of all diagnostics.
fn read(bytes: &[u8]) {
    let source = String::from_utf8_lossy(bytes);
    let check = |diagnostics: &[Diagnostic]| {
        assert!(!diagnostics.is_empty(), "a failure says why");
        for diagnostic in diagnostics {
            assert!(barecount_model::codes::find(diagnostic.code).is_some());
            assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
            assert!(
                !diagnostic.message.raw().contains('\n'),
                "{}",
                diagnostic.message
            );
            let schema_gap = diagnostic.message.raw().contains("does not fit its schema");
            assert!(!schema_gap, "{}\n{source}", diagnostic.message);
        }
        let text = diagnostic::render(diagnostics, &source);
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
    };
    if let Err(diagnostics) = pipeline::load("m.yaml", bytes) {
        assert!(diagnostic::has_errors(&diagnostics));
        check(&diagnostics);
    }
    if let Err(diagnostics) = Environment::load("e.yaml", bytes) {
        check(&diagnostics);
    }
    if let Err(diagnostics) = Lock::parse("pipeline.lock", bytes) {
        check(&diagnostics);
    }
}

/// What a mistake, or someone who means ill, might put into a document.
const NOISE: &[&str] = &[
    "",
    "null",
    "~",
    "[]",
    "{}",
    "-1",
    "1e400",
    ".nan",
    "*a",
    "&a",
    "!!str",
    "? ",
    "- ",
    ": ",
    "\t",
    "\u{feff}",
    "\u{0}",
    "\"",
    "'",
    "|",
    ">",
    "---\n",
    "...\n",
    "custom",
    "xlarge",
    "*",
    "own",
    "9999999999999999999",
    "../..",
    "/",
    "decimal(99,99)",
    "0s",
    "366d",
    "999999999TiB",
    "*/59 0-23/5 31 2 7",
    "container",
    "files",
    "%",
    "@",
    "`",
    "{{",
    "[[[[[[",
    "]",
    "}",
    "#",
];

/// A valid document with some of its lines and words exchanged, doubled, cut or replaced.
fn mutated(base: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::sample::select(NOISE);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0_u8..5, noise), 1..8);
    edits.prop_map(move |edits| {
        let mut words: Vec<String> = base
            .split_inclusive([' ', '\n', ',', ':'])
            .map(str::to_owned)
            .collect();
        for (index, kind, noise) in edits {
            let at = index.index(words.len());
            match kind {
                0 => words[at] = format!("{noise} "),
                1 => words.insert(at, noise.to_owned()),
                2 => words[at].clear(),
                3 => words.truncate(at.max(1)),
                _ => {
                    let copy = words[at].clone();
                    words.insert(at, copy);
                }
            }
        }
        words.concat().into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read(&bytes);
    }

    #[test]
    fn any_text_of_marks_that_yaml_knows_is_read_or_refused(
        text in "[-a-c:,\\[\\]{}#&*!|>'\"%@`?~ \n\t0-9.]{0,200}"
    ) {
        read(text.as_bytes());
    }

    #[test]
    fn a_manifest_with_mistakes_is_read_or_refused(bytes in mutated(MANIFEST)) {
        read(&bytes);
    }

    #[test]
    fn an_environment_with_mistakes_is_read_or_refused(bytes in mutated(ENVIRONMENT)) {
        read(&bytes);
    }
}

#[test]
fn documents_made_to_cost_time_are_refused_in_little_of_it() {
    let floods = [
        "[".repeat(1 << 20),
        "- ".repeat(1 << 19),
        "a:\n".repeat(1 << 18),
        "{a: ".repeat(40) + &"&a x, ".repeat(1 << 17),
        "? ".repeat(1 << 19),
        format!("a: {}", "\"".repeat((1 << 20) - 4)),
        format!("{{{}", "a: 1, ".repeat(1 << 17)),
        "a: |\n".to_owned() + &" x\n".repeat(1 << 18),
        "!".repeat(1 << 20),
        "%TAG ! x\n".repeat(1 << 16),
        (0..100_000).map(|n| format!("k{n}: 1\n")).collect(),
        "#".repeat(1 << 20),
        "a ".repeat(1 << 19),
    ];
    for flood in floods {
        let start = std::time::Instant::now();
        read(flood.as_bytes());
        let spent = start.elapsed();
        let shown: String = flood.chars().take(12).collect();
        // generous, for a busy machine: what is quadratic here takes minutes
        assert!(spent.as_secs() < 20, "{shown:?} took {spent:?}");
    }
}
