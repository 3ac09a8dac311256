//! Arrow IPC streams, which the engine writes: rows as they lie in memory, so that reading them is
//! next to nothing. They come out of a sandbox like everything else: lengths are checked before
//! anything is allocated, whatever is compressed is refused, and arrays are validated.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::{Message, root_as_message};

use super::check::ColumnCheck;
use super::parquet::{BATCH_ROWS, guarded};
use super::{Stage, StageError, observer::Observed, read_error};
use crate::groups::GROUP_BYTES;
use crate::input::InputFile;

/// What a message begins with.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// The longest description of a batch.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;
/// The most bytes of a batch: they are held at once, by whoever reads the table, too. The engine writes
/// 16 MiB at most, but for a single row that has more.
const MAX_BATCH_BYTES: u64 = GROUP_BYTES as u64;

impl Stage<'_, '_> {
    pub(super) fn arrow(&mut self, file: &InputFile, content: File) -> Result<(), StageError> {
        let declared = self.spec.schema.to_arrow();
        let fields = declared.fields().iter();
        let nullable = fields.map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let mut messages = Messages::of(file, self.observed(content), "Arrow", file.bytes);
        if messages.begin()?.fields() != schema.fields() {
            return Err(StageError::Columns {
                file: file.path.clone(),
                difference: "they are others than the job's output has".to_owned(),
            });
        }
        let places: Vec<usize> = (0..schema.fields().len()).collect();
        self.batches(&mut messages, &schema, &places)
    }

    /// Takes the rows of a stream whose columns are known, of which the declared ones are at `places`.
    pub(super) fn batches(
        &mut self,
        messages: &mut Messages<'_, impl Read>,
        schema: &SchemaRef,
        places: &[usize],
    ) -> Result<(), StageError> {
        let mut checks = ColumnCheck::of(&self.spec.schema);
        let file = messages.file;
        let mut row = 0;
        while let Some((description, bytes)) = messages.next()? {
            self.unpacked_bytes = self.unpacked_bytes.saturating_add(bytes);
            self.spec.limits.hold_unpacked(file, self.unpacked_bytes)?;
            let body = messages.body(bytes)?;
            let batch = guarded(|| decode(&description, &body, schema))
                .map_err(|reason| messages.malformed(reason))?;
            for first in (0..batch.num_rows()).step_by(BATCH_ROWS) {
                let part = batch.slice(first, BATCH_ROWS.min(batch.num_rows() - first));
                self.count_rows(file, part.num_rows() as u64)?;
                let sources: Vec<_> = places.iter().map(|place| part.column(*place)).collect();
                self.arrow_rows(file, &mut checks, &sources, row)?;
                row += part.num_rows() as u64;
            }
        }
        Ok(())
    }
}

fn decode(
    description: &[u8],
    body: &Buffer,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let message = message(description)?;
    let batch = message.header_as_record_batch();
    let batch = batch.ok_or_else(|| ArrowError::IpcError("it holds other than rows".to_owned()))?;
    if batch.compression().is_some() {
        return Err(ArrowError::IpcError("it is compressed".to_owned()));
    }
    let (schema, version) = (Arc::clone(schema), message.version());
    RecordBatchDecoder::try_new(body, batch, schema, &HashMap::new(), &version)?.read_record_batch()
}

fn message(description: &[u8]) -> Result<Message<'_>, ArrowError> {
    root_as_message(description).map_err(|error| ArrowError::IpcError(error.to_string()))
}

/// A stream's messages. Nothing is read beyond its end, so another stream may follow.
pub(super) struct Messages<'a, R> {
    file: &'a InputFile,
    content: Observed<'a, R>,
    /// What the file is to whoever wrote it.
    format: &'static str,
    /// No message can have more bytes.
    most: u64,
}

impl<'a, R: Read> Messages<'a, R> {
    pub(super) fn of(
        file: &'a InputFile,
        content: Observed<'a, R>,
        format: &'static str,
        most: u64,
    ) -> Self {
        Self {
            file,
            content,
            format,
            most,
        }
    }

    /// Reads the first one, which has the columns.
    pub(super) fn begin(&mut self) -> Result<Schema, StageError> {
        let first = self.next()?;
        let columns = first.map(|(description, _)| {
            guarded(|| {
                let schema = message(&description)?.header_as_schema().map(fb_to_schema);
                schema.ok_or_else(|| {
                    ArrowError::IpcError("it does not begin with columns".to_owned())
                })
            })
        });
        let columns = columns.unwrap_or_else(|| Err("it is empty".to_owned()));
        columns.map_err(|reason| self.malformed(reason))
    }

    /// The next one's description, and how many bytes come after it; none at the end.
    fn next(&mut self) -> Result<Option<(Vec<u8>, u64)>, StageError> {
        let mut head = [0; 8];
        self.fill(&mut head)?;
        let [a, b, c, d, length @ ..] = head;
        if [a, b, c, d] != CONTINUATION {
            return Err(self.malformed("no message begins where one should".to_owned()));
        }
        let bytes = u32::from_le_bytes(length);
        if bytes == 0 {
            return Ok(None);
        }
        self.check(bytes.into(), MAX_DESCRIPTION_BYTES)?;
        let mut description = vec![0; bytes as usize];
        self.fill(&mut description)?;
        let length = guarded(|| message(&description).map(|message| message.bodyLength()));
        let length = length.and_then(|bytes| u64::try_from(bytes).map_err(|e| e.to_string()));
        let bytes = length.map_err(|reason| self.malformed(reason))?;
        Ok(Some((description, bytes)))
    }

    /// What comes after a description.
    fn body(&mut self, bytes: u64) -> Result<Buffer, StageError> {
        self.check(bytes, MAX_BATCH_BYTES.min(self.most))?;
        let mut body = MutableBuffer::from_len_zeroed(bytes as usize);
        self.fill(&mut body)?;
        Ok(body.into())
    }

    fn check(&self, bytes: u64, limit: u64) -> Result<(), StageError> {
        if bytes > limit {
            let (file, what) = (self.file.path.clone(), "bytes in one message");
            return Err(StageError::Limit { file, what, limit });
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), StageError> {
        self.content
            .read_exact(buffer)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => self.malformed("it ends before its end".to_owned()),
                _ => read_error(self.file, error),
            })
    }

    fn malformed(&self, reason: String) -> StageError {
        StageError::Malformed {
            file: self.file.path.clone(),
            format: self.format,
            reason,
        }
    }
}
