//! CSV text as records (RFC 4180), held to the rule instead of repaired.
//!
//! One record is in memory at a time, as it lies in the read buffer. Where a record breaks the
//! rule, the whole of it, to the end of the line where it broke, is one malformed record: no part
//! of what may be the inside of a quoted field is ever taken for rows.

use std::io::{self, Read};

/// The most fields of a record that are told apart.
pub(super) const MAX_FIELDS: usize = 1 + 2 * crate::schema::MAX_COLUMNS;
/// How much is read at once.
const READ_BYTES: usize = 256 << 10;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record of well-formed fields.
    Record,
    /// A record that breaks the rule, and how.
    Malformed(&'static str),
    /// A record that is too long, or has too many fields.
    TooLarge,
    /// The file ends inside quotes, which opened in the record that begins at this line. What is
    /// a row from there on cannot be told.
    OpenQuote,
    /// There are no more records.
    End,
}

/// How lines end: told by the first that does. A file of carriage returns alone holds to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    Unknown,
    /// `\n`, or `\r\n`.
    Feed,
    /// `\r`.
    Return,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    start: usize,
    end: usize,
    is_quoted: bool,
    /// Whether the text lies in `unescaped`, and not in the buffer.
    is_escaped: bool,
}

/// How a scan of the buffer ended.
enum Scan {
    /// The record ends here, the next begins there.
    Record {
        end: usize,
        next: usize,
    },
    /// It broke the rule before this place.
    Broken {
        at: usize,
        reason: &'static str,
    },
    More,
    TooManyFields,
    OpenQuote,
}

/// What ends a plain run of an unquoted field.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    special[b',' as usize] = true;
    special[b'\n' as usize] = true;
    special[b'\r' as usize] = true;
    special[b'"' as usize] = true;
    special[0] = true;
    special
};

/// A reader of records.
pub(super) struct Records<R> {
    content: R,
    buffer: Vec<u8>,
    /// Where the current record begins, ends, and the next one begins.
    start: usize,
    end: usize,
    next: usize,
    filled: usize,
    at_end: bool,
    fields: Vec<Field>,
    unescaped: Vec<u8>,
    line_end: LineEnd,
    /// The first line of the current record, from 1.
    line: u64,
    next_line: u64,
    max_bytes: usize,
    /// A line without a character is a record of one empty field: so it is where there is one
    /// column.
    empty_lines_count: bool,
    began: bool,
}

impl<R: Read> Records<R> {
    pub(super) fn new(content: R, max_bytes: usize) -> Self {
        Self {
            content,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            next: 0,
            filled: 0,
            at_end: false,
            fields: Vec::with_capacity(64),
            unescaped: Vec::new(),
            line_end: LineEnd::Unknown,
            line: 1,
            next_line: 1,
            max_bytes,
            empty_lines_count: false,
            began: false,
        }
    }

    /// From here on a line without a character is a record of one empty field.
    pub(super) fn count_empty_lines(&mut self) {
        self.empty_lines_count = true;
    }

    /// The first line of the current record, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// How many fields the current record has.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// The current record as it is written, without its line end; the beginning of a record that
    /// is too large.
    pub(super) fn raw(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// A field's bytes, and whether it was in quotes.
    pub(super) fn field(&self, place: usize) -> (&[u8], bool) {
        let field = self.fields[place];
        let text = if field.is_escaped {
            &self.unescaped[field.start..field.end]
        } else {
            &self.buffer[field.start..field.end]
        };
        (text, field.is_quoted)
    }

    /// A field's text, where all of the record was found to be UTF-8: `record` is [`Self::raw`].
    pub(super) fn text<'t>(&'t self, place: usize, record: &'t str) -> Option<(&'t str, bool)> {
        let field = self.fields[place];
        let text = if field.is_escaped {
            std::str::from_utf8(&self.unescaped[field.start..field.end]).ok()?
        } else {
            record.get(field.start - self.start..field.end - self.start)?
        };
        Some((text, field.is_quoted))
    }

