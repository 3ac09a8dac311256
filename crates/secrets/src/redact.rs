//! Finding secrets in what leaves the platform, and replacing them by their names.
//!
//! # What is found
//! The page `docs/secrets.md` has the table of encodings, which the test `table` keeps. In short: a
//! value as it is, its lines, the members of a JSON document; each of these in hexadecimal digits,
//! base64, base32 and as lists of numbers; and all of that percent-encoded, with backslashes, as
//! character references of HTML, with doubled quotes, in UTF-16, or broken into lines, whichever
//! characters the encoder chose to escape, and in the usual ways within each other.
//!
//! # How
//! One Aho-Corasick automaton has all patterns. It compares *folded* bytes (letters without case,
//! one for all separators), so that one pattern stands for several spellings; what it finds is
//! compared again by the rule of its kind. Text is seen in several *views*: as it is, and decoded in
//! each of the ways above. A view that has not met an escape for a while is in the same state as the
//! plain one and costs nothing, so that plain text is read once.
//!
//! # What is not found
//! Values that were compressed, encrypted, hashed, cut into parts, or written backwards, and in
//! encodings that the page does not list. Redaction is the second line: the first is that work gets
//! only what it declares.

mod decode;
mod digits;
mod needle;
mod pattern;
mod stream;
#[cfg(test)]
mod tests;
mod view;

use std::borrow::Cow;
use std::sync::Arc;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, BuildError, MatchKind, dfa::DFA};

use decode::{LISTS, READINGS, Symbol};
use pattern::{Pattern, fold};
use serde_json::Value;
pub use stream::RedactingStream;

use crate::secret::Secret;
use crate::store::MIN_VALUE_BYTES;

/// Up to this many bytes of patterns a full table of transitions is worth its memory, and the
/// milliseconds that it takes to fill before an attempt starts.
const MAX_DFA_BYTES: usize = 4 << 10;

/// The bit of the view that reads lists.
const LIST: u32 = 1 << LISTS;

/// Stands in excerpts for what was left out.
const CUT: char = '…';

/// Stands for a value whose name is not known, or would tell too much.
const NAMELESS: &str = "[redacted]";

/// Finds secrets in text. Cheap to clone.
///
/// It holds the values in its patterns for as long as it lives, and cannot overwrite them with
/// zeros afterwards; it belongs to one attempt.
#[derive(Clone)]
pub struct Redactor(Arc<Inner>);

/// Secrets that cannot be redacted. Nothing that knows them may run.
#[derive(Debug, thiserror::Error)]
pub enum RedactorError {
    /// A value is so short that it occurs in ordinary text.
    #[error("secret `{name}` has fewer than {MIN_VALUE_BYTES} bytes, and cannot be redacted")]
    TooShort {
        /// The secret.
        name: String,
    },
    /// There are too many values, or they are too long.
    #[error("there are too many secrets to be redacted")]
    TooMany(#[source] Box<BuildError>),
}

struct Inner {
    matcher: Matcher,
    patterns: Vec<Pattern>,
    names: Vec<String>,
    markers: Vec<String>,
    /// The label of what is known to be part of a value, and not of which.
    nameless: u32,
    /// Labels of those that are not looked for in their rare encodings.
    partly: Vec<u32>,
    /// For each state how many symbols of a pattern have been seen in it.
    depths: Vec<u8>,
    start: StateID,
    /// The first two symbols of each value, sorted.
    heads: Vec<[u8; 2]>,
    /// For each byte what it folds to, and above that the views, one bit each, that read it otherwise
    /// than as itself: one look for both.
    bytes: [u32; 256],
}

enum Matcher {
    Dfa(DFA),
    Nfa(NFA),
}

/// What a match of a pattern means.
#[derive(Debug, Clone, Copy)]
struct Found {
    label: u32,
    symbols: u8,
    /// The symbol before shares bits with the value.
    left: bool,
    /// The symbol behind shares bits with the value.
    right: bool,
}

impl Redactor {
    /// Looks for `secrets`, each with the name that is written in its place.
    ///
    /// # Errors
    /// [`RedactorError`].
    pub fn new<'a>(
        secrets: impl IntoIterator<Item = (&'a str, &'a Secret)>,
    ) -> Result<Self, RedactorError> {
        let secrets: Vec<_> = secrets.into_iter().collect();
        for (name, secret) in &secrets {
            if secret.expose().trim_ascii().len() < MIN_VALUE_BYTES {
                return Err(RedactorError::TooShort {
                    name: (*name).to_owned(),
                });
            }
        }
        let (patterns, partly) = pattern::of(secrets.iter().map(|(_, secret)| *secret));
        let matcher = Matcher::new(&patterns).map_err(|e| RedactorError::TooMany(Box::new(e)))?;
        let (start, depths) = match &matcher {
            Matcher::Dfa(automaton) => depths(automaton, &patterns),
            Matcher::Nfa(automaton) => depths(automaton, &patterns),
        };
        let names: Vec<_> = secrets.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut markers: Vec<_> = names.iter().map(|name| marker(name, &secrets)).collect();
        let nameless = u32::try_from(markers.len()).unwrap_or(u32::MAX);
        markers.push(untelling([NAMELESS.to_owned()], &secrets));
        let bytes = bytes(&secrets);
        let mut heads: Vec<_> = patterns.iter().filter_map(Pattern::head).collect();
        heads.sort_unstable();
        Ok(Self(Arc::new(Inner {
            matcher,
            patterns,
            names,
            markers,
            nameless,
            partly,
            depths,
            start,
            heads,
            bytes,
        })))
    }

