//! Text that somebody else wrote: work, a server, a file, another user.
//!
//! It may be of any length, and it may hold what a terminal obeys: sequences that clear the screen,
//! set its title or type in the user's name (ECMA-48), characters that turn the direction of text
//! (Unicode Standard Annex 9) or are not seen at all. [`Untrusted`] is such a text, bounded where
//! it is made or read. People get it escaped, within a line or as lines that are set off; as it is,
//! it is to be had only as [`raw`](Untrusted::raw), by those who compare, hash, redact or store it.
//! JSON has it as it is, since a program reads that; [`json`] keeps a terminal from obeying it.
//!
//! [`text`] is the last guard: all that is printed for people goes through it, whoever wrote it.

use std::{borrow::Cow, fmt, sync::LazyLock};

use regex_syntax::hir::{Class, ClassUnicode, HirKind};
use serde::{Deserialize, Deserializer, Serialize};

/// A name: of a file, a column, a host, a kind of error. Linux and DNS (RFC 1035) have none of more
/// than 255 bytes.
pub type Label = Untrusted<256>;
/// Why something failed, or what was found. Some paragraphs: a function's message is whole, and a
/// store can keep one with each attempt.
pub type Message = Untrusted<{ 16 << 10 }>;
/// What a verb fails by, which may end with forty lines of a compiler.
pub type Report = Untrusted<{ 128 << 10 }>;
/// What records are set aside for, which they are grouped by: a line or two, since a stage may have
/// a thousand.
pub type Reason = Untrusted<2_048>;
/// A cell, or a record that was set aside: what a person looks at. All of it is where it came from.
pub type Sample = Untrusted<4_096>;
/// What an attempt wrote to standard output and standard error, as far as it is shown at once.
pub type Transcript = Untrusted<{ 64 << 20 }>;

/// Room for the mark of a cut.
const MARK_BYTES: usize = 40;

/// A text that somebody else wrote, of at most `MAX` bytes. Of a longer one the beginning is kept,
/// and how much more there was. As JSON it is a plain text; one that is longer is cut as it is read.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Untrusted<const MAX: usize>(String);

impl<const MAX: usize> Untrusted<MAX> {
    /// The text of bytes, of which those that are no UTF-8 are replaced. What is cut is not copied.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let most = bytes.len().min(MAX + 1);
        let text = String::from_utf8_lossy(&bytes[..most]);
        Self::cut(text.into_owned(), bytes.len())
    }

    /// The beginning of a text of so many bytes, if that is too many.
    fn cut(mut text: String, length: usize) -> Self {
        const { assert!(MAX > MARK_BYTES) };
        if text.len() > MAX {
            let kept = text.floor_char_boundary(MAX - MARK_BYTES);
            // The sign alone says to a redactor that something is left out here.
            let mark = format!("… ({} more bytes)", length.saturating_sub(kept));
            text.truncate(kept);
            text.push_str(&mark);
            text.shrink_to_fit();
        }
        Self(text)
    }

    /// The text as it was written. Not for people.
    pub fn raw(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text with its lines, the later ones set off, so that none of them looks like a line of
    /// ours.
    pub fn lines(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            for (number, one) in self.0.trim_end().lines().enumerate() {
                let lead = if number == 0 { "" } else { "\n    " };
                write!(f, "{lead}{}", line(one.trim_end_matches('\r')))?;
            }
            Ok(())
        })
    }
}

impl<const MAX: usize> From<String> for Untrusted<MAX> {
    fn from(text: String) -> Self {
        let length = text.len();
        Self::cut(text, length)
    }
}

impl<const MAX: usize> From<&str> for Untrusted<MAX> {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Untrusted<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.into())
    }
}

impl<const MAX: usize> fmt::Display for Untrusted<MAX> {
    /// Within a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&line(&self.0))
    }
}

impl<const MAX: usize> fmt::Debug for Untrusted<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A text within a line: nothing in it moves the cursor, hides itself or begins another line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, escape)
}