    /// Reads the next record.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        if !self.began {
            self.began = true;
            while self.filled < BOM.len() && !self.at_end {
                self.fill()?;
            }
            if self.buffer[..self.filled].starts_with(BOM) {
                self.next = BOM.len();
            }
        }
        loop {
            (self.start, self.line) = (self.next, self.next_line);
            let scan = self.scan();
            let (end, next, found) = match scan {
                Scan::More if self.filled - self.start > self.max_bytes => {
                    return self.skip_rest(Next::TooLarge);
                }
                Scan::More => {
                    self.fill()?;
                    continue;
                }
                Scan::OpenQuote => {
                    (self.end, self.next) = (self.filled, self.filled);
                    return Ok(Next::OpenQuote);
                }
                Scan::TooManyFields => return self.skip_rest(Next::TooLarge),
                Scan::Broken { at, reason } => match self.line_end_after(at) {
                    Some((end, next)) => (end, next, Next::Malformed(reason)),
                    None if self.filled - self.start > self.max_bytes => {
                        return self.skip_line(at, Next::TooLarge);
                    }
                    None => {
                        self.fill()?;
                        continue;
                    }
                },
                Scan::Record { end, next } => (end, next, Next::Record),
            };
            if self.start == self.filled && self.at_end {
                (self.end, self.fields) = (self.start, Vec::new());
                return Ok(Next::End);
            }
            (self.end, self.next) = (end, next);
            self.count_lines();
            if end == self.start && !self.empty_lines_count && found == Next::Record {
                continue;
            }
            if end - self.start > self.max_bytes {
                self.end = self.start + self.max_bytes;
                return Ok(Next::TooLarge);
            }
            return Ok(found);
        }
    }

    fn count_lines(&mut self) {
        let mark = if self.line_end == LineEnd::Return {
            b'\r'
        } else {
            b'\n'
        };
        // A record without quotes is a line.
        let lines = if self.fields.iter().any(|field| field.is_quoted) || self.fields.is_empty() {
            let read = &self.buffer[self.start..self.next];
            memchr::memchr_iter(mark, read).count() as u64
        } else {
            1
        };
        self.next_line += lines;
    }

    /// Moves what is not read yet to the front, and reads more.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.next..self.filled, 0);
        self.filled -= self.next;
        self.next = 0;
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let read = loop {
            match self.content.read(&mut self.buffer[self.filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.filled += read;
        self.at_end = read == 0;
        Ok(())
    }

    /// Finds the fields of the record that begins at `start`.
    fn scan(&mut self) -> Scan {
        self.fields.clear();
        self.unescaped.clear();
        let mut at = self.start;
        loop {
            if self.fields.len() >= MAX_FIELDS {
                return Scan::TooManyFields;
            }
            let is_quoted = at < self.filled && self.buffer[at] == b'"';
            let scanned = if is_quoted {
                self.quoted_field(at)
            } else {
                self.plain_field(at)
            };
            match scanned {
                Ok(after) => at = after,
                Err(scan) => return scan,
            }
            // At the byte after a field: a comma, a line end, or the file's end.
            match self.after_field(at) {
                None => at += 1,
                Some(scan) => return scan,
            }
        }
    }

    /// What follows a field; none is a comma.
    fn after_field(&mut self, at: usize) -> Option<Scan> {
        if at == self.filled {
            return Some(if self.at_end {
                Scan::Record { end: at, next: at }
            } else {
                Scan::More
            });
        }
        let feed = |next| Some(Scan::Record { end: at, next });
        match (self.buffer[at], self.line_end) {
            (b',', _) => None,
            (b'\n', LineEnd::Unknown | LineEnd::Feed) => {
                self.line_end = LineEnd::Feed;
                feed(at + 1)
            }
            (b'\r', LineEnd::Return) => feed(at + 1),
            (b'\r', _) if at + 1 == self.filled && !self.at_end => Some(Scan::More),
            (b'\r', _) if self.buffer[..self.filled].get(at + 1) == Some(&b'\n') => {
                self.line_end = LineEnd::Feed;
                feed(at + 2)
            }
            (b'\r', LineEnd::Unknown) => {
                self.line_end = LineEnd::Return;
                feed(at + 1)
            }
            (b'\r' | b'\n', _) => Some(Scan::Broken {
                at,
                reason: "a line ends otherwise than the file's first",
            }),
            _ => Some(Scan::Broken {
                at,
                reason: "text follows a closing quote",
            }),
        }
    }

    fn plain_field(&mut self, start: usize) -> Result<usize, Scan> {
        let mut at = start;
        let bytes = &self.buffer[..self.filled];
        while at < bytes.len() && !SPECIAL[usize::from(bytes[at])] {
            at += 1;
        }
        match bytes.get(at) {
            Some(b'"') => {
                return Err(Scan::Broken {
                    at,
                    reason: "there is a quote inside a field that is not quoted",
                });
            }
            Some(0) => {
                return Err(Scan::Broken {
                    at,
                    reason: "there is a NUL byte in a field that is not quoted",
                });
            }
            _ => {}
        }
        self.fields.push(Field {
            start,
            end: at,
            is_quoted: false,
            is_escaped: false,
        });
        Ok(at)
    }

    fn quoted_field(&mut self, start: usize) -> Result<usize, Scan> {
        let bytes = &self.buffer[..self.filled];
        let begin = self.unescaped.len();
        let (mut from, mut is_escaped) = (start + 1, false);
        loop {
            let Some(found) = memchr::memchr(b'"', &bytes[from..]) else {
                return Err(if self.at_end {
                    Scan::OpenQuote
                } else {
                    Scan::More
                });
            };
            let quote = from + found;
            if quote + 1 == bytes.len() && !self.at_end {
                return Err(Scan::More);
            }
            let doubled = bytes.get(quote + 1) == Some(&b'"');
            if doubled || is_escaped {
                is_escaped = true;
                let end = if doubled { quote + 1 } else { quote };
                self.unescaped.extend_from_slice(&bytes[from..end]);
            }
            if doubled {
                from = quote + 2;
                continue;
            }
            let (start, end) = if is_escaped {
                (begin, self.unescaped.len())
            } else {
                (start + 1, quote)
            };
            self.fields.push(Field {
                start,
                end,
                is_quoted: true,
                is_escaped,
            });
            return Ok(quote + 1);
        }
    }

    /// The end of the line that `at` is in, and the beginning of the next.
    fn line_end_after(&self, at: usize) -> Option<(usize, usize)> {
        let bytes = &self.buffer[at..self.filled];
        let mark = if self.line_end == LineEnd::Return {
            b'\r'
        } else {
            b'\n'
        };
        match memchr::memchr(mark, bytes) {
            Some(found) => {
                let is_pair = found > 0 && mark == b'\n' && bytes[found - 1] == b'\r';
                Some((at + found - usize::from(is_pair), at + found + 1))
            }
            None => self.at_end.then_some((self.filled, self.filled)),
        }
    }

    /// Reads a record that is too large to its end without keeping it; its beginning stays.
    fn skip_rest(&mut self, found: Next) -> io::Result<Next> {
        let beginning = self.beginning();
        let (mut in_quotes, mut at) = (false, self.start);
        loop {
            let returns = self.line_end == LineEnd::Return;
            while at < self.filled {
                match self.buffer[at] {
                    b'"' => in_quotes = !in_quotes,
                    mark @ (b'\n' | b'\r') => {
                        let ends = (mark == b'\r') == returns;
                        self.next_line += u64::from(ends);
                        if ends && !in_quotes {
                            return Ok(self.resume(&beginning, at + 1, found));
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
            if self.at_end {
                let found = if in_quotes { Next::OpenQuote } else { found };
                return Ok(self.resume(&beginning, at, found));
            }
            self.next = self.filled;
            self.fill()?;
            at = 0;
        }
    }

    /// Reads the rest of a line that is too long without keeping it.
    fn skip_line(&mut self, mut at: usize, found: Next) -> io::Result<Next> {
        let beginning = self.beginning();
        loop {
            if let Some((_, next)) = self.line_end_after(at) {
                self.next_line += 1;
                return Ok(self.resume(&beginning, next, found));
            }
            self.next = self.filled;
            self.fill()?;
            at = 0;
        }
    }

    fn beginning(&mut self) -> Vec<u8> {
        let end = self.filled.min(self.start + self.max_bytes);
        self.buffer[self.start..end].to_vec()
    }

    /// Puts the beginning of what was skipped before what comes next.
    fn resume(&mut self, beginning: &[u8], next: usize, found: Next) -> Next {
        let rest = self.buffer[next..self.filled].to_vec();
        self.buffer.clear();
        self.buffer.extend_from_slice(beginning);
        self.buffer.extend_from_slice(&rest);
        self.filled = self.buffer.len();
        (self.start, self.end, self.next) = (0, beginning.len(), beginning.len());
        self.fields.clear();
        self.buffer.resize(self.filled.max(READ_BYTES), 0);
        found
    }
}
