use super::*;

fn table(columns: Vec<Column>) -> Result<TableSchema, InvalidSchema> {
    TableSchema::new(columns, Vec::new())
}

fn decimal(precision: u8, scale: u8) -> ColumnType {
    ColumnType::Decimal { precision, scale }
}

fn added_to(table: &TableSchema, next: &TableSchema) -> Result<Evolution, Refusal> {
    compatible(table, next, Rows::SomeStay, SchemaEvolution::Additive)
}

#[test]
fn where_rows_stay_a_column_that_may_be_null_is_added_at_the_end() -> Result<(), InvalidSchema> {
    let old = table(vec![Column::required("id", ColumnType::Int64)])?;
    let next = table(vec![
        Column::nullable("note", ColumnType::String),
        Column::required("id", ColumnType::Int64),
    ])?;
    let evolution = added_to(&old, &next).expect("a column that may be null fits");
    let names: Vec<&str> = evolution
        .schema
        .columns()
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(names, ["id", "note"]);
    assert_eq!(evolution.present, Present::Stay);
    Ok(())
}

#[test]
fn where_rows_stay_what_is_not_true_of_them_is_refused_by_name() -> Result<(), InvalidSchema> {
    let old = table(vec![
        Column::required("id", ColumnType::Int64),
        Column::nullable("note", ColumnType::String),
    ])?;
    let refused = [
        (
            vec![Column::required("id", ColumnType::Int64)],
            "`note` is gone",
        ),
        (
            vec![
                Column::required("id", ColumnType::Float64),
                Column::nullable("note", ColumnType::String),
            ],
            "`id` is float64, was int64",
        ),
        (
            vec![
                Column::required("id", ColumnType::Int64),
                Column::required("note", ColumnType::String),
            ],
            "`note` may no longer be null",
        ),
        (
            vec![
                Column::required("id", ColumnType::Int64),
                Column::nullable("note", ColumnType::String),
                Column::required("more", ColumnType::Int64),
            ],
            "`more` (int64, never null) is new",
        ),
        (
            vec![
                Column::required("id", ColumnType::Int64),
                Column::nullable("Note", ColumnType::String),
            ],
            "`note` is gone",
        ),
    ];
    for (columns, reason) in refused {
        let next = table(columns)?;
        let refusal = added_to(&old, &next).expect_err(reason);
        assert!(refusal.to_string().contains(reason), "{refusal}");
        let replaced = compatible(&old, &next, Rows::SomeStay, SchemaEvolution::Replace);
        let replaced = replaced.expect("declared to be replaced");
        assert_eq!(
            (replaced.schema, replaced.present),
            (next.clone(), Present::Removed)
        );
        let whole = compatible(&old, &next, Rows::AllReplaced, SchemaEvolution::Additive);
        assert_eq!(whole.expect("no row stays").schema, next);
        compatible(&old, &next, Rows::AllReplaced, SchemaEvolution::None)
            .expect_err("the schema is to stay as it is");
    }
    Ok(())
}

#[test]
fn only_types_that_keep_every_value_are_wider() {
    let wider = [
        (decimal(10, 2), decimal(12, 4)),
        (decimal(10, 2), decimal(11, 2)),
        (ColumnType::Int64, decimal(19, 0)),
        (ColumnType::Int64, decimal(38, 19)),
    ];
    for (from, to) in wider {
        assert!(is_widening(from, to), "{from} to {to}");
        assert!(!is_widening(to, from), "{to} to {from}");
    }
    let others = [
        (decimal(10, 2), decimal(10, 4)),
        (ColumnType::Int64, decimal(18, 0)),
        (ColumnType::Int64, decimal(38, 20)),
        (ColumnType::Int64, ColumnType::Float64),
        (ColumnType::Date, ColumnType::Timestamp),
        (ColumnType::Int64, ColumnType::String),
    ];
    for (from, to) in others {
        assert!(!is_widening(from, to), "{from} to {to}");
    }
}

#[test]
fn the_same_columns_in_another_order_change_a_table_only_where_no_row_stays()
-> Result<(), InvalidSchema> {
    let columns = vec![
        Column::required("a", ColumnType::Int64),
        Column::required("b", ColumnType::Int64),
    ];
    let old = table(columns.clone())?;
    let next = table(columns.into_iter().rev().collect())?;
    let stays = added_to(&old, &next).expect("the order is kept");
    assert_eq!((stays.schema, stays.changes), (old.clone(), Vec::new()));
    let whole = compatible(&old, &next, Rows::AllReplaced, SchemaEvolution::Additive);
    let whole = whole.expect("no row stays");
    assert_eq!((whole.schema, whole.changes), (next, vec![Change::Order]));
    Ok(())
}
