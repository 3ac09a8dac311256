//! A policy's `@refusal`: a sentence with `{names}` that the case at hand fills in.

use std::collections::BTreeMap;

use barecount_model::untrusted::Label;

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

/// Text that a question brings, within a line that people read.
pub(super) fn excerpt(text: &str) -> String {
    Label::from(text).to_string()
}
