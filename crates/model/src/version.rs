//! The version of a pipeline: its manifest and what its artifacts are pinned to.
//!
//! In prose, so that anyone can compute it: take the manifest in its typed form as JSON, that is
//! with the keys that its author gave and every duration, size and name in its canonical spelling
//! (`24h` is `1d`), and the lock file as JSON. Write both in the canonical form of RFC 8785: keys
//! sorted by their UTF-16 code units, no blanks, shortest escapes. No number in either has a
//! fraction. The version is the SHA-256 digest of the line `barecount/pipeline-version/v1`, the
//! manifest's line, and the lock's line, each ended by one line feed. Canonical JSON holds no line
//! feed, so the three cannot run into each other.
//!
//! Comments, the order of keys and the choice of YAML or JSON do not change a version. Anything
//! else does: a description as well as a digest in the lock.

use serde_json::Value;

use crate::digest::Digest;
use crate::lock::Lock;
use crate::manifest::Manifest;

/// The version of a pipeline.
pub fn of(manifest: &Manifest, lock: &Lock) -> Digest {
    let text = format!(
        "barecount/pipeline-version/v1\n{}\n{}\n",
        canonical(&typed(manifest)),
        canonical(&typed(lock))
    );
    Digest::of(text.as_bytes())
}

/// The digest of a manifest alone, in its canonical form.
pub fn of_manifest(manifest: &Manifest) -> Digest {
    Digest::of(canonical(&typed(manifest)).as_bytes())
}

fn typed<T: serde::Serialize>(value: &T) -> Value {
    // maps with text keys, lists, texts, integers and booleans: nothing that JSON could not hold
    serde_json::to_value(value).unwrap_or_default()
}

/// A value in the canonical form of RFC 8785. Numbers with a fraction are not canonical here; the
/// documents that are digested have none.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_canonical_form_sorts_keys_by_utf16_and_escapes_as_little_as_it_may() {
        // RFC 8785, section 3.2.3: U+1F600 sorts before U+FB33 by its surrogates
        let value = json!({"\u{fb33}": 1, "\u{1f600}": 2, "a": ["\u{8}\u{1f}\n/é\"", true, null]});
        assert_eq!(
            canonical(&value),
            "{\"a\":[\"\\b\\u001f\\n/é\\\"\",true,null],\"\u{1f600}\":2,\"\u{fb33}\":1}"
        );
    }
}
