//! CSV: records of bounded size, whatever the file holds.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use csv_core::ReadRecordResult;

use super::check::RowBatch;
use super::{Stage, StageError};
use crate::cell::{Value, quoted};
use crate::input::InputFile;
use crate::schema::{ColumnType, TableSchema};

/// The most fields of a record that are told apart.
const MAX_FIELDS: usize = 1 + 2 * crate::schema::MAX_COLUMNS;

impl Stage<'_, '_> {
    pub(super) fn csv(&mut self, file: &InputFile, content: File) -> Result<(), StageError> {
        let unreadable = |source| StageError::Read {
            file: file.path.clone(),
            source,
        };
        let mut records = Records::new(content, self.spec.limits.max_record_bytes);
        let places = match records.next().map_err(unreadable)? {
            Next::Record => header(&records, &self.spec.schema),
            Next::TooLarge => Err("the header row is too long".to_owned()),
            Next::End => Err("there is no header row".to_owned()),
        };
        let places = places.map_err(|difference| StageError::Columns {
            file: file.path.clone(),
            difference,
        })?;
        let mut batch = RowBatch::new(&self.spec.schema);
        loop {
            match records.next().map_err(unreadable)? {
                Next::End => break,
                Next::TooLarge => {
                    let limit = self.spec.limits.max_record_bytes;
                    let error =
                        format!("the record has more than {limit} bytes or {MAX_FIELDS} fields");
                    self.refuse(file, records.line, error, records.bytes());
                }
                Next::Record => match self.csv_row(&records, &places) {
                    Ok(row) => batch.push(&row, records.length),
                    Err(error) => self.refuse(file, records.line, error, &records.joined()),
                },
            }
            self.count_rows(file, 1)?;
            if batch.is_full() {
                self.flush(&mut batch)?;
            }
        }
        self.flush(&mut batch)
    }

    pub(super) fn flush(&mut self, batch: &mut RowBatch<'_>) -> Result<(), StageError> {
        match batch.take()? {
            Some(rows) => self.sink.write(&rows),
            None => Ok(()),
        }
    }

    fn csv_row<'r>(&self, record: &'r Records, places: &[usize]) -> Result<Vec<Value<'r>>, String> {
        if record.fields != places.len() {
            return Err(format!(
                "{} fields expected, found {}",
                places.len(),
                record.fields
            ));
        }
        let columns = self.spec.schema.columns();
        let cell = |(column, place): (usize, &usize)| {
            let declared = &columns[column];
            let text = std::str::from_utf8(record.field(*place))
                .map_err(|_| format!("column `{}`: the text is not UTF-8", declared.name))?;
            let is_null = text.is_empty()
                && (declared.nullable || declared.column_type != ColumnType::String);
            self.checker
                .text(column, (!is_null).then_some(Cow::Borrowed(text)))
        };
        places.iter().enumerate().map(cell).collect()
    }
}

/// For each declared column, its place in the file.
fn header(record: &Records, schema: &TableSchema) -> Result<Vec<usize>, String> {
    let mut names = Vec::with_capacity(record.fields);
    for place in 0..record.fields {
        let name = std::str::from_utf8(record.field(place))
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

enum Next {
    Record,
    TooLarge,
    End,
}

/// A reader of records that holds one at a time, up to a size.
struct Records {
    content: BufReader<File>,
    reader: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
    length: usize,
    fields: usize,
    line: u64,
    max_bytes: usize,
}

impl Records {
    fn new(content: File, max_bytes: usize) -> Self {
        Self {
            content: BufReader::with_capacity(64 << 10, content),
            reader: csv_core::Reader::new(),
            text: vec![0; max_bytes.min(8 << 10)],
            ends: vec![0; 64],
            length: 0,
            fields: 0,
            line: 1,
            max_bytes,
        }
    }

    /// Reads the next record; one that is too large is read to its end and its beginning kept.
    fn next(&mut self) -> io::Result<Next> {
        (self.length, self.fields) = (0, 0);
        self.line = self.reader.line();
        let mut discarded = ([0_u8; 1024], [0_usize; 64]);
        let mut too_large = false;
        loop {
            let input = self.content.fill_buf()?;
            let (result, read, written, ended) = if too_large {
                let (text, ends) = (&mut discarded.0, &mut discarded.1);
                self.reader.read_record(input, text, ends)
            } else {
                let (text, ends) = (&mut self.text[self.length..], &mut self.ends[self.fields..]);
                self.reader.read_record(input, text, ends)
            };
            self.content.consume(read);
            if !too_large {
                self.length += written;
                self.fields += ended;
            }
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.text.len() < self.max_bytes => {
                    self.text
                        .resize((self.text.len() * 2).min(self.max_bytes), 0);
                }
                ReadRecordResult::OutputEndsFull if self.ends.len() < MAX_FIELDS => {
                    self.ends.resize((self.ends.len() * 2).min(MAX_FIELDS), 0);
                }
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    too_large = true;
                }
                ReadRecordResult::Record if too_large => return Ok(Next::TooLarge),
                ReadRecordResult::Record => return Ok(Next::Record),
                ReadRecordResult::End => return Ok(Next::End),
            }
        }
    }

    fn field(&self, place: usize) -> &[u8] {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.text[start..self.ends[place]]
    }

    /// The unquoted text of the record, without separators.
    fn bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }

    /// The record's fields with commas between them, cut where a sample is.
    fn joined(&self) -> Vec<u8> {
        let mut joined = Vec::new();
        for place in 0..self.fields {
            if place > 0 {
                joined.push(b',');
            }
            joined.extend_from_slice(self.field(place));
            if joined.len() > crate::dead_letter::MAX_SAMPLE_BYTES {
                break;
            }
        }
        joined
    }
}
