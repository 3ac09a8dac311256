//! What a schema has against a document, in words for the person who wrote it.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

use crate::codes;
use crate::diagnostic::{Diagnostic, MAX_DIAGNOSTICS, Span, quoted, suggestion};
use crate::document::{Document, token};
use crate::text::FORMATS;

/// Every mismatch between a document and a schema.
pub(super) fn problems(
    document: &Document,
    schema: &Value,
    validator: &jsonschema::Validator,
) -> Vec<Diagnostic> {
    let errors = validator.iter_errors(document.value());
    let mut diagnostics = Vec::new();
    for error in errors.take(2 * MAX_DIAGNOSTICS) {
        let at = error.instance_path().as_str();
        let problem = Problem {
            document,
            schema,
            at,
            schema_at: error.schema_path().as_str(),
        };
        diagnostics.extend(problem.explain(error.kind(), error.instance()));
    }
    diagnostics
}

struct Problem<'a> {
    document: &'a Document,
    schema: &'a Value,
    /// JSON pointer into the document.
    at: &'a str,
    /// JSON pointer to the keyword of the schema.
    schema_at: &'a str,
}

impl Problem<'_> {
    fn explain(&self, kind: &ValidationErrorKind, instance: &Value) -> Vec<Diagnostic> {
        match kind {
            ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
                .iter()
                .take(MAX_DIAGNOSTICS)
                .map(|key| self.unknown_key(key))
                .collect(),
            ValidationErrorKind::Required { property } => {
                vec![self.missing_key(property.as_str().unwrap_or_default())]
            }
            ValidationErrorKind::Type { kind } => vec![self.wrong_type(kind, instance)],
            ValidationErrorKind::Enum { options } => vec![self.unknown_value(options, instance)],
            ValidationErrorKind::Constant { expected_value } => {
                vec![self.unknown_value(&Value::Array(vec![(**expected_value).clone()]), instance)]
            }
            ValidationErrorKind::Format { format } => vec![self.format(format, instance)],
            ValidationErrorKind::Pattern { pattern } => vec![self.pattern(pattern, instance)],
            other => vec![self.out_of_range(other, instance)],
        }
    }

    fn unknown_key(&self, key: &str) -> Diagnostic {
        let place = format!("{}/{}", self.at, token(key));
        let parent = self.schema_parent();
        let names: Vec<&str> = parent
            .and_then(|parent| parent.get("properties")?.as_object())
            .map(|properties| properties.keys().map(String::as_str).collect())
            .unwrap_or_default();
        if names.is_empty() {
            return self.bad_map_key(key, &place);
        }
        let message = format!("unknown key {} in {}", quoted(key), shown(self.at));
        let help = if let Some(name) = suggestion(key, names.iter().copied()) {
            format!("did you mean `{name}`?")
        } else if matches!(
            key,
            "host" | "hosts" | "hostname" | "node" | "machine" | "server"
        ) {
            "a manifest never names a machine; the environment decides where work is placed"
                .to_owned()
        } else {
            format!("known here: {}", names.join(", "))
        };
        self.error(codes::UNKNOWN_KEY, self.document.key_span(&place), message)
            .with_help(help)
    }

    /// A key of a mapping from names of the writer's choice.
    fn bad_map_key(&self, key: &str, place: &str) -> Diagnostic {
        let message = format!("{} cannot be a key of {}", quoted(key), shown(self.at));
        self.error(codes::INVALID_NAME, self.document.key_span(place), message)
            .with_help("a name has at most 63 lower-case letters, digits, `-` and `_`")
    }

    fn missing_key(&self, key: &str) -> Diagnostic {
        let message = format!("{} lacks the key `{key}`", shown(self.at));
        let diagnostic = self.error(codes::MISSING_KEY, self.document.key_span(self.at), message);
        let about = self.schema_parent().and_then(|parent| {
            parent
                .get("properties")?
                .get(key)?
                .get("description")?
                .as_str()
        });
        match about {
            Some(about) => diagnostic.with_help(format!("`{key}`: {about}")),
            None => diagnostic,
        }
    }

    fn wrong_type(&self, kind: &TypeKind, instance: &Value) -> Diagnostic {
        let expected = match kind {
            TypeKind::Single(single) => in_words(single.as_str()),
            TypeKind::Multiple(_) => "another type",
        };
        let found = match instance {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(number) if number.is_f64() => "a number with a fraction",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "a mapping",
        };
        let message = format!("{} must be {expected}, and is {found}", shown(self.at));
        let diagnostic = self.error(codes::WRONG_TYPE, self.span(), message);
        match (expected, instance) {
            ("text", Value::Number(_) | Value::Bool(_)) => {
                let written = self.written().unwrap_or_default();
                diagnostic.with_help(self.as_text(&written))
            }
            (_, Value::Null) => diagnostic.with_help("give a value, or leave the key out"),
            ("a list", _) => {
                diagnostic.with_help("write a list: `[…]`, or lines that start with `- `")
            }
            _ => diagnostic,
        }
    }

    /// How to write as text what was written as something else.
    fn as_text(&self, written: &str) -> String {
        let format = self
            .schema_parent()
            .and_then(|parent| parent.get("format")?.as_str());
        let format = FORMATS.iter().find(|known| Some(known.name) == format);
        match format.map(|format| (format.check)(written)) {
            // quotes alone would not do, as for a duration without its unit
            Some(Err(reason)) => reason.to_string(),
            _ => format!("put it in quotes: \"{written}\""),
        }
    }

    fn unknown_value(&self, options: &Value, instance: &Value) -> Diagnostic {
        let options: Vec<&str> = options
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let Some(text) = instance.as_str() else {
            let message = format!("{} must be one of {}", shown(self.at), options.join(", "));
            return self.error(codes::WRONG_TYPE, self.span(), message);
        };
        let message = format!("{} cannot be {}", shown(self.at), quoted(text));
        let help = match suggestion(text, options.iter().copied()) {
            Some(option) if options.len() > 1 => {
                format!("did you mean `{option}`? Possible: {}", options.join(", "))
            }
            _ => format!("possible: {}", options.join(", ")),
        };
        self.error(codes::UNKNOWN_VALUE, self.span(), message)
            .with_help(help)
    }

    fn format(&self, format: &str, instance: &Value) -> Diagnostic {
        let text = instance.as_str().unwrap_or_default();
        let Some(format) = FORMATS.iter().find(|known| known.name == format) else {
            let message = format!("{} is not a valid {format}", quoted(text));
            return self.error(codes::INVALID_VALUE, self.span(), message);
        };
        // What stands where a secret's path belongs may be the secret.
        let written = match format.name {
            crate::text::SECRET_NAME_FORMAT => shown(self.at),
            _ => quoted(text),
        };
        let message = format!("{written} is not {}", format.article);
        let diagnostic = self.error(format.code, self.span(), message);
        match (format.check)(text) {
            Err(reason) => diagnostic.with_help(reason.to_string()),
            Ok(()) => diagnostic,
        }
    }

    fn pattern(&self, pattern: &str, instance: &Value) -> Diagnostic {
        let text = instance.as_str().unwrap_or_default();
        let message = format!(
            "{} is not a valid value of {}",
            quoted(text),
            shown(self.at)
        );
        let about = self
            .schema_parent()
            .and_then(|parent| parent.get("description")?.as_str())
            .map(|about| format!("{about} "))
            .unwrap_or_default();
        self.error(codes::INVALID_VALUE, self.span(), message)
            .with_help(format!("{about}It matches {pattern}"))
    }

    fn out_of_range(&self, kind: &ValidationErrorKind, instance: &Value) -> Diagnostic {
        let what = shown(self.at);
        let message = match kind {
            ValidationErrorKind::Minimum { limit } => format!("{what} must be at least {limit}"),
            ValidationErrorKind::Maximum { limit } => format!("{what} must be at most {limit}"),
            ValidationErrorKind::MinLength { limit: 1 } => format!("{what} must not be empty"),
            ValidationErrorKind::MinLength { limit } => {
                format!("{what} must have at least {limit} characters")
            }
            ValidationErrorKind::MaxLength { limit } => {
                format!("{what} must have at most {limit} characters")
            }
            ValidationErrorKind::MinItems { limit: 1 } => format!("{what} must not be empty"),
            ValidationErrorKind::MinItems { limit } => {
                format!("{what} must have at least {limit} items")
            }
            ValidationErrorKind::MaxItems { limit } => {
                format!("{what} must have at most {limit} items")
            }
            ValidationErrorKind::MinProperties { .. } => match self.key_names() {
                Some(names) => format!("{what} needs one of the keys {names}"),
                None => format!("{what} must not be empty"),
            },
            ValidationErrorKind::MaxProperties { limit: 1 } => {
                let found = instance.as_object().map_or(0, serde_json::Map::len);
                format!("{what} must have one key, and has {found}")
            }
            ValidationErrorKind::MaxProperties { limit } => {
                format!("{what} must have at most {limit} keys")
            }
            other => format!("{what} breaks the rule `{}` of the schema", other.keyword()),
        };
        let diagnostic = self.error(codes::OUT_OF_RANGE, self.span(), message);
        match kind {
            ValidationErrorKind::MaxProperties { limit: 1 } => {
                diagnostic.with_help("write each as an item of the list of its own")
            }
            _ => diagnostic,
        }
    }

    fn key_names(&self) -> Option<String> {
        let parent = self.schema_parent()?;
        let properties = parent.get("properties")?.as_object()?;
        let required = parent.get("required").and_then(Value::as_array);
        let optional = |name: &&String| {
            required.is_none_or(|required| required.iter().all(|other| other != name.as_str()))
        };
        let names: Vec<&str> = properties
            .keys()
            .filter(optional)
            .map(String::as_str)
            .collect();
        Some(names.join(", "))
    }

    fn schema_parent(&self) -> Option<&Value> {
        let (parent, _) = self.schema_at.rsplit_once('/')?;
        self.schema.pointer(parent)
    }

    fn span(&self) -> Span {
        self.document.value_span(self.at)
    }

    /// The value as the document spells it.
    fn written(&self) -> Option<String> {
        let span = self.span();
        let line = self.document.source().lines().nth(span.line - 1)?;
        Some(
            line.chars()
                .skip(span.column - 1)
                .take(span.length)
                .collect(),
        )
    }

    fn error(&self, code: codes::Code, span: Span, message: String) -> Diagnostic {
        Diagnostic::error(code, self.document.file(), span, message)
    }
}

fn in_words(json_type: &str) -> &'static str {
    match json_type {
        "array" => "a list",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "null" => "nothing",
        "number" => "a number",
        "object" => "a mapping",
        _ => "text",
    }
}

/// A JSON pointer as people say it: `stages[0].runner`, without the leading `spec`.
pub(crate) fn shown(pointer: &str) -> String {
    let mut text = String::new();
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        if token.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            text = format!("{text}[{token}]");
        } else if text.is_empty() || text == "spec" {
            text = token;
        } else {
            text = format!("{text}.{token}");
        }
    }
    if text.is_empty() {
        "the document".to_owned()
    } else {
        quoted(&text)
    }
}
