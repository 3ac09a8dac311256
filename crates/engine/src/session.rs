//! Sessions: which tables there are, how much memory and spill space, which functions.

mod layout;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use barecount_dataset::schema::{ArrowForm, TableSchema};
use barecount_model::text::DatasetName;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::{Column, DataFusionError};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions::core::expr_fn::nullif;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast, lit};
use datafusion::prelude::{SessionConfig, SessionContext};
use serde::{Deserialize, Serialize};

use crate::arithmetic::{CheckedCasts, CheckedOperators, replace_float_functions};
use crate::error::{EngineError, reason};
use crate::float::{replace_aggregates, replace_percentiles};
use crate::job::DeclaredTable;
use crate::plan::TotalWindowOrder;
use layout::{Layout, Problem};

/// What planning alone may use for rows; it has none.
const PLANNING_MEMORY_BYTES: usize = 1 << 20;

/// What a session may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Memory for rows in flight, in bytes; beyond it, operators spill. The process needs some
    /// 100 MiB more for code, plans and read buffers.
    pub memory_limit_bytes: u64,
    /// How many partitions work is divided into: the manifest's `shuffle_partition_hint`.
    pub target_partitions: usize,
    /// An existing folder for what is spilled.
    pub spill_dir: PathBuf,
    /// The most that is spilled, in bytes.
    pub spill_limit_bytes: u64,
}

/// A folder of files `*.parquet` that a query sees as a table.
///
/// They are either all in folders `column=value` for the partition columns, outermost first, or
/// have all columns in them. Text is never read: a value that was written as text and read again
/// is only as good as the agreement between two programs on how it is spelt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputTable {
    /// The name, `layer.name`, under which queries see it.
    pub table: DatasetName,
    /// The folder.
    pub path: PathBuf,
    /// The columns, and by which of them the folder is partitioned.
    pub schema: TableSchema,
}

/// A session in which statements are planned and never carried out.
pub(crate) fn open_without_disk() -> Result<SessionContext, EngineError> {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    session(PLANNING_MEMORY_BYTES, 1, disk)
}

/// A session without tables. Of statements that reach outside, none can be planned: there are no
/// table factories and no file formats to copy to.
pub(crate) fn open(resources: &Resources) -> Result<SessionContext, EngineError> {
    let memory = usize::try_from(resources.memory_limit_bytes).unwrap_or(usize::MAX);
    let partitions = resources.target_partitions.clamp(1, 256);
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![
            resources.spill_dir.clone(),
        ]))
        .with_max_temp_directory_size(resources.spill_limit_bytes);
    session(memory, partitions, disk)
}

fn session(
    memory: usize,
    partitions: usize,
    disk: DiskManagerBuilder,
) -> Result<SessionContext, EngineError> {
    let setup = |error: DataFusionError| EngineError::Setup {
        reason: reason(&error),
    };
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(setup)?;
    let mut config = SessionConfig::new()
        .with_target_partitions(partitions)
        .with_default_catalog_and_schema("job", "view")
        .with_information_schema(false);
    // A sort keeps this much aside to merge with; the default would eat a small job's memory.
    let reservation = (memory / (8 * partitions)).min(10 << 20);
    config.options_mut().execution.sort_spill_reservation_bytes = reservation;
    // So that errors tell the column, and not only the line that the statement begins on.
    config.options_mut().sql_parser.collect_spans = true;
    let mut builder = SessionStateBuilder::new_with_default_features();
    let planners = builder.expr_planners().get_or_insert_default();
    planners.insert(0, Arc::new(CheckedOperators));
    let mut state = builder
        .with_config(config)
        .with_runtime_env(runtime)
        .with_analyzer_rule(Arc::new(CheckedCasts))
        .with_optimizer_rule(Arc::new(TotalWindowOrder))
        .build();
    state.table_factories_mut().clear();
    replace_aggregates(&mut state).map_err(setup)?;
    replace_percentiles(&mut state).map_err(setup)?;
    replace_float_functions(&mut state).map_err(setup)?;
    Ok(SessionContext::new_with_state(state))
}

