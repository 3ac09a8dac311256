//! What acceptance tests say of a staged output.

use barecount_engine::acceptance::{AcceptanceSpec, AcceptanceTest, TestResult};
use barecount_engine::process::{Request, Response};
use barecount_engine::session::InputTable;

use crate::fixture::{Outcome, Place, schema};

const COLUMNS: [&str; 6] = [
    "year int64!",
    "currency string",
    "rate decimal(18,6)",
    "f float64",
    "day date",
    "at timestamp",
];

/// Stages some rates and puts tests, spelt as a manifest spells them, to them.
fn results(tests: &str) -> Outcome<Vec<TestResult>> {
    let mut place = Place::new()?;
    let columns = schema(&COLUMNS, &["year"])?;
    place.output("kpi.rates", &columns)?;
    place.succeed(
        "INSERT INTO kpi.rates SELECT year, currency, rate, f, CAST(day AS DATE) AS day, \
         arrow_cast(day, 'Timestamp(Microsecond, Some(\"UTC\"))') AS at FROM (VALUES \
         (2023, 'USD', 1.100000, 1.5, '2023-05-31'), (2023, 'JPY', 0.000001, 2.5, '2023-05-31'), \
         (2024, 'USD', 1.200000, CAST('NaN' AS DOUBLE), '2024-05-31'), \
         (2024, 'USD', 1.300000, NULL, '2024-06-30'), (2024, NULL, NULL, CAST('-1e300' AS DOUBLE), NULL)) \
         AS t(year, currency, rate, f, day)",
    )?;
    place.stage("kpi.rates", &columns)?;
    let tests: Vec<AcceptanceTest> = serde_json::from_str(tests)?;
    let request = Request::Acceptance(AcceptanceSpec {
        tests,
        output: InputTable {
            table: "kpi.rates".parse()?,
            path: place.staging("kpi.rates"),
            schema: columns,
        },
        resources: place.resources(),
        timeout_ms: 900_000,
    });
    match place.ask(&request)? {
        (0, Response::Acceptance(results)) => Ok(results),
        (status, other) => Err(format!("exit status {status}: {other:?}").into()),
    }
}

#[test]
fn tests_that_hold_pass_and_say_what_they_saw() -> Outcome {
    let results = results(
        r#"[{"row_count": {"min": 5, "max": 5}}, {"row_count": {"max": 9}},
            {"unique": ["year", "currency", "rate"]}, {"not_null": ["year"]},
            {"range": {"column": "rate", "min": "0.000001", "max": "1.3"}},
            {"range": {"column": "year", "max": "99999999999999999999"}},
            {"range": {"column": "day", "min": "2023-05-31", "max": "2024-06-30"}},
            {"range": {"column": "at", "min": "2023-05-31T00:00:00Z"}},
            {"sql": {"name": "days lie in their year",
                     "assert": "SELECT count(*) = 0 FROM output WHERE extract(year FROM day) <> year"}},
            {"sql": {"name": "by its own name", "assert": "SELECT count(*) = 5 FROM kpi.rates"}}]"#,
    )?;
    for result in &results {
        assert!(result.passed, "{result:?}");
        assert!(result.sample.is_empty(), "{result:?}");
    }
    let said: Vec<_> = results
        .iter()
        .map(|r| (r.name.as_str(), r.expected.as_str(), r.observed.as_str()))
        .collect();
    assert_eq!(
        said[..6],
        [
            (
                "schema",
                "year int64, currency string, rate decimal(18,6), f float64, day date, at timestamp",
                "6 columns as declared",
            ),
            ("row_count(5..5)", "from 5 to 5 rows", "5 rows"),
            ("row_count(..9)", "at most 9 rows", "5 rows"),
            (
                "unique(year, currency, rate)",
                "no two rows agree in year, currency, rate",
                "0 keys in 0 rows more than once",
            ),
            ("not_null(year)", "year in every row", "0 rows with a null"),
            (
                "range(rate, 0.000001..1.3)",
                "rate from 0.000001 to 1.3",
                "0 values outside, all from 0.000001 to 1.300000",
            ),
        ]
    );
    Ok(())
}

