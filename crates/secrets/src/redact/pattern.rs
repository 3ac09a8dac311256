//! The texts in which a value is recognised. They are not overwritten with zeros after use, since
//! the automaton that is made of them cannot be either.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use super::Found;
use crate::secret::Secret;
use crate::store::MIN_VALUE_BYTES;

/// The longest pattern, in symbols. A longer text is looked for in pieces of this length, so that
/// what a stream holds back is bounded.
pub(super) const MAX_SYMBOLS: usize = 64;

/// The shortest line of a value that is looked for by itself, in bytes.
const MIN_LINE_BYTES: usize = 8;

/// A text to be found.
pub(super) struct Pattern {
    symbols: Vec<u8>,
    label: u32,
    left: bool,
    right: bool,
}

impl Pattern {
    pub(super) fn symbols(&self) -> &[u8] {
        &self.symbols
    }

    pub(super) fn found(&self) -> Found {
        Found {
            label: self.label,
            symbols: u8::try_from(self.symbols.len()).expect("at most MAX_SYMBOLS"),
            left: self.left,
            right: self.right,
        }
    }
}

/// What a byte is compared as: forms write a space as `+`.
pub(super) const fn fold(byte: u8) -> u8 {
    match byte {
        b'+' => b' ',
        other => other,
    }
}

/// Whether a byte is a digit of base64 in one of its alphabets.
pub(super) const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// All patterns of all secrets, labelled by their numbers, without duplicates.
pub(super) fn of<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Vec<Pattern> {
    let mut patterns = Patterns::default();
    for (label, secret) in (0..).zip(secrets) {
        for needle in needles(secret.expose()) {
            patterns.add_encodings(label, &needle);
        }
    }
    patterns.list
}

/// A value, and what of it may turn up by itself.
fn needles(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut needles = BTreeSet::new();
    let mut add = |needle: &[u8]| {
        if needle.len() >= MIN_VALUE_BYTES {
            needles.insert(needle.to_vec());
        }
    };
    add(value);
    add(value.trim_ascii());
    if value.contains(&b'\n') {
        for line in value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            // The frame of a PEM file (RFC 7468) is no secret.
            if line.len() >= MIN_LINE_BYTES && !line.starts_with(b"-----") {
                add(line);
            }
        }
    }
    if std::str::from_utf8(value).is_err() {
        // Bytes that were taken for Latin-1, as `\u00ff` in JSON.
        let text: String = value.iter().map(|byte| char::from(*byte)).collect();
        add(text.as_bytes());
    }
    needles
}

#[derive(Default)]
struct Patterns {
    list: Vec<Pattern>,
    seen: BTreeSet<Vec<u8>>,
}

impl Patterns {
    fn add_encodings(&mut self, label: u32, needle: &[u8]) {
        self.add(label, needle, false, false);
        let lower = hex::encode(needle);
        self.add(label, lower.as_bytes(), false, false);
        self.add(label, lower.to_ascii_uppercase().as_bytes(), false, false);
        for engine in [STANDARD, URL_SAFE, STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(needle);
            self.add(label, text.as_bytes(), false, false);
        }
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            for before in 0..3 {
                self.add_within(label, needle, &engine, before);
            }
        }
    }

    /// The digits of base64 that depend on the needle alone when `before` bytes, modulo three,
    /// were encoded before it and anything behind it. A digit at either end that shares its bits
    /// with the neighbour is redacted with them.
    fn add_within(&mut self, label: u32, needle: &[u8], engine: &impl Engine, before: usize) {
        let padded = [&[0; 3][..before], needle].concat();
        let text = engine.encode(&padded);
        let (first, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        let digits = &text.as_bytes()[first..end];
        self.add(label, digits, before != 0, !padded.len().is_multiple_of(3));
    }

    fn add(&mut self, label: u32, text: &[u8], left: bool, right: bool) {
        if text.len() < MIN_VALUE_BYTES {
            return;
        }
        let pieces = text.len().div_ceil(MAX_SYMBOLS);
        for piece in 0..pieces {
            // The last piece overlaps its neighbour, so that none is short.
            let end = ((piece + 1) * MAX_SYMBOLS).min(text.len());
            let start = if pieces == 1 { 0 } else { end - MAX_SYMBOLS };
            let symbols: Vec<u8> = text[start..end].iter().map(|byte| fold(*byte)).collect();
            let (left, right) = (left && piece == 0, right && piece + 1 == pieces);
            if self.seen.insert(symbols.clone()) {
                self.list.push(Pattern {
                    symbols,
                    label,
                    left,
                    right,
                });
            } else if (left || right)
                && let Some(same) = self.find(&symbols)
            {
                same.left |= left;
                same.right |= right;
            }
        }
    }

    fn find(&mut self, symbols: &[u8]) -> Option<&mut Pattern> {
        self.list
            .iter_mut()
            .find(|pattern| pattern.symbols() == symbols)
    }
}
