//! Undoing encodings a byte at a time, remembering where each symbol came from.

mod escape;
mod html;

use escape::Escape;

use super::pattern::fold;

/// An encoding in which any character may or may not be escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `%41` (RFC 3986), `%u0041`.
    Percent,
    /// `\"`, `\u0041` (RFC 8259), `\x41`, `\101`, `\u{41}`, `\U00000041`.
    Backslash,
    /// Line feeds and carriage returns anywhere, and the blanks that the next line is indented by.
    Lines,
    /// `&quot;`, `&#65;`, `&#x41;`.
    Html,
    /// Apostrophes within apostrophes: `''` (SQL), `'\''` and `'"'"'` (shells).
    Apostrophes,
    /// Quotes within quotes: `""` (CSV).
    Quotes,
    /// Bytes of zero, as UTF-16 and UTF-32 have them beside every character of ASCII.
    Zeros,
    /// Whatever separates numbers, once instead of several times: aligned, broken into lines, signed.
    Separators,
}

/// A way to read the stream: what another way gives, with one encoding more undone.
pub(super) struct Reading {
    /// The number of that other way; `None` for the stream as it is.
    pub(super) of: Option<usize>,
    pub(super) encoding: Encoding,
}

/// Every way but the plain one, each behind that which it builds on.
pub(super) const READINGS: [Reading; 20] = {
    use Encoding::{Apostrophes, Backslash, Html, Lines, Percent, Quotes, Separators, Zeros};
    const fn plain(encoding: Encoding) -> Reading {
        Reading { of: None, encoding }
    }
    const fn within(of: usize, encoding: Encoding) -> Reading {
        let of = Some(of);
        Reading { of, encoding }
    }
    [
        plain(Percent),
        plain(Backslash),
        plain(Lines),
        plain(Html),
        plain(Zeros),
        plain(Apostrophes),
        plain(Quotes),
        within(0, Percent),
        within(0, Backslash),
        within(1, Percent),
        within(1, Backslash),
        within(1, Lines),
        within(1, Html),
        within(1, Zeros),
        within(1, Apostrophes),
        within(1, Quotes),
        within(3, Html),
        within(3, Backslash),
        within(0, Html),
        plain(Separators),
    ]
};

/// The number of the reading of lists.
pub(super) const LISTS: usize = READINGS.len() - 1;

/// The longest escape, in symbols: a surrogate pair, `\ud83d\ude00`.
const MAX_ESCAPE: usize = 12;

impl Encoding {
    /// The bytes that do not stand for themselves.
    pub(super) fn special(self) -> &'static [u8] {
        match self {
            Self::Percent => b"%",
            Self::Backslash => b"\\",
            Self::Lines => b"\r\n",
            Self::Html => b"&",
            Self::Apostrophes => b"'",
            Self::Quotes => b"\"",
            Self::Zeros => b"\0",
            Self::Separators => b" \t,;:+-\r\n",
        }
    }

    /// Whether it makes no difference to values that have none of its special bytes.
    pub(super) fn matters_to(self, mut values: impl Iterator<Item = u8>) -> bool {
        let optional = matches!(self, Self::Apostrophes | Self::Quotes);
        !optional || values.any(|byte| self.special().contains(&byte))
    }

    /// Whether it leaves symbols out, and puts none for others.
    pub(super) const fn drops(self) -> bool {
        matches!(self, Self::Lines | Self::Zeros | Self::Separators)
    }

    /// How many symbols in a row may stand for nothing, so that what waits is bounded: as many zeros
    /// as UTF-32 has, or an indentation.
    fn max_dropped(self) -> u8 {
        match self {
            Self::Zeros => 3,
            _ => 64,
        }
    }
}

/// A decoded byte, and the range of the stream that it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) byte: u8,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Undoes one encoding.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    encoding: Encoding,
    open: [Symbol; MAX_ESCAPE],
    length: usize,
    /// Symbols that were dropped since the last that was given on.
    dropped: u8,
    /// Whether the last that was given on separates numbers.
    separated: bool,
}

/// What becomes of decoded symbols.
pub(super) trait Sink {
    /// Takes a symbol.
    fn give(&mut self, symbol: Symbol);

