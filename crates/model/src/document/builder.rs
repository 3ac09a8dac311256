//! Builds the tree of values and places from the parser's events.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Value};

use super::{Children, MAX_DEPTH, MAX_NODES, Place, scalar};
use crate::codes::{self, Code};
use crate::diagnostic::{self, Diagnostic, MAX_DIAGNOSTICS, Span, quoted};

/// Builds a document from its text, or tells all that is wrong with it.
pub(super) fn build(file: &str, source: &str) -> Result<(Value, Place), Vec<Diagnostic>> {
    let mut builder = Builder::new(file, source);
    for item in Parser::new_from_str(source) {
        let flow = match item {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                builder.syntax_error(&error);
                Flow::Stop
            }
        };
        // a flood of mistakes is one mistake: nobody reads the thousandth
        if matches!(flow, Flow::Stop) || builder.diagnostics.len() >= MAX_DIAGNOSTICS {
            break;
        }
    }
    builder.finish()
}

enum Flow {
    Continue,
    Stop,
}

/// A list or mapping whose end has not come yet.
struct Open {
    start: Span,
    content: Content,
}

enum Content {
    List(Vec<Value>, Vec<Place>),
    Mapping {
        values: Map<String, Value>,
        places: HashMap<String, Place>,
        key: Key,
    },
}

/// What a mapping waits for.
enum Key {
    /// The next key.
    Expected,
    /// The value of this key.
    Known(String, Span),
    /// The value of a key that was refused; it is read over.
    Refused,
}

