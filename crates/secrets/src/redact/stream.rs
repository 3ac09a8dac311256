//! Redaction of a stream that comes in parts.

use std::borrow::Cow;
use std::cmp::Reverse;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use zeroize::{Zeroize, Zeroizing};

use super::decode::Symbol;
use super::pattern::{fold, is_base64};
use super::view::{Scan, Span, Views};
use super::{Inner, LIST, Matcher, Redactor};
use crate::store::MIN_VALUE_BYTES;

/// How many symbols of a value at the end of a whole line are taken for a value that was cut there.
const MIN_CUT_LINE: usize = 8;

/// Redacts a stream as it comes.
///
/// Held back is only what may still become part of a secret: the beginning of a value, an escape
/// that is not complete, or a letter or digit at the very end; at most 64 symbols, each of up to some
/// hundred bytes (an escape of escapes) and what stands for nothing among them. A line whose end could be the beginning of a value waits
/// for the next one, since values may be broken into lines; see [`settle`](Self::settle).
pub struct RedactingStream {
    redactor: Redactor,
    /// What was taken and not given yet.
    pending: Zeroizing<Vec<u8>>,
    /// The offset of its first byte in the stream.
    base: u64,
    /// The state after all bytes, as they are.
    state: StateID,
    /// A match at the very end, whose next byte may share bits with the value.
    open_end: Option<Span>,
    views: Views,
    found: Vec<Span>,
    /// What was redacted last, which later finds may continue.
    last: Option<Span>,
}

