//! Partition values: their text in the Delta log, and the folders that are named after them.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use crate::cell::{to_text, value_at};
use crate::schema::TableSchema;

/// The values of a file's partition columns, as the Delta protocol writes them: numbers in
/// decimal, days as `YYYY-MM-DD`, text as it is, `None` for null.
pub type PartitionValues = BTreeMap<String, Option<String>>;

/// The longest name of a partition's folder, in bytes: what file systems allow.
pub(crate) const MAX_FOLDER_BYTES: usize = 255;

/// The name of the folder that stands for a null.
pub(crate) const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// Groups a batch's rows by partition, partitions in order of their values.
pub(crate) fn group_rows(
    schema: &TableSchema,
    batch: &RecordBatch,
) -> BTreeMap<Vec<Option<String>>, Vec<u32>> {
    let columns: Vec<_> = schema
        .partition_by()
        .iter()
        .filter_map(|name| {
            let column = schema.column(name)?;
            Some((batch.column_by_name(name)?, column.column_type))
        })
        .collect();
    let mut groups: BTreeMap<Vec<Option<String>>, Vec<u32>> = BTreeMap::new();
    for row in 0..batch.num_rows() {
        let key = columns
            .iter()
            .map(|(array, column_type)| to_text(&value_at(array.as_ref(), row), *column_type))
            .collect();
        groups
            .entry(key)
            .or_default()
            .push(u32::try_from(row).unwrap_or(u32::MAX));
    }
    groups
}

/// The folder of a partition, `year=2024/month=5`, outermost first; empty without partitions.
///
/// Characters that a path, a URL or a Delta reader treats specially are written `%XX`, as Hive
/// and Spark do.
pub(crate) fn folder(partition_by: &[String], values: &PartitionValues) -> Vec<String> {
    let folder = |name: &String| {
        let value = match values.get(name).and_then(Option::as_ref) {
            None => NULL_FOLDER.to_owned(),
            Some(value) => escape(value),
        };
        format!("{}={value}", escape(name))
    };
    partition_by.iter().map(folder).collect()
}

fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let mut escaped = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        if plain(byte) && !(at == 0 && byte == b'.') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Whether a file's partition holds everything that `wanted` asks for.
pub(crate) fn matches(values: &PartitionValues, wanted: &PartitionValues) -> bool {
    wanted
        .iter()
        .all(|(name, value)| values.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_leaves_its_folder() {
        let by = ["c".to_owned()];
        let folder_of =
            |value: &str| folder(&by, &[("c".to_owned(), Some(value.to_owned()))].into());
        assert_eq!(folder_of("2024"), ["c=2024"]);
        assert_eq!(folder_of("../x"), ["c=%2E.%2Fx"]);
        assert_eq!(folder_of("a b%"), ["c=a%20b%25"]);
        assert_eq!(
            folder(&by, &[("c".to_owned(), None)].into()),
            ["c=__HIVE_DEFAULT_PARTITION__"]
        );
    }
}
