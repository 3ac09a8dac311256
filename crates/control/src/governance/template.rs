//! A policy's `@refusal`: a sentence with `{names}` that the case at hand fills in.

use std::collections::BTreeMap;

/// Names that a sentence may use.
const PLACEHOLDERS: [&str; 17] = [
    "approval",
    "approval_state",
    "approver",
    "class",
    "crossings_refused",
    "drivers",
    "environment",
    "environment_kind",
    "expires_at",
    "isolation",
    "network_profile",
    "pipeline",
    "privately_reachable",
    "requester",
    "size",
    "stage",
    "tenant",
];

/// Longest value filled in, in characters; longer ones are cut.
const MAX_VALUE_CHARS: usize = 160;

/// What a case fills in, by placeholder.
pub(super) type Names = BTreeMap<&'static str, String>;

/// A parsed sentence.
#[derive(Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Name(&'static str),
}

/// Why a sentence cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum TemplateError {
    #[error("its `@refusal` has a `{{` without `}}`")]
    Unclosed,
    #[error("its `@refusal` names `{{{0}}}`, which nothing fills in")]
    Unknown(String),
}

impl Template {
    /// Splits a sentence at its placeholders; a value that is filled in later is never parsed.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(TemplateError::Unclosed)?;
            let known = PLACEHOLDERS.iter().find(|known| **known == name);
            let known = known.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Name(known));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts })
    }

    /// A sentence that lists the placeholders.
    pub(super) fn help() -> String {
        format!("A refusal may name {{{}}}.", PLACEHOLDERS.join("}, {"))
    }

    /// The sentence for one case; a name that the case lacks reads `(none)`.
    pub(super) fn fill(&self, names: &Names) -> String {
        let mut sentence = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => sentence.push_str(text),
                Part::Name(name) => match names.get(name) {
                    Some(value) => sentence.push_str(&excerpt(value)),
                    None => sentence.push_str("(none)"),
                },
            }
        }
        sentence
    }
}

/// Foreign text made fit for a line that people read: control and direction characters escaped, so
/// that it can neither move the cursor nor pretend to be several lines, and cut where too long.
pub(super) fn excerpt(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(MAX_VALUE_CHARS));
    for (position, character) in text.chars().enumerate() {
        if position == MAX_VALUE_CHARS {
            shown.push('…');
            break;
        }
        if character.is_control() || reorders(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Unicode characters that change the order or the lines of the text around them.
fn reorders(character: char) -> bool {
    matches!(character,
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
