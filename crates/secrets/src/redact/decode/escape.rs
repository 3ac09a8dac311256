//! What the bytes of an escape stand for.

/// What the bytes of an escape are so far.
pub(super) enum Escape {
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
    pub(super) fn byte(byte: u8) -> Self {
        Self::Whole([byte, 0, 0, 0], 1)
    }

    pub(super) fn character(code: u32) -> Self {
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

pub(super) fn percent(bytes: &[u8]) -> Escape {
    match &bytes[1..] {
        [b'u' | b'U', digits @ ..] => unit(digits, b"%u"),
        digits => of_digits(digits, 2, |code| Escape::byte(code as u8)),
    }
}

pub(super) fn backslash(bytes: &[u8]) -> Escape {
    match &bytes[1..] {
        [] => Escape::Open,
        [b'a'] => Escape::byte(0x07),
        [b'b'] => Escape::byte(0x08),
        [b'e'] => Escape::byte(0x1b),
        [b'f'] => Escape::byte(0x0c),
        [b'n'] => Escape::byte(b'\n'),
        [b'r'] => Escape::byte(b'\r'),
        [b't'] => Escape::byte(b'\t'),
        [b'v'] => Escape::byte(0x0b),
        // JSON escapes quotes and slashes, shells and regular expressions whatever they like.
        [byte] if *byte == b' ' || byte.is_ascii_punctuation() => Escape::byte(*byte),
        [b'0'..=b'3', digits @ ..] => octal(bytes[1] - b'0', digits),
        [b'x', digits @ ..] => of_digits(digits, 2, |code| Escape::byte(code as u8)),
        [b'u', b'{', digits @ ..] => braced(digits),
        [b'u', digits @ ..] => unit(digits, b"\\u"),
        [b'U', digits @ ..] => of_digits(digits, 8, Escape::character),
        _ => Escape::Not,
    }
}

pub(super) fn apostrophes(bytes: &[u8]) -> Escape {
    match bytes {
        b"'" | b"'\\" | b"'\\'" | b"'\"" | b"'\"'" | b"'\"'\"" => Escape::Open,
        b"''" | b"'\\''" | b"'\"'\"'" => Escape::byte(b'\''),
        _ => Escape::Not,
    }
}

pub(super) fn quotes(bytes: &[u8]) -> Escape {
    match bytes {
        b"\"" => Escape::Open,
        b"\"\"" => Escape::byte(b'"'),
        _ => Escape::Not,
    }
}

fn of_digits(digits: &[u8], count: usize, whole: impl Fn(u32) -> Escape) -> Escape {
    match number(digits, 16) {
        None => Escape::Not,
        Some(code) if digits.len() == count => whole(code),
        Some(_) => Escape::Open,
    }
}

/// Three octal digits, of which the first is at most three.
fn octal(first: u8, digits: &[u8]) -> Escape {
    match number(digits, 8) {
        None => Escape::Not,
        Some(rest) if digits.len() == 2 => Escape::byte(first << 6 | rest as u8),
        Some(_) => Escape::Open,
    }
}

/// `41}` of `\u{41}`.
fn braced(text: &[u8]) -> Escape {
    let (digits, closed) = match text {
        [digits @ .., b'}'] => (digits, true),
        digits => (digits, false),
    };
    match number(digits, 16) {
        Some(code) if closed && !digits.is_empty() => Escape::character(code),
        Some(_) if !closed && digits.len() <= 6 => Escape::Open,
        _ => Escape::Not,
    }
}

/// What follows `\u`: four digits, and another escape if they are the first half of a pair.
fn unit(digits: &[u8], lead: &[u8; 2]) -> Escape {
    let (first, rest) = digits.split_at(digits.len().min(4));
    match number(first, 16) {
        None => Escape::Not,
        Some(_) if first.len() < 4 => Escape::Open,
        Some(high @ 0xd800..0xdc00) => {
            let Some(second) = rest.strip_prefix(lead) else {
                return match lead.starts_with(rest) {
                    true => Escape::Open,
                    false => Escape::Not,
                };
            };
            match number(second, 16) {
                Some(_) if second.len() < 4 => Escape::Open,
                Some(low @ 0xdc00..0xe000) => {
                    Escape::character(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
                }
                _ => Escape::Not,
            }
        }
        Some(code) => Escape::character(code),
    }
}

/// The number that digits say; zero if there are none.
pub(super) fn number(digits: &[u8], base: u32) -> Option<u32> {
    digits.iter().try_fold(0_u32, |number, digit| {
        let digit = char::from(*digit).to_digit(base)?;
        number.checked_mul(base)?.checked_add(digit)
    })
}