struct Builder<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    open: Vec<Open>,
    root: Option<(Value, Place)>,
    nodes: usize,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Builder<'a> {
    fn new(file: &'a str, source: &'a str) -> Self {
        let lines = source.lines().collect();
        Self {
            file,
            lines,
            open: Vec::new(),
            root: None,
            nodes: 0,
            diagnostics: Vec::new(),
        }
    }

    fn event(&mut self, event: Event<'_>, span: saphyr_parser::Span) -> Flow {
        let span = self.span(span);
        match event {
            Event::DocumentStart(_) if self.root.is_some() => self.stop(
                codes::SEVERAL_DOCUMENTS,
                span,
                "a second document starts here; a file holds one",
            ),
            Event::Alias(_) => self.stop(
                codes::ALIAS,
                span,
                "an alias stands here; write the value out where it applies",
            ),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_decoration(span, anchor, tag.map(|tag| tag.to_string()));
                self.scalar(&text, style, span)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_decoration(span, anchor, tag.map(|tag| tag.to_string()));
                self.enter(span, Content::List(Vec::new(), Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_decoration(span, anchor, tag.map(|tag| tag.to_string()));
                let (values, places) = (Map::new(), HashMap::new());
                self.enter(
                    span,
                    Content::Mapping {
                        values,
                        places,
                        key: Key::Expected,
                    },
                )
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            _ => Flow::Continue,
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Span) -> Flow {
        if self.expects_key() {
            if text.is_empty() && style == ScalarStyle::Plain {
                return self.stop(codes::BAD_KEY, span, "a key is missing before the `:`");
            }
            self.key(text, span);
            return Flow::Continue;
        }
        let value = if style == ScalarStyle::Plain {
            scalar::resolve(text).unwrap_or_else(|reason| {
                let message = format!("{} cannot be used: {reason}", quoted(text));
                self.error(codes::BAD_NUMBER, span, message);
                Value::Null
            })
        } else {
            Value::String(text.to_owned())
        };
        self.place(value, span, Children::None)
    }

    fn expects_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                content: Content::Mapping {
                    key: Key::Expected,
                    ..
                },
                ..
            })
        )
    }

    fn key(&mut self, text: &str, span: Span) {
        let Some(Open {
            content: Content::Mapping { places, key, .. },
            ..
        }) = self.open.last_mut()
        else {
            return;
        };
        if let Some(first) = places.get(text) {
            let line = first.key.unwrap_or(first.value).line;
            *key = Key::Refused;
            let message = format!("the key {} is already given on line {line}", quoted(text));
            self.error(codes::DUPLICATE_KEY, span, message);
        } else {
            *key = Key::Known(text.to_owned(), span);
        }
    }

    fn enter(&mut self, start: Span, content: Content) -> Flow {
        if self.expects_key() {
            return self.stop(
                codes::BAD_KEY,
                start,
                "a key is text, not a list or a mapping",
            );
        }
        if self.open.len() >= MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return self.stop(codes::TOO_DEEP, start, message);
        }
        // a caret under the first character is enough for a value of many lines
        self.open.push(Open {
            start: Span { length: 1, ..start },
            content,
        });
        Flow::Continue
    }

    fn leave(&mut self) -> Flow {
        let Some(Open { start, content }) = self.open.pop() else {
            return Flow::Continue;
        };
        match content {
            Content::List(values, places) => {
                self.place(Value::Array(values), start, Children::List(places))
            }
            Content::Mapping { values, places, .. } => {
                self.place(Value::Object(values), start, Children::Mapping(places))
            }
        }
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, value: Value, span: Span, children: Children) -> Flow {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values in one document");
            return self.stop(codes::TOO_MANY_NODES, span, message);
        }
        let mut place = Place {
            key: None,
            value: span,
            children,
        };
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some((value, place)),
            Some(Content::List(values, places)) => {
                values.push(value);
                places.push(place);
            }
            Some(Content::Mapping {
                values,
                places,
                key,
            }) => {
                if let Key::Known(name, key_span) = std::mem::replace(key, Key::Expected) {
                    place.key = Some(key_span);
                    places.insert(name.clone(), place);
                    values.insert(name, value);
                }
            }
        }
        Flow::Continue
    }

    fn refuse_decoration(&mut self, span: Span, anchor: usize, tag: Option<String>) {
        if anchor != 0 {
            let message = "an anchor stands here; anchors and aliases are not used in this format";
            self.error(codes::ALIAS, span, message);
        }
        if let Some(tag) = tag {
            let message = format!("the tag {} is not used in this format", quoted(&tag));
            self.error(codes::TAG, span, message);
        }
    }

    fn syntax_error(&mut self, error: &ScanError) {
        let marker = error.marker();
        let mut span = Span {
            line: marker.line().max(1),
            column: marker.col() + 1,
            length: 1,
        };
        if span.line > self.lines.len() {
            // behind the last line there is nothing to show
            let last = self.lines.last().map_or(0, |line| line.chars().count());
            span = Span {
                line: self.lines.len().max(1),
                column: last + 1,
                length: 1,
            };
        }
        let line = self.lines.get(span.line - 1).copied().unwrap_or_default();
        let mut diagnostic =
            Diagnostic::error(codes::SYNTAX, self.file, span, error.info().to_owned());
        if error.info().contains("flow") {
            diagnostic = diagnostic.with_help(
                "a list or mapping that opens with `[` or `{` is not closed, or lacks a `,`",
            );
        } else if line.trim_start_matches(' ').starts_with('\t') {
            diagnostic = diagnostic.with_help("indent with spaces; YAML allows no tab there");
        } else if line.contains(": ") || line.trim_end().ends_with(':') {
            diagnostic = diagnostic.with_help(
                "check the indentation of this line and the one above, and quote a text that holds `: ` or ` #`",
            );
        }
        self.diagnostics.push(diagnostic);
    }

    fn stop(&mut self, code: Code, span: Span, message: impl Into<String>) -> Flow {
        self.error(code, span, message);
        Flow::Stop
    }

    fn error(&mut self, code: Code, span: Span, message: impl Into<String>) {
        self.diagnostics
            .push(Diagnostic::error(code, self.file, span, message));
    }

    /// The parser's span as a place on one line.
    fn span(&self, span: saphyr_parser::Span) -> Span {
        let (start, end) = (span.start, span.end);
        let line = start.line().max(1);
        let length = if end.line() == start.line() {
            end.col().saturating_sub(start.col())
        } else {
            let characters = self
                .lines
                .get(line - 1)
                .map_or(0, |text| text.chars().count());
            characters.saturating_sub(start.col())
        };
        Span {
            line,
            column: start.col() + 1,
            length: length.max(1),
        }
    }

    fn finish(mut self) -> Result<(Value, Place), Vec<Diagnostic>> {
        let empty = match &self.root {
            None => true,
            Some((value, _)) => value.is_null(),
        };
        if empty && self.diagnostics.is_empty() {
            self.error(codes::EMPTY, Span::START, "the file holds no document");
        }
        match self.root {
            Some(root) if self.diagnostics.is_empty() => Ok(root),
            _ => {
                diagnostic::sort(&mut self.diagnostics);
                Err(self.diagnostics)
            }
        }
    }
}
