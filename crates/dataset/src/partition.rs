//! Partition values: their text in the Delta log, and the folders that are named after them.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use arrow::array::{Array, AsArray as _, RecordBatch};
use arrow::datatypes::{Date32Type, Int64Type};

use crate::cell::{to_text, value_at};
use crate::schema::{ColumnType, TableSchema};

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
    let mut group_of = vec![0; batch.num_rows()];
    for (array, column_type) in &columns {
        let values = numbered(array.as_ref(), *column_type);
        group_of = number(group_of.into_iter().zip(values));
    }
    let mut rows_of: Vec<Vec<u32>> = Vec::new();
    for (row, group) in (0_u32..).zip(group_of) {
        let group = group as usize;
        if group == rows_of.len() {
            rows_of.push(Vec::new());
        }
        rows_of[group].push(row);
    }
    let mut groups: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for rows in rows_of {
        let key = columns
            .iter()
            .map(|(array, column_type)| {
                to_text(&value_at(array.as_ref(), rows[0] as usize), *column_type)
            })
            .collect();
        groups.entry(key).or_default().extend(rows);
    }
    groups
}

/// Numbers a column's values: equal ones alike, in the order in which they first come.
fn numbered(array: &dyn Array, column_type: ColumnType) -> Vec<u32> {
    match column_type {
        ColumnType::String => number(array.as_string::<i32>().iter()),
        ColumnType::Int64 => number(array.as_primitive::<Int64Type>().iter()),
        ColumnType::Date => number(array.as_primitive::<Date32Type>().iter()),
        ColumnType::Bool => number(array.as_boolean().iter()),
        _ => number((0..array.len()).map(|row| to_text(&value_at(array, row), column_type))),
    }
}

fn number<T: Hash + Eq + Clone>(values: impl Iterator<Item = T>) -> Vec<u32> {
    let mut known: HashMap<T, u32> = HashMap::new();
    let mut last: Option<(T, u32)> = None;
    values
        .map(|value| match &last {
            Some((same, number)) if *same == value => *number,
            _ => {
                let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
                let number = *known.entry(value.clone()).or_insert(next);
                last = Some((value, number));
                number
            }
        })
        .collect()
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
