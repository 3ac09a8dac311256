//! Outputs that are files, not rows: each file becomes a row, so that there is one way to commit.

use std::fs::File;
use std::io::Read as _;

use sha2::{Digest as _, Sha256};

use super::check::Rows;
use super::{Stage, StageError, read_error};
use crate::cell::Value;
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
        let mut bytes = Vec::new();
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
        let row = [
            Value::String(file.path.as_str().into()),
            Value::String(media_type(&file.path).into()),
            Value::Int64(i64::try_from(size).unwrap_or(i64::MAX)),
            Value::String(format!("{:x}", Sha256::digest(&bytes)).into()),
            Value::Binary(bytes),
        ];
        let mut rows = Rows::new(&self.spec.schema);
        for (column, value) in row.iter().enumerate() {
            rows.value(column, value);
        }
        rows.end_row(size);
        self.flush(&mut rows)
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
