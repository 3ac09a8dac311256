//! From a query's result to an output's files: columns by name, declared types, a fixed order.

mod order;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_ipc::writer::StreamWriter;
use barecount_dataset::schema::{ArrowForm, Column, ColumnType, TableSchema};
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, GenericByteArray, RecordBatch};
use datafusion::arrow::compute::BatchCoalescer;
use datafusion::arrow::datatypes::{ByteArrayType, DataType, Schema};
use datafusion::common::{Column as ColumnRef, DataFusionError, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt as _;

use crate::metrics::Metrics;

/// Rows that are written at once.
const BATCH_ROWS: usize = 8192;
/// Bytes of rows above which they are written in two goes: whoever reads them holds them all.
const PIECE_BYTES: usize = 16 << 20;

/// Brings a query's result to an output's columns, by name.
///
/// Names are compared without case. `names`, if not empty, names the result's columns first, as
/// the column list of an `INSERT` does. Whole numbers, decimals and floats become the declared
/// number type (a float never becomes a whole number); other types must be as declared. Nullable
/// columns may be missing.
pub(crate) fn align(
    result: DataFrame,
    names: &[String],
    schema: &TableSchema,
) -> Result<Result<DataFrame, String>, DataFusionError> {
    let given: Vec<(ColumnRef, String, DataType)> = result
        .schema()
        .iter()
        .map(|(qualifier, field)| {
            let column = ColumnRef::new(qualifier.cloned(), field.name());
            (
                column,
                field.name().to_lowercase(),
                field.data_type().clone(),
            )
        })
        .collect();
    let expressions = match select(given, names, schema) {
        Ok(expressions) => expressions,
        Err(difference) => return Ok(Err(difference)),
    };
    result.select(expressions).map(Ok)
}

fn select(
    mut given: Vec<(ColumnRef, String, DataType)>,
    names: &[String],
    schema: &TableSchema,
) -> Result<Vec<Expr>, String> {
    if !names.is_empty() {
        if names.len() != given.len() {
            return Err(format!(
                "{} columns are named, the query gives {}",
                names.len(),
                given.len()
            ));
        }
        given
            .iter_mut()
            .zip(names)
            .for_each(|(column, name)| column.1 = name.to_lowercase());
    }
    let declared = |name: &str| {
        schema
            .columns()
            .iter()
            .any(|c| c.name.to_lowercase() == name)
    };
    if let Some((_, name, _)) = given.iter().find(|(_, name, _)| !declared(name)) {
        return Err(format!("column `{name}` is not declared"));
    }
    schema
        .columns()
        .iter()
        .map(|column| expression(&given, column))
        .collect()
}

fn expression(given: &[(ColumnRef, String, DataType)], column: &Column) -> Result<Expr, String> {
    let wanted = column.column_type.to_arrow();
    let matching: Vec<_> = given
        .iter()
        .filter(|(_, name, _)| *name == column.name.to_lowercase())
        .collect();
    let value = match matching[..] {
        [] if column.nullable => cast(lit(ScalarValue::Null), wanted),
        [] => return Err(format!("column `{}` is missing", column.name)),
        [(reference, _, found)] if fits(found, column.column_type) => {
            cast(Expr::Column(reference.clone()), wanted)
        }
        [(_, _, found)] => {
            let (name, declared) = (&column.name, column.column_type);
            return Err(format!(
                "column `{name}` is {found}, declared as {declared}; use CAST"
            ));
        }
        _ => return Err(format!("column `{}` is there more than once", column.name)),
    };
    Ok(value.alias(&column.name))
}

/// Whether a result's type becomes the declared one without being asked.
fn fits(found: &DataType, declared: ColumnType) -> bool {
    use DataType as A;
    let found = match found {
        A::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let is_decimal = matches!(
        found,
        A::Decimal32(..) | A::Decimal64(..) | A::Decimal128(..) | A::Decimal256(..)
    );
    let is_whole = matches!(
        found,
        A::Decimal32(_, 0) | A::Decimal64(_, 0) | A::Decimal128(_, 0) | A::Decimal256(_, 0)
    );
    let is_number = is_decimal || found.is_integer() || found.is_floating();
    found == &A::Null
        || match declared {
            ColumnType::Int64 => found.is_integer() || is_whole,
            ColumnType::Float64 | ColumnType::Decimal { .. } => is_number,
            ColumnType::String => matches!(found, A::Utf8 | A::LargeUtf8 | A::Utf8View),
            ColumnType::Binary => matches!(found, A::Binary | A::LargeBinary | A::BinaryView),
            ColumnType::Date => found == &A::Date32,
            ColumnType::Timestamp => matches!(found, A::Timestamp(..)),
            ColumnType::Bool => found == &A::Boolean,
        }
}

/// Runs a plan and writes its rows as an Arrow IPC stream, sorted by the partition columns and then
/// by all others, so that what is staged does not depend on how many threads made it. Returns how
/// many rows there were.
pub(crate) async fn write(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    schema: &TableSchema,
    path: &Path,
    metrics: &mut Metrics,
) -> Result<u64, DataFusionError> {
    let nullable = schema
        .to_arrow()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect::<Vec<_>>();
    let file_schema = Arc::new(Schema::new(nullable));
    let rows = execute_stream(Arc::clone(&plan), Arc::clone(&context))?;
    let typed = {
        let file_schema = Arc::clone(&file_schema);
        rows.map(move |batch| {
            let columns = batch?.columns().to_vec();
            Ok(RecordBatch::try_new(Arc::clone(&file_schema), columns)?)
        })
    };
    let typed = RecordBatchStreamAdapter::new(Arc::clone(&file_schema), typed);
    let mut sorted = order::sort(Box::pin(typed), schema, BATCH_ROWS, context).await?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = BufWriter::new(File::create_new(path)?);
    let mut writer = StreamWriter::try_new(file, &file_schema)?;
    // All but the last are of one size, and what is staged of equal rows so the same to the byte.
    let mut batches = BatchCoalescer::new(file_schema, BATCH_ROWS)
        .with_biggest_coalesce_batch_size(Some(BATCH_ROWS - 1));
    let mut count = 0;
    while let Some(batch) = sorted.rows.next().await.transpose()? {
        count += batch.num_rows() as u64;
        batches.push_batch(batch)?;
        while let Some(batch) = batches.next_completed_batch() {
            write_pieces(&mut writer, &batch)?;
        }
    }
    batches.finish_buffered_batch()?;
    while let Some(batch) = batches.next_completed_batch() {
        write_pieces(&mut writer, &batch)?;
    }
    writer.finish()?;
    metrics.add_plan(plan.as_ref());
    if let Some(sort) = sorted.spilling {
        metrics.add_spilled(sort.as_ref());
    }
    Ok(count)
}

fn write_pieces(
    writer: &mut StreamWriter<impl Write>,
    batch: &RecordBatch,
) -> Result<(), DataFusionError> {
    let bytes = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => text_bytes(column.as_string::<i32>()),
        DataType::Binary => text_bytes(column.as_binary::<i32>()),
        other => other.primitive_width().unwrap_or(1) * column.len(),
    };
    let (rows, half) = (batch.num_rows(), batch.num_rows() / 2);
    if half == 0 || batch.columns().iter().map(bytes).sum::<usize>() <= PIECE_BYTES {
        return Ok(writer.write(batch)?);
    }
    write_pieces(writer, &batch.slice(0, half))?;
    write_pieces(writer, &batch.slice(half, rows - half))
}

fn text_bytes<T: ByteArrayType<Offset = i32>>(texts: &GenericByteArray<T>) -> usize {
    let offsets = texts.value_offsets();
    let bytes = match offsets {
        [first, .., last] => (last - first).unsigned_abs() as usize,
        _ => 0,
    };
    bytes + size_of_val(offsets)
}
