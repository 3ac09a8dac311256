//! What of a value may turn up by itself.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use crate::store::MIN_VALUE_BYTES;

/// The shortest line or member of a value that is looked for by itself, in bytes.
const MIN_PART_BYTES: usize = 8;

/// Members of a JSON document that say where a service is, and not how one gets in: they stand in
/// every log and flow record, which would say nothing without them.
const PUBLIC_MEMBERS: [&str; 14] = [
    "type",
    "host",
    "hostname",
    "port",
    "engine",
    "region",
    "auth_uri",
    "token_uri",
    "auth_provider_x509_cert_url",
    "client_x509_cert_url",
    "universe_domain",
    "project_id",
    "database",
    "dbname",
];

/// A value, and what of it may turn up by itself.
pub(super) fn needles(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut needles = Needles::default();
    needles.add(value);
    needles.add(value.trim_ascii());
    needles.add_lines(value);
    if let Ok(document @ (Value::Object(_) | Value::Array(_))) = serde_json::from_slice(value) {
        needles.add_document(&document);
    }
    match std::str::from_utf8(value) {
        Ok(text) => needles.add_written(text),
        Err(_) => {
            // Bytes that were taken for Latin-1, as `\u00ff` in JSON.
            let text: String = value.iter().map(|byte| char::from(*byte)).collect();
            needles.add(text.as_bytes());
        }
    }
    needles.0
}

#[derive(Default)]
struct Needles(BTreeSet<Vec<u8>>);

impl Needles {
    fn add(&mut self, needle: &[u8]) {
        if needle.len() >= MIN_VALUE_BYTES {
            self.0.insert(needle.to_vec());
        }
    }

    fn add_lines(&mut self, value: &[u8]) {
        if !value.contains(&b'\n') {
            return;
        }
        for line in value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            // The frame of a PEM file (RFC 7468) is no secret.
            if line.len() >= MIN_PART_BYTES && !line.starts_with(b"-----") {
                self.add(line);
            }
        }
    }

    /// A document without white space, with a blank behind each comma and colon as Python has it,
    /// and its texts.
    fn add_document(&mut self, document: &Value) {
        self.add(document.to_string().as_bytes());
        let mut spaced = String::new();
        write_spaced(document, &mut spaced);
        self.add(spaced.as_bytes());
        self.add_members("", document);
    }

    /// Recursive, as the document is, of which the reader bounds the depth.
    fn add_members(&mut self, name: &str, value: &Value) {
        match value {
            Value::String(text) if text.len() >= MIN_PART_BYTES => {
                let public = PUBLIC_MEMBERS.contains(&name) && !text.contains('@');
                if !public {
                    self.add(text.as_bytes());
                    self.add(text.trim().as_bytes());
                    self.add_lines(text.as_bytes());
                    self.add_written(text);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add_members(name, item)),
            Value::Object(members) => {
                for (name, member) in members {
                    self.add_members(name, member);
                }
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
    }

    /// A text as JSON escapes it, of which there may be base64; in UTF-16 as it is read without zeros;
    /// and as those write it who have a byte for each character of Latin-1 and escapes for the others.
    /// Mostly all of these are the text itself.
    fn add_written(&mut self, text: &str) {
        let quoted = Value::from(text).to_string();
        self.add(&quoted.as_bytes()[1..quoted.len() - 1]);
        if text.is_ascii() {
            return;
        }
        let mut mixed = Vec::new();
        for character in text.chars() {
            match u8::try_from(u32::from(character)) {
                Ok(byte) => mixed.push(byte),
                Err(_) => mixed.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.add(&mixed);
        let units = || text.encode_utf16();
        let without_zeros =
            |bytes: Vec<u8>| -> Vec<u8> { bytes.into_iter().filter(|byte| *byte != 0).collect() };
        self.add(&without_zeros(units().flat_map(u16::to_le_bytes).collect()));
        self.add(&without_zeros(units().flat_map(u16::to_be_bytes).collect()));
    }
}

fn write_spaced(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_spaced(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_spaced(&Value::from(name.as_str()), out);
                out.push_str(": ");
                write_spaced(member, out);
            }
            out.push('}');
        }
        plain => write!(out, "{plain}").expect("a text grows as it must"),
    }
}
