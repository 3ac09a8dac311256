//! Newline-delimited JSON: one object a line, lines of bounded size.
//!
//! Most lines are flat objects of declared names and plain values, which [`flat`] takes apart in
//! one pass. Whatever it does not take is read by the rule, with the reason where that fails.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::check::Rows;
use super::{Stage, StageError, flat, read_error};
use crate::cell::quoted;
use crate::dead_letter::Refusal;
use crate::input::InputFile;
use crate::schema::{ColumnType, TableSchema};

impl Stage<'_, '_> {
    pub(super) fn ndjson(&mut self, file: &InputFile, content: File) -> Result<(), StageError> {
        let unreadable = |source| read_error(file, source);
        let mut content = BufReader::with_capacity(256 << 10, self.observed(content));
        skip_bom(&mut content).map_err(unreadable)?;
        let max = self.spec.limits.max_record_bytes;
        let schema = &self.spec.schema;
        let mut rows = Rows::new(schema);
        let mut flat = flat::FlatObject::new(schema);
        let mut line = Vec::new();
        let mut number = 0;
        let mut is_first = true;
        loop {
            let length = read_line(&mut content, &mut line, max).map_err(unreadable)?;
            let Some(length) = length else { break };
            number += 1;
            if line.iter().all(u8::is_ascii_whitespace) && length <= max {
                continue;
            }
            if std::mem::take(&mut is_first) && line.trim_ascii_start().first() == Some(&b'[') {
                return Err(StageError::Malformed {
                    file: file.path.clone(),
                    format: "NDJSON",
                    reason: "it begins with a JSON array; write one object a line, without brackets and commas around them".to_owned(),
                });
            }
            self.count_rows(file, 1)?;
            if length > max {
                let refusal = Refusal::new(format!("the line has more than {max} bytes"));
                self.refuse(file, number, &refusal, &line)?;
                continue;
            }
            match ndjson_row(&line, schema, &mut flat, &mut rows) {
                Ok(()) => rows.end_row(line.len()),
                Err(refusal) => {
                    rows.refuse_row(line.len());
                    self.refuse(file, number, &refusal, &line)?;
                }
            }
            if rows.is_full() {
                self.flush(&mut rows)?;
            }
        }
        self.flush(&mut rows)
    }
}

fn ndjson_row(
    line: &[u8],
    schema: &TableSchema,
    flat: &mut flat::FlatObject<'_>,
    rows: &mut Rows<'_>,
) -> Result<(), Refusal> {
    let line =
        std::str::from_utf8(line).map_err(|_| Refusal::new("the line is not UTF-8".to_owned()))?;
    if flat.read(line) {
        for column in 0..schema.columns().len() {
            rows.cell(column, flat.text(column, line))?;
        }
        return Ok(());
    }
    let Members(members) = serde_json::from_str(line).map_err(not_an_object)?;
    let undeclared = members
        .iter()
        .map(|(name, _)| name)
        .find(|name| schema.column(name).is_none());
    if let Some(name) = undeclared {
        return Err(Refusal::new(format!(
            "column {} is not declared",
            quoted(name)
        )));
    }
    for (place, column) in schema.columns().iter().enumerate() {
        let mut named = members.iter().filter(|(name, _)| *name == column.name);
        let raw = named.next().map_or("null", |(_, raw)| raw.get());
        if named.next().is_some() {
            return Err(Refusal::new(format!(
                "column `{}` is there twice",
                column.name
            )));
        }
        let text = scalar(raw, column.column_type)
            .map_err(|refusal| refusal.within(&format!("column `{}`: ", column.name)))?;
        rows.cell(place, text.as_deref())?;
    }
    Ok(())
}

/// The members of an object in the order of the text, a name as often as it is there.
struct Members<'l>(Vec<(Cow<'l, str>, &'l RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Reader)
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'l>(#[serde(borrow)] Cow<'l, str>);

/// The reason without what differs from line to line.
fn not_an_object(error: serde_json::Error) -> Refusal {
    let text = error.to_string();
    match text.split_once(" at line 1") {
        Some((reason, place)) => {
            Refusal::new(format!("not a JSON object: {reason}")).at(format!("at{place}"))
        }
        None => Refusal::new(format!("not a JSON object: {text}")),
    }
}

/// The text of a JSON scalar, `None` for null. Numbers keep their digits: they never pass
/// through a float.
fn scalar(raw: &str, column_type: ColumnType) -> Result<Option<Cow<'_, str>>, Refusal> {
    match raw.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str::<Name<'_>>(raw)
            .map(|Name(text)| Some(text))
            .map_err(|_| Refusal::new("the string is not valid".to_owned())),
        Some(b't' | b'f') if column_type == ColumnType::Bool => Ok(Some(Cow::Borrowed(raw))),
        Some(b'-' | b'0'..=b'9') if is_numeric(column_type) => Ok(Some(Cow::Borrowed(raw))),
        _ => Err(Refusal::new(format!("{column_type} expected")).found(quoted(raw))),
    }
}

/// Whether a JSON number is a value of the type.
pub(super) fn is_numeric(column_type: ColumnType) -> bool {
    matches!(
        column_type,
        ColumnType::Int64 | ColumnType::Float64 | ColumnType::Decimal { .. }
    )
}

/// A mark of the byte order is no part of the first line.
fn skip_bom(content: &mut impl BufRead) -> io::Result<()> {
    if content.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        content.consume(3);
    }
    Ok(())
}

/// Reads a line without its end; what is beyond `max` bytes is counted, not kept. `None` at the
/// end of the file.
fn read_line(
    content: &mut impl BufRead,
    line: &mut Vec<u8>,
    max: usize,
) -> io::Result<Option<usize>> {
    line.clear();
    let mut length = 0_usize;
    let mut any = false;
    loop {
        let buffer = content.fill_buf()?;
        if buffer.is_empty() {
            return Ok(any.then_some(length));
        }
        any = true;
        let end = memchr::memchr(b'\n', buffer);
        let part = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&part[..part.len().min(max.saturating_sub(line.len()))]);
        length = length.saturating_add(part.len());
        let read = part.len() + usize::from(end.is_some());
        content.consume(read);
        if end.is_some() {
            return Ok(Some(length));
        }
    }
}
