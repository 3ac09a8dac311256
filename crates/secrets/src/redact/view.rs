//! The stream with encodings undone, followed only where that makes a difference.

use std::collections::VecDeque;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};

use super::Inner;
use super::decode::{Decoder, Encoding, READINGS, Sink, Symbol};
use super::pattern::{MAX_SYMBOLS, fold, is_base64};

/// A part of the stream that is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) label: u32,
}

impl Span {
    /// The one that begins first.
    pub(super) fn earlier(one: Option<Self>, other: Self) -> Self {
        one.filter(|one| one.start < other.start).unwrap_or(other)
    }
}

/// What views look for, and where they put what they find.
pub(super) struct Scan<'a, A> {
    pub(super) inner: &'a Inner,
    pub(super) automaton: &'a A,
    pub(super) found: &'a mut Vec<Span>,
}

/// The views that read the stream as it is, and those that read what the view of each number gives;
/// one bit each.
const ROOTS: u32 = readers(None);
const CHILDREN: [u32; READINGS.len()] = {
    let mut children = [0; READINGS.len()];
    let mut number = 0;
    while number < READINGS.len() {
        children[number] = readers(Some(number));
        number += 1;
    }
    children
};

const fn readers(of: Option<usize>) -> u32 {
    let (mut bits, mut number) = (0, 0);
    while number < READINGS.len() {
        let reads = match (READINGS[number].of, of) {
            (None, None) => true,
            (Some(one), Some(other)) => one == other,
            _ => false,
        };
        if reads {
            bits |= 1 << number;
        }
        number += 1;
    }
    bits
}

/// Those that leave symbols out: at the beginning of a pattern that makes no difference.
const DROPPING: u32 = {
    let (mut bits, mut number) = (0, 0);
    while number < READINGS.len() {
        if READINGS[number].encoding.drops() {
            bits |= 1 << number;
        }
        number += 1;
    }
    bits
};

/// For each view that reads what another gives, the one that undoes the same encoding in the stream
/// as it is; for all others, themselves.
const PEERS: [usize; READINGS.len()] = {
    let mut peers = [0; READINGS.len()];
    let mut number = 0;
    while number < READINGS.len() {
        let mut peer = 0;
        while READINGS[peer].encoding as u8 != READINGS[number].encoding as u8 {
            peer += 1;
        }
        peers[number] = peer;
        number += 1;
    }
    peers
};

/// The peers of all that read a view, but for itself.
const PEER_BITS: [u32; READINGS.len()] = {
    let mut bits = [0; READINGS.len()];
    let mut child = 0;
    while child < READINGS.len() {
        if let Some(of) = READINGS[child].of
            && PEERS[child] != of
        {
            bits[of] |= 1 << PEERS[child];
        }
        child += 1;
    }
    bits
};

/// The numbers of the bits that are set.
fn numbers(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = (bits != 0).then_some(bits.trailing_zeros())?;
        bits &= bits - 1;
        Some(number as usize)
    })
}

/// All views. One that *agrees* is where another is, over the same bytes, and costs nothing until it
/// meets an escape. That other one is the view that it reads; and where that agrees with the stream as
/// it is, the view's peer, which undoes the same in the same bytes.
pub(super) struct Views {
    list: Vec<View>,
    /// Those that do not agree, one bit each.
    diverged: u32,
}

/// The stream with one encoding more undone than what this view reads.
#[derive(Clone)]
struct View {
    /// Taken while it gives on symbols.
    decoder: Option<Box<Decoder>>,
    state: StateID,
    /// The last symbols, as many as a match and its neighbour may have.
    recent: VecDeque<Symbol>,
    /// A match at the end, whose next symbol may share bits with the value.
    open_end: Option<Span>,
}

impl Views {
    pub(super) fn new(start: StateID) -> Self {
        let view = |encoding| View {
            decoder: Some(Box::new(Decoder::new(encoding))),
            state: start,
            recent: VecDeque::new(),
            open_end: None,
        };
        let list = READINGS.iter().map(|reading| view(reading.encoding));
        Self {
            list: list.collect(),
            diverged: 0,
        }
    }

    /// Whether a byte is of no interest to any view.
    pub(super) fn ignore(&self, special: u32) -> bool {
        (special & ROOTS) | self.diverged == 0
    }

    /// Takes a byte of the stream, which is `special` to some views. `before` is the plain state before
    /// it, which views that meet an escape go on from, with the symbols in `recent`.
    pub(super) fn push<A: Automaton>(
        &mut self,
        scan: &mut Scan<'_, A>,
        (symbol, special): (Symbol, u32),
        before: StateID,
        recent: impl Iterator<Item = Symbol> + Clone,
    ) {
        for number in numbers(special & ROOTS & !self.diverged) {
            self.part_from_peers(number);
            self.list[number].part(before, None, recent.clone());
            self.diverged |= 1 << number;
        }
        for number in numbers(self.diverged & ROOTS) {
            self.decode(scan, number, symbol);
        }
    }

