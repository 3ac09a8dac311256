//! Flat JSON objects in one pass: `{"name":"text","count":1,"is":true,"none":null}`.
//!
//! It takes an object only where it is sure: declared names, each at most once, without escapes;
//! strings without escapes; numbers and literals by JSON's grammar, where the column takes them.

use super::ndjson::is_numeric;
use crate::schema::{ColumnType, TableSchema};

/// Finds the values of flat objects.
pub(super) struct FlatObject<'a> {
    schema: &'a TableSchema,
    /// Where each column's text is in the line, if it is there and not null.
    spans: Vec<Option<(usize, usize)>>,
    /// The object in which each column was last seen, by number.
    seen: Vec<u64>,
    object: u64,
    /// The columns of the last object in its order: the next has most likely the same.
    order: Vec<usize>,
}

impl<'a> FlatObject<'a> {
    pub(super) fn new(schema: &'a TableSchema) -> Self {
        let columns = schema.columns().len();
        Self {
            schema,
            spans: vec![None; columns],
            seen: vec![0; columns],
            object: 0,
            order: (0..columns).collect(),
        }
    }

    /// The text of a column in the line that was read; `None` is null.
    pub(super) fn text<'l>(&self, column: usize, line: &'l str) -> Option<&'l str> {
        let (start, end) = self.spans[column]?;
        line.get(start..end)
    }

    /// Finds the values of a line; false if it is not surely a flat object that is well-formed.
    pub(super) fn read(&mut self, line: &str) -> bool {
        self.object += 1;
        self.spans.fill(None);
        self.members(line.as_bytes()).is_some()
    }

    fn members(&mut self, line: &[u8]) -> Option<()> {
        let mut at = expect(line, blanks(line, 0), b'{')?;
        let mut place = 0;
        loop {
            let name = expect(line, blanks(line, at), b'"')?;
            let name_end = string_end(line, name)?;
            let column = self.column(&line[name..name_end], place)?;
            if self.seen[column] == self.object {
                return None;
            }
            self.seen[column] = self.object;
            at = expect(line, blanks(line, name_end + 1), b':')?;
            at = self.value(line, blanks(line, at), column)?;
            at = blanks(line, at);
            match line.get(at)? {
                b',' => at += 1,
                b'}' => break,
                _ => return None,
            }
            place += 1;
        }
        (blanks(line, at + 1) == line.len()).then_some(())
    }

    /// The column of a name at a place among the members.
    fn column(&mut self, name: &[u8], place: usize) -> Option<usize> {
        let columns = self.schema.columns();
        let likely = *self.order.get(place)?;
        if columns[likely].name.as_bytes() == name {
            return Some(likely);
        }
        let found = columns
            .iter()
            .position(|column| column.name.as_bytes() == name)?;
        self.order[place] = found;
        Some(found)
    }

    /// Notes the value that begins at a place, and says where it ends.
    fn value(&mut self, line: &[u8], at: usize, column: usize) -> Option<usize> {
        let column_type = self.schema.columns()[column].column_type;
        let (span, after) = match line.get(at)? {
            b'"' => {
                let end = string_end(line, at + 1)?;
                (Some((at + 1, end)), end + 1)
            }
            b'n' => (None, literal(line, at, b"null")?),
            b't' if column_type == ColumnType::Bool => {
                let end = literal(line, at, b"true")?;
                (Some((at, end)), end)
            }
            b'f' if column_type == ColumnType::Bool => {
                let end = literal(line, at, b"false")?;
                (Some((at, end)), end)
            }
            b'-' | b'0'..=b'9' if is_numeric(column_type) => {
                let end = number_end(line, at)?;
                (Some((at, end)), end)
            }
            _ => return None,
        };
        self.spans[column] = span;
        Some(after)
    }
}

fn expect(line: &[u8], at: usize, byte: u8) -> Option<usize> {
    (line.get(at) == Some(&byte)).then_some(at + 1)
}

fn blanks(line: &[u8], mut at: usize) -> usize {
    while matches!(line.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// The closing quote of a string that has no escape and no control character.
fn string_end(line: &[u8], from: usize) -> Option<usize> {
    let length = line[from..]
        .iter()
        .position(|byte| *byte == b'"' || *byte == b'\\' || *byte < b' ')?;
    (line[from + length] == b'"').then_some(from + length)
}

fn literal(line: &[u8], at: usize, expected: &[u8]) -> Option<usize> {
    line[at..]
        .starts_with(expected)
        .then_some(at + expected.len())
}

/// The end of a number by JSON's grammar.
fn number_end(line: &[u8], at: usize) -> Option<usize> {
    let digits = |from: usize| {
        let length = line[from.min(line.len())..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        (length > 0).then_some(from + length)
    };
    let start = at + usize::from(line[at] == b'-');
    let mut end = digits(start)?;
    if line[start] == b'0' && end > start + 1 {
        return None;
    }
    if line.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if matches!(line.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(line.get(end + 1), Some(b'+' | b'-')));
        end = digits(end + 1 + sign)?;
    }
    Some(end)
}
