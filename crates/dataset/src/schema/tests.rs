use super::*;

#[test]
fn every_type_has_its_form_in_arrow() -> Result<(), InvalidText> {
    for text in [
        "string",
        "int64",
        "float64",
        "decimal(18,6)",
        "date",
        "timestamp",
        "bool",
        "binary",
    ] {
        let parsed: ColumnType = text.parse()?;
        assert_eq!(ColumnType::from_arrow(&parsed.to_arrow()), Some(parsed));
    }
    Ok(())
}

#[test]
fn a_pattern_matches_whole_values_and_cannot_escape_its_group() -> Result<(), InvalidSchema> {
    let pattern = compile_pattern("currency", "[A-Z]{3}|N/A")?;
    assert!(pattern.is_match("EUR") && pattern.is_match("N/A"));
    assert!(!pattern.is_match("EURO") && !pattern.is_match("xN/A") && !pattern.is_match("EUR\n"));
    assert!(compile_pattern("currency", "a)|(b").is_err());
    assert!(compile_pattern("currency", "(a{1000}){1000}").is_err());
    Ok(())
}

#[test]
fn a_table_cannot_be_partitioned_by_what_cannot_name_a_folder() -> Result<(), InvalidSchema> {
    let columns = vec![
        Column::required("year", ColumnType::Int64),
        Column::required("rate", ColumnType::Float64),
    ];
    for partition in [vec!["rate"], vec!["month"], vec!["year", "year"]] {
        let partition = partition.into_iter().map(str::to_owned).collect();
        assert!(TableSchema::new(columns.clone(), partition).is_err());
    }
    TableSchema::new(columns, vec!["year".to_owned()]).map(drop)
}
