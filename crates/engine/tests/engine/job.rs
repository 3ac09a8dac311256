//! What a job reads and writes.

use std::fs;

use datafusion::arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};

use crate::fixture::{Outcome, Place, array, schema, write};

const ALL_TYPES: [&str; 9] = [
    "y int64!",
    "s string",
    "i int64",
    "f float64",
    "d decimal(18,6)",
    "day date",
    "at timestamp",
    "b bool",
    "x binary",
];

#[test]
fn every_type_comes_out_as_it_went_in_and_is_staged() -> Outcome {
    let mut place = Place::new()?;
    let all = schema(&ALL_TYPES, &["y"])?;
    let folder = place.input("raw.t", &all)?;
    for year in [2023, 2024] {
        write(
            &folder.join(format!("y={year}/part-00000.parquet")),
            vec![
                ("s", array(StringArray::from(vec![Some("é,\"x\""), None]))),
                ("i", array(Int64Array::from(vec![Some(i64::MIN), None]))),
                ("f", array(Float64Array::from(vec![Some(-0.1), None]))),
                (
                    "d",
                    array(
                        Decimal128Array::from(vec![Some(-1_234_567), None])
                            .with_precision_and_scale(18, 6)?,
                    ),
                ),
                ("day", array(Date32Array::from(vec![Some(19_000), None]))),
                (
                    "at",
                    array(
                        TimestampMicrosecondArray::from(vec![Some(1_700_000_000_123_456), None])
                            .with_timezone("UTC"),
                    ),
                ),
                ("b", array(BooleanArray::from(vec![Some(true), None]))),
                (
                    "x",
                    array(BinaryArray::from_opt_vec(vec![Some(b"\0\xff"), None])),
                ),
            ],
        )?;
    }
    place.output("kpi.t", &all)?;
    let report = place.succeed("INSERT INTO kpi.t SELECT * FROM raw.t")?;
    assert_eq!(report.rows.get("kpi.t"), Some(&4));
    assert_eq!(report.metrics.rows_read, 4);
    assert_eq!(
        place.rows("kpi.t")?,
        [
            "2023,,,,,,,,",
            "2023,é,\"x\",-9223372036854775808,-0.1,-1.234567,2022-01-08,\
             2023-11-14T22:13:20.123456Z,true,00ff",
            "2024,,,,,,,,",
            "2024,é,\"x\",-9223372036854775808,-0.1,-1.234567,2022-01-08,\
             2023-11-14T22:13:20.123456Z,true,00ff",
        ]
    );
    let staged = place.stage("kpi.t", &all)?;
    assert_eq!((staged.rows, staged.dead_letters), (4, 0));
    assert_eq!(staged.files.len(), 2);
    Ok(())
}

#[test]
fn an_empty_folder_is_a_table_without_rows() -> Outcome {
    for partition_by in [&[][..], &["y"]] {
        let mut place = Place::new()?;
        let all = schema(&ALL_TYPES, partition_by)?;
        place.input("raw.t", &all)?;
        place.output("kpi.t", &all)?;
        let counts = schema(&["n int64!"], &[])?;
        place.output("kpi.counts", &counts)?;
        place.succeed(
            "INSERT INTO kpi.t SELECT * FROM raw.t; \
             INSERT INTO kpi.counts SELECT count(*) AS n FROM raw.t",
        )?;
        assert_eq!(place.rows("kpi.t")?, [] as [String; 0]);
        assert_eq!(place.rows("kpi.counts")?, ["0"]);
        assert_eq!(place.stage("kpi.t", &all)?.rows, 0);
    }
    Ok(())
}

#[test]
fn partition_folders_give_nulls_and_special_characters_back() -> Outcome {
    let mut place = Place::new()?;
    let columns = schema(&["k string", "n int64", "v int64"], &["k", "n"])?;
    place.output("raw.t", &columns)?;
    place.succeed(
        "INSERT INTO raw.t SELECT * FROM (VALUES ('a b/ü=%41', 1, 10), (NULL, NULL, 20), \
         ('', -5, 30), ('.', 1, 40)) AS t(k, n, v)",
    )?;
    // An empty text names no folder, so that row is a dead letter.
    let mut written = place.rows("raw.t")?;
    written.retain(|row| row != ",-5,30");
    let staged = place.stage("raw.t", &columns)?;
    assert_eq!((staged.rows, staged.dead_letters), (3, 1));
    let mut next = Place::new()?;
    let folder = next.input("raw.t", &columns)?;
    fs::remove_dir(&folder)?;
    fs::rename(place.staging("raw.t"), &folder)?;
    next.output("raw.u", &columns)?;
    next.succeed("INSERT INTO raw.u SELECT * FROM raw.t WHERE v > 0")?;
    assert_eq!(next.rows("raw.u")?, written);
    next.succeed("INSERT INTO raw.u SELECT * FROM raw.t WHERE k IS NULL")?;
    assert_eq!(next.rows("raw.u")?, [",,20"]);
    next.succeed("INSERT INTO raw.u SELECT * FROM raw.t WHERE n = 1 AND k = '.'")?;
    assert_eq!(next.rows("raw.u")?, [".,1,40"]);
    Ok(())
}

