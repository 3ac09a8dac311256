//! Undoing encodings a byte at a time, remembering where each symbol came from.

/// An encoding in which any character may or may not be escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `%41` (RFC 3986).
    Percent,
    /// `\"`, `\u0041` (RFC 8259), `\x41`.
    Backslash,
    /// Line feeds and carriage returns anywhere.
    Lines,
}

/// Each view's encodings, the outermost first.
pub(super) const VIEWS: [&[Encoding]; 8] = {
    use Encoding::{Backslash, Lines, Percent};
    [
        &[Percent],
        &[Backslash],
        &[Lines],
        &[Percent, Percent],
        &[Backslash, Backslash],
        &[Backslash, Percent],
        &[Percent, Backslash],
        &[Backslash, Lines],
    ]
};

/// The longest escape, in symbols: a surrogate pair, `\ud83d\ude00`.
const MAX_ESCAPE: usize = 12;

impl Encoding {
    /// The bytes that do not stand for themselves.
    pub(super) fn special(self) -> &'static [u8] {
        match self {
            Self::Percent => b"%",
            Self::Backslash => b"\\",
            Self::Lines => b"\r\n",
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

/// What the bytes of an escape are so far.
enum Escape {
    /// They may become one.
    Open,
    /// They stand for these bytes.
    Whole([u8; 4], usize),
    /// They stand for nothing.
    Dropped,
    /// They are none: the first stands for itself.
    Not,
}

impl Escape {
    fn byte(byte: u8) -> Self {
        Self::Whole([byte, 0, 0, 0], 1)
    }

    fn character(code: u32) -> Self {
        let mut bytes = [0; 4];
        match char::from_u32(code) {
            Some(character) => {
                let length = character.encode_utf8(&mut bytes).len();
                Self::Whole(bytes, length)
            }
            None => Self::Not,
        }
    }
}

/// Undoes one encoding.
#[derive(Debug)]
pub(super) struct Decoder {
    encoding: Encoding,
    open: [Symbol; MAX_ESCAPE],
    length: usize,
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
        }
    }

    /// Where the escape begins that is not complete yet.
    pub(super) fn open_since(&self) -> Option<u64> {
        (self.length > 0).then(|| self.open[0].start)
    }

    /// Takes a symbol, and gives on those that are decided.
    pub(super) fn push(&mut self, symbol: Symbol, sink: &mut dyn FnMut(Symbol)) {
        if self.length == 0 && !self.encoding.special().contains(&symbol.byte) {
            return sink(symbol);
        }
        self.open[self.length] = symbol;
        self.length += 1;
        match self.escape() {
            Escape::Open => {}
            Escape::Dropped => self.length = 0,
            Escape::Whole(bytes, length) => {
                let start = self.open[0].start;
                self.length = 0;
                for byte in &bytes[..length] {
                    sink(Symbol {
                        byte: *byte,
                        start,
                        end: symbol.end,
                    });
                }
            }
            Escape::Not => self.give_up(sink),
        }
    }

    /// Gives on what will not be completed.
    pub(super) fn finish(&mut self, sink: &mut dyn FnMut(Symbol)) {
        while self.length > 0 {
            self.give_up(sink);
        }
    }

    /// Takes the first symbol as itself, and the others anew.
    fn give_up(&mut self, sink: &mut dyn FnMut(Symbol)) {
        let (open, length) = (self.open, self.length);
        self.length = 0;
        sink(open[0]);
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
            Encoding::Percent => percent(bytes),
            Encoding::Backslash => backslash(bytes),
            Encoding::Lines => Escape::Dropped,
        }
    }
}

fn percent(bytes: &[u8]) -> Escape {
    match number(&bytes[1..]) {
        None => Escape::Not,
        Some(byte) if bytes.len() == 3 => Escape::byte(byte as u8),
        Some(_) => Escape::Open,
    }
}

fn backslash(bytes: &[u8]) -> Escape {
    match &bytes[1..] {
        [] => Escape::Open,
        [b'b'] => Escape::byte(0x08),
        [b'f'] => Escape::byte(0x0c),
        [b'n'] => Escape::byte(b'\n'),
        [b'r'] => Escape::byte(b'\r'),
        [b't'] => Escape::byte(b'\t'),
        [byte @ (b'"' | b'\'' | b'\\' | b'/')] => Escape::byte(*byte),
        [b'x', digits @ ..] => match number(digits) {
            None => Escape::Not,
            Some(byte) if digits.len() == 2 => Escape::byte(byte as u8),
            Some(_) => Escape::Open,
        },
        [b'u', digits @ ..] => unit(digits),
        _ => Escape::Not,
    }
}

/// What follows `\u`: four digits, and another escape if they are the first half of a pair.
fn unit(digits: &[u8]) -> Escape {
    let (first, rest) = digits.split_at(digits.len().min(4));
    match number(first) {
        None => Escape::Not,
        Some(_) if first.len() < 4 => Escape::Open,
        Some(high @ 0xd800..0xdc00) => match rest {
            [] | [b'\\'] => Escape::Open,
            [b'\\', b'u', digits @ ..] => match number(digits) {
                Some(_) if digits.len() < 4 => Escape::Open,
                Some(low @ 0xdc00..0xe000) => {
                    Escape::character(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
                }
                _ => Escape::Not,
            },
            _ => Escape::Not,
        },
        Some(code) => Escape::character(code),
    }
}

/// The number that hexadecimal digits say; zero if there are none.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| {
        Some(number << 4 | char::from(*digit).to_digit(16)?)
    })
}