impl std::fmt::Debug for RedactingStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedactingStream")
            .field("redactor", &self.redactor)
            .field("offset", &self.base)
            .field("held_back", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl RedactingStream {
    pub(super) fn new(redactor: Redactor) -> Self {
        let start = redactor.0.start;
        Self {
            views: Views::new(start),
            redactor,
            pending: Zeroizing::default(),
            base: 0,
            state: start,
            open_end: None,
            found: Vec::new(),
            last: None,
        }
    }

    /// Takes the next bytes, and gives what is sure by now.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let fresh = self.pending.is_empty();
        let from = self.pending.len();
        self.pending.extend_from_slice(bytes);
        self.scan(from);
        let sure = self.sure();
        let untouched = self.found.is_empty() && self.last.is_none_or(|last| last.end <= self.base);
        if fresh && untouched && sure == self.end_offset() {
            self.drop_until(sure);
            return Cow::Borrowed(bytes);
        }
        Cow::Owned(self.give(sure))
    }

    /// Gives a last line that is complete, for a caller who has waited a while in vain for the next
    /// one: a value that was broken into lines just here, with a pause, is not found. Whatever else
    /// is held back stays so.
    pub fn settle(&mut self) -> Vec<u8> {
        if self.pending.last() == Some(&b'\n') {
            self.views.end_line();
        }
        self.give(self.sure())
    }

    /// How many bytes were taken and not given yet.
    pub fn held_back(&self) -> usize {
        self.pending.len()
    }

    /// Gives what was held back, at the end of a stream that may have been cut: the beginning of a
    /// value there is redacted, too, if it has some length.
    pub fn finish(mut self) -> Vec<u8> {
        let (end, cut) = (self.end_offset(), self.beginning() as u64);
        let start = end - cut;
        let whole = |span: &Span| span.start <= start && span.end == end;
        if cut > 0 && !self.found.iter().any(whole) {
            let label = self.redactor.0.nameless;
            self.found.push(Span { start, end, label });
        }
        self.end().0
    }

    /// How many bytes at the end may be the beginning of a value, and not of just any word.
    pub(super) fn beginning(&self) -> usize {
        let inner = &self.redactor.0;
        let least = match self.pending.last() {
            Some(b'\n') => MIN_CUT_LINE,
            _ => MIN_VALUE_BYTES,
        };
        let depth = usize::from(inner.depths[self.state.as_usize()]);
        let plain = (depth >= least).then(|| self.end_offset() - depth as u64);
        let cut = self.views.cut_since(inner, least).into_iter().chain(plain);
        cut.min().map_or(0, |start| {
            usize::try_from(self.end_offset() - start.max(self.base)).unwrap_or(usize::MAX)
        })
    }

    /// Gives what was held back, and whether anything was ever redacted.
    pub(super) fn end(mut self) -> (Vec<u8>, bool) {
        let redactor = self.redactor.clone();
        match &redactor.0.matcher {
            Matcher::Dfa(automaton) => self.finish_with(&redactor.0, automaton),
            Matcher::Nfa(automaton) => self.finish_with(&redactor.0, automaton),
        }
        let given = self.give(self.end_offset());
        (given, self.last.is_some())
    }

    fn finish_with<A: Automaton>(&mut self, inner: &Inner, automaton: &A) {
        let found = &mut self.found;
        self.views.finish(&mut Scan {
            inner,
            automaton,
            found,
        });
    }

    fn end_offset(&self) -> u64 {
        self.base + self.pending.len() as u64
    }

    fn scan(&mut self, from: usize) {
        let redactor = self.redactor.clone();
        match &redactor.0.matcher {
            Matcher::Dfa(automaton) => self.scan_with(&redactor.0, automaton, from),
            Matcher::Nfa(automaton) => self.scan_with(&redactor.0, automaton, from),
        }
    }

    fn scan_with<A: Automaton>(&mut self, inner: &Inner, automaton: &A, from: usize) {
        if let (Some(mut span), Some(byte)) = (self.open_end, self.pending.get(from)) {
            self.open_end = None;
            if is_base64(*byte) {
                span.end += 1;
                self.found.push(span);
            }
        }
        let mut index = from;
        while index < self.pending.len() {
            let special = inner.special_at(&self.pending, index, self.state);
            if !self.views.ignore(special) {
                self.step_views(inner, automaton, index, special);
                index += 1;
                continue;
            }
            let (stop, state) = plain_run(inner, automaton, self.state, (&self.pending, index));
            self.state = state;
            match stop {
                Stop::End => break,
                Stop::Special(at) => index = at,
                Stop::State(at) => {
                    self.note(inner, automaton, at);
                    index = at + 1;
                }
            }
        }
    }

    /// Takes one byte in the plain view and in those that do not agree with it.
    fn step_views<A: Automaton>(
        &mut self,
        inner: &Inner,
        automaton: &A,
        index: usize,
        special: u32,
    ) {
        // What a view needs to go on from the plain state: its prefix, and the neighbour of that.
        let depth = usize::from(inner.depths[self.state.as_usize()]);
        let (pending, base) = (&self.pending, self.base);
        let recent = index.saturating_sub(depth + 1)..index;
        let recent = recent.map(|index| plain(pending[index], base + index as u64));
        let symbol = plain(pending[index], base + index as u64);
        let mut scan = Scan {
            inner,
            automaton,
            found: &mut self.found,
        };
        self.views
            .push(&mut scan, (symbol, special), self.state, recent);
        self.state = automaton.next_state(Anchored::No, self.state, fold(symbol.byte));
        self.views.compare(inner, self.state, symbol.end);
        if automaton.is_special(self.state) {
            self.note(inner, automaton, index);
        }
    }

    /// Notes the matches that end with the byte at `index`.
    fn note<A: Automaton>(&mut self, inner: &Inner, automaton: &A, index: usize) {
        if !automaton.is_match(self.state) {
            return;
        }
        for number in 0..automaton.match_len(self.state) {
            let pattern = automaton.match_pattern(self.state, number);
            let pattern = &inner.patterns[pattern.as_usize()];
            let found = pattern.found();
            let mut first = (index + 1).saturating_sub(usize::from(found.symbols));
            if !pattern.is_met_by(self.pending[first..].iter().copied()) {
                continue;
            }
            if found.left && first > 0 && is_base64(self.pending[first - 1]) {
                first -= 1;
            }
            let mut span = Span {
                start: self.base + first as u64,
                end: self.base + index as u64 + 1,
                label: found.label,
            };
            if found.right {
                match self.pending.get(index + 1) {
                    None => self.open_end = Some(Span::earlier(self.open_end, span)),
                    Some(byte) => span.end += u64::from(is_base64(*byte)),
                }
            }
            self.found.push(span);
        }
    }

    /// The offset before which nothing can become part of a secret any more.
    fn sure(&self) -> u64 {
        let depth = usize::from(self.redactor.0.depths[self.state.as_usize()]);
        let mut sure = self.prefix_since(depth);
        if let Some(span) = self.open_end {
            sure = sure.min(span.start);
        }
        if let Some(start) = self.views.waits_since(&self.redactor.0) {
            sure = sure.min(start);
        }
        sure.max(self.base)
    }

    /// Where the last `depth` bytes begin, with the one before if it may share its bits with them.
    fn prefix_since(&self, depth: usize) -> u64 {
        let mut first = self.pending.len().saturating_sub(depth);
        if first > 0 && is_base64(self.pending[first - 1]) {
            first -= 1;
        }
        self.base + first as u64
    }

    /// Gives everything before `sure`, redacted.
    fn give(&mut self, sure: u64) -> Vec<u8> {
        let mut given = Vec::with_capacity(usize::try_from(sure - self.base).unwrap_or(0));
        // The longest of those that begin together gives its name.
        self.found
            .sort_unstable_by_key(|span| (span.start, Reverse(span.end)));
        let mut at = self.base.max(self.last.map_or(0, |last| last.end));
        for span in std::mem::take(&mut self.found) {
            if span.start >= sure {
                self.found.push(span);
                continue;
            }
            if span.start > at {
                given.extend_from_slice(self.slice(at, span.start));
            }
            let continued = self.last.is_some_and(|last| {
                span.start < last.end || span.start == last.end && span.label == last.label
            });
            match &mut self.last {
                Some(last) if continued => last.end = last.end.max(span.end),
                last => {
                    let marker = &self.redactor.0.markers[span.label as usize];
                    given.extend_from_slice(marker.as_bytes());
                    *last = Some(span);
                }
            }
            at = at.max(span.end);
        }
        if at < sure {
            given.extend_from_slice(self.slice(at, sure));
        }
        self.drop_until(sure);
        given
    }

    fn slice(&self, start: u64, end: u64) -> &[u8] {
        let index = |offset: u64| usize::try_from(offset - self.base).unwrap_or(usize::MAX);
        &self.pending[index(start)..index(end)]
    }

    fn drop_until(&mut self, offset: u64) {
        let count = usize::try_from(offset - self.base).unwrap_or(usize::MAX);
        let kept = self.pending.len() - count;
        self.pending.copy_within(count.., 0);
        self.pending[kept..].zeroize();
        self.pending.truncate(kept);
        self.base = offset;
    }
}