    /// A view is about to part from the stream as it is: who reads it has been where its peer is.
    fn part_from_peers(&mut self, number: usize) {
        for child in numbers(CHILDREN[number] & !self.diverged) {
            let peer = PEERS[child];
            if peer != number && self.diverged & (1 << peer) != 0 {
                self.list[child] = self.list[peer].clone();
                self.diverged |= 1 << child;
            }
        }
    }

    /// To be called with the plain state behind each byte that was taken: those that are where the
    /// plain view is need not be followed any more.
    pub(super) fn compare(&mut self, inner: &Inner, plain: StateID, offset: u64) {
        let mut ready = 0;
        for number in numbers(self.diverged & ROOTS) {
            let view = &self.list[number];
            let alone = self.diverged & CHILDREN[number] == 0;
            if alone && view.is_settled(plain) && view.is_plain(view.depth(inner), offset) {
                ready |= 1 << number;
            }
        }
        // Who reads a view is with its peer from here on, which must not be elsewhere then.
        while let Some(number) = numbers(ready).find(|number| {
            let elsewhere = self.diverged & !ready;
            PEER_BITS[*number] & elsewhere != 0
        }) {
            ready &= !(1 << number);
        }
        self.diverged &= !ready;
    }

    /// Takes a symbol of what a view reads.
    fn decode<A: Automaton>(&mut self, scan: &mut Scan<'_, A>, number: usize, symbol: Symbol) {
        let mut decoder = self.list[number].decoder.take();
        if let Some(decoder) = &mut decoder {
            let views = &mut *self;
            let mut given = Given {
                views,
                scan,
                number,
            };
            decoder.push(symbol, &mut given);
        }
        self.list[number].decoder = decoder;
    }

    /// Takes a symbol that a view gives, first in the views that read it.
    fn step<A: Automaton>(&mut self, scan: &mut Scan<'_, A>, number: usize, symbol: Symbol) {
        let special = scan.inner.special(symbol.byte);
        let children = CHILDREN[number];
        for child in numbers(special & children & !self.diverged) {
            let (views, rest) = self.list.split_at_mut(child);
            let view = &views[number];
            rest[0].part(view.state, view.open_end, view.recent.iter().copied());
            self.diverged |= 1 << child;
        }
        for child in numbers(self.diverged & children) {
            self.decode(scan, child, symbol);
        }
        self.list[number].advance(scan, symbol);
        for child in numbers(self.diverged & children) {
            let (view, other) = (&self.list[child], &self.list[number]);
            let depth = view.depth(scan.inner);
            let same = view.last(depth).eq(other.last(depth));
            if view.is_settled(other.state) && same && other.open_end.is_none() {
                self.diverged &= !(1 << child);
            }
        }
    }

    /// Takes the end of the stream: no escape will be completed any more.
    pub(super) fn finish<A: Automaton>(&mut self, scan: &mut Scan<'_, A>) {
        // Whoever reads what another view gives comes behind it.
        for number in 0..self.list.len() {
            if self.diverged & (1 << number) == 0 {
                continue;
            }
            let mut decoder = self.list[number].decoder.take();
            if let Some(decoder) = &mut decoder {
                let views = &mut *self;
                let mut given = Given {
                    views,
                    scan: &mut *scan,
                    number,
                };
                decoder.finish(&mut given);
            }
            self.list[number].decoder = decoder;
        }
    }

    /// Lets go of values that go on in the next line.
    pub(super) fn end_line(&mut self) {
        for (number, reading) in READINGS.iter().enumerate() {
            if matches!(reading.encoding, Encoding::Lines | Encoding::Separators) {
                self.diverged &= !(1 << number);
                if let Some(decoder) = &mut self.list[number].decoder {
                    decoder.begin(None);
                }
            }
        }
    }

    /// Where that begins which may still become part of a secret.
    pub(super) fn waits_since(&self, inner: &Inner) -> Option<u64> {
        let waiting = numbers(self.diverged);
        waiting
            .filter_map(|number| self.list[number].waits_since(inner))
            .min()
    }

    /// Where that begins which is the beginning of a pattern, of `symbols` symbols or more.
    pub(super) fn cut_since(&self, inner: &Inner, symbols: usize) -> Option<u64> {
        let views = numbers(self.diverged).map(|number| &self.list[number]);
        let cut = views.filter(|view| view.depth(inner) >= symbols);
        cut.filter_map(|view| view.last(view.depth(inner)).last())
            .map(|symbol| symbol.start)
            .min()
    }
}