/// A text of lines as people are shown it.
pub fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'), escape)
}

/// JSON as it is printed: the same value, and nothing in it that a terminal would obey. Such
/// characters can only be within its texts, where an escape of RFC 8259 stands for them.
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |c| c == '\n',
        |c, out| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        },
    )
}

fn escape(c: char, out: &mut String) {
    out.extend(c.escape_default());
}

fn escaped(
    text: &str,
    passes: impl Fn(char) -> bool,
    escape: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    let is_escaped = |c: char| is_unprintable(c) && !passes(c);
    let Some(first) = text.find(is_escaped) else {
        return Cow::Borrowed(text);
    };
    let (plain, rest) = text.split_at(first);
    let mut shown = String::with_capacity(text.len() + 64);
    shown.push_str(plain);
    for c in rest.chars() {
        match is_escaped(c) {
            true => escape(c, &mut shown),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Whether a character could fake or disturb what a reader sees: it steers a terminal, ends a line,
/// turns the direction of text, or is not seen.
pub(crate) fn is_unprintable(c: char) -> bool {
    // Most of what is printed is ASCII, for which no table is asked.
    match c.is_ascii() {
        true => c.is_ascii_control(),
        false => is_in(&UNPRINTABLE, c),
    }
}

/// The properties by which Unicode says so (Standard Annex 44): control and format characters, line
/// and paragraph separators, what is to be ignored where it is not known, as fillers and variation
/// selectors are, what each reader may see as something else (private use) and what is never text
/// (noncharacters). Of letters and symbols that are blank it has no property: those of Braille, of
/// musical notation, of Khitan and of hieroglyphs.
const PROPERTIES: &str = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Co}\p{Noncharacter_Code_Point}\x{2800}\x{1d159}\x{16fe4}\x{13441}\x{13442}]";

/// The ranges of these characters.
static UNPRINTABLE: LazyLock<ClassUnicode> = LazyLock::new(|| {
    let parsed = regex_syntax::parse(PROPERTIES).map(|hir| hir.into_kind());
    match parsed {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        other => unreachable!("a constant that a test reads: {other:?}"),
    }
});

/// The ranges of a class are in order and do not touch.
fn is_in(class: &ClassUnicode, c: char) -> bool {
    let ranges = class.ranges();
    let after = ranges.partition_point(|range| range.start() <= c);
    after > 0 && c <= ranges[after - 1].end()
}

/// The part of these that no document needs: control characters (ECMA-48), those that end lines or
/// turn the direction of text (Unicode Standard Annex 9), the byte order mark.
pub(crate) fn is_steering(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "bad\x1b[2J\x1b]0;title\x07 \u{9b}31m\u{202e}live\nstate  succeeded\r\x7f\u{200b}\u{e0041}";

    #[test]
    fn a_text_within_a_line_moves_no_cursor_and_begins_no_line() {
        let text = Message::from(HOSTILE);
        assert_eq!(
            text.to_string(),
            r"bad\u{1b}[2J\u{1b}]0;title\u{7} \u{9b}31m\u{202e}live\nstate  succeeded\r\u{7f}\u{200b}\u{e0041}"
        );
        assert_eq!(text.raw(), HOSTILE);
        assert_eq!(format!("{:8}|", Label::from("ä\t")), "ä\\t     |");
        assert_eq!(format!("{:?}", Label::from("a\x1b")), r#""a\u{1b}""#);
    }

    #[test]
    fn later_lines_are_set_off() {
        let text = Message::from("a\nstate  \x1b[1msucceeded\r\n");
        assert_eq!(
            text.lines().to_string(),
            "a\n    state  \\u{1b}[1msucceeded"
        );
    }

    #[test]
    fn a_text_of_lines_keeps_them_and_loses_what_a_terminal_obeys() {
        assert_eq!(text("a\tb\nc\x1b[2J"), "a\tb\nc\\u{1b}[2J");
        assert!(matches!(text("as it is: ä€😀\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_stays_the_same_value_without_what_a_terminal_obeys() -> Result<(), serde_json::Error> {
        let value = serde_json::json!({ "message": HOSTILE });
        let written = format!("{value:#}\n");
        let written = json(&written);
        assert!(
            !written.contains(|c| c != '\n' && is_unprintable(c)),
            "{written:?}"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written)?, value);
        Ok(())
    }

    #[test]
    fn a_longer_text_is_cut_where_it_is_made_and_where_it_is_read() -> Result<(), serde_json::Error>
    {
        let long = "ü".repeat(1_000);
        let made = Label::from(long.as_str());
        assert_eq!(
            made.raw(),
            format!("{}… (1784 more bytes)", "ü".repeat(108))
        );
        let read: Label = serde_json::from_str(&serde_json::to_string(&long)?)?;
        assert_eq!(read, made);
        // What was cut stays what it is, however often it is kept and read.
        let again: Label = serde_json::from_str(&serde_json::to_string(&made)?)?;
        assert_eq!(again, made);
        assert_eq!(Label::of_bytes(long.as_bytes()), made);
        let longest = Label::from("x".repeat(256));
        assert_eq!(longest.raw().len(), 256);
        let broken = Label::of_bytes(&[0xff; 200]);
        assert_eq!(
            broken.raw(),
            format!("{}… (0 more bytes)", "\u{fffd}".repeat(72))
        );
        assert!(Label::from("x".repeat(100 << 20)).raw().len() <= 256);
        Ok(())
    }

    #[test]
    fn nothing_that_is_no_character_of_a_text_is_left_as_it_is() {
        let all: String = ('\0'..=char::MAX).collect();
        let shown = text(&all);
        let left = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        assert!(!shown.contains(left));
        for mark in ["\u{202e}", "\u{2066}", "\u{200b}", "\u{2028}", "\u{feff}"] {
            assert!(!shown.contains(mark), "{mark:?}");
        }
    }

    /// Of Unicode's Default_Ignorable_Code_Point, each range's ends (DerivedCoreProperties.txt), and
    /// of the other kinds some.
    #[test]
    fn what_nobody_sees_is_told_by_the_properties_of_unicode() {
        for c in [
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{1160}',
            '\u{17b4}',
            '\u{17b5}',
            '\u{180b}',
            '\u{180f}',
            '\u{200b}',
            '\u{200f}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{206f}',
            '\u{3164}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff0}',
            '\u{fff8}',
            '\u{1bca0}',
            '\u{1bca3}',
            '\u{1d173}',
            '\u{1d17a}',
            '\u{e0000}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e0100}',
            '\u{e01ef}',
            '\u{e0fff}',
            // Format characters and separators that are not among these.
            '\u{600}',
            '\u{70f}',
            '\u{fff9}',
            '\u{13430}',
            '\u{2028}',
            '\u{2029}',
            '\u{85}',
            // Private use, noncharacters, blanks that are letters or symbols.
            '\u{e000}',
            '\u{f8ff}',
            '\u{f0000}',
            '\u{10fffd}',
            '\u{fdd0}',
            '\u{fdef}',
            '\u{ffff}',
            '\u{1fffe}',
            '\u{10ffff}',
            '\u{2800}',
            '\u{1d159}',
            '\u{16fe4}',
            '\u{13441}',
        ] {
            assert!(is_unprintable(c), "{c:?}");
            let shown = line(c.encode_utf8(&mut [0; 4])).into_owned();
            assert!(shown.is_ascii(), "{shown:?}");
        }
        // What is written with ink, whatever the script, and white space.
        let seen = "az ~\u{a0}äß€№ΑЖאبहกក한字ㅎ\u{3000}⠁♩😀\u{fffd}\u{301}";
        assert!(matches!(line(seen), Cow::Borrowed(_)), "{}", line(seen));
    }
}