/// Where reading plain text stops.
enum Stop {
    /// Where the text does.
    End,
    /// Before a byte that is not only itself.
    Special(usize),
    /// Behind a byte that leads to a match.
    State(usize),
}

/// The hot loop: plain text from an offset on, one table. Where it stops, and in which state.
#[inline(never)]
fn plain_run<A: Automaton>(
    inner: &Inner,
    automaton: &A,
    mut state: StateID,
    (text, from): (&[u8], usize),
) -> (Stop, StateID) {
    const SEPARATES: u32 = LIST << 8;
    const OTHERWISE: u32 = !(0xff | SEPARATES);
    // Most of what separates numbers stands alone, and is as any other byte: looked at is the second.
    let mut before = match from.checked_sub(1) {
        Some(at) => inner.bytes[usize::from(text[at])] & SEPARATES,
        None => 0,
    };
    for (at, byte) in text[from..].iter().enumerate() {
        let known = inner.bytes[usize::from(*byte)];
        let stops = known & (OTHERWISE | before);
        if stops != 0 && (stops & OTHERWISE != 0 || inner.goes_on(text, from + at, state)) {
            return (Stop::Special(from + at), state);
        }
        before = known & SEPARATES;
        state = automaton.next_state(Anchored::No, state, known as u8);
        if automaton.is_special(state) {
            return (Stop::State(from + at), state);
        }
    }
    (Stop::End, state)
}

fn plain(byte: u8, start: u64) -> Symbol {
    Symbol {
        byte,
        start,
        end: start + 1,
    }
}
