use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use proptest::prelude::*;

use super::*;
use crate::schema::{Column, InvalidSchema};

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
    hash.add_row(b"row", &mut blake3::Hasher::new_derive_key(ROW_CONTEXT));
    assert_eq!(RowsHash::try_from(String::from(hash.clone()))?, hash);
    assert!(RowsHash::try_from("AAAA".to_owned()).is_err());
    Ok(())
}
