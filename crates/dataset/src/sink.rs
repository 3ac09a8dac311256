//! Validated rows in, synced Parquet files out: divided by partition, hashed as they are written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, max, min, take};
use arrow::datatypes::{DataType, Date32Type, Int64Type, SchemaRef};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use sha2::{Digest as _, Sha256};

use crate::cell::date_text;
use crate::decision::StagedFile;
use crate::digest::RowsHash;
use crate::groups::{GroupWriter, properties};
use crate::hashing::Hashing;
use crate::partition::{MAX_FOLDER_BYTES, PartitionValues, folder, group_rows, matches};
use crate::schema::TableSchema;
use crate::stage::{Limits, StageError, StageObserver};

/// A file is closed, and the next begun, after so many rows.
const ROWS_PER_FILE: u64 = 4 << 20;
/// or with so many columns of row groups, each of which is held in memory until the file is closed,
/// and again by whoever reads it.
const CHUNKS_PER_FILE: usize = 16 << 10;
/// What the rows that are encoded but not written yet hold in memory, in all open files together.
const ENCODED_BYTES: usize = 56 << 20;
/// What a writer holds for a column besides its values: above all what compresses them.
const WRITER_BYTES: usize = 48 << 10;
/// A writer holds a table of values for each column that it has a dictionary of, tens of kilobytes
/// even for a few rows: above so many columns of all open files together, further files have none.
const DICTIONARIES: usize = 640;
/// Where rows are divided, so many of them
const WAITING_ROWS: usize = 256 << 10;
/// or so many bytes of them are divided at once, so that a file gets more than a few at a time.
const WAITING_BYTES: usize = 20 << 20;

/// Writes the staged files of one output.
pub(crate) struct Sink<'a> {
    schema: &'a TableSchema,
    file_schema: SchemaRef,
    folder: &'a Path,
    limits: &'a Limits,
    only: &'a PartitionValues,
    hashing: Hashing,
    /// Rows that wait to be divided.
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
    open: BTreeMap<Vec<Option<String>>, OpenFile>,
    /// What the open files have encoded and not written, in all.
    encoded_bytes: usize,
    /// By their numbers, without the hashes of their rows.
    done: BTreeMap<usize, StagedFile>,
    started: usize,
}

struct OpenFile {
    number: usize,
    name: String,
    values: PartitionValues,
    writer: GroupWriter<HashingFile>,
    /// What the writer holds in memory.
    encoded_bytes: usize,
    rows: u64,
    stats: BTreeMap<String, ColumnStats>,
}

#[derive(Default)]
struct ColumnStats {
    nulls: usize,
    range: Option<(i64, i64)>,
    is_date: bool,
}

impl<'a> Sink<'a> {
    /// Files go to `folder`, which exists and is empty. Rows outside the partition `only` are
    /// refused; an empty map refuses none.
    pub(crate) fn new(
        schema: &'a TableSchema,
        folder: &'a Path,
        limits: &'a Limits,
        only: &'a PartitionValues,
    ) -> Result<Self, StageError> {
        let hashing = Hashing::begin(schema).map_err(|source| StageError::Write {
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self {
            schema,
            file_schema: schema.file_arrow(),
            folder,
            limits,
            only,
            hashing,
            waiting: Vec::new(),
            waiting_rows: 0,
            waiting_bytes: 0,
            open: BTreeMap::new(),
            encoded_bytes: 0,
            done: BTreeMap::new(),
            started: 0,
        })
    }

    /// Takes rows of the whole schema, to be written now or with others.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), StageError> {
        if self.schema.partition_by().is_empty() {
            return self.write_partition(&[], batch, None);
        }
        let bytes = batch.get_array_memory_size();
        if self.waiting_bytes + bytes > WAITING_BYTES {
            self.divide()?;
        }
        self.waiting.push(batch.clone());
        self.waiting_rows += batch.num_rows();
        self.waiting_bytes += bytes;
        if self.waiting_rows >= WAITING_ROWS {
            self.divide()?;
        }
        Ok(())
    }

    /// Writes the rows that wait, each partition's together.
    fn divide(&mut self) -> Result<(), StageError> {
        let batches = std::mem::take(&mut self.waiting);
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        let batch = match &batches[..] {
            [] => return Ok(()),
            [batch] => batch.clone(),
            several => concat_batches(several[0].schema_ref(), several)
                .map_err(|source| StageError::Arrange { source })?,
        };
        drop(batches);
        for (key, rows) in group_rows(self.schema, &batch) {
            let is_whole = rows.len() == batch.num_rows();
            self.write_partition(&key, &batch, (!is_whole).then_some(&rows))?;
        }
        Ok(())
    }

