use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    StringArray, TimestampMicrosecondArray,
};
use proptest::prelude::*;

use super::*;
use crate::schema::{ArrowForm as _, Column, InvalidSchema};

type Row = (Option<i64>, Option<String>, f64);

fn schema() -> Result<TableSchema, InvalidSchema> {
    TableSchema::new(
        vec![
            Column::nullable("id", ColumnType::Int64),
            Column::nullable("name", ColumnType::String),
            Column::required("amount", ColumnType::Float64),
        ],
        vec![],
    )
}

/// Digests rows, cut into batches of the given size.
fn digest(rows: &[Row], batch_rows: usize) -> Result<String, Box<dyn std::error::Error>> {
    let schema = schema()?;
    let mut hasher = RowHasher::new(&schema);
    let mut sum = RowsHash::default();
    for rows in rows.chunks(batch_rows.max(1)) {
        let ids: Int64Array = rows.iter().map(|row| row.0).collect();
        let names: StringArray = rows.iter().map(|row| row.1.clone()).collect();
        let amounts: Float64Array = rows.iter().map(|row| Some(row.2)).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(names), Arc::new(amounts)];
        let batch = RecordBatch::try_new(schema.to_arrow(), columns)?;
        let mut part = RowsHash::default();
        hasher.add_rows(&mut part, &batch, 0..batch.num_rows());
        sum.add(&part);
    }
    Ok(sum.digest(&schema, rows.len() as u64))
}

fn any_row() -> impl Strategy<Value = Row> {
    (any::<Option<i64>>(), any::<Option<String>>(), -1e9_f64..1e9)
}

