use proptest::prelude::*;

use super::{Action, parse, parse_query};
use crate::error::EngineError;
use crate::parameters::{Parameter, Parameters, names_window};

fn refusal(sql: &str) -> String {
    match parse(sql, &Parameters::new()) {
        Ok(_) => panic!("accepted: {}", &sql[..sql.len().min(200)]),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_script_of_views_and_inserts_is_split_with_the_lines_that_statements_begin_on() {
    let sql = "-- a comment; with a semicolon\n\nCREATE VIEW v AS SELECT ';' AS a FROM raw.t;\n;\n\
               INSERT INTO Kpi.\"T\" (A, \"B\")\nSELECT a, 1 FROM v";
    let statements = parse(sql, &Parameters::new()).expect("a valid script");
    let places: Vec<_> = statements
        .iter()
        .map(|s| (s.place.number, s.place.line))
        .collect();
    assert_eq!(places, [(1, 3), (2, 5)]);
    let Action::Insert { dataset, columns } = &statements[1].action else {
        panic!("not an insert");
    };
    assert_eq!(
        (dataset.as_str(), columns.as_slice()),
        ("kpi.T", &["a".to_owned(), "B".to_owned()][..])
    );
}

#[test]
fn what_a_job_may_not_do_is_refused_with_its_number_and_line() {
    for statement in [
        "COPY raw.t TO '/tmp/x.parquet'",
        "COPY (SELECT 1) TO 'x' STORED AS CSV",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc/passwd'",
        "CREATE TABLE t AS SELECT 1",
        "CREATE TABLE t (a INT)",
        "CREATE MATERIALIZED VIEW v AS SELECT 1",
        "CREATE TEMPORARY VIEW v AS SELECT 1",
        "CREATE VIEW raw.v AS SELECT 1",
        "CREATE SCHEMA s",
        "CREATE DATABASE d",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "SET datafusion.execution.target_partitions = 1",
        "SHOW TABLES",
        "DROP VIEW v",
        "DELETE FROM raw.t",
        "UPDATE raw.t SET a = 1",
        "TRUNCATE TABLE raw.t",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE INSERT INTO kpi.t SELECT 1",
        "SELECT 1",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "INSERT OVERWRITE kpi.t SELECT 1",
        "INSERT INTO kpi.t DEFAULT VALUES",
        "INSERT INTO kpi.t SELECT 1 RETURNING a",
        "INSERT INTO kpi.t SELECT * FROM 'file.parquet'",
        "INSERT INTO kpi.t SELECT * FROM \"/etc/passwd\"",
        "INSERT INTO kpi.t SELECT (SELECT max(a) FROM 'x.csv')",
        "CREATE VIEW v AS SELECT * FROM 'file:///x.parquet'",
    ] {
        let sql = format!("CREATE VIEW a AS SELECT 1;\n\n{statement};");
        let refusal = refusal(&sql);
        let has_place = refusal.starts_with("statement 2 (line 3): ");
        let is_syntax = refusal.contains("Line: 3") || refusal.contains("line 3");
        assert!(has_place || is_syntax, "{statement}: {refusal}");
    }
}

#[test]
fn scripts_beyond_the_bounds_are_refused_and_do_not_overflow_the_stack() {
    let insert = |query: &str| format!("INSERT INTO kpi.t SELECT {query}");
    let deep = 10_000;
    for sql in [
        insert(&format!("{}1{}", "(".repeat(deep), ")".repeat(deep))),
        insert(&format!("1{}", " + 1".repeat(deep))),
        insert(&format!("1{}", " + 1".repeat(99_000))),
        insert(&format!("{}1", "- ".repeat(deep))),
        insert(&format!("{}true", "NOT ".repeat(deep))),
        insert(&format!("a{}", "[1]".repeat(deep))),
        insert(&format!("a{}", "::INT".repeat(deep))),
        insert(&format!("true{}", " AND true".repeat(deep))),
        insert(&format!("{}1{}", "abs(".repeat(deep), ")".repeat(deep))),
        insert(&format!(
            "{}1{}",
            "CASE WHEN true THEN ".repeat(deep),
            " END".repeat(deep)
        )),
        insert(&format!("1{}", " UNION ALL SELECT 1".repeat(deep))),
        insert(&format!("* FROM a{}", ", a".repeat(deep))),
        insert(&format!("* FROM a{}", " CROSS JOIN a".repeat(deep))),
        insert(&format!(
            "* FROM {}a{}",
            "(SELECT * FROM ".repeat(deep),
            ")".repeat(deep)
        )),
        insert(&format!("CAST(a AS INT{})", "[]".repeat(deep))),
        insert(&format!("CAST(a AS INT{})", "[3]".repeat(deep))),
        insert(&format!(
            "CAST(a AS {}INT{})",
            "ARRAY<".repeat(deep),
            ">".repeat(deep)
        )),
        insert(&format!(
            "CAST(a AS {}INT{})",
            "STRUCT<a ".repeat(deep),
            ">".repeat(deep)
        )),
        insert(&format!(
            "CAST(a AS {}INT{})",
            "Nullable(".repeat(deep),
            ")".repeat(deep)
        )),
        insert(&format!("a{}", ".a".repeat(deep))),
        insert(&format!("a{}", " IS NULL".repeat(deep))),
        insert(&format!("{}a", "INTERVAL ".repeat(deep))),
        "CREATE VIEW v AS SELECT 1;".repeat(10_000),
        insert(&format!("'{}'", "x".repeat(1 << 20))),
        insert("1\0"),
        "\0".to_owned(),
        String::new(),
        " ;; -- nothing\n".to_owned(),
        "INSERT INTO kpi.t SELECT 'open".to_owned(),
        "INSERT INTO kpi.t SELECT /* open".to_owned(),
    ] {
        let text = refusal(&sql);
        assert!(text.chars().count() < 1_000, "{text}");
    }
}

#[test]
fn a_mebibyte_of_ordinary_rows_is_read() {
    let rows = "(1234567890, 'some text that is long'),".repeat(26_000);
    let sql = format!("INSERT INTO kpi.t VALUES {}", rows.trim_end_matches(','));
    assert!(sql.len() > 1_000_000 && parse(&sql, &Parameters::new()).is_ok());
}

#[test]
fn only_one_query_is_taken_for_an_assertion() {
    assert!(parse_query("SELECT count(*) = 0 FROM output;").is_ok());
    for sql in [
        "",
        "SELECT 1; SELECT 2",
        "DROP TABLE output",
        "SELECT (",
        "SELECT * FROM 'x'",
    ] {
        let error = parse_query(sql).err();
        assert!(matches!(error, Some(EngineError::Syntax { .. })), "{sql}");
    }
}

/// Pieces that make statements, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "SELECT",
        "INSERT INTO",
        "CREATE VIEW",
        "v",
        "kpi.t",
        "AS",
        "FROM",
        "(",
        ")",
        ",",
        ";",
        "*",
        "1",
        "'x'",
        "'",
        "\"",
        "--",
        "/*",
        "*/",
        "UNION",
        "WITH",
        "CASE",
        "WHEN",
        "END",
        "OVER",
        "PARTITION BY",
        "ORDER BY",
        "::",
        "[",
        "]",
        "{",
        "}",
        "$$",
        "\0",
        "\n",
        "é",
        "COPY",
        "TO",
        "VALUES",
        "INTERVAL",
        "NOT",
        "IN",
        "BETWEEN",
        "AND",
        "JOIN",
        "ON",
        "LATERAL",
        "E'\\",
        "0x",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = parse(&text, &Parameters::new());
        let _ = parse_query(&text);
    }

    #[test]
    fn no_order_of_words_makes_the_parser_panic(text in pieces()) {
        let gave_up = |error: Option<EngineError>| {
            error.is_some_and(|error| error.to_string().contains("gave up"))
        };
        prop_assert!(!gave_up(parse(&text, &Parameters::new()).err()));
        prop_assert!(!gave_up(parse_query(&text).err()));
    }
}

