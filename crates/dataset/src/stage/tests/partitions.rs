//! Rows are divided by what they hold, and only by what can name a folder.

use super::*;

#[test]
fn rows_of_another_partition_and_too_many_partitions_fail_the_output() -> TestResult {
    let mut output = Output::new(OutputFormat::Csv)?;
    let columns = output.spec.schema.columns().to_vec();
    output.spec.schema = TableSchema::new(columns, vec!["currency".to_owned()])?;
    output.write(
        "a.csv",
        "date,currency,rate\n2024-01-01,USD,1\n2024-01-01,EUR,1\n",
    )?;
    let staged = output.stage()?;
    let paths: Vec<_> = staged.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "currency=EUR/part-00000.parquet",
            "currency=USD/part-00001.parquet"
        ]
    );

    output.spec.limits.max_partitions = 1;
    assert!(matches!(
        output.stage(),
        Err(StageError::TooManyPartitions { limit: 1 })
    ));
    output.spec.only_partition = [("currency".to_owned(), Some("EUR".to_owned()))].into();
    assert!(matches!(
        output.stage(),
        Err(StageError::OutsidePartition { .. })
    ));
    Ok(())
}

#[test]
fn text_that_readers_of_folders_take_for_null_names_no_partition() -> TestResult {
    let mut output = Output::new(OutputFormat::Csv)?;
    let columns = vec![
        Column::nullable("place", ColumnType::String),
        Column::required("count", ColumnType::Int64),
    ];
    output.spec.schema = TableSchema::new(columns, vec!["place".to_owned()])?;
    let rows = "place,count\n,1\n\"\",2\n__HIVE_DEFAULT_PARTITION__,3\nHIVE,4\n";
    let staged = output.write("a.csv", rows)?.stage()?;
    let folders: Vec<_> = staged.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        folders,
        [
            "place=HIVE/part-00001.parquet",
            "place=__HIVE_DEFAULT_PARTITION__/part-00000.parquet"
        ]
    );
    let named = "column `place`: a partition cannot be named by";
    assert_eq!(
        letters(&staged),
        [
            (3, format!("{named} empty text").as_str()),
            (
                4,
                format!("{named} `__HIVE_DEFAULT_PARTITION__`, which is null").as_str()
            ),
        ]
    );
    Ok(())
}
