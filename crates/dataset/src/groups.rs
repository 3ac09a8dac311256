//! Parquet files that can be read again without holding much: a row group ends once its rows have so
//! many bytes as they lie in memory, however few they are in the file. What repeats is next to nothing
//! where it is encoded, and all of it is there again for whoever reads it.

use std::io::Write;

use arrow::array::{Array as _, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// The rows of a group have so many bytes in memory at most, unless it is one row alone.
pub(crate) const GROUP_BYTES: usize = 32 << 20;
/// Rows are written in parts of so many bytes, down to single rows.
const PART_BYTES: usize = 8 << 20;

/// The bytes that rows take in memory, without what else lies where they do.
pub(crate) fn size(batch: &RecordBatch) -> usize {
    let sizes = batch.columns().iter();
    let sizes = sizes.map(|array| {
        let slice = array.to_data().get_slice_memory_size();
        slice.unwrap_or(usize::MAX)
    });
    sizes.fold(0, usize::saturating_add)
}

/// Hands rows on in parts of at most `most` bytes, down to single rows.
pub(crate) fn in_parts<E>(
    batch: &RecordBatch,
    most: usize,
    take: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
) -> Result<(), E> {
    let rows = batch.num_rows();
    if rows <= 1 || size(batch) <= most {
        return take(batch);
    }
    in_parts(&batch.slice(0, rows / 2), most, take)?;
    in_parts(&batch.slice(rows / 2, rows - rows / 2), most, take)
}

/// Properties of files with these columns: bytes have neither a dictionary nor a least and a greatest
/// value. Each of these would be a copy of what may be a whole file.
pub(crate) fn properties(schema: &Schema) -> WriterPropertiesBuilder {
    let bytes = schema.fields().iter();
    let bytes = bytes.filter(|field| field.data_type() == &DataType::Binary);
    bytes.fold(WriterProperties::builder(), |properties, field| {
        // Not parsed: a name may have a dot in it.
        let column = ColumnPath::new(vec![field.name().clone()]);
        properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_statistics_enabled(column, EnabledStatistics::None)
    })
}

/// Writes a file in such groups.
pub(crate) struct GroupWriter<W: Write + Send> {
    writer: ArrowWriter<W>,
    /// Of the rows of the group that is open, as they lay in memory.
    bytes: usize,
}

impl<W: Write + Send> GroupWriter<W> {
    pub(crate) fn new(
        out: W,
        schema: SchemaRef,
        properties: WriterProperties,
    ) -> Result<Self, ParquetError> {
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(out, schema, options)?;
        Ok(Self { writer, bytes: 0 })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        in_parts(batch, PART_BYTES, &mut |part| {
            let bytes = size(part);
            if self.bytes > 0 && self.bytes.saturating_add(bytes) > GROUP_BYTES {
                self.end_group()?;
            }
            self.writer.write(part)?;
            self.bytes = self.bytes.saturating_add(bytes);
            if self.bytes >= GROUP_BYTES {
                self.end_group()?;
            }
            Ok(())
        })
    }

    /// Ends the group that is open, and with it what is held of its rows.
    pub(crate) fn end_group(&mut self) -> Result<(), ParquetError> {
        self.bytes = 0;
        self.writer.flush()
    }

    /// How many groups have ended.
    pub(crate) fn groups(&self) -> usize {
        self.writer.flushed_row_groups().len()
    }

    /// What the rows that are encoded and not written hold.
    pub(crate) fn memory_size(&self) -> usize {
        self.writer.memory_size()
    }

    /// Ends the file.
    pub(crate) fn finish(self) -> Result<W, ParquetError> {
        self.writer.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray as _, BinaryArray, Int64Array, StringArray};
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

    fn rows(texts: Vec<&str>, bytes: Vec<&[u8]>) -> TestResult<RecordBatch> {
        let numbers = Int64Array::from_iter_values(0..texts.len() as i64);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(numbers)),
            ("text", Arc::new(StringArray::from(texts))),
            ("a.b", Arc::new(BinaryArray::from(bytes))),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    }

    #[test]
    fn a_group_is_a_few_mebibytes_of_rows_however_small_they_are_in_the_file() -> TestResult {
        let long = "x".repeat(256 << 10);
        let file = vec![7; GROUP_BYTES + 1];
        let batches = [
            rows(vec![&long; 300], vec![&[]; 300])?,
            // One that is more than a group by itself, between two that are not.
            rows(vec!["a", "b", "c"], vec![b"1", &file, b"3"])?,
            rows(vec!["d"; 3], vec![b"4"; 3])?,
        ];
        let schema = batches[0].schema();
        let properties = properties(&schema).build();
        let mut writer = GroupWriter::new(Vec::new(), schema, properties)?;
        for batch in &batches {
            writer.write(batch)?;
        }
        let written = Bytes::from(writer.finish()?);
        assert!(written.len() < 2 * GROUP_BYTES, "{} bytes", written.len());
        let builder = ParquetRecordBatchReaderBuilder::try_new(written.clone())?;
        let groups = builder.metadata().num_row_groups();
        assert!(groups > 4, "{groups} groups");
        let mut read = Vec::new();
        for group in 0..groups {
            let builder = ParquetRecordBatchReaderBuilder::try_new(written.clone())?;
            let reader = builder.with_row_groups(vec![group]).with_batch_size(1000);
            for batch in reader.build()? {
                let batch = batch?;
                let held = size(&batch);
                let alone = batch.num_rows() == 1;
                assert!(
                    alone || held <= GROUP_BYTES,
                    "{held} bytes in group {group}"
                );
                read.extend(
                    batch
                        .column(2)
                        .as_binary::<i32>()
                        .iter()
                        .map(|b| b.map(<[u8]>::len)),
                );
            }
        }
        let last: Vec<_> = read.split_off(300).into_iter().flatten().collect();
        assert_eq!(last, [1, file.len(), 1, 1, 1, 1]);
        Ok(())
    }

    #[test]
    fn bytes_are_held_once_while_they_are_written() -> TestResult {
        let batch = rows(vec!["a"], vec![b"1"])?;
        let properties = properties(&batch.schema()).build();
        let column = |name: &str| ColumnPath::new(vec![name.to_owned()]);
        let kept = |name: &str| {
            let column = column(name);
            let statistics = properties.statistics_enabled(&column) != EnabledStatistics::None;
            (properties.dictionary_enabled(&column), statistics)
        };
        assert_eq!(kept("a.b"), (false, false));
        assert_eq!(kept("text"), (true, true));
        Ok(())
    }
}