/// What the view of a number gives.
struct Given<'a, 's, A> {
    views: &'a mut Views,
    scan: &'a mut Scan<'s, A>,
    number: usize,
}

impl<A: Automaton> Sink for Given<'_, '_, A> {
    fn give(&mut self, symbol: Symbol) {
        self.views.step(self.scan, self.number, symbol);
    }

    fn is_lost_on(&self, bytes: &[u8], escape: &[Symbol]) -> bool {
        let inner = self.scan.inner;
        if !inner.begins_within(escape) {
            return false;
        }
        let depth = |state: StateID| inner.depths[state.as_usize()];
        let before = self.views.list[self.number].state;
        let mut state = before;
        for byte in bytes {
            let automaton = self.scan.automaton;
            state = automaton.next_state(Anchored::No, state, fold(*byte));
            if depth(state) > 0 {
                return false;
            }
        }
        let children = CHILDREN[self.number];
        let readers = match depth(before) {
            0 => children & !DROPPING,
            _ => children,
        };
        let read = |byte: &u8| inner.special(*byte) & readers != 0;
        self.views.diverged & children == 0 && !bytes.iter().any(read)
    }
}

impl View {
    /// Goes on from what it reads.
    fn part(
        &mut self,
        state: StateID,
        open_end: Option<Span>,
        recent: impl Iterator<Item = Symbol>,
    ) {
        self.state = state;
        self.recent.clear();
        self.recent.extend(recent);
        self.open_end = open_end;
        let behind = self.recent.back().copied();
        if let Some(decoder) = &mut self.decoder {
            decoder.begin(behind);
        }
    }

    fn advance<A: Automaton>(&mut self, scan: &mut Scan<'_, A>, symbol: Symbol) {
        if let Some(mut span) = self.open_end.take()
            && is_base64(symbol.byte)
        {
            span.end = symbol.end;
            scan.found.push(span);
        }
        if self.recent.len() > MAX_SYMBOLS {
            self.recent.pop_front();
        }
        self.recent.push_back(symbol);
        let automaton = scan.automaton;
        self.state = automaton.next_state(Anchored::No, self.state, fold(symbol.byte));
        if !automaton.is_special(self.state) || !automaton.is_match(self.state) {
            return;
        }
        for number in 0..automaton.match_len(self.state) {
            let pattern = automaton.match_pattern(self.state, number);
            let pattern = &scan.inner.patterns[pattern.as_usize()];
            let meant = pattern.found();
            let first = self.recent.len().saturating_sub(usize::from(meant.symbols));
            if !pattern.is_met_by(self.recent.range(first..).map(|symbol| symbol.byte)) {
                continue;
            }
            let before = first.checked_sub(1).map(|index| self.recent[index]);
            let shared = before.filter(|before| meant.left && is_base64(before.byte));
            let span = Span {
                start: shared.unwrap_or(self.recent[first]).start,
                end: symbol.end,
                label: meant.label,
            };
            scan.found.push(span);
            if meant.right {
                self.open_end = Some(Span::earlier(self.open_end, span));
            }
        }
    }

    /// How many symbols of a pattern were seen.
    fn depth(&self, inner: &Inner) -> usize {
        usize::from(inner.depths[self.state.as_usize()])
    }

    /// The last symbols, from behind.
    fn last(&self, count: usize) -> impl Iterator<Item = &Symbol> {
        self.recent.iter().rev().take(count)
    }

    /// Whether nothing is open, and the state is that of what it reads.
    fn is_settled(&self, state: StateID) -> bool {
        let open = self
            .decoder
            .as_ref()
            .and_then(|decoder| decoder.open_since());
        self.state == state && self.open_end.is_none() && open.is_none()
    }

    /// Whether its last symbols are the bytes of the stream up to `offset`, as they are.
    fn is_plain(&self, count: usize, offset: u64) -> bool {
        let mut end = offset;
        self.last(count).all(|symbol| {
            let plain = symbol.end == end && symbol.start + 1 == end;
            end = symbol.start;
            plain
        })
    }

    /// Where the beginning of a pattern begins, with the symbol before if it may share its bits.
    fn prefix_since(&self, inner: &Inner) -> Option<u64> {
        let first = self.recent.len().saturating_sub(self.depth(inner));
        let before = first.checked_sub(1).map(|index| self.recent[index]);
        let shared = before.filter(|before| is_base64(before.byte));
        let prefix = shared.or_else(|| self.recent.get(first).copied());
        prefix.map(|symbol| symbol.start)
    }

    fn waits_since(&self, inner: &Inner) -> Option<u64> {
        let open = self
            .decoder
            .as_ref()
            .and_then(|decoder| decoder.open_since());
        let open_end = self.open_end.map(|span| span.start);
        [self.prefix_since(inner), open, open_end]
            .into_iter()
            .flatten()
            .min()
    }
}