    /// Writes rows of one partition: the given ones of a batch, or all of it.
    fn write_partition(
        &mut self,
        key: &[Option<String>],
        batch: &RecordBatch,
        rows: Option<&[u32]>,
    ) -> Result<(), StageError> {
        let mut file = match self.open.remove(key) {
            Some(file) => file,
            None => self.start(key)?,
        };
        self.hashing.add(file.number, batch, rows);
        let part = self.project(batch, rows)?;
        file.rows += part.num_rows() as u64;
        for (field, array) in part.schema_ref().fields().iter().zip(part.columns()) {
            file.stats
                .entry(field.name().clone())
                .or_default()
                .add(array);
        }
        file.writer
            .write(&part)
            .map_err(|source| encode(&file.name, source))?;
        self.encoded_bytes -= file.encoded_bytes;
        let columns = self.file_schema.fields().len();
        if file.rows >= ROWS_PER_FILE || file.writer.groups() * columns >= CHUNKS_PER_FILE {
            self.done.insert(file.number, file.finish(self.folder)?);
            return Ok(());
        }
        file.encoded_bytes = file.writer.memory_size() + WRITER_BYTES * columns;
        self.encoded_bytes += file.encoded_bytes;
        self.open.insert(key.to_vec(), file);
        self.bound_memory()
    }

    /// The given rows without the partition columns.
    fn project(
        &self,
        batch: &RecordBatch,
        rows: Option<&[u32]>,
    ) -> Result<RecordBatch, StageError> {
        let rows = rows.map(|rows| UInt32Array::from(rows.to_vec()));
        let columns: Result<Vec<ArrayRef>, _> = self
            .file_schema
            .fields()
            .iter()
            .filter_map(|field| batch.column_by_name(field.name()))
            .map(|array| match &rows {
                None => Ok(Arc::clone(array)),
                Some(rows) => take(array, rows, None),
            })
            .collect();
        columns
            .and_then(|columns| RecordBatch::try_new(Arc::clone(&self.file_schema), columns))
            .map_err(|source| StageError::Arrange { source })
    }

    fn start(&mut self, key: &[Option<String>]) -> Result<OpenFile, StageError> {
        let names = self.schema.partition_by().iter().cloned();
        let values: PartitionValues = names.zip(key.iter().cloned()).collect();
        if !matches(&values, self.only) {
            let describe = |values: &PartitionValues| {
                let text = |(name, value): (&String, &Option<String>)| {
                    format!("{name}={}", value.as_deref().unwrap_or("null"))
                };
                values.iter().map(text).collect::<Vec<_>>().join(", ")
            };
            return Err(StageError::OutsidePartition {
                found: describe(&values),
                expected: describe(self.only),
            });
        }
        if self.open.len() >= self.limits.max_partitions {
            let limit = self.limits.max_partitions;
            return Err(StageError::TooManyPartitions { limit });
        }
        let mut parts = folder(self.schema.partition_by(), &values);
        if let Some(part) = parts.iter().find(|part| part.len() > MAX_FOLDER_BYTES) {
            let part = part.chars().take(80).collect();
            return Err(StageError::PartitionName { part });
        }
        let in_folder = self.folder.join(parts.iter().collect::<PathBuf>());
        parts.push(format!("part-{:05}.parquet", self.started));
        let (name, number) = (parts.join("/"), self.started);
        self.started += 1;
        let path = self.folder.join(&name);
        let file = std::fs::create_dir_all(in_folder)
            .and_then(|()| HashingFile::create(&path))
            .map_err(|source| StageError::Write { path, source })?;
        let writer = GroupWriter::new(file, Arc::clone(&self.file_schema), self.properties())
            .map_err(|source| encode(&name, source))?;
        Ok(OpenFile {
            number,
            name,
            values,
            writer,
            encoded_bytes: 0,
            rows: 0,
            stats: BTreeMap::new(),
        })
    }