#[test]
fn files_of_a_partitioned_table_may_lie_flat_but_not_both_ways() -> Outcome {
    let mut place = Place::new()?;
    let columns = schema(&["y int64", "v int64"], &["y"])?;
    let folder = place.input("raw.t", &columns)?;
    let numbers = |n| array(Int64Array::from(vec![n]));
    write(
        &folder.join("a.parquet"),
        vec![("y", numbers(1)), ("v", numbers(2))],
    )?;
    place.output("raw.u", &columns)?;
    let copy = "INSERT INTO raw.u SELECT * FROM raw.t";
    place.succeed(copy)?;
    assert_eq!(place.rows("raw.u")?, ["1,2"]);
    write(&folder.join("y=3/b.parquet"), vec![("v", numbers(4))])?;
    let (status, message) = place.fail(copy)?;
    assert_eq!(status, 78);
    assert!(
        message.contains("`a.parquet` is not in a folder of its partition"),
        "{message}"
    );
    Ok(())
}

#[test]
fn columns_are_matched_by_name_and_numbers_become_the_declared_type() -> Outcome {
    let mut place = Place::new()?;
    let columns = schema(&["a int64!", "b decimal(10,2)", "c string"], &[])?;
    place.output("kpi.t", &columns)?;
    place.succeed(
        "CREATE VIEW v AS SELECT 1 AS one;
         CREATE OR REPLACE VIEW v AS SELECT 2 AS one;
         INSERT INTO kpi.t SELECT 'x' AS C, one AS a, CAST('1.005' AS DECIMAL(10,3)) AS b FROM v;
         INSERT INTO kpi.t (b, a) SELECT 7, CAST(8 AS SMALLINT);",
    )?;
    assert_eq!(place.rows("kpi.t")?, ["2,1.01,x", "8,7.00,"]);
    assert_eq!(place.files("kpi.t")?.len(), 2);
    assert_eq!(place.stage("kpi.t", &columns)?.rows, 2);
    for (query, difference) in [
        ("SELECT 1.5 AS a", "column `a` is"),
        ("SELECT '1' AS a", "use CAST"),
        ("SELECT 1 AS b", "column `a` is missing"),
        ("SELECT 1 AS a, 2 AS d", "column `d` is not declared"),
        ("(a, b) SELECT 1", "2 columns are named, the query gives 1"),
        ("(a, a) SELECT 1, 2", "more than once"),
    ] {
        let (status, message) = place.fail(&format!("\nINSERT INTO kpi.t {query}"))?;
        assert_eq!(status, 78, "{message}");
        assert!(message.contains(difference), "{message}");
        assert!(message.starts_with("statement 1 (line 2)"), "{message}");
    }
    Ok(())
}

/// Statements that cannot be planned, and why.
const IMPOSSIBLE: [(&str, &str); 16] = [
    ("INSERT INTO kpi.u SELECT a FROM raw.unknown", "raw.unknown"),
    ("INSERT INTO kpi.u SELECT a FROM kpi.t", "kpi.t"),
    (
        "INSERT INTO kpi.u SELECT b AS a FROM raw.t",
        "No field named b",
    ),
    (
        "INSERT INTO kpi.u SELECT no_such(a) AS a FROM raw.t",
        "no_such",
    ),
    (
        "INSERT INTO raw.t SELECT 1 AS a",
        "`raw.t` is not a declared output",
    ),
    (
        "INSERT INTO kpi.u SELECT a FROM information_schema.tables",
        "information_schema",
    ),
    ("INSERT INTO kpi.u SELECT a INTO x FROM raw.t", "INTO"),
    (
        "CREATE VIEW v AS SELECT 1; CREATE VIEW v AS SELECT 2",
        "is there already",
    ),
    (
        "INSERT INTO kpi.u SELECT CAST(random() AS BIGINT) AS a",
        "random() gives something else",
    ),
    (
        "INSERT INTO kpi.u SELECT CAST(extract(day FROM now()) AS BIGINT) AS a",
        "now() gives",
    ),
    (
        "CREATE VIEW v AS SELECT uuid()",
        "uuid() gives something else",
    ),
    (
        "INSERT INTO kpi.u SELECT a FROM raw.t WHERE a > (SELECT random())",
        "random() gives",
    ),
    (
        "INSERT INTO kpi.u SELECT any_value(a) AS a FROM raw.t",
        "depends on the order of rows",
    ),
    ("INSERT INTO kpi.u (a) INSERT INTO kpi.t SELECT 1", ""),
    (
        "INSERT INTO kpi.u WITH x AS (DELETE FROM raw.t) SELECT 1 AS a",
        "",
    ),
    ("INSERT INTO kpi.u SELECT 1; SET a = 1", "not of SET"),
];

#[test]
fn nothing_runs_unless_every_statement_can_be_planned() -> Outcome {
    let mut place = Place::new()?;
    let columns = schema(&["a int64"], &[])?;
    place.input("raw.t", &columns)?;
    place.output("kpi.t", &columns)?;
    place.output("kpi.u", &columns)?;
    let good = "INSERT INTO kpi.t SELECT 1 AS a";
    for (bad, reason) in IMPOSSIBLE {
        let (status, message) = place.fail(&format!("{good};\n{bad}"))?;
        assert!(matches!(status, 65 | 78), "{status}: {message}");
        assert!(message.contains(reason), "{bad}: {message}");
        let out = fs::read_dir(place.path().join("out"))?.count();
        assert_eq!(out, 0, "something was written before {bad} was refused");
    }
    let (status, message) = place.fail(good)?;
    assert_eq!(
        (status, message.as_str()),
        (78, "no statement inserts into kpi.u")
    );
    Ok(())
}