    /// The names of secrets of which some texts are not looked for in rare encodings (see
    /// `docs/secrets.md`), since all secrets together are too long for that.
    pub fn partly(&self) -> impl Iterator<Item = &str> {
        let labels = self.0.partly.iter();
        labels.map(|label| self.0.names[*label as usize].as_str())
    }

    /// Redacts a stream, as it comes.
    pub fn stream(&self) -> RedactingStream {
        RedactingStream::new(self.clone())
    }

    /// Redacts bytes that are complete.
    pub fn redact<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut stream = self.stream();
        let mut redacted = stream.push(bytes).into_owned();
        let (rest, found) = stream.end();
        if !found {
            return Cow::Borrowed(bytes);
        }
        redacted.extend_from_slice(&rest);
        Cow::Owned(redacted)
    }

    /// Redacts a text that may have been cut, as excerpts of records are: each `…` stands where
    /// something was left out, and what stands before it may be the beginning of a value.
    pub fn redact_excerpt(&self, text: &str) -> String {
        let whole = self.redact_str(text);
        let mut parts = whole.split(CUT);
        let last = parts.next_back().unwrap_or_default();
        let mut redacted = String::with_capacity(whole.len());
        for part in parts {
            redacted.push_str(&self.redact_beginning(part));
            redacted.push(CUT);
        }
        redacted.push_str(last);
        redacted
    }

    /// Redacts a text that was cut at its end, which may be the beginning of a value.
    pub fn redact_beginning(&self, text: &str) -> String {
        let mut text = self.redact_str(text).into_owned();
        let mut stream = self.stream();
        stream.push(text.as_bytes());
        let cut = stream.beginning();
        if cut > 0 {
            let sure = text.len().saturating_sub(cut);
            text.truncate(text.floor_char_boundary(sure));
            text.push_str(NAMELESS);
        }
        text
    }

    /// Redacts every text in a JSON value, the names of members included. Numbers stay: those of
    /// evidence are the platform's own. Recursive, as the value is.
    pub fn redact_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.redact_excerpt(text),
            Value::Array(items) => {
                for item in items {
                    self.redact_json(item);
                }
            }
            Value::Object(members) => {
                let redacted = std::mem::take(members)
                    .into_iter()
                    .map(|(name, mut member)| {
                        self.redact_json(&mut member);
                        (self.redact_str(&name).into_owned(), member)
                    });
                *members = redacted.collect();
            }
            Value::Number(_) | Value::Null | Value::Bool(_) => {}
        }
    }

    /// Redacts a text that is complete: an error, a dead letter, a field of evidence. Redact the
    /// fields of a document before it is serialized, since a marker may cut an escape in two.
    pub fn redact_str<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.redact(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Not UTF-8 only if a value is not, and began or ended within a character.
            Cow::Owned(bytes) => Cow::Owned(match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            }),
        }
    }
}

impl PartialEq for Redactor {
    /// Whether one is a clone of the other.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Redactor").field(&self.0.names).finish()
    }
}

impl Inner {
    /// The views that read a byte otherwise than as itself.
    fn special(&self, byte: u8) -> u32 {
        self.bytes[usize::from(byte)] >> 8
    }

