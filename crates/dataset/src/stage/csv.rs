//! CSV: records of bounded size, whatever the file holds.

use std::fs::File;

use super::check::Rows;
use super::observer::Observed;
use super::records::{MAX_FIELDS, Next, Records};
use super::{Stage, StageError, read_error};
use crate::cell::quoted;
use crate::dead_letter::Refusal;
use crate::input::InputFile;
use crate::schema::{ColumnType, TableSchema};

impl Stage<'_, '_> {
    pub(super) fn csv(&mut self, file: &InputFile, content: File) -> Result<(), StageError> {
        let unreadable = |source| read_error(file, source);
        let malformed = |reason: String| StageError::Malformed {
            file: file.path.clone(),
            format: "CSV",
            reason,
        };
        let open_quote = |line: u64| {
            malformed(format!(
                "it ends inside the quotes of the record that begins in line {line}, so what is a row from there on cannot be told"
            ))
        };
        let max = self.spec.limits.max_record_bytes;
        let content = self.observed(content);
        let mut records = Records::new(content, max);
        let places = match records.next().map_err(unreadable)? {
            Next::Record => header(&records, &self.spec.schema),
            Next::TooLarge => Err("the header row is too long".to_owned()),
            Next::Malformed(reason) => return Err(malformed(format!("in the header, {reason}"))),
            Next::OpenQuote => return Err(open_quote(records.line())),
            Next::End => Err("there is no header row".to_owned()),
        };
        let places = places.map_err(|difference| StageError::Columns {
            file: file.path.clone(),
            difference,
        })?;
        if places.len() == 1 {
            records.count_empty_lines();
        }
        let mut rows = Rows::new(&self.spec.schema);
        loop {
            let next = records.next().map_err(unreadable)?;
            let length = records.raw().len();
            match next {
                Next::End => break,
                Next::OpenQuote => return Err(open_quote(records.line())),
                Next::TooLarge => {
                    let reason =
                        format!("the record has more than {max} bytes or {MAX_FIELDS} fields");
                    self.refuse(file, records.line(), &Refusal::new(reason), records.raw())?;
                }
                Next::Malformed(reason) => {
                    let refusal = Refusal::new(format!("not valid CSV: {reason}"));
                    self.refuse(file, records.line(), &refusal, records.raw())?;
                }
                Next::Record => match csv_row(&records, &places, &self.spec.schema, &mut rows) {
                    Ok(()) => rows.end_row(length),
                    Err(refusal) => {
                        rows.refuse_row(length);
                        self.refuse(file, records.line(), &refusal, records.raw())?;
                    }
                },
            }
            self.count_rows(file, 1)?;
            if rows.is_full() {
                self.flush(&mut rows)?;
            }
        }
        self.flush(&mut rows)
    }

    pub(super) fn flush(&mut self, rows: &mut Rows<'_>) -> Result<(), StageError> {
        match rows.take()? {
            Some(batch) => self.sink.write(&batch),
            None => Ok(()),
        }
    }
}

/// Adds a record's cells. A field without a character is null; in quotes it is the empty text
/// where the column holds texts or bytes. A column of texts that must be there takes both for
/// the empty text.
fn csv_row(
    records: &Records<Observed<'_>>,
    places: &[usize],
    schema: &TableSchema,
    rows: &mut Rows<'_>,
) -> Result<(), Refusal> {
    if records.len() != places.len() {
        let reason = format!("{} fields expected", places.len());
        return Err(Refusal::new(reason).found(records.len().to_string()));
    }
    let record = std::str::from_utf8(records.raw()).ok();
    for (column, (place, declared)) in places.iter().zip(schema.columns()).enumerate() {
        let field = match record {
            Some(record) => records.text(*place, record),
            None => {
                let (bytes, is_quoted) = records.field(*place);
                std::str::from_utf8(bytes)
                    .ok()
                    .map(|text| (text, is_quoted))
            }
        };
        let Some((text, is_quoted)) = field else {
            let name = &declared.name;
            return Err(Refusal::new(format!(
                "column `{name}`: the text is not UTF-8"
            )));
        };
        let is_null = text.is_empty()
            && match declared.column_type {
                ColumnType::String => declared.nullable && !is_quoted,
                ColumnType::Binary => !is_quoted,
                _ => true,
            };
        rows.cell(column, (!is_null).then_some(text))?;
    }
    Ok(())
}

/// For each declared column, its place in the file.
fn header(record: &Records<Observed<'_>>, schema: &TableSchema) -> Result<Vec<usize>, String> {
    let mut names = Vec::with_capacity(record.len());
    for place in 0..record.len() {
        let (bytes, _) = record.field(place);
        if place == 0 && (bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff")) {
            return Err("the file is UTF-16, and UTF-8 is read".to_owned());
        }
        let name = std::str::from_utf8(bytes)
            .map_err(|_| format!("the name of column {} is not UTF-8", place + 1))?;
        if schema.column(name).is_none() {
            return Err(format!("column {} is not declared", quoted(name)));
        }
        if names.contains(&name) {
            return Err(format!("column {} is there twice", quoted(name)));
        }
        names.push(name);
    }
    let place = |column: &crate::schema::Column| {
        let found = names.iter().position(|name| *name == column.name);
        found.ok_or_else(|| format!("column `{}` is missing", column.name))
    };
    schema.columns().iter().map(place).collect()
}
