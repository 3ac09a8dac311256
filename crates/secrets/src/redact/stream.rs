//! Redaction of a stream that comes in parts.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::VecDeque;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use zeroize::{Zeroize, Zeroizing};

use super::decode::{Decoder, Encoding, Symbol, VIEWS};
use super::pattern::{MAX_SYMBOLS, fold, is_base64};
use super::{Inner, Matcher, Redactor};

/// Redacts a stream as it comes.
///
/// Held back is only what may still become part of a secret: the beginning of a value, an escape
/// that is not complete, or a letter or digit at the very end; at most 64 symbols of up to 24 bytes
/// each, and the line feeds among them. A line whose end could be the beginning of a value waits
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
    views: Vec<View>,
    /// The views, one bit each, that are not in the state of the plain one.
    diverged: u8,
    found: Vec<Span>,
    /// What was redacted last, which later finds may continue.
    last: Option<Span>,
}

/// A part of the stream that is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u64,
    end: u64,
    label: u32,
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
        let views = VIEWS.iter().map(|chain| View {
            chain: chain
                .iter()
                .map(|encoding| Decoder::new(*encoding))
                .collect(),
            state: start,
            recent: VecDeque::new(),
            plain: 0,
            open_end: None,
        });
        Self {
            views: views.collect(),
            redactor,
            pending: Zeroizing::default(),
            base: 0,
            state: start,
            open_end: None,
            diverged: 0,
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
            for (index, chain) in VIEWS.iter().enumerate() {
                if chain.contains(&Encoding::Lines) {
                    // From here on it agrees with the plain view.
                    self.diverged &= !(1 << index);
                    self.views[index].forget();
                }
            }
        }
        self.give(self.sure())
    }

    /// How many bytes were taken and not given yet.
    pub fn held_back(&self) -> usize {
        self.pending.len()
    }

    /// Gives what was held back, at the end of the stream.
    pub fn finish(self) -> Vec<u8> {
        self.end().0
    }

    /// Gives what was held back, and whether anything was ever redacted.
    pub(super) fn end(mut self) -> (Vec<u8>, bool) {
        let redactor = self.redactor.clone();
        for (index, view) in self.views.iter_mut().enumerate() {
            if self.diverged & (1 << index) != 0 {
                let found = &mut self.found;
                match &redactor.0.matcher {
                    Matcher::Dfa(automaton) => view.finish(&redactor.0, automaton, found),
                    Matcher::Nfa(automaton) => view.finish(&redactor.0, automaton, found),
                }
            }
        }
        let given = self.give(self.end_offset());
        (given, self.last.is_some())
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
            let special = inner.special[usize::from(self.pending[index])];
            if special | self.diverged != 0 {
                self.step_views(inner, automaton, index, special);
                index += 1;
                continue;
            }
            // The hot loop: plain text, one table.
            let rest = &self.pending[index..];
            let mut state = self.state;
            let stop = rest.iter().position(|byte| {
                if inner.special[usize::from(*byte)] != 0 {
                    return true;
                }
                state = automaton.next_state(Anchored::No, state, fold(*byte));
                automaton.is_special(state)
            });
            self.state = state;
            match stop {
                None => break,
                Some(stop) => {
                    index += stop;
                    if inner.special[usize::from(self.pending[index])] == 0 {
                        self.note(inner, automaton, index);
                        index += 1;
                    }
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
        special: u8,
    ) {
        let parting = special & !self.diverged;
        // What a view needs to go on from the plain state: its prefix, and the neighbour of that.
        let depth = usize::from(inner.depths[self.state.as_usize()]);
        let recent = index.saturating_sub(depth + 1)..index;
        let recent = recent.map(|index| plain(self.pending[index], self.base + index as u64));
        for view in (0..VIEWS.len()).filter(|view| parting & (1 << view) != 0) {
            self.views[view].part(self.state, recent.clone());
        }
        self.diverged |= special;
        let byte = self.pending[index];
        self.state = automaton.next_state(Anchored::No, self.state, fold(byte));
        if automaton.is_special(self.state) {
            self.note(inner, automaton, index);
        }
        let symbol = plain(byte, self.base + index as u64);
        let mut left = self.diverged;
        while left != 0 {
            let number = left.trailing_zeros();
            left &= left - 1;
            let view = &mut self.views[number as usize];
            view.push(inner, automaton, symbol, &mut self.found);
            if view.agrees(inner, self.state, symbol.end) {
                self.diverged &= !(1 << number);
            }
        }
    }

    /// Notes the matches that end with the byte at `index`.
    fn note<A: Automaton>(&mut self, inner: &Inner, automaton: &A, index: usize) {
        if !automaton.is_match(self.state) {
            return;
        }
        for number in 0..automaton.match_len(self.state) {
            let pattern = automaton.match_pattern(self.state, number);
            let found = inner.patterns[pattern.as_usize()];
            let mut first = (index + 1).saturating_sub(usize::from(found.symbols));
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
                    None => self.open_end = Some(earlier(self.open_end, span)),
                    Some(byte) => span.end += u64::from(is_base64(*byte)),
                }
            }
            self.found.push(span);
        }
    }

    /// The offset before which nothing can become part of a secret any more.
    fn sure(&self) -> u64 {
        let depth = usize::from(self.redactor.0.depths[self.state.as_usize()]);
        let mut first = self.pending.len().saturating_sub(depth);
        if first > 0 && is_base64(self.pending[first - 1]) {
            first -= 1;
        }
        let mut sure = self.base + first as u64;
        if let Some(span) = self.open_end {
            sure = sure.min(span.start);
        }
        for (index, view) in self.views.iter().enumerate() {
            if self.diverged & (1 << index) != 0
                && let Some(start) = view.waits_since(&self.redactor.0)
            {
                sure = sure.min(start);
            }
        }
        sure.max(self.base)
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

fn plain(byte: u8, start: u64) -> Symbol {
    Symbol {
        byte,
        start,
        end: start + 1,
    }
}

fn earlier(one: Option<Span>, other: Span) -> Span {
    one.filter(|one| one.start < other.start).unwrap_or(other)
}

/// The stream with one or two encodings undone. Followed only from an escape on until it is in
/// the same state as the plain view again.
struct View {
    chain: Vec<Decoder>,
    state: StateID,
    /// The last symbols, as many as a match and its neighbour may have.
    recent: VecDeque<Symbol>,
    /// How many of them, at the end, stand for themselves and directly follow each other.
    plain: usize,
    /// A match at the end, whose next symbol may share bits with the value.
    open_end: Option<Span>,
}

impl View {
    /// Goes on from the plain view.
    fn part(&mut self, state: StateID, recent: impl Iterator<Item = Symbol>) {
        self.state = state;
        self.recent.clear();
        self.recent.extend(recent);
        self.plain = self.recent.len();
        self.open_end = None;
    }

    /// Drops the beginnings of escapes.
    fn forget(&mut self) {
        for decoder in &mut self.chain {
            decoder.finish(&mut |_| {});
        }
    }

    fn push<A: Automaton>(
        &mut self,
        inner: &Inner,
        automaton: &A,
        symbol: Symbol,
        found: &mut Vec<Span>,
    ) {
        let mut chain = std::mem::take(&mut self.chain);
        feed(&mut chain, symbol, &mut |symbol| {
            self.step(inner, automaton, symbol, found);
        });
        self.chain = chain;
    }

    fn finish<A: Automaton>(&mut self, inner: &Inner, automaton: &A, found: &mut Vec<Span>) {
        let mut chain = std::mem::take(&mut self.chain);
        let mut step = |symbol| self.step(inner, automaton, symbol, found);
        for outermost in 0..chain.len() {
            let (outer, inner) = chain[outermost..].split_at_mut(1);
            outer[0].finish(&mut |symbol| feed(inner, symbol, &mut step));
        }
        self.chain = chain;
    }

    fn step<A: Automaton>(
        &mut self,
        inner: &Inner,
        automaton: &A,
        symbol: Symbol,
        found: &mut Vec<Span>,
    ) {
        if let Some(mut span) = self.open_end.take()
            && is_base64(symbol.byte)
        {
            span.end = symbol.end;
            found.push(span);
        }
        let follows = self
            .recent
            .back()
            .is_none_or(|last| last.end == symbol.start);
        self.plain = match (symbol.end - symbol.start, follows) {
            (1, true) => self.plain + 1,
            (1, false) => 1,
            _ => 0,
        };
        if self.recent.len() > MAX_SYMBOLS {
            self.recent.pop_front();
        }
        self.recent.push_back(symbol);
        self.state = automaton.next_state(Anchored::No, self.state, fold(symbol.byte));
        if !automaton.is_special(self.state) || !automaton.is_match(self.state) {
            return;
        }
        for number in 0..automaton.match_len(self.state) {
            let pattern = automaton.match_pattern(self.state, number);
            let meant = inner.patterns[pattern.as_usize()];
            let first = self.recent.len().saturating_sub(usize::from(meant.symbols));
            let before = first.checked_sub(1).map(|index| self.recent[index]);
            let shared = before.filter(|before| meant.left && is_base64(before.byte));
            let span = Span {
                start: shared.unwrap_or(self.recent[first]).start,
                end: symbol.end,
                label: meant.label,
            };
            found.push(span);
            if meant.right {
                self.open_end = Some(earlier(self.open_end, span));
            }
        }
    }

    /// Whether it need not be followed any more: it is where the plain view is, and came there
    /// over the same bytes.
    fn agrees(&self, inner: &Inner, plain: StateID, offset: u64) -> bool {
        let depth = usize::from(inner.depths[self.state.as_usize()]);
        let same_bytes = self.plain >= depth
            && (depth == 0 || self.recent.back().is_some_and(|last| last.end == offset));
        self.state == plain
            && same_bytes
            && self.open_end.is_none()
            && self
                .chain
                .iter()
                .all(|decoder| decoder.open_since().is_none())
    }

    /// Where that begins which may still become part of a secret.
    fn waits_since(&self, inner: &Inner) -> Option<u64> {
        let depth = usize::from(inner.depths[self.state.as_usize()]);
        let first = self.recent.len().saturating_sub(depth);
        let before = first.checked_sub(1).map(|index| self.recent[index]);
        let shared = before.filter(|before| is_base64(before.byte));
        let prefix = shared.or_else(|| self.recent.get(first).copied());
        let escape = self.chain.iter().filter_map(Decoder::open_since).min();
        let open_end = self.open_end.map(|span| span.start);
        [prefix.map(|symbol| symbol.start), escape, open_end]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Sends a symbol through decoders, the outermost first.
fn feed(chain: &mut [Decoder], symbol: Symbol, sink: &mut dyn FnMut(Symbol)) {
    match chain {
        [] => sink(symbol),
        [outer, inner @ ..] => outer.push(symbol, &mut |symbol| feed(inner, symbol, sink)),
    }
}
