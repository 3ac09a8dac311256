//! What a commit says in the table's log.

use std::collections::HashMap;

use barecount_model::text::DatasetName;
use deltalake_core::{
    DeltaTable, DeltaTableError,
    kernel::{Action, Add, Metadata, MetadataExt as _, Protocol, Remove, StructType, new_metadata},
};

use super::{CHECKPOINT_INTERVAL, Incoming};
use crate::{
    decision::DatasetCommit,
    evolution::changes,
    schema::{ColumnType, TableSchema},
    seal::Claim,
    table::{
        DROPPED, DataFile, FILE_DIGEST_TAG, ROWS_HASH_TAG, SEAL_TAG, Snapshot, Tables,
        WRITTEN_AS_TAG,
    },
};

/// What the commit says of the table itself: everything where it makes the table, what differs
/// where it changes it. The table's identity and properties stay.
pub(super) fn metadata_actions(
    commit: &DatasetCommit,
    schema: &TableSchema,
    before: Option<&Snapshot>,
    delta: Option<&DeltaTable>,
) -> Result<Vec<Action>, DeltaTableError> {
    let struct_type = delta_schema(schema)?;
    match (before, delta) {
        (Some(before), _) if !before.dropped && changes(&before.schema, schema).is_empty() => {
            Ok(vec![])
        }
        (Some(_), Some(delta)) => {
            let metadata = delta.snapshot()?.metadata().clone();
            let metadata = metadata.with_schema(&struct_type)?;
            let mut fields = serde_json::to_value(metadata)?;
            fields["partitionColumns"] = serde_json::json!(schema.partition_by());
            // What is written is there again.
            if let Some(properties) = fields["configuration"].as_object_mut() {
                properties.remove(DROPPED);
            }
            let metadata: Metadata = serde_json::from_value(fields)?;
            Ok(vec![Action::Metadata(metadata)])
        }
        _ => {
            let protocol: Protocol = serde_json::from_value(serde_json::json!({
                "minReaderVersion": 1, "minWriterVersion": 2,
            }))?;
            let partitions = schema.partition_by();
            let properties = [("delta.checkpointInterval", CHECKPOINT_INTERVAL)];
            let metadata = new_metadata(&struct_type, partitions, properties)?
                .with_name(commit.table.to_string())?;
            Ok(vec![Action::Protocol(protocol), Action::Metadata(metadata)])
        }
    }
}

fn delta_schema(schema: &TableSchema) -> Result<StructType, DeltaTableError> {
    let field = |column: &crate::schema::Column| {
        let type_name = match column.column_type {
            ColumnType::Int64 => "long".to_owned(),
            ColumnType::Float64 => "double".to_owned(),
            ColumnType::Bool => "boolean".to_owned(),
            other => other.to_string(),
        };
        serde_json::json!({
            "name": column.name, "type": type_name, "nullable": column.nullable, "metadata": {},
        })
    };
    let fields: Vec<_> = schema.columns().iter().map(field).collect();
    Ok(serde_json::from_value(
        serde_json::json!({ "type": "struct", "fields": fields }),
    )?)
}

/// Brings a file into a table, of which it has the columns and types of `schema`.
pub(super) fn add(
    incoming: &Incoming,
    tables: &Tables,
    table: &DatasetName,
    schema: &TableSchema,
) -> Action {
    let file = &incoming.file;
    let hash = String::from(file.rows_hash.clone());
    let content = file.sha256.trim_start_matches("sha256:").to_owned();
    let claim = Claim {
        tenant: tables.tenant(),
        table,
        name: &incoming.name,
        written_as: incoming.written_as.as_ref().unwrap_or(&incoming.name),
        sha256: &content,
        rows: file.rows,
        rows_hash: &file.rows_hash,
        partition_values: &file.partition_values,
    };
    let seal = tables.seals.as_ref().map(|key| claim.seal(schema, key));
    let mut tags = HashMap::from([
        (ROWS_HASH_TAG.to_owned(), Some(hash)),
        (FILE_DIGEST_TAG.to_owned(), Some(content)),
    ]);
    tags.extend(seal.map(|seal| (SEAL_TAG.to_owned(), Some(seal))));
    if let Some(first) = &incoming.written_as {
        tags.insert(WRITTEN_AS_TAG.to_owned(), Some(first.clone()));
    }
    Action::Add(Add {
        path: incoming.name.clone(),
        partition_values: file.partition_values.clone().into_iter().collect(),
        size: i64::try_from(file.bytes).unwrap_or(i64::MAX),
        modification_time: incoming.modified_ms,
        data_change: true,
        stats: Some(file.stats.clone()),
        tags: Some(tags),
        ..Add::default()
    })
}

pub(crate) fn remove(file: &DataFile, at_ms: i64) -> Action {
    Action::Remove(Remove {
        path: file.name.clone(),
        data_change: true,
        deletion_timestamp: Some(at_ms),
        extended_file_metadata: Some(true),
        partition_values: Some(file.partition_values.clone().into_iter().collect()),
        size: Some(i64::try_from(file.bytes).unwrap_or(i64::MAX)),
        ..Remove::default()
    })
}
