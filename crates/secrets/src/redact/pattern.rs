//! The texts in which a value is recognised. They are not overwritten with zeros after use, since
//! the automaton that is made of them cannot be either.

use std::collections::BTreeMap;

use super::Found;
use super::digits::{self, Within};
use super::needle::needles;
use crate::secret::Secret;
use crate::store::MIN_VALUE_BYTES;

/// The longest pattern, in symbols. A longer text is looked for in pieces of this length, so that
/// what a stream holds back is bounded.
pub(super) const MAX_SYMBOLS: usize = 64;

/// The most symbols of all patterns up to which another text is looked for in its rare encodings,
/// which have some 70 symbols a byte. Beyond, an automaton takes long to build.
const MAX_RARE_SYMBOLS: usize = 256 << 10;

/// From this length on, in bytes, a value is found in whatever case its letters are; a shorter one
/// would be taken for an ordinary word.
const MIN_ANY_CASE_BYTES: usize = 12;

/// When what the automaton finds is a match: it compares folded symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Compare {
    /// The same bytes, but for `+`, which forms write for a blank.
    Exactly,
    /// The same but for the case of letters, too.
    AnyCase,
    /// The same digits of base64, in either alphabet.
    Base64,
    /// Whatever folds to the same.
    Folded,
}

/// A text to be found.
pub(super) struct Pattern {
    text: Vec<u8>,
    compare: Compare,
    label: u32,
    left: bool,
    right: bool,
    /// Whether a value begins with it as it is.
    begins: bool,
}

impl Pattern {
    /// The first two symbols of a value, if it begins with this.
    pub(super) fn head(&self) -> Option<[u8; 2]> {
        let head = self.text.first_chunk::<2>()?;
        self.begins.then(|| head.map(fold))
    }

    /// What the automaton looks for.
    pub(super) fn symbols(&self) -> Vec<u8> {
        self.text.iter().map(|byte| fold(*byte)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn found(&self) -> Found {
        Found {
            label: self.label,
            symbols: u8::try_from(self.text.len()).expect("at most MAX_SYMBOLS"),
            left: self.left,
            right: self.right,
        }
    }

    /// Whether symbols that fold to the same are a match.
    pub(super) fn is_met_by(&self, mut symbols: impl Iterator<Item = u8>) -> bool {
        if self.compare == Compare::Folded {
            return true;
        }
        self.text.iter().all(|own| {
            symbols
                .next()
                .is_some_and(|byte| self.compare.of(byte) == *own)
        })
    }
}

impl Compare {
    /// What a byte is compared as.
    const fn of(self, byte: u8) -> u8 {
        match (self, byte) {
            (Self::Folded, byte) => fold(byte),
            (Self::Base64, b'+' | b'-' | b' ') => b'+',
            (Self::Base64, b'/' | b'_') => b'/',
            (_, b'+') => b' ',
            (Self::AnyCase, byte) => byte.to_ascii_lowercase(),
            (_, byte) => byte,
        }
    }
}

/// What a byte is to the automaton: letters without their case, what separates numbers as a blank,
/// and the last two digits of either alphabet of base64 as one.
pub(super) const fn fold(byte: u8) -> u8 {
    FOLDED[byte as usize]
}

const FOLDED: [u8; 256] = {
    let mut folded = [0; 256];
    let mut byte = 0;
    while byte < folded.len() {
        folded[byte] = match byte as u8 {
            b'+' | b'-' | b',' | b':' | b';' | b'\t' => b' ',
            b'_' => b'/',
            other => other.to_ascii_lowercase(),
        };
        byte += 1;
    }
    folded
};

/// Whether a byte is a digit of base64 in one of its alphabets.
pub(super) const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// All patterns of all secrets, labelled by their numbers, without duplicates; and which secrets
/// are not looked for in their rare encodings, since there is too much of them.
pub(super) fn of<'a>(secrets: impl Iterator<Item = &'a Secret>) -> (Vec<Pattern>, Vec<u32>) {
    let mut patterns = Patterns::default();
    let mut all = Vec::new();
    for (label, secret) in (0..).zip(secrets) {
        for needle in needles(secret.expose()) {
            patterns.add_common(label, &needle);
            all.push((needle.len(), label, needle));
        }
    }
    // The shortest first: as many as there is room for.
    all.sort_unstable();
    let mut left_out = Vec::new();
    for (_, label, needle) in all {
        match patterns.symbols {
            ..MAX_RARE_SYMBOLS => patterns.add_rare(label, &needle),
            _ => left_out.push(label),
        }
    }
    left_out.sort_unstable();
    left_out.dedup();
    (patterns.list, left_out)
}

#[derive(Default)]
struct Patterns {
    list: Vec<Pattern>,
    seen: BTreeMap<(Compare, Vec<u8>), usize>,
    /// Of all patterns.
    symbols: usize,
}

impl Patterns {
    /// As it is, in hexadecimal digits and in base64.
    fn add_common(&mut self, label: u32, needle: &[u8]) {
        let compare = match needle.len() {
            MIN_ANY_CASE_BYTES.. => Compare::AnyCase,
            _ => Compare::Exactly,
        };
        self.add(label, needle, compare);
        self.add(label, hex::encode(needle).as_bytes(), Compare::Folded);
        for text in digits::base64(needle) {
            self.add(label, &text, Compare::Base64);
        }
        for within in digits::within_base64(needle) {
            self.add_within(label, &within, Compare::Base64);
        }
    }

