//! Where a check looks, and where it puts what it finds.

use crate::codes::Code;
use crate::diagnostic::{Diagnostic, MAX_DIAGNOSTICS};
use crate::document::Document;

/// The most patterns of columns in one manifest: compiling each takes time.
pub(super) const MAX_PATTERNS: usize = 1_000;

/// The document under check and the diagnostics so far.
pub(super) struct Findings<'a> {
    document: &'a Document,
    diagnostics: Vec<Diagnostic>,
    patterns: usize,
}

impl<'a> Findings<'a> {
    pub(super) fn new(document: &'a Document) -> Self {
        Self {
            document,
            diagnostics: Vec::new(),
            patterns: 0,
        }
    }

    /// Whether the document has a value at a JSON pointer.
    pub(super) fn has(&self, pointer: &str) -> bool {
        self.document.value().pointer(pointer).is_some()
    }

    /// Whether there are as many diagnostics as anyone would read, so that looking for the most
    /// likely meaning of one more is wasted.
    pub(super) fn is_full(&self) -> bool {
        self.diagnostics.len() >= MAX_DIAGNOSTICS
    }

    /// Counts a pattern. False if the manifest has more than may be compiled.
    pub(super) fn count_pattern(&mut self) -> bool {
        self.patterns += 1;
        self.patterns <= MAX_PATTERNS
    }

    /// The line of a value, for messages that point at a second place.
    pub(super) fn line(&self, pointer: &str) -> usize {
        self.document.value_span(pointer).line
    }

    /// An error at a value.
    pub(super) fn error(&mut self, code: Code, pointer: &str, message: impl Into<String>) {
        let span = self.document.value_span(pointer);
        self.diagnostics
            .push(Diagnostic::error(code, self.document.file(), span, message));
    }

    /// An error at a value, with advice.
    pub(super) fn error_with_help(
        &mut self,
        code: Code,
        pointer: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let span = self.document.value_span(pointer);
        let diagnostic = Diagnostic::error(code, self.document.file(), span, message);
        self.diagnostics.push(diagnostic.with_help(help));
    }

    /// An error at a key.
    pub(super) fn key_error(
        &mut self,
        code: Code,
        pointer: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let span = self.document.key_span(pointer);
        let diagnostic = Diagnostic::error(code, self.document.file(), span, message);
        self.diagnostics.push(diagnostic.with_help(help));
    }

    /// A warning at a value, with advice.
    pub(super) fn warning(
        &mut self,
        code: Code,
        pointer: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let span = self.document.value_span(pointer);
        let diagnostic = Diagnostic::warning(code, self.document.file(), span, message);
        self.diagnostics.push(diagnostic.with_help(help));
    }

    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }
}

/// `did you mean …?`, or what there is to choose from.
pub(super) fn did_you_mean<'n>(
    text: &str,
    what: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match crate::diagnostic::suggestion(text, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.is_empty() => format!("there are no {what}"),
        None if names.len() > 12 => format!("{what}: {}, …", names[..12].join(", ")),
        None => format!("{what}: {}", names.join(", ")),
    }
}
