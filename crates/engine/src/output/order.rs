//! An output's rows in the order of their values: column after column, nulls first.
//!
//! So equal rows give equal bytes, whoever made them. Rows that have room in memory are told apart
//! by eight bytes of one column at a time, and what comes after them is looked at only where they
//! are equal: most rows are told apart by their first column, and rows that come in order cost
//! little more than a look. Where there is no room for them, DataFusion sorts and spills them.

mod values;

use std::iter;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use barecount_dataset::schema::{ColumnType, TableSchema};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::{SortOptions, interleave_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{EmptyRecordBatchStream, ExecutionPlan};
use futures::{StreamExt as _, stream};

use values::Values;

/// What is held for a row while rows are sorted: where it lies, and its part in what is equal.
const ROW_BYTES: usize = size_of::<Row>() + 2 * size_of::<Range<usize>>();

/// Rows in order.
pub(super) struct InOrder {
    pub(super) rows: SendableRecordBatchStream,
    /// What sorts them, where that may spill.
    pub(super) spilling: Option<Arc<dyn ExecutionPlan>>,
}

/// Puts rows in order by the partition columns of their schema, and then by all others. They come
/// in batches of `batch_rows`, but for the last, where they have room in memory.
pub(super) async fn sort(
    mut rows: SendableRecordBatchStream,
    schema: &TableSchema,
    batch_rows: usize,
    context: Arc<TaskContext>,
) -> Result<InOrder> {
    let arrow_schema = rows.schema();
    let columns = columns(schema);
    let memory = MemoryConsumer::new("rows of an output").with_can_spill(true);
    let memory = memory.register(context.memory_pool());
    let (mut batches, mut counter) = (Vec::new(), RecordBatchMemoryCounter::new());
    while let Some(batch) = rows.next().await.transpose()? {
        let bytes = counter.count_batch(&batch) + batch.num_rows() * ROW_BYTES;
        batches.push(batch);
        if memory.try_grow(bytes).is_err() {
            memory.free();
            let rows = stream::iter(batches.into_iter().map(Ok)).chain(rows);
            let rows = RecordBatchStreamAdapter::new(Arc::clone(&arrow_schema), rows);
            return spill(Box::pin(rows), &columns, context);
        }
    }
    let sorted = Sorted {
        rows: in_order(&batches, &columns),
        batches,
        next: 0,
        batch_rows,
        _memory: memory,
    };
    let rows = RecordBatchStreamAdapter::new(arrow_schema, stream::iter(sorted));
    Ok(InOrder {
        rows: Box::pin(rows),
        spilling: None,
    })
}

/// The columns by which rows are sorted, the first of them above the others, with their places.
fn columns(schema: &TableSchema) -> Vec<(usize, ColumnType)> {
    let divides = |name: &String| schema.partition_by().iter().position(|by| by == name);
    let mut columns: Vec<_> = schema.columns().iter().enumerate().collect();
    columns.sort_by_key(|(_, column)| divides(&column.name).unwrap_or(usize::MAX));
    let columns = columns.into_iter();
    columns
        .map(|(place, column)| (place, column.column_type))
        .collect()
}

/// Lets DataFusion sort rows, which puts on disk what has no room in memory.
fn spill(
    rows: SendableRecordBatchStream,
    columns: &[(usize, ColumnType)],
    context: Arc<TaskContext>,
) -> Result<InOrder> {
    let schema = rows.schema();
    let keys = columns.iter().map(|(place, _)| PhysicalSortExpr {
        expr: Arc::new(Column::new(schema.field(*place).name(), *place)),
        options: SortOptions::default(),
    });
    let order = LexOrdering::new(keys);
    let order = order.ok_or_else(|| exec_datafusion_err!("an output has no columns"))?;
    let given = Given {
        schema: Arc::clone(&schema),
        rows: Mutex::new(Some(rows)),
    };
    let given = StreamingTableExec::try_new(schema, vec![Arc::new(given)], None, [], false, None)?;
    let plan: Arc<dyn ExecutionPlan> = Arc::new(SortExec::new(order, Arc::new(given)));
    Ok(InOrder {
        rows: plan.execute(0, context)?,
        spilling: Some(plan),
    })
}

/// Rows that are there, as a plan reads them.
struct Given {
    schema: SchemaRef,
    /// Gone once they are read.
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Given")
    }
}

impl PartitionStream for Given {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match rows.take() {
            Some(rows) => rows,
            None => Box::pin(EmptyRecordBatchStream::new(Arc::clone(&self.schema))),
        }
    }
}

/// A row in memory.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// What others are compared with.
    key: u64,
    batch: u32,
    row: u32,
}

/// The places of all rows, in order.
fn in_order(batches: &[RecordBatch], columns: &[(usize, ColumnType)]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for (batch, held) in (0..).zip(batches) {
        let places = (0..).take(held.num_rows());
        rows.extend(places.map(|row| Row { key: 0, batch, row }));
    }
    // Ranges of rows that are equal so far.
    let mut equal: Vec<_> = iter::once(0..rows.len()).collect();
    for (place, column_type) in columns {
        if equal.is_empty() {
            break;
        }
        let values = batches
            .iter()
            .map(|batch| Values::of(batch.column(*place), *column_type));
        equal = settle(&mut rows, equal, &values.collect::<Vec<_>>());
    }
    rows
}

/// Sorts each range by the values of a column. Gives the ranges that are still equal.
fn settle(
    rows: &mut [Row],
    mut open: Vec<Range<usize>>,
    values: &[Values<'_>],
) -> Vec<Range<usize>> {
    let mut equal = Vec::new();
    for part in 0.. {
        for range in std::mem::take(&mut open) {
            let mut start = range.start;
            let range = &mut rows[range];
            for row in range.iter_mut() {
                row.key = values[row.batch as usize].key(row.row as usize, part);
            }
            range.sort_unstable_by_key(|row| row.key);
            for same in range.chunk_by(|a, b| a.key == b.key) {
                let end = start + same.len();
                if same.len() > 1 {
                    let is_whole = values[same[0].batch as usize].is_whole(same[0].key, part);
                    if is_whole { &mut equal } else { &mut open }.push(start..end);
                }
                start = end;
            }
        }
        if open.is_empty() {
            break;
        }
    }
    equal
}

/// Rows that were sorted in memory, in batches.
struct Sorted {
    batches: Vec<RecordBatch>,
    rows: Vec<Row>,
    next: usize,
    batch_rows: usize,
    _memory: MemoryReservation,
}

impl Iterator for Sorted {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = &self.rows[self.next..];
        let rows = &rows[..rows.len().min(self.batch_rows)];
        let first = rows.first()?;
        // Rows that came in order are handed on as they are.
        let is_next = |(a, b): (&Row, &Row)| a.batch == b.batch && a.row + 1 == b.row;
        if rows.iter().zip(&rows[1..]).all(is_next) {
            self.next += rows.len();
            let batch = &self.batches[first.batch as usize];
            return Some(Ok(batch.slice(first.row as usize, rows.len())));
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let places: Vec<_> = rows
            .iter()
            .map(|row| (row.batch as usize, row.row as usize))
            .collect();
        let mut places = &places[..];
        loop {
            match interleave_record_batch(&batches, places) {
                // More text than a column of a batch can hold.
                Err(ArrowError::OffsetOverflowError(_)) if places.len() > 1 => {
                    places = &places[..places.len() / 2];
                }
                batch => {
                    self.next += places.len();
                    return Some(batch.map_err(Into::into));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