    /// What takes more patterns than it is met with.
    fn add_rare(&mut self, label: u32, needle: &[u8]) {
        for list in digits::lists(needle) {
            self.add(label, &list, Compare::Folded);
        }
        for within in digits::within_base32(needle) {
            self.add_within(label, &within, Compare::Folded);
        }
        for within in digits::within_base64_twice(needle) {
            self.add_within(label, &within, Compare::Base64);
        }
        if let Ok(text) = std::str::from_utf8(needle) {
            for order in [u16::to_le_bytes, u16::to_be_bytes] {
                let wide: Vec<u8> = text.encode_utf16().flat_map(order).collect();
                self.add(label, hex::encode(&wide).as_bytes(), Compare::Folded);
                for within in digits::within_base64(&wide) {
                    self.add_within(label, &within, Compare::Base64);
                }
            }
        }
    }

    fn add(&mut self, label: u32, text: &[u8], compare: Compare) {
        let (left, right) = (false, false);
        let digits = text.to_vec();
        self.add_within(
            label,
            &Within {
                digits,
                left,
                right,
            },
            compare,
        );
    }

    /// A digit at either end that shares its bits with the neighbour is redacted with them.
    fn add_within(&mut self, label: u32, within: &Within, compare: Compare) {
        let text = &within.digits;
        if text.len() < MIN_VALUE_BYTES {
            return;
        }
        // Each piece has a symbol in common with the next, so that what is dropped between two lines
        // lies within one; the last overlaps its neighbour by more, so that none is short.
        let pieces = (text.len() - 1).div_ceil(MAX_SYMBOLS - 1);
        for piece in 0..pieces {
            let end = (piece * (MAX_SYMBOLS - 1) + MAX_SYMBOLS).min(text.len());
            let start = end.saturating_sub(MAX_SYMBOLS);
            let (left, right) = (
                within.left && piece == 0,
                within.right && piece + 1 == pieces,
            );
            let text: Vec<u8> = text[start..end].iter().map(|b| compare.of(*b)).collect();
            self.add_piece(label, text, compare, (piece == 0, left, right));
        }
    }

    fn add_piece(
        &mut self,
        label: u32,
        text: Vec<u8>,
        compare: Compare,
        (first, left, right): (bool, bool, bool),
    ) {
        let begins = first && matches!(compare, Compare::Exactly | Compare::AnyCase);
        if let Some(same) = self.seen.get(&(compare, text.clone())) {
            let same = &mut self.list[*same];
            same.begins |= begins;
            same.left |= left;
            same.right |= right;
            return;
        }
        self.symbols += text.len();
        self.seen.insert((compare, text.clone()), self.list.len());
        self.list.push(Pattern {
            text,
            compare,
            label,
            left,
            right,
            begins,
        });
    }
}
