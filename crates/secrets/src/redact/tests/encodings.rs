//! Encoders that escape as they please.

/// A source of choices, which a test generates and shrinks.
pub(super) struct Choices<'a> {
    bytes: &'a [u8],
    next: usize,
}

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0 }
    }

    fn of(&mut self, count: u8) -> u8 {
        let byte = self.bytes[self.next % self.bytes.len()];
        self.next += 1;
        byte % count
    }
}

fn hex(number: u32, digits: usize, choices: &mut Choices<'_>) -> String {
    match choices.of(2) {
        0 => format!("{number:0digits$x}"),
        _ => format!("{number:0digits$X}"),
    }
}

pub(super) fn percent(bytes: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in bytes {
        match (byte, choices.of(3)) {
            (b' ', 0) => out.push(b'+'),
            (b'%', _) | (_, 1) => {
                out.push(b'%');
                out.extend_from_slice(hex(u32::from(*byte), 2, choices).as_bytes());
            }
            _ => out.push(*byte),
        }
    }
    out
}

pub(super) fn json(text: &str, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut out = String::new();
    for character in text.chars() {
        match (character, choices.of(3)) {
            ('"' | '\\' | '/', 0) => out.extend(['\\', character]),
            ('\n', 0) => out.push_str("\\n"),
            ('\t', 0) => out.push_str("\\t"),
            (c, 1 | 2) if c.is_ascii_alphanumeric() => out.push(c),
            (c, 2) if !c.is_control() && !matches!(c, '"' | '\\') => out.push(c),
            (c, _) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str("\\u");
                    out.push_str(&hex(u32::from(*unit), 4, choices));
                }
            }
        }
    }
    out.into_bytes()
}

pub(super) fn in_lines(bytes: &[u8], width: usize, end: &[u8]) -> Vec<u8> {
    bytes.chunks(width).collect::<Vec<_>>().join(end)
}