    /// The next file's settings, which follow from the rows: equal rows in equal order give equal
    /// bytes.
    fn properties(&self) -> WriterProperties {
        let columns = (self.open.len() + 1) * self.file_schema.fields().len();
        properties(&self.file_schema)
            .set_created_by("barecount".to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_dictionary_enabled(columns <= DICTIONARIES)
            .build()
    }

    /// Writes what the fullest files have encoded, until all together hold no more than they may.
    fn bound_memory(&mut self) -> Result<(), StageError> {
        while self.encoded_bytes > ENCODED_BYTES {
            let fullest = self.open.values_mut().max_by_key(|file| file.encoded_bytes);
            let Some(file) = fullest.filter(|file| file.encoded_bytes > 0) else {
                return Ok(());
            };
            file.writer
                .end_group()
                .map_err(|source| encode(&file.name, source))?;
            self.encoded_bytes -= std::mem::take(&mut file.encoded_bytes);
        }
        Ok(())
    }

    /// Closes all files; each is synced, their folder too. The observer may end that between two.
    pub(crate) fn finish(
        mut self,
        observer: &dyn StageObserver,
    ) -> Result<Vec<StagedFile>, StageError> {
        self.divide()?;
        for file in std::mem::take(&mut self.open).into_values() {
            if observer.advanced(0, 0).is_break() {
                return Err(StageError::Stopped);
            }
            self.done.insert(file.number, file.finish(self.folder)?);
        }
        // Dying before these syncs loses files that nobody was told of: the attempt is staged anew.
        let mut folders = BTreeSet::from([self.folder.to_owned()]);
        for file in self.done.values() {
            let above = Path::new(&file.path).ancestors().skip(1);
            folders.extend(above.map(|folder| self.folder.join(folder)));
        }
        for path in folders {
            File::open(&path)
                .and_then(|folder| folder.sync_all())
                .map_err(|source| StageError::Write { path, source })?;
        }
        for (number, sum) in self.hashing.end().into_iter().enumerate() {
            if let Some(file) = self.done.get_mut(&number) {
                file.rows_hash = sum;
            }
        }
        let mut done: Vec<_> = self.done.into_values().collect();
        done.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(done)
    }
}

impl OpenFile {
    fn finish(self, folder: &Path) -> Result<StagedFile, StageError> {
        let path: PathBuf = folder.join(&self.name);
        let file = self
            .writer
            .finish()
            .map_err(|source| encode(&self.name, source))?;
        let (bytes, sha256) = file
            .finish()
            .map_err(|source| StageError::Write { path, source })?;
        Ok(StagedFile {
            path: self.name,
            rows: self.rows,
            bytes,
            sha256,
            partition_values: self.values,
            stats: stats_json(self.rows, &self.stats),
            // Hashed meanwhile.
            rows_hash: RowsHash::default(),
        })
    }
}

impl ColumnStats {
    fn add(&mut self, array: &ArrayRef) {
        self.nulls += array.null_count();
        let range = match array.data_type() {
            DataType::Int64 => {
                let values = array.as_primitive::<Int64Type>();
                min(values).zip(max(values))
            }
            DataType::Date32 => {
                self.is_date = true;
                let values = array.as_primitive::<Date32Type>();
                min(values).map(i64::from).zip(max(values).map(i64::from))
            }
            _ => None,
        };
        if let Some((low, high)) = range {
            let (old_low, old_high) = self.range.unwrap_or((low, high));
            self.range = Some((low.min(old_low), high.max(old_high)));
        }
    }
}

/// Per-file statistics in the form of the Delta protocol. Bounds only where they are exact in
/// JSON: whole numbers and days.
fn stats_json(rows: u64, columns: &BTreeMap<String, ColumnStats>) -> String {
    let mut nulls = serde_json::Map::new();
    let (mut low, mut high) = (serde_json::Map::new(), serde_json::Map::new());
    for (name, column) in columns {
        nulls.insert(name.clone(), column.nulls.into());
        if let Some((min, max)) = column.range {
            let json = |value: i64| -> serde_json::Value {
                match i32::try_from(value) {
                    Ok(days) if column.is_date => date_text(days).into(),
                    _ => value.into(),
                }
            };
            low.insert(name.clone(), json(min));
            high.insert(name.clone(), json(max));
        }
    }
    serde_json::json!({
        "numRecords": rows, "minValues": low, "maxValues": high, "nullCount": nulls,
    })
    .to_string()
}

fn encode(file: &str, source: parquet::errors::ParquetError) -> StageError {
    StageError::Encode {
        file: file.to_owned(),
        source,
    }
}

/// A file that knows its size and SHA-256.
struct HashingFile {
    file: io::BufWriter<File>,
    hasher: Sha256,
    bytes: u64,
}

impl HashingFile {
    fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)?;
        Ok(Self {
            file: io::BufWriter::new(file),
            hasher: Sha256::new(),
            bytes: 0,
        })
    }

    fn finish(self) -> io::Result<(u64, String)> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o444))?;
        file.sync_all()?;
        Ok((self.bytes, format!("sha256:{:x}", self.hasher.finalize())))
    }
}

impl Write for HashingFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
