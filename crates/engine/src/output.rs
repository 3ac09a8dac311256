//! From a query's result to an output's files: columns by name, declared types, a fixed order.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use barecount_dataset::schema::{ArrowForm, Column, ColumnType, TableSchema};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::BatchCoalescer;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::{Column as ColumnRef, DataFusionError, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt as _;

/// Rows that are encoded at once.
const BATCH_ROWS: usize = 8192;

/// Brings a query's result to an output's columns, by name, and into a fixed order.
///
/// Names are compared without case. `names`, if not empty, names the result's columns first, as
/// the column list of an `INSERT` does. Whole numbers, decimals and floats become the declared
/// number type (a float never becomes a whole number); other types must be as declared. Nullable
/// columns may be missing. Rows are sorted by the partition columns and then all others, so that
/// files do not depend on how many threads made them.
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
    let rest = schema.columns().iter().map(|column| &column.name);
    let rest = rest.filter(|name| !schema.partition_by().contains(name));
    let order = schema.partition_by().iter().chain(rest);
    let order = order.map(|name| Expr::Column(ColumnRef::new_unqualified(name)).sort(true, true));
    result.select(expressions)?.sort(order.collect()).map(Ok)
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

/// Runs a plan and writes its rows to a Parquet file, in order. Returns how many there were.
pub(crate) async fn write(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<datafusion::execution::TaskContext>,
    schema: &TableSchema,
    path: &Path,
) -> Result<u64, DataFusionError> {
    let nullable = schema
        .to_arrow()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect::<Vec<_>>();
    let file_schema = Arc::new(Schema::new(nullable));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Short-lived: staging reads it once and writes it anew, so speed matters more than size.
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let file = BufWriter::new(File::create_new(path)?);
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&file_schema), Some(properties))?;
    // Pages end where batches do, so these are always of one size: equal rows, equal bytes.
    let mut batches = BatchCoalescer::new(Arc::clone(&file_schema), BATCH_ROWS);
    let mut rows = execute_stream(plan, context)?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        count += batch.num_rows() as u64;
        let columns = batch.columns().to_vec();
        batches.push_batch(RecordBatch::try_new(Arc::clone(&file_schema), columns)?)?;
        while let Some(batch) = batches.next_completed_batch() {
            writer.write(&batch)?;
        }
    }
    batches.finish_buffered_batch()?;
    while let Some(batch) = batches.next_completed_batch() {
        writer.write(&batch)?;
    }
    writer.close()?;
    Ok(count)
}
