use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Set `UPDATE_SCHEMAS=1` to write the files anew.
#[test]
fn the_checked_in_schemas_are_those_of_the_types() -> Result<(), std::io::Error> {
    for (name, generate) in PUBLISHED {
        let path = root().join("schemas").join(name);
        let text = format!("{:#}\n", generate());
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::write(&path, &text)?;
        }
        let checked_in = std::fs::read_to_string(&path)?;
        assert!(
            checked_in == text,
            "{name} is stale; set UPDATE_SCHEMAS=1 and run this test"
        );
    }
    Ok(())
}

#[test]
fn schemas_are_valid_and_every_format_in_them_is_checked() {
    for (name, generate) in PUBLISHED {
        let schema = generate();
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = schema.to_string();
        for part in text.split("\"format\":\"").skip(1) {
            let format = part.split('"').next().unwrap_or_default();
            let integers = ["uint8", "uint16", "uint32", "uint64"];
            let known = FORMATS.iter().any(|known| known.name == format);
            assert!(
                known || integers.contains(&format),
                "{name}: nothing checks {format}"
            );
        }
        assert!(
            !text.contains("\"oneOf\"") && !text.contains("\"anyOf\""),
            "{name}"
        );
    }
}

#[test]
fn the_example_manifest_is_valid() -> Result<(), std::io::Error> {
    let bytes = std::fs::read(root().join("examples/fx-rates/pipeline.yaml"))?;
    let read = |bytes: &[u8]| {
        let document = Document::parse("pipeline.yaml", bytes)?;
        MANIFEST.read::<Manifest>(&document)
    };
    match read(&bytes) {
        Ok(manifest) => assert_eq!(manifest.spec.stages.len(), 5),
        Err(diagnostics) => {
            let source = String::from_utf8_lossy(&bytes);
            panic!("{}", diagnostic::render(&diagnostics, &source))
        }
    }
    Ok(())
}

#[test]
fn a_pattern_is_left_to_the_format_where_that_is_one_of_ours() {
    let schema = json!({
        "pattern": "^p$",
        "properties": {
            "pattern": { "type": "string", "format": "barecount-name", "pattern": "^[a-z]$" },
            "format": { "type": "string", "format": "email", "pattern": "@" },
        },
        "anyOf": [{ "format": "barecount-path", "pattern": "^/" }],
    });
    let expected = json!({
        "pattern": "^p$",
        "properties": {
            "pattern": { "type": "string", "format": "barecount-name" },
            "format": { "type": "string", "format": "email", "pattern": "@" },
        },
        "anyOf": [{ "format": "barecount-path" }],
    });
    assert_eq!(told_by_formats(&schema), expected);
}

/// Of each kind of text at least one, so that nothing is held against its pattern in vain.
const USUAL: &[&str] = &[
    "a",
    "a.b",
    "a_b-c",
    "A9",
    "10MiB",
    "5m",
    "1.5",
    "-3",
    "+3",
    "a/b",
    "a@b",
    "10.0.0.0/8",
    "::1",
    "decimal(1,2)",
    "decimal(2, 1)",
    "decimal( 2 , 1 )",
    "int64",
    "*/5 * * * *",
    "0  0 1 1 0",
    "Europe/Paris",
    "UTC",
    "2026-11-30T00:00:00Z",
    "10.9.0.2/24",
    "10.0.0.1:443",
    "[::1]:443",
    "a.b:51820",
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
];
/// What is put before and behind them.
const STRANGE: &[&str] = &[
    "", " ", "\t", "\n", "é", "ａ", "٣", "-", "_", "/", "..", "\\", "~", "@", ":", "*", "%", "\0",
];

/// Or an editor would mark what is read without a word.
#[test]
fn a_pattern_takes_what_its_format_takes() -> Result<(), Box<dyn std::error::Error>> {
    let mut pairs = BTreeSet::new();
    for (_, generate) in PUBLISHED {
        patterns_of(&generate(), &mut pairs);
    }
    assert!(pairs.len() > 10, "{pairs:?}");
    let mut texts: BTreeSet<String> = USUAL
        .iter()
        .flat_map(|text| STRANGE.iter().map(move |odd| (text, odd)))
        .flat_map(|(text, odd)| [format!("{text}{odd}"), format!("{odd}{text}")])
        .collect();
    for part in ["a", "A", "0", "a.", "a-", "1."] {
        let lengths = [15, 16, 38, 39, 63, 64, 127, 128];
        texts.extend(lengths.map(|length| part.repeat(length)[..length].to_owned()));
    }
    for (name, pattern) in pairs {
        let format = FORMATS.iter().find(|format| format.name == name);
        let check = format.ok_or("nothing checks it")?.check;
        let validator = jsonschema::validator_for(&json!({ "pattern": pattern }))?;
        let taken: Vec<_> = texts.iter().filter(|text| check(text).is_ok()).collect();
        assert!(!taken.is_empty(), "no text is a {name}");
        let wider: Vec<_> = taken
            .iter()
            .filter(|text| !validator.is_valid(&json!(text)))
            .collect();
        assert!(
            wider.is_empty(),
            "{name} takes these, and {pattern} does not: {wider:?}"
        );
    }
    Ok(())
}

fn patterns_of(schema: &Value, pairs: &mut BTreeSet<(String, String)>) {
    let text = |keyword| schema.get(keyword).and_then(Value::as_str);
    if let (Some(format), Some(pattern)) = (text("format"), text("pattern")) {
        pairs.insert((format.to_owned(), pattern.to_owned()));
    }
    match schema {
        Value::Object(members) => members.values().for_each(|value| patterns_of(value, pairs)),
        Value::Array(items) => items.iter().for_each(|value| patterns_of(value, pairs)),
        _ => {}
    }
}
