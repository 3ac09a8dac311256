use serde_json::json;

use super::*;
use std::path::{Path, PathBuf};

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
