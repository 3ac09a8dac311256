//! YAML or JSON text as a tree of values, with the place of every key and value.
//!
//! One parser reads both, for YAML 1.2 holds JSON. What a configuration document has no use for is
//! refused while the parser's events arrive, before anything is built from it: anchors and aliases
//! (so no expansion can grow), tags, several documents, duplicate keys, characters that deceive a
//! reader. Size, depth and count of values are bounded; the place of a value costs a few words, not
//! the length of its path.

mod builder;
mod scalar;

use std::collections::HashMap;

use serde_json::Value;

use crate::codes;
use crate::diagnostic::{Diagnostic, Span, quoted};
use crate::untrusted::is_steering;

/// The largest document, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// The deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 48;
/// The most values in a document, keys not counted.
pub const MAX_NODES: usize = 50_000;

/// A parsed document that knows where each of its values stands.
#[derive(Debug, Clone)]
pub struct Document {
    file: String,
    source: String,
    value: Value,
    place: Place,
}

/// Where a value and its key stand, and where its children do.
#[derive(Debug, Clone)]
struct Place {
    key: Option<Span>,
    value: Span,
    children: Children,
}

#[derive(Debug, Clone)]
enum Children {
    None,
    List(Vec<Place>),
    Mapping(HashMap<String, Place>),
}

impl Document {
    /// Parses a document.
    ///
    /// `file` is the name that diagnostics give; nothing is read.
    ///
    /// # Errors
    /// Every problem that was found up to where the text stops being readable, sorted by place.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let source = decode(file, bytes).map_err(|diagnostic| vec![*diagnostic])?;
        let (value, place) = builder::build(file, &source)?;
        Ok(Self {
            file: file.to_owned(),
            source,
            value,
            place,
        })
    }

    /// The name of the file, as the caller gave it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The text that was parsed.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The tree of values.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Takes the value at a JSON pointer (RFC 6901) and its key out of the mapping that they are in.
    pub(crate) fn leave_out(&mut self, pointer: &str) {
        let (above, key) = pointer.rsplit_once('/').unwrap_or_default();
        if let Some(Value::Object(mapping)) = self.value.pointer_mut(above) {
            mapping.remove(key);
        }
    }

    /// Where the key of the value at a JSON pointer (RFC 6901) stands; for an item of a list, the
    /// item. A pointer to nothing gives the nearest place above it.
    pub fn key_span(&self, pointer: &str) -> Span {
        let place = self.place(pointer);
        place.key.unwrap_or(place.value)
    }

    /// Where the value at a JSON pointer (RFC 6901) stands; for a list or mapping that is not
    /// empty, its key. A pointer to nothing gives the nearest place above it.
    pub fn value_span(&self, pointer: &str) -> Span {
        let place = self.place(pointer);
        match place.children {
            Children::None => place.value,
            Children::List(_) | Children::Mapping(_) => place.key.unwrap_or(place.value),
        }
    }

    fn place(&self, pointer: &str) -> &Place {
        let mut place = &self.place;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let child = match &place.children {
                Children::None => None,
                Children::List(items) => {
                    token.parse().ok().and_then(|index: usize| items.get(index))
                }
                Children::Mapping(entries) => entries.get(&token),
            };
            match child {
                Some(child) => place = child,
                None => break,
            }
        }
        place
    }
}

/// A key or index as a token of a JSON pointer.
pub(crate) fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn decode(file: &str, bytes: &[u8]) -> Result<String, Box<Diagnostic>> {
    if bytes.len() > MAX_BYTES {
        let message = format!(
            "the file has {} bytes; at most {MAX_BYTES} are read",
            bytes.len()
        );
        return Err(Box::new(Diagnostic::error(
            codes::TOO_LARGE,
            file,
            Span::START,
            message,
        )));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let span = end_of(&String::from_utf8_lossy(&bytes[..error.valid_up_to()]));
        let byte = bytes[error.valid_up_to()];
        let message = format!("byte 0x{byte:02x} is not UTF-8");
        Box::new(
            Diagnostic::error(codes::NOT_UTF8, file, span, message)
                .with_help("save the file as UTF-8"),
        )
    })?;
    let allowed = |c: char| !is_steering(c) || matches!(c, '\n' | '\r' | '\t');
    if let Some((index, c)) = text.char_indices().find(|(_, c)| !allowed(*c)) {
        let message = format!(
            "the character {} is not allowed here",
            quoted(&c.to_string())
        );
        return Err(Box::new(
            Diagnostic::error(codes::BAD_CHARACTER, file, end_of(&text[..index]), message)
                .with_help("remove it, or write it as an escape in a double-quoted text"),
        ));
    }
    Ok(text.to_owned())
}

/// The place right behind a text.
fn end_of(text: &str) -> Span {
    let line = text.matches('\n').count() + 1;
    let last = text.rsplit('\n').next().unwrap_or_default();
    Span {
        line,
        column: last.chars().count() + 1,
        length: 1,
    }
}

#[cfg(test)]
mod tests;
