//! Words of strangers, so that they do nothing to the terminal that shows them.
//!
//! What a function reports, a record holds or a file is called may be anything: sequences that
//! clear the screen, set its title or reverse the direction of text. [`Harmless`] is such words
//! within a line, [`text`] is the last guard over everything that is printed for people.

use std::{borrow::Cow, fmt};

/// What stands for a character that is not shown.
const INSTEAD: char = '\u{fffd}';

/// Words on one line: nothing that moves the cursor, hides itself or begins another line.
#[derive(Debug, Clone, Copy)]
pub struct Harmless<'a>(pub &'a str);

impl fmt::Display for Harmless<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&shown(self.0, |_| false))
    }
}

/// Words that may have several lines, the later ones set off, so that none of them looks like a
/// line of ours.
#[derive(Debug, Clone, Copy)]
pub struct SetOff<'a>(pub &'a str);

impl fmt::Display for SetOff<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.0.trim_end().lines().enumerate() {
            match number {
                0 => write!(f, "{}", Harmless(line))?,
                _ => write!(f, "\n    {}", Harmless(line))?,
            }
        }
        Ok(())
    }
}

/// A text of lines as people are shown it.
pub fn text(text: &str) -> Cow<'_, str> {
    shown(text, |c| matches!(c, '\n' | '\t'))
}

/// JSON as people and programs are shown it: the same value, and nothing in it that a terminal
/// would obey. Such characters can only be within its texts, where an escape stands for them.
pub fn json(text: String) -> String {
    if !text.chars().any(|c| c != '\n' && is_harmful(c)) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push(c),
            c if is_harmful(c) => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

fn shown(text: &str, passes: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_hidden = |c: char| is_harmful(c) && !passes(c);
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let shown = |c| if is_hidden(c) { INSTEAD } else { c };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Control characters, and those that end a line or turn the direction of text.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "bad\x1b[2J\x1b]0;title\x07 \u{9b}31m\u{202e}live\nstate  succeeded\r\x7f";

    #[test]
    fn words_on_a_line_move_no_cursor_and_begin_no_line() {
        assert_eq!(
            Harmless(HOSTILE).to_string(),
            "bad�[2J�]0;title� �31m�live�state  succeeded��"
        );
        assert_eq!(format!("{:8}|", Harmless("ä\t")), "ä�      |");
    }

    #[test]
    fn later_lines_are_set_off() {
        assert_eq!(
            SetOff("a\nstate  \x1b[1msucceeded\r\n").to_string(),
            "a\n    state  �[1msucceeded"
        );
    }

    #[test]
    fn a_text_keeps_its_lines_and_loses_what_a_terminal_obeys() {
        assert_eq!(text("a\tb\nc\x1b[2J"), "a\tb\nc�[2J");
        assert!(matches!(text("as it is\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_stays_the_same_value_without_what_a_terminal_obeys() -> Result<(), serde_json::Error> {
        let value = serde_json::json!({ "message": HOSTILE });
        let written = json(format!("{value:#}\n"));
        assert!(
            written.chars().all(|c| c == '\n' || !is_harmful(c)),
            "{written:?}"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written)?, value);
        Ok(())
    }
}