/// Makes a table of an input and registers it.
pub(crate) fn register(context: &SessionContext, input: &InputTable) -> Result<(), EngineError> {
    if !input.path.is_dir() {
        let reason = format!("`{}` is not a folder", input.path.display());
        return Err(EngineError::Input {
            dataset: input.table.to_string(),
            reason,
        });
    }
    register_as(context, &input.table, table(input)?)
}

/// Makes a table without rows and registers it.
pub(crate) fn register_empty(
    context: &SessionContext,
    input: &DeclaredTable,
) -> Result<(), EngineError> {
    let fields = input.schema.to_arrow();
    let fields = fields.fields().iter();
    let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    register_as(context, &input.table, Arc::new(EmptyTable::new(schema)))
}

fn register_as(
    context: &SessionContext,
    name: &DatasetName,
    table: Arc<dyn TableProvider>,
) -> Result<(), EngineError> {
    let failed = |error: DataFusionError| EngineError::Input {
        dataset: name.to_string(),
        reason: reason(&error),
    };
    let catalog = context.catalog("job").ok_or_else(|| EngineError::Setup {
        reason: "the session has no catalog".to_owned(),
    })?;
    let layer = name.layer();
    let schema = match catalog.schema(layer) {
        Some(schema) => schema,
        None => {
            let schema: Arc<dyn datafusion::catalog::SchemaProvider> =
                Arc::new(MemorySchemaProvider::new());
            catalog
                .register_schema(layer, Arc::clone(&schema))
                .map_err(failed)?;
            schema
        }
    };
    schema
        .register_table(name.name().to_owned(), table)
        .map_err(failed)?;
    Ok(())
}

/// The table of an input, to be registered under any name: all declared columns, in order.
pub(crate) fn table(input: &InputTable) -> Result<Arc<dyn TableProvider>, EngineError> {
    let failed = |reason: String| EngineError::Input {
        dataset: input.table.to_string(),
        reason,
    };
    let layout = layout::find(&input.path, input.schema.partition_by());
    let layout = layout.map_err(|problem| match problem {
        Problem::Layout(reason) => failed(reason),
        Problem::Broken(reason) => EngineError::BrokenInput {
            dataset: input.table.to_string(),
            reason,
        },
    });
    let table = match layout? {
        Layout::Flat => files(input, input.schema.to_arrow(), Vec::new()),
        Layout::Folders => partitioned(input),
    };
    table.map_err(|error| failed(reason(&error)))
}

/// A table of partition folders. Their values are read as text, so that the folder that stands for
/// a null can be told from a value, and brought to the declared types in a view.
fn partitioned(input: &InputTable) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let schema = &input.schema;
    let folders = schema.partition_by().iter();
    let folders = folders.map(|name| (name.clone(), DataType::Utf8)).collect();
    let files = files(input, schema.file_arrow(), folders)?;
    let columns = schema.columns().iter().map(|declared| {
        let column = Expr::Column(Column::new_unqualified(&declared.name));
        if schema.partition_by().contains(&declared.name) {
            let value = nullif(column, lit(layout::NULL_FOLDER));
            cast(value, declared.column_type.to_arrow()).alias(&declared.name)
        } else {
            column
        }
    });
    let view = LogicalPlanBuilder::scan("files", provider_as_source(files), None)?;
    let view = view.project(columns.collect::<Vec<_>>())?.build()?;
    Ok(Arc::new(ViewTable::new(view, None)))
}

/// A table of files as they are.
fn files(
    input: &InputTable,
    schema: SchemaRef,
    folders: Vec<(String, DataType)>,
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
        .with_file_extension("parquet")
        .with_table_partition_cols(folders);
    // What may be null is what a reader finds, not what was promised to it.
    let fields = schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true));
    let url = ListingTableUrl::parse(folder_url(&input.path))?;
    let config = ListingTableConfig::new(url)
        .with_listing_options(options)
        .with_schema(Arc::new(Schema::new(fields.collect::<Vec<_>>())));
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// A folder's path as DataFusion takes folders: with a slash at its end.
fn folder_url(path: &Path) -> String {
    format!("{}/", path.display())
}