/// What rows are equal by, independent of the code under test.
fn key(row: &Row) -> (Option<i64>, Option<String>, String) {
    (row.0, row.1.clone(), format!("{:?}", row.2 + 0.0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_and_layout_do_not_change_the_digest(
        rows in prop::collection::vec(any_row(), 0..20),
        shuffled_seed in any::<prop::sample::Index>(),
        batch_rows in 1_usize..8,
    ) {
        let mut other = rows.clone();
        if !other.is_empty() {
            let middle = shuffled_seed.index(other.len());
            other.rotate_left(middle);
            other.reverse();
        }
        let one = digest(&rows, 1000).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let two = digest(&other, batch_rows).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(one, two);
    }

    #[test]
    fn digests_are_equal_exactly_when_the_multisets_are(
        left in prop::collection::vec((0_i64..3, 0_i64..3), 0..6),
        right in prop::collection::vec((0_i64..3, 0_i64..3), 0..6),
    ) {
        let rows = |pairs: &[(i64, i64)]| -> Vec<Row> {
            pairs
                .iter()
                .map(|(a, b)| (Some(*a), (*b > 0).then(|| b.to_string()), 0.5))
                .collect()
        };
        let (left, right) = (rows(&left), rows(&right));
        let sorted = |rows: &[Row]| {
            let mut keys: Vec<_> = rows.iter().map(key).collect();
            keys.sort();
            keys
        };
        let one = digest(&left, 2).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let two = digest(&right, 3).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(one == two, sorted(&left) == sorted(&right));
    }

    #[test]
    fn any_changed_cell_changes_the_digest(
        rows in prop::collection::vec(any_row(), 1..10),
        at in any::<prop::sample::Index>(),
        column in 0..3,
    ) {
        let mut changed = rows.clone();
        let row = &mut changed[at.index(rows.len())];
        match column {
            0 => row.0 = Some(row.0.map_or(0, |id| id.wrapping_add(1))),
            1 => row.1 = Some(row.1.clone().map_or(String::new(), |name| name + "x")),
            _ => row.2 += 1.0,
        }
        let one = digest(&rows, 4).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let two = digest(&changed, 4).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_ne!(one, two);
    }
}

#[test]
fn sixty_five_thousand_copies_of_a_row_do_not_cancel_out() -> Result<(), Box<dyn std::error::Error>>
{
    let copies = |id: i64| vec![(Some(id), None, 0.0); 1 << 16];
    assert_ne!(digest(&copies(1), 8192)?, digest(&copies(2), 8192)?);
    Ok(())
}

#[test]
fn equal_floats_have_one_encoding_and_null_is_not_empty() -> Result<(), Box<dyn std::error::Error>>
{
    let row = |name: Option<&str>, amount| vec![(None, name.map(str::to_owned), amount)];
    assert_eq!(digest(&row(None, -0.0), 1)?, digest(&row(None, 0.0), 1)?);
    assert_eq!(
        digest(&row(None, f64::NAN), 1)?,
        digest(&row(None, -f64::NAN), 1)?
    );
    assert_ne!(digest(&row(None, 0.0), 1)?, digest(&row(Some(""), 0.0), 1)?);
    Ok(())
}

#[test]
fn a_multiset_hash_survives_its_text() -> Result<(), Box<dyn std::error::Error>> {
    let mut hash = RowsHash::default();
    let mut hasher = blake3::Hasher::new_derive_key(ROW_CONTEXT);
    hash.add_row(hasher.update(b"row"), &mut [0; STATE_BYTES]);
    assert_eq!(RowsHash::try_from(String::from(hash.clone()))?, hash);
    assert!(RowsHash::try_from("AAAA".to_owned()).is_err());
    Ok(())
}

/// The row of the next test by the words of the specification and nothing else.
fn encoded_by_the_specification(text: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut unscaled = vec![6];
    unscaled.extend((-1_234_567_i128).to_le_bytes());
    let cells: [(&str, u8, Vec<u8>); 8] = [
        ("at", 6, (-7_i64).to_le_bytes().to_vec()),
        ("bytes", 8, vec![0, 255]),
        ("date", 5, 19_000_i32.to_le_bytes().to_vec()),
        ("decimal", 4, unscaled),
        ("flag", 7, vec![1]),
        ("float", 3, vec![0; 8]),
        ("int", 2, (-5_i64).to_le_bytes().to_vec()),
        ("text", 1, text.as_bytes().to_vec()),
    ];
    let mut row = Vec::new();
    for (name, tag, value) in cells {
        row.extend(u32::try_from(name.len())?.to_le_bytes());
        row.extend(name.as_bytes());
        row.push(tag);
        row.extend((value.len() as u64).to_le_bytes());
        row.extend(value);
    }
    Ok(row)
}

#[test]
fn a_digest_is_what_the_specification_says() -> Result<(), Box<dyn std::error::Error>> {
    // The last is not hashed where the rest of its row is put together.
    for text in ["é,\"", "", &"x".repeat(LONG_BYTES + 1)] {
        is_by_the_specification(text)?;
    }
    Ok(())
}

fn is_by_the_specification(text: &str) -> Result<(), Box<dyn std::error::Error>> {
    let decimal = ColumnType::Decimal {
        precision: 18,
        scale: 6,
    };
    let columns = [
        ("text", ColumnType::String),
        ("int", ColumnType::Int64),
        ("float", ColumnType::Float64),
        ("decimal", decimal),
        ("date", ColumnType::Date),
        ("at", ColumnType::Timestamp),
        ("flag", ColumnType::Bool),
        ("bytes", ColumnType::Binary),
        ("none", ColumnType::Int64),
    ];
    let nullable = |(name, column_type)| Column::nullable(name, column_type);
    let schema = TableSchema::new(columns.into_iter().map(nullable).collect(), vec![])?;
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![text])),
        Arc::new(Int64Array::from(vec![-5])),
        Arc::new(Float64Array::from(vec![-0.0])),
        Arc::new(Decimal128Array::from(vec![-1_234_567]).with_data_type(decimal.to_arrow())),
        Arc::new(Date32Array::from(vec![19_000])),
        Arc::new(TimestampMicrosecondArray::from(vec![-7]).with_timezone("UTC")),
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(BinaryArray::from(vec![&[0_u8, 255][..]])),
        Arc::new(Int64Array::from(vec![None])),
    ];
    let batch = RecordBatch::try_new(schema.to_arrow(), arrays)?;
    let (mut hasher, mut sum) = (RowHasher::new(&schema), RowsHash::default());
    hasher.add_rows(&mut sum, &batch, [0, 0]);

    let row = encoded_by_the_specification(text)?;
    let mut expanded = [0; STATE_BYTES];
    let mut reader = blake3::Hasher::new_derive_key(ROW_CONTEXT);
    reader.update(&row).finalize_xof().fill(&mut expanded);
    let (words, _) = expanded.as_chunks::<4>();
    let twice: Vec<u8> = words
        .iter()
        .flat_map(|word| u32::from_le_bytes(*word).wrapping_mul(2).to_le_bytes())
        .collect();
    assert_eq!(sum.to_bytes(), twice);
    Ok(())
}