#[test]
fn tests_that_do_not_hold_fail_with_a_sample_of_the_rows_that_break_them() -> Outcome {
    let results = results(
        r#"[{"row_count": {"min": 6}}, {"unique": ["year", "currency"]},
            {"not_null": ["currency", "rate"]},
            {"range": {"column": "rate", "min": "0.0000015"}},
            {"range": {"column": "f", "min": "-1"}},
            {"range": {"column": "day", "max": "2024-05-31"}},
            {"sql": {"name": "few", "assert": "SELECT count(*) < 5 FROM output"}},
            {"sql": {"name": "null", "assert": "SELECT max(currency) = NULL FROM output"}}]"#,
    )?;
    let said: Vec<_> = results[1..]
        .iter()
        .map(|r| (r.passed, r.observed.as_str(), r.sample.len()))
        .collect();
    assert_eq!(
        said,
        [
            (false, "5 rows", 0),
            (false, "1 keys in 2 rows more than once", 1),
            (false, "1 rows with a null", 1),
            (false, "1 values outside, all from 0.000001 to 1.300000", 1),
            // NaN is in no range
            (false, "2 values outside, all from -1e300 to NaN", 2),
            (
                false,
                "1 values outside, all from 2023-05-31 to 2024-06-30",
                1
            ),
            (false, "false", 0),
            (false, "null", 0),
        ]
    );
    assert_eq!(results[2].sample, ["year: 2024, currency: USD, rows: 2"]);
    assert!(results[4].sample[0].starts_with("year: 2023, currency: JPY, rate: 0.000001"));
    Ok(())
}

#[test]
fn tests_that_cannot_be_evaluated_fail_and_say_why() -> Outcome {
    let results = results(
        r#"[{"unique": []}, {"unique": ["nothing"]}, {"range": {"column": "currency", "min": "a"}},
            {"range": {"column": "rate"}}, {"range": {"column": "rate", "min": "1' OR '1'='1"}},
            {"range": {"column": "day", "min": "yesterday"}},
            {"sql": {"name": "rows", "assert": "SELECT true FROM output"}},
            {"sql": {"name": "none", "assert": "SELECT true FROM output WHERE false"}},
            {"sql": {"name": "number", "assert": "SELECT count(*) FROM output"}},
            {"sql": {"name": "two", "assert": "SELECT true AS a, true AS b"}},
            {"sql": {"name": "syntax", "assert": "SELEC"}},
            {"sql": {"name": "other", "assert": "DROP TABLE output"}},
            {"sql": {"name": "file", "assert": "SELECT count(*) > 0 FROM '/etc/passwd'"}},
            {"sql": {"name": "inputs", "assert": "SELECT count(*) > 0 FROM gdp.fx_rates"}},
            {"sql": {"name": "clock", "assert": "SELECT now() > CAST('2020-01-01' AS TIMESTAMP)"}}]"#,
    )?;
    let reasons = [
        "no column is named",
        "no column `nothing`",
        "cannot bound a column of type string",
        "a range needs a bound",
        "cannot bound a column of type decimal(18,6)",
        "yesterday",
        "exactly one row, and gives more",
        "exactly one row, and gives none",
        "must give true or false, not Int64",
        "must give one column, not 2",
        "not valid SQL",
        "a query is expected, not DROP TABLE",
        "is a path",
        "fx_rates",
        "now() gives something else",
    ];
    assert_eq!(results.len(), reasons.len() + 1);
    for (result, reason) in results[1..].iter().zip(reasons) {
        assert!(
            !result.passed && result.observed.contains(reason),
            "{reason}: {result:?}"
        );
    }
    Ok(())
}

#[test]
fn spellings_are_those_of_the_manifest() {
    let parse = serde_json::from_str::<AcceptanceTest>;
    for text in [
        r#"{"row_count": {"least": 1}}"#,
        r#"{"rowcount": {"min": 1}}"#,
        r#"{"sql": {"assert": "SELECT true"}}"#,
        r#"{"unique": ["a"], "not_null": ["a"]}"#,
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}