#[test]
fn names_become_values_before_anything_is_parsed() {
    let parameters = Parameters::from([
        (
            "partition".to_owned(),
            Parameter::Text("o'clock".to_owned()),
        ),
        (
            "window_start".to_owned(),
            Parameter::Timestamp("2024-02-01T00:00:00Z".to_owned()),
        ),
    ]);
    let sql = "INSERT INTO a.b SELECT $partition, $window_start, '$partition'";
    let statements = parse(sql, &parameters).expect("a valid script");
    let query = statements[0].statement.to_string();
    assert!(query.contains("'o''clock'"), "{query}");
    assert!(query.contains("'2024-02-01T00:00:00Z'"), "{query}");
    assert!(
        query.ends_with("'$partition'"),
        "what is quoted is text: {query}"
    );
    let unknown = parse("INSERT INTO a.b\nSELECT $window_end", &parameters);
    let reason = unknown
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(
        reason.contains("`$window_end` at line 2, column 8 has no value"),
        "{reason}"
    );
}

#[test]
fn a_job_names_the_window_where_it_says_so_and_not_where_that_is_said_of_it() {
    for sql in [
        "INSERT INTO kpi.t SELECT a FROM raw.t WHERE at >= $window_start",
        "INSERT INTO kpi.t SELECT $window_end",
        // What is no SQL may name anything.
        "INSERT INTO kpi.t SELECT 'no end",
    ] {
        assert!(names_window(sql), "{sql}");
    }
    for sql in [
        "INSERT INTO kpi.t SELECT a FROM raw.t WHERE p = $partition -- $window_start",
        "INSERT INTO kpi.t SELECT '$window_start', \"$window_end\" FROM raw.t",
        "",
    ] {
        assert!(!names_window(sql), "{sql}");
    }
}