    /// Whether nothing that is looked for goes on with these bytes or begins with them, and a value may
    /// begin within the escape that they are: then that is better taken for none.
    fn is_lost_on(&self, bytes: &[u8], escape: &[Symbol]) -> bool;
}

impl Decoder {
    pub(super) fn new(encoding: Encoding) -> Self {
        let nothing = Symbol {
            byte: 0,
            start: 0,
            end: 0,
        };
        Self {
            encoding,
            open: [nothing; MAX_ESCAPE],
            length: 0,
            dropped: 0,
            separated: false,
        }
    }

    /// Where the escape begins that is not complete yet.
    pub(super) fn open_since(&self) -> Option<u64> {
        (self.length > 0).then(|| self.open[0].start)
    }

    /// Drops the beginning of an escape, and goes on behind a symbol.
    pub(super) fn begin(&mut self, behind: Option<Symbol>) {
        self.length = 0;
        self.dropped = 0;
        self.separated = behind.is_some_and(|symbol| separates(symbol.byte));
    }

    /// Takes a symbol, and gives on those that are decided.
    pub(super) fn push(&mut self, symbol: Symbol, sink: &mut dyn Sink) {
        if self.encoding == Encoding::Separators {
            return self.separate(symbol, sink);
        }
        if self.length == 0 && self.stands_for_itself(symbol.byte) {
            self.dropped = 0;
            return sink.give(symbol);
        }
        self.open[self.length] = symbol;
        self.length += 1;
        match self.escape() {
            Escape::Open => {}
            Escape::Dropped => {
                self.length = 0;
                self.dropped += 1;
            }
            // A sign that only looks like an escape, before a value that begins with its digits.
            Escape::Whole(bytes, length)
                if sink.is_lost_on(&bytes[..length], &self.open[..self.length]) =>
            {
                self.give_up(sink);
            }
            Escape::Whole(bytes, length) => {
                let start = self.open[0].start;
                self.length = 0;
                for byte in &bytes[..length] {
                    sink.give(Symbol {
                        byte: *byte,
                        start,
                        end: symbol.end,
                    });
                }
            }
            Escape::Not => self.give_up(sink),
        }
    }

    /// Gives on the first of several symbols that separate numbers, as a blank.
    fn separate(&mut self, mut symbol: Symbol, sink: &mut dyn Sink) {
        if separates(symbol.byte) {
            if self.separated && self.dropped < self.encoding.max_dropped() {
                self.dropped += 1;
                return;
            }
            symbol.byte = b' ';
            self.separated = true;
        } else {
            self.separated = false;
        }
        self.dropped = 0;
        sink.give(symbol);
    }

    /// Gives on what will not be completed.
    pub(super) fn finish(&mut self, sink: &mut dyn Sink) {
        while self.length > 0 {
            self.give_up(sink);
        }
    }

    fn stands_for_itself(&self, byte: u8) -> bool {
        let blank = matches!(byte, b' ' | b'\t');
        let indentation = self.encoding == Encoding::Lines && self.dropped > 0 && blank;
        let special = indentation || self.encoding.special().contains(&byte);
        !special || self.dropped == self.encoding.max_dropped()
    }

    /// Takes the first symbol as itself, and the others anew.
    fn give_up(&mut self, sink: &mut dyn Sink) {
        let (open, length) = (self.open, self.length);
        self.length = 0;
        sink.give(open[0]);
        // Each time around there is one symbol less, so this ends.
        for symbol in &open[1..length] {
            self.push(*symbol, sink);
        }
    }

    fn escape(&self) -> Escape {
        let mut bytes = [0; MAX_ESCAPE];
        for (byte, symbol) in bytes.iter_mut().zip(&self.open[..self.length]) {
            *byte = symbol.byte;
        }
        let bytes = &bytes[..self.length];
        match self.encoding {
            Encoding::Percent => escape::percent(bytes),
            Encoding::Backslash => escape::backslash(bytes),
            Encoding::Apostrophes => escape::apostrophes(bytes),
            Encoding::Quotes => escape::quotes(bytes),
            Encoding::Html => html::reference(bytes),
            Encoding::Lines | Encoding::Zeros | Encoding::Separators => Escape::Dropped,
        }
    }
}

/// Whether a byte stands between the numbers of a list.
const fn separates(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n') || fold(byte) == b' '
}
