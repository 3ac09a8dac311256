//! Newline-delimited JSON: one object a line, lines of bounded size.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use serde_json::value::RawValue;

use super::check::RowBatch;
use super::{Stage, StageError};
use crate::cell::{Value, quoted};
use crate::input::InputFile;
use crate::schema::ColumnType;

impl Stage<'_, '_> {
    pub(super) fn ndjson(&mut self, file: &InputFile, content: File) -> Result<(), StageError> {
        let mut content = BufReader::with_capacity(64 << 10, content);
        let max = self.spec.limits.max_record_bytes;
        let mut batch = RowBatch::new(&self.spec.schema);
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            let length =
                read_line(&mut content, &mut line, max).map_err(|source| StageError::Read {
                    file: file.path.clone(),
                    source,
                })?;
            let Some(length) = length else { break };
            number += 1;
            if line.iter().all(u8::is_ascii_whitespace) && length <= max {
                continue;
            }
            self.count_rows(file, 1)?;
            if length > max {
                let error = format!("the line has more than {max} bytes");
                self.refuse(file, number, error, &line);
                continue;
            }
            match self.ndjson_row(&line) {
                Ok(row) => batch.push(&row, line.len()),
                Err(error) => self.refuse(file, number, error, &line),
            }
            if batch.is_full() {
                self.flush(&mut batch)?;
            }
        }
        self.flush(&mut batch)
    }

    fn ndjson_row<'l>(&self, line: &'l [u8]) -> Result<Vec<Value<'l>>, String> {
        let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?;
        let object: HashMap<Cow<'l, str>, &'l RawValue> =
            serde_json::from_str(line).map_err(|error| format!("not a JSON object: {error}"))?;
        let schema = &self.spec.schema;
        if let Some(unknown) = object
            .keys()
            .filter(|key| schema.column(key).is_none())
            .min()
        {
            return Err(format!("column {} is not declared", quoted(unknown)));
        }
        let cell = |(place, column): (usize, &crate::schema::Column)| {
            let raw = object
                .get(column.name.as_str())
                .map_or("null", |raw| raw.get());
            let text = scalar(raw, column.column_type)
                .map_err(|error| format!("column `{}`: {error}", column.name))?;
            self.checker.text(place, text)
        };
        schema.columns().iter().enumerate().map(cell).collect()
    }
}

/// The text of a JSON scalar, `None` for null. Numbers keep their digits: they never pass
/// through a float.
fn scalar(raw: &str, column_type: ColumnType) -> Result<Option<Cow<'_, str>>, String> {
    let numeric = matches!(
        column_type,
        ColumnType::Int64 | ColumnType::Float64 | ColumnType::Decimal { .. }
    );
    match raw.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str::<Cow<'_, str>>(raw)
            .map(|text| Some(Cow::Owned(text.into_owned())))
            .map_err(|_| "the string is not valid".to_owned()),
        Some(b't' | b'f') if column_type == ColumnType::Bool => Ok(Some(Cow::Borrowed(raw))),
        Some(b'-' | b'0'..=b'9') if numeric => Ok(Some(Cow::Borrowed(raw))),
        _ => Err(format!("{column_type} expected, found {}", quoted(raw))),
    }
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
        let end = buffer.iter().position(|byte| *byte == b'\n');
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