    /// The same for a byte of the stream, before which the plain view is in `state`. What separates
    /// numbers is itself, but behind another separator, or behind a digit at the end of a line, within
    /// what may be a list: ordinary text is full of it.
    #[inline]
    fn special_at(&self, text: &[u8], at: usize, state: StateID) -> u32 {
        let special = self.special(text[at]);
        if special & LIST == 0 || self.goes_on(text, at, state) {
            return special;
        }
        let ends = at > 0 && text[at - 1].is_ascii_hexdigit() && special != LIST;
        if ends && self.depths[state.as_usize()] > 0 {
            return special;
        }
        special & !LIST
    }

    /// Whether what separates numbers does so behind another that does, within what may be a list.
    #[inline(always)]
    fn goes_on(&self, text: &[u8], at: usize, state: StateID) -> bool {
        at > 0
            && self.bytes[text[at - 1] as usize] & (LIST << 8) != 0
            && (at < 2 || text[at - 2].is_ascii_hexdigit())
            && self.depths[state.as_usize()] > 1
    }

    /// Whether a value may begin within what looks like an escape, behind its sign: with two of its
    /// symbols, or with the only one that there is.
    fn begins_within(&self, escape: &[Symbol]) -> bool {
        let behind = escape.get(1..).unwrap_or_default();
        if let [only] = behind {
            let only = fold(only.byte);
            let first = self.heads.partition_point(|head| head[0] < only);
            return self.heads.get(first).is_some_and(|head| head[0] == only);
        }
        behind.windows(2).any(|pair| {
            let head = [fold(pair[0].byte), fold(pair[1].byte)];
            self.heads.binary_search(&head).is_ok()
        })
    }
}

impl Matcher {
    fn new(patterns: &[Pattern]) -> Result<Self, BuildError> {
        let bytes = || patterns.iter().map(Pattern::symbols);
        // All matches count, overlapping ones too. No prefilter: it works on whole haystacks.
        if patterns.iter().map(Pattern::len).sum::<usize>() <= MAX_DFA_BYTES {
            let mut builder = DFA::builder();
            builder.match_kind(MatchKind::Standard).prefilter(false);
            builder.build(bytes()).map(Self::Dfa)
        } else {
            let mut builder = NFA::builder();
            builder.match_kind(MatchKind::Standard).prefilter(false);
            builder.build(bytes()).map(Self::Nfa)
        }
    }
}

/// The start state, and the depth of each state in the tree of the patterns' prefixes.
fn depths<A: Automaton>(automaton: &A, patterns: &[Pattern]) -> (StateID, Vec<u8>) {
    let start = automaton
        .start_state(Anchored::No)
        .expect("an automaton is built for unanchored searches by default");
    let mut depths = vec![0; start.as_usize() + 1];
    for pattern in patterns {
        let mut state = start;
        for (index, symbol) in pattern.symbols().iter().enumerate() {
            state = automaton.next_state(Anchored::No, state, *symbol);
            if depths.len() <= state.as_usize() {
                depths.resize(state.as_usize() + 1, 0);
            }
            depths[state.as_usize()] =
                u8::try_from(index + 1).expect("a pattern is shorter than 256 symbols");
        }
    }
    (start, depths)
}

/// What is written in place of a value: its name, unless that would tell a value.
fn marker(name: &str, secrets: &[(&str, &Secret)]) -> String {
    untelling([format!("[redacted:{name}]"), NAMELESS.to_owned()], secrets)
}

/// The first of the texts that tells no value.
fn untelling(texts: impl IntoIterator<Item = String>, secrets: &[(&str, &Secret)]) -> String {
    let tells = |text: &str| {
        secrets.iter().any(|(_, secret)| {
            let value = secret.expose().trim_ascii();
            text.as_bytes()
                .windows(value.len())
                .any(|window| window == value)
        })
    };
    let telling = texts.into_iter().find(|text| !tells(text));
    telling.unwrap_or_else(|| "***".to_owned())
}

/// What [`Inner`] has of each byte.
fn bytes(secrets: &[(&str, &Secret)]) -> [u32; 256] {
    let values = || {
        secrets
            .iter()
            .flat_map(|(_, secret)| secret.expose().iter())
    };
    let mut bytes = [0; 256];
    for (byte, known) in (0..=u8::MAX).zip(&mut bytes) {
        *known = u32::from(fold(byte));
    }
    for (number, reading) in READINGS.iter().enumerate() {
        if !reading.encoding.matters_to(values().copied()) {
            continue;
        }
        for byte in reading.encoding.special() {
            bytes[usize::from(*byte)] |= 1 << (number + 8);
        }
    }
    bytes
}
