use std::sync::Arc;

use barecount_dataset::schema::{ArrowForm as _, Column, ColumnType, TableSchema};
use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::{
    SortColumn, concat_batches, lexsort_to_indices, take_record_batch,
};
use datafusion::arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{TryStreamExt as _, stream};
use proptest::prelude::*;

use super::{columns, sort};
use crate::session::{Resources, open};

const TYPES: [(&str, ColumnType); 8] = [
    ("flag", ColumnType::Bool),
    ("text", ColumnType::String),
    ("number", ColumnType::Int64),
    ("float", ColumnType::Float64),
    ("bytes", ColumnType::Binary),
    (
        "decimal",
        ColumnType::Decimal {
            precision: 38,
            scale: 2,
        },
    ),
    ("day", ColumnType::Date),
    ("at", ColumnType::Timestamp),
];
/// Texts that are equal for a while, or to their end but for their length.
const TEXTS: [&str; 10] = [
    "",
    "\0",
    "\0\0",
    "a",
    "1234567",
    "12345678",
    "1234567\0",
    "12345678901234",
    "123456789012345",
    "12345678901234é",
];
const NUMBERS: [i64; 7] = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
const FLOATS: [f64; 9] = [
    f64::NEG_INFINITY,
    -1.5,
    -0.0,
    0.0,
    f64::MIN_POSITIVE,
    2.0,
    f64::MAX,
    f64::INFINITY,
    f64::NAN,
];

/// A schema with the columns in this order, divided by these.
fn schema(order: &[usize], by: usize) -> TableSchema {
    let columns = order.iter().map(|place| {
        let (name, column_type) = TYPES[*place];
        Column::nullable(name, column_type)
    });
    let by = order
        .iter()
        .rev()
        .filter(|place| TYPES[**place].1.splits())
        .take(by);
    let by = by.map(|place| TYPES[*place].0.to_owned());
    TableSchema::new(columns.collect(), by.collect()).expect("it is valid")
}

/// A column of values picked by numbers, of which some are null.
fn column(column_type: ColumnType, picks: &[u8]) -> ArrayRef {
    fn pick<T: Copy>(picks: &[u8], from: &[T]) -> Vec<Option<T>> {
        let pick =
            |pick: &u8| (!pick.is_multiple_of(8)).then(|| from[usize::from(*pick) % from.len()]);
        picks.iter().map(pick).collect()
    }
    let days = [i32::MIN, -1, 0, 1, i32::MAX];
    let decimals = [
        i128::MIN,
        -(1 << 64),
        -1,
        0,
        1 << 63,
        (1 << 64) + 1,
        3 << 64,
        i128::MAX,
    ];
    match column_type {
        ColumnType::Bool => Arc::new(BooleanArray::from(pick(picks, &[false, true]))),
        ColumnType::String => Arc::new(StringArray::from(pick(picks, &TEXTS))),
        ColumnType::Binary => {
            let bytes = [
                &b""[..],
                b"\0",
                b"\xff",
                b"\xff\xff\xff\xff\xff\xff\xff",
                b"\xff\xff\xff\xff\xff\xff\xff\0",
            ];
            Arc::new(BinaryArray::from(pick(picks, &bytes)))
        }
        ColumnType::Int64 => Arc::new(Int64Array::from(pick(picks, &NUMBERS))),
        ColumnType::Float64 => Arc::new(Float64Array::from(pick(picks, &FLOATS))),
        ColumnType::Decimal { .. } => {
            let values = Decimal128Array::from(pick(picks, &decimals));
            Arc::new(values.with_data_type(column_type.to_arrow()))
        }
        ColumnType::Date => Arc::new(Date32Array::from(pick(picks, &days))),
        ColumnType::Timestamp => {
            let values = TimestampMicrosecondArray::from(pick(picks, &NUMBERS));
            Arc::new(values.with_timezone("UTC"))
        }
    }
}

fn batch(schema: &TableSchema, rows: &[[u8; 8]]) -> RecordBatch {
    let columns = schema
        .columns()
        .iter()
        .enumerate()
        .map(|(place, declared)| {
            let picks: Vec<u8> = rows.iter().map(|row| row[place]).collect();
            column(declared.column_type, &picks)
        });
    RecordBatch::try_new(schema.to_arrow(), columns.collect())
        .expect("its columns are the schema's")
}

/// Sorts batches with so much memory. Gives the rows as one batch, and how often they were spilled.
fn sorted(
    schema: &TableSchema,
    batches: &[RecordBatch],
    memory: u64,
) -> Result<(RecordBatch, usize)> {
    let spill = tempfile::tempdir()?;
    let resources = Resources {
        memory_limit_bytes: memory,
        target_partitions: 1,
        spill_dir: spill.path().to_owned(),
        spill_limit_bytes: 1 << 30,
    };
    let context = open(&resources).expect("a session opens").task_ctx();
    let arrow: Arc<Schema> = schema.to_arrow();
    let batches = batches.to_vec();
    let rows = stream::iter(batches.into_iter().map(Ok));
    let rows = RecordBatchStreamAdapter::new(Arc::clone(&arrow), rows);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let sorted = sort(Box::pin(rows), schema, 100, context).await?;
        let rows: Vec<RecordBatch> = sorted.rows.try_collect().await?;
        let spills = sorted
            .spilling
            .and_then(|plan| plan.metrics()?.spill_count());
        Ok((concat_batches(&arrow, &rows)?, spills.unwrap_or(0)))
    })
}

/// The rows as Arrow sorts them.
fn expected(schema: &TableSchema, batches: &[RecordBatch]) -> Result<RecordBatch> {
    let all = concat_batches(&schema.to_arrow(), batches)?;
    let keys = columns(schema).into_iter().map(|(place, _)| SortColumn {
        values: Arc::clone(all.column(place)),
        options: None,
    });
    let order = lexsort_to_indices(&keys.collect::<Vec<_>>(), None)?;
    Ok(take_record_batch(&all, &order)?)
}

proptest! {
    #[test]
    fn rows_come_in_the_order_that_arrow_sorts_them_in(
        order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
        by in 0..3_usize,
        rows in prop::collection::vec(prop::collection::vec(any::<[u8; 8]>(), 0..40), 0..6),
    ) {
        let schema = schema(&order, by);
        let batches: Vec<_> = rows.iter().map(|rows| batch(&schema, rows)).collect();
        let (found, _) = sorted(&schema, &batches, 64 << 20)?;
        prop_assert!(found == expected(&schema, &batches)?, "{schema:?}: {rows:?}");
    }
}

#[test]
fn rows_without_room_are_spilled_and_come_in_the_same_order() -> Result<()> {
    let schema = schema(&[1, 2, 3, 0, 4, 5, 6, 7], 1);
    let row = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let batches: Vec<_> = (0..60)
        .map(|first| {
            let rows: Vec<_> = (first * 500..(first + 1) * 500).map(row).collect();
            batch(&schema, &rows)
        })
        .collect();
    let (in_memory, never) = sorted(&schema, &batches, 256 << 20)?;
    let (spilled, spills) = sorted(&schema, &batches, 3 << 20)?;
    assert_eq!(never, 0);
    assert!(spills > 0, "nothing was spilled");
    assert!(in_memory == spilled, "another order");
    Ok(())
}
