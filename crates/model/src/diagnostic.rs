//! Diagnostics: what is wrong in a document, where, under which code, and what would help.
//!
//! Rendered as text they look as compilers print them; as JSON they are `barecount/diagnostics/v1`.
//! Colour is the binary's business.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    codes::Code,
    untrusted::{Message, is_unprintable, line},
};

/// How much a diagnostic weighs: errors stop, warnings do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document cannot be used.
    Error,
    /// The document can be used, but something is probably not as meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A place in a file. Line and column count from 1, the column and the length in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters on that line that belong to the place, at least 1.
    pub length: usize,
}

impl Span {
    /// The first character of a file: where problems of the file as a whole are reported.
    pub const START: Self = Self {
        line: 1,
        column: 1,
        length: 1,
    };
}

/// One problem at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The stable code, `BC` and four digits.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, in one line, without a final full stop.
    pub message: Message,
    /// What would help, if there is advice.
    pub help: Option<Message>,
    /// How many characters the caret marks.
    #[serde(skip)]
    pub length: usize,
}

impl Diagnostic {
    /// An error at a place of a file.
    pub fn error(code: Code, file: &str, span: Span, message: impl Into<String>) -> Self {
        Self {
            code: code.id,
            severity: Severity::Error,
            file: file.to_owned(),
            line: span.line,
            column: span.column,
            message: message.into().into(),
            help: None,
            length: span.length.max(1),
        }
    }

    /// A warning at a place of a file.
    pub fn warning(code: Code, file: &str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, file, span, message)
        }
    }

    /// The same diagnostic with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into().into());
        self
    }

    /// The diagnostic as text with the source line and a caret, ended by a line feed.
    ///
    /// `source` is the text of the file; pass an empty text where it is not at hand.
    pub fn render(&self, source: &str) -> String {
        let mut text = format!(
            "{}[{}]: {}\n",
            self.severity.as_str(),
            self.code,
            self.message
        );
        let gutter = self.line.to_string().len();
        let _ = writeln!(
            text,
            "{:gutter$}--> {}:{}:{}",
            "",
            line(&self.file),
            self.line,
            self.column
        );
        if let Some(found) = source.lines().nth(self.line - 1) {
            let (shown, caret) = excerpt(found, self.column, self.length);
            let _ = writeln!(text, "{:gutter$} |", "");
            let _ = writeln!(text, "{} | {shown}", self.line);
            let _ = writeln!(text, "{:gutter$} | {caret}", "");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(text, "{:gutter$} = help: {help}", "");
        }
        text
    }
}

/// The most diagnostics that are kept of one document.
pub const MAX_DIAGNOSTICS: usize = 200;

/// Sorts by file and place, drops what is said twice, and keeps the first [`MAX_DIAGNOSTICS`].
pub fn sort(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|a, b| {
        (&a.file, a.line, a.column, a.severity, a.code, &a.message)
            .cmp(&(&b.file, b.line, b.column, b.severity, b.code, &b.message))
    });
    diagnostics.dedup();
    diagnostics.truncate(MAX_DIAGNOSTICS);
}

/// Whether any of them is an error.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics
        .iter()
        .any(|diagnostic| diagnostic.severity == Severity::Error)
}

/// All diagnostics of one file as text, a blank line between two.
pub fn render(diagnostics: &[Diagnostic], source: &str) -> String {
    let rendered: Vec<String> = diagnostics.iter().map(|d| d.render(source)).collect();
    rendered.join("\n")
}

/// The document `barecount/diagnostics/v1`.
pub fn report(diagnostics: &[Diagnostic]) -> Value {
    json!({ "schema": "barecount/diagnostics/v1", "items": diagnostics })
}

/// Text from a document, fit for a message: in backticks, control and direction characters
/// escaped, shortened to 60 characters.
pub fn quoted(text: &str) -> String {
    // Of a long text only what is shown is looked at.
    let begin: String = text.chars().take(61).collect();
    let mut shown = line(&begin).into_owned();
    if let Some((cut, _)) = shown.char_indices().nth(60) {
        shown.truncate(cut);
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The candidate that a misspelt text was most likely meant to be.
pub fn suggestion<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = text.to_lowercase();
    let limit = (text.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::osa_distance(&wanted, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// The part of a line around a column, and a line of carets under it. Tabs and unprintable
/// characters become one blank or one `\u{fffd}` each, so that the caret stays in place.
fn excerpt(line: &str, column: usize, length: usize) -> (String, String) {
    const WIDTH: usize = 100;
    let skipped = if column > WIDTH - 20 { column - 40 } else { 0 };
    // of a long line only the window is looked at
    let window: Vec<char> = line.chars().skip(skipped).take(WIDTH + 1).collect();
    let longer = window.len() > WIDTH;
    let last = window.len().min(WIDTH).saturating_sub(1);
    let shown: String = window
        .iter()
        .take(WIDTH)
        .enumerate()
        .map(|(index, c)| match *c {
            _ if index == 0 && skipped > 0 || index == last && longer => '…',
            '\t' => ' ',
            c if is_unprintable(c) => '\u{fffd}',
            c => c,
        })
        .collect();
    let offset = column - 1 - skipped;
    let room = shown.chars().count().saturating_sub(offset).max(1);
    let caret = format!(
        "{}{}",
        " ".repeat(offset),
        "^".repeat(length.clamp(1, room))
    );
    (shown.trim_end().to_owned(), caret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;

    #[test]
    fn a_misspelt_word_is_met_with_the_nearest_known_one() {
        let known = ["serverless", "container", "managed_etl"];
        assert_eq!(suggestion("serverles", known), Some("serverless"));
        assert_eq!(suggestion("Managed-ETL", known), Some("managed_etl"));
        assert_eq!(suggestion("lambda", known), None);
    }

    #[test]
    fn a_rendered_diagnostic_points_at_its_place_even_behind_a_tab() {
        let span = Span {
            line: 2,
            column: 2,
            length: 3,
        };
        let text = Diagnostic::error(codes::UNKNOWN_KEY, "a.yaml", span, "unknown key `abc`")
            .with_help("remove it")
            .render("x: 1\n\tabc: 2\n");
        assert_eq!(
            text,
            "error[BC0201]: unknown key `abc`\n --> a.yaml:2:2\n  |\n2 |  abc: 2\n  |  ^^^\n  = help: remove it\n"
        );
    }

    #[test]
    fn text_from_a_document_cannot_steer_the_terminal() {
        assert_eq!(quoted("a\u{1b}[31m\u{202e}b"), "`a\\u{1b}[31m\\u{202e}b`");
        let span = Span {
            line: 1,
            column: 500,
            length: 9,
        };
        let text = Diagnostic::error(codes::SYNTAX, "a\nb", span, "m").render(&"\u{7}".repeat(600));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }
}
