//! The JSON Schemas, and reading documents by them.
//!
//! The typed structs are the single source: schemas are generated from them, checked in under
//! `schemas/`, and are what documents are validated against before they become those structs.

mod explain;

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::codes;
use crate::diagnostic::{self, Diagnostic, Span, quoted};
use crate::document::Document;
use crate::environment::EnvironmentFile;
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::recipe::RecipeFile;
use crate::text::FORMATS;

/// Makes a schema.
pub type Generator = fn() -> Value;

/// The published schemas: the name of each file under `schemas/`, and what generates it.
pub const PUBLISHED: &[(&str, Generator)] = &[
    ("build.v1.schema.json", build),
    ("environment.v1.schema.json", environment),
    ("evidence.v1.schema.json", evidence),
    ("lock.v1.schema.json", lock),
    ("manifest.v1.schema.json", manifest),
];

/// The schema of pipeline manifests.
pub fn manifest() -> Value {
    generate::<Manifest>("manifest", "BareCount pipeline manifest")
}

/// The schema of environment files.
pub fn environment() -> Value {
    generate::<EnvironmentFile>("environment", "BareCount environment")
}

/// The schema of lock files.
pub fn lock() -> Value {
    generate::<Lock>("lock", "BareCount pipeline lock")
}

/// The schema of build recipes, `build.yaml`.
pub fn build() -> Value {
    generate::<RecipeFile>("build", "BareCount build recipe")
}

/// The schema of ledger entries: in-toto statements with one of our predicates.
pub fn evidence() -> Value {
    crate::evidence::schema()
}

/// A schema ready to read documents by.
pub(crate) struct Reader {
    schema: Value,
    /// The expected value of `kind`, where all documents of the schema have the same.
    kind: Option<&'static str>,
    validator: Result<jsonschema::Validator, String>,
}

/// The schema as it is checked in, which a test holds against the types: to generate it takes longer
/// than all that is read by it.
macro_rules! reader {
    ($kind:expr, $file:literal) => {
        LazyLock::new(|| {
            let text = include_str!(concat!("../../../schemas/", $file, ".v1.schema.json"));
            Reader::new($kind, text)
        })
    };
}

/// The schema without the patterns of texts that have a format of ours. They are for those who do not
/// know it, such as editors; the format is the type's own rule. To compile them would take longer
/// than all else that is done with a manifest.
fn told_by_formats(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let format = members.get("format").and_then(Value::as_str);
            let told = format.is_some_and(|name| FORMATS.iter().any(|format| format.name == name));
            members
                .iter()
                .filter(|(keyword, value)| !(told && *keyword == "pattern" && value.is_string()))
                .map(|(keyword, value)| (keyword.clone(), told_by_formats(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(told_by_formats).collect(),
        other => other.clone(),
    }
}

/// Reads manifests.
pub(crate) static MANIFEST: LazyLock<Reader> = reader!(Some("Pipeline"), "manifest");
/// Reads environment files.
pub(crate) static ENVIRONMENT: LazyLock<Reader> = reader!(Some("Environment"), "environment");
/// Reads build recipes.
pub(crate) static RECIPE: LazyLock<Reader> = reader!(None, "build");
/// Reads lock files.
pub(crate) static LOCK: LazyLock<Reader> = reader!(Some("Lock"), "lock");

impl Reader {
    fn new(kind: Option<&'static str>, schema: &str) -> Self {
        let mut options = jsonschema::options().should_validate_formats(true);
        for format in FORMATS {
            let check = format.check;
            options = options.with_format(format.name, move |text: &str| check(text).is_ok());
        }
        let (schema, validator) = match serde_json::from_str(schema) {
            Ok(schema) => {
                let validator = options.build(&told_by_formats(&schema));
                (schema, validator.map_err(|error| error.to_string()))
            }
            Err(error) => (Value::Null, Err(error.to_string())),
        };
        Self {
            schema,
            kind,
            validator,
        }
    }

    /// Reads a document into its typed form.
    ///
    /// # Errors
    /// Everything that the schema has against the document, sorted by place.
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        document: &Document,
    ) -> Result<T, Vec<Diagnostic>> {
        if let Some(diagnostic) = self.other_kind(document) {
            return Err(vec![diagnostic]);
        }
        let mut diagnostics = match &self.validator {
            Ok(validator) => explain::problems(document, &self.schema, validator),
            Err(reason) => vec![self.internal(document, reason)],
        };
        if diagnostics.is_empty() {
            match T::deserialize(document.value()) {
                Ok(value) => return Ok(value),
                // the schema is made from the type, so this is a gap in the schema
                Err(error) => diagnostics.push(self.internal(document, &error.to_string())),
            }
        }
        diagnostic::sort(&mut diagnostics);
        Err(diagnostics)
    }

    fn other_kind(&self, document: &Document) -> Option<Diagnostic> {
        let expected = self.kind?;
        let found = document.value().get("kind")?.as_str()?;
        if found == expected {
            return None;
        }
        let span = document.value_span("/kind");
        let message = format!(
            "this is a document of kind {}, not `{}`",
            quoted(found),
            expected
        );
        let diagnostic = Diagnostic::error(codes::WRONG_KIND, document.file(), span, message);
        Some(diagnostic.with_help(format!("expected here: `kind: {expected}`")))
    }

    fn internal(&self, document: &Document, reason: &str) -> Diagnostic {
        let message = format!("the document does not fit its schema: {reason}");
        Diagnostic::error(codes::INVALID_VALUE, document.file(), Span::START, message)
    }
}

fn generate<T: JsonSchema>(name: &str, title: &str) -> Value {
    let schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    tidy(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        let id = format!("https://barecount.dev/schemas/{name}.v1.schema.json");
        root.insert("$id".to_owned(), Value::String(id));
        root.insert("title".to_owned(), Value::String(title.to_owned()));
    }
    schema
}

/// Rewrites what the generator says in a roundabout way, so that a mismatch has one plain reason:
/// an optional value may be absent but is not null, and a choice of constants is an `enum`.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(object) => {
            object.retain(|key, value| !(key == "default" && (value.is_null() || is_empty(value))));
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [single] = &types[..] {
                    let single = single.clone();
                    object.insert("type".to_owned(), single);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(single)] = &choices[..] {
                    let single = single.clone();
                    object.remove("anyOf");
                    object.extend(single);
                }
            }
            if let Some(Value::Array(choices)) = object.get("oneOf") {
                let constants: Option<Vec<Value>> = choices
                    .iter()
                    .map(|choice| choice.get("const").cloned())
                    .collect();
                if let Some(constants) = constants {
                    object.remove("oneOf");
                    object.insert("type".to_owned(), Value::String("string".to_owned()));
                    object.insert("enum".to_owned(), Value::Array(constants));
                }
            }
            object.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
