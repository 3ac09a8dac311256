//! Outputs that are files, not rows: each file becomes a row, so that there is one way to commit.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use sha2::{Digest as _, Sha256};

use super::{Stage, StageError, read_error};
use crate::input::InputFile;
use crate::schema::{Column, ColumnType, InvalidSchema, TableSchema};

/// The schema of a table of files: `path`, `media_type`, `bytes`, `sha256`, `content`.
///
/// # Errors
/// None in practice: the schema is fixed.
pub fn files_schema() -> Result<TableSchema, InvalidSchema> {
    TableSchema::new(
        vec![
            Column::required("path", ColumnType::String),
            Column::required("media_type", ColumnType::String),
            Column::required("bytes", ColumnType::Int64),
            Column::required("sha256", ColumnType::String),
            Column::required("content", ColumnType::Binary),
        ],
        vec![],
    )
}

impl Stage<'_, '_> {
    pub(super) fn file(&mut self, file: &InputFile, content: File) -> Result<(), StageError> {
        let limit = self.spec.limits.max_file_bytes;
        // With room for one byte more, so that its end is found without more room being made.
        let room = usize::try_from(file.bytes.min(limit)).unwrap_or(0) + 1;
        let mut bytes = Vec::with_capacity(room);
        self.observed(content)
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| read_error(file, source))?;
        if bytes.len() as u64 > limit {
            return Err(StageError::Limit {
                file: file.path.clone(),
                what: "bytes",
                limit,
            });
        }
        self.count_rows(file, 1)?;
        let size = bytes.len();
        let sha256 = format!("{:x}", Sha256::digest(&bytes));
        // As they were read: a copy would be as large as the file.
        let content = BinaryArray::new(
            OffsetBuffer::from_lengths([size]),
            Buffer::from_vec(bytes),
            None,
        );
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![file.path.as_str()])),
            Arc::new(StringArray::from(vec![media_type(&file.path)])),
            Arc::new(Int64Array::from(vec![
                i64::try_from(size).unwrap_or(i64::MAX),
            ])),
            Arc::new(StringArray::from(vec![sha256])),
            Arc::new(content),
        ];
        let batch = RecordBatch::try_new(self.spec.schema.to_arrow(), columns)
            .map_err(|source| StageError::Arrange { source })?;
        self.sink.write(&batch)
    }
}

fn media_type(path: &str) -> &'static str {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension.to_ascii_lowercase().as_str() {
        "csv" => "text/csv",
        "html" | "htm" => "text/html",
        "json" => "application/json",
        "md" => "text/markdown",
        "parquet" => "application/vnd.apache.parquet",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "txt" | "log" => "text/plain",
        "xml" => "application/xml",
        _ => "application/octet-stream",
    }
}
