//! Parquet that a stranger wrote, turned into plain rows in an Arrow IPC stream: sizes are checked
//! before pages are unpacked, a reader's panic is a malformed file, and whatever else unpacking takes
//! is the matter of the process that does it. No other code reads what an attempt wrote as Parquet.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array as _, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::writer::StreamWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::parquet::{BATCH_ROWS, guarded};
use super::{Limits, StageError};
use crate::groups::in_parts;
use crate::input::{InputFile, InputFolder};

/// Rows of more bytes than these are handed on in parts, down to single rows.
const PART_BYTES: usize = 16 << 20;

/// Decodes files of the folder `written`, by their paths in it, and writes one stream after the other
/// to `out`: each of the file's own columns, in types that need no dictionary.
///
/// Blocks.
///
/// # Errors
/// If a file is not valid or holds more than the limits; if `out` cannot be written, as when whoever
/// reads it has seen enough.
pub fn decode_parquet(
    written: &Path,
    files: &[String],
    limits: &Limits,
    mut out: impl Write,
) -> Result<(), StageError> {
    let folder = InputFolder::open(written)?;
    let mut unpacked = 0;
    for path in files {
        let (path, bytes) = (path.clone(), 0);
        let file = InputFile { path, bytes };
        let decoding = Decoding {
            content: folder.open_file(&file)?,
            file: &file,
            limits,
        };
        unpacked = decoding.write(unpacked, &mut out)?;
    }
    out.flush().map_err(unwritten)
}

/// One file that is decoded.
struct Decoding<'a> {
    file: &'a InputFile,
    content: File,
    limits: &'a Limits,
}

impl Decoding<'_> {
    /// Writes its rows, and says how much has been unpacked by then.
    fn write(self, mut unpacked: u64, out: &mut impl Write) -> Result<u64, StageError> {
        let Self {
            file,
            content,
            limits,
        } = self;
        let malformed = |reason| StageError::Malformed {
            file: file.path.clone(),
            format: "Parquet",
            reason,
        };
        let builder =
            guarded(|| ParquetRecordBatchReaderBuilder::try_new(content)).map_err(malformed)?;
        let chunks = builder.metadata().row_groups().iter();
        let sizes = chunks
            .flat_map(|group| group.columns())
            .map(|chunk| u64::try_from(chunk.uncompressed_size()).unwrap_or(u64::MAX));
        limits.hold_unpacked(file, sizes.fold(unpacked, u64::saturating_add))?;
        let schema = plain(builder.schema());
        let mut reader =
            guarded(|| builder.with_batch_size(BATCH_ROWS).build()).map_err(malformed)?;
        let failed = |error: ArrowError| match error {
            ArrowError::IoError(_, source) => unwritten(source),
            other => malformed(other.to_string()),
        };
        let mut stream = StreamWriter::try_new(out, &schema).map_err(failed)?;
        while let Some(batch) = guarded(|| reader.next().transpose()).map_err(malformed)? {
            // Repetition makes many rows of few page bytes.
            unpacked += batch.get_array_memory_size() as u64;
            limits.hold_unpacked(file, unpacked)?;
            let batch = guarded(|| as_plain(&batch, &schema)).map_err(malformed)?;
            in_parts(&batch, PART_BYTES, &mut |part| stream.write(part)).map_err(failed)?;
        }
        stream.finish().map_err(failed)?;
        Ok(unpacked)
    }
}

impl Limits {
    /// Refuses what unpacks to too much.
    pub(super) fn hold_unpacked(&self, file: &InputFile, bytes: u64) -> Result<(), StageError> {
        let limit = self.max_unpacked_bytes;
        if bytes > limit {
            let (file, what) = (file.path.clone(), "bytes when unpacked");
            return Err(StageError::Limit { file, what, limit });
        }
        Ok(())
    }
}

/// The same columns, each in the one of its types that stands by itself.
fn plain(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Dictionary(_, values) => plain_type(values),
            other => plain_type(other),
        };
        Field::new(field.name(), data_type, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        other => other.clone(),
    }
}

fn as_plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    // What does not fit is an error here, and not a null.
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(array, field)| {
        if let DataType::Dictionary(_, values) = array.data_type() {
            let array = cast_with_options(array, values, &strict)?;
            return cast_with_options(&array, field.data_type(), &strict);
        }
        cast_with_options(array, field.data_type(), &strict)
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

fn unwritten(source: std::io::Error) -> StageError {
    StageError::Write {
        path: "(decoded rows)".into(),
        source,
    }
}
