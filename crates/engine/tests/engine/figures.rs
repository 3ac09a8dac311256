//! Arithmetic: what does not fit fails, and what is computed is rounded as PostgreSQL rounds it.

use datafusion::arrow::array::{Float64Array, Int64Array};

use crate::fixture::{Outcome, Place, array, schema, write};

/// A place with two rows of the greatest and the least whole number, and an output of any number.
fn place() -> Outcome<Place> {
    let mut place = Place::new()?;
    let columns = schema(&["n int64", "i int64", "f float64"], &[])?;
    let folder = place.input("raw.t", &columns)?;
    write(
        &folder.join("a.parquet"),
        vec![
            ("n", array(Int64Array::from(vec![1, 2, 3, 4]))),
            (
                "i",
                array(Int64Array::from(vec![i64::MAX, i64::MAX, i64::MIN, -5])),
            ),
            (
                "f",
                array(Float64Array::from(vec![1e308, 0.0, f64::NAN, 2.5])),
            ),
        ],
    )?;
    place.output("kpi.i", &schema(&["x int64"], &[])?)?;
    place.output("kpi.d", &schema(&["x decimal(38,16)"], &[])?)?;
    place.output("kpi.s", &schema(&["x string"], &[])?)?;
    Ok(place)
}

/// Runs a query of one column `x` for one of the outputs; the others get nothing.
fn run(place: &Place, output: &str, expression: &str) -> Outcome<Vec<String>> {
    place.succeed(&script(output, expression))?;
    place.rows(output)
}

fn script(output: &str, expression: &str) -> String {
    let mut script = String::new();
    for other in ["kpi.i", "kpi.d", "kpi.s"] {
        if other != output {
            let x = if other == "kpi.s" { "''" } else { "0" };
            script += &format!("INSERT INTO {other} SELECT {x} AS x WHERE false;\n");
        }
    }
    script + &format!("INSERT INTO {output} {expression}")
}

#[test]
fn whole_numbers_that_do_not_fit_fail_instead_of_wrapping() -> Outcome {
    let place = place()?;
    for query in [
        "SELECT i + 1 AS x FROM raw.t",
        "SELECT -2 - i AS x FROM raw.t WHERE n = 1",
        "SELECT i * 2 AS x FROM raw.t",
        "SELECT -i AS x FROM raw.t",
        "SELECT abs(i) AS x FROM raw.t",
        "SELECT i / -1 AS x FROM raw.t",
        "SELECT sum(i) AS x FROM raw.t WHERE n < 3",
        "SELECT sum(i) OVER (ORDER BY n) AS x FROM raw.t",
        "SELECT sum(i + n) AS x FROM raw.t",
        "SELECT sum(DISTINCT i + n - 2) AS x FROM raw.t WHERE n < 3 GROUP BY n < 10",
        "SELECT CAST(2147483647 AS INT) + CAST(1 AS INT) AS x",
        "SELECT 9223372036854775807 + 1 AS x",
        "SELECT - (CAST(-9223372036854775807 AS BIGINT) - 1) AS x",
        "SELECT CAST(i AS INT) AS x FROM raw.t",
        "SELECT CAST(f AS BIGINT) AS x FROM raw.t WHERE n = 1",
        "SELECT CAST(f AS BIGINT) AS x FROM raw.t WHERE n = 3",
        "SELECT n AS x FROM raw.t WHERE i + 1 > 0",
        "SELECT n AS x FROM raw.t GROUP BY n, i * 3",
        "SELECT n AS x FROM raw.t ORDER BY i * 3 LIMIT 1",
    ] {
        let (status, message) = place.fail(&script("kpi.i", query))?;
        assert_eq!(status, 65, "{query}: {message}");
        let place = "statement 3 (line 3) met a value that it cannot use: ";
        assert!(message.starts_with(place), "{query}: {message}");
    }
    Ok(())
}

#[test]
fn a_sum_that_fits_does_not_depend_on_what_lies_between() -> Outcome {
    let place = place()?;
    let sum = "SELECT sum(i) AS x FROM (SELECT i FROM raw.t WHERE n <> 2 UNION ALL SELECT 1)";
    assert_eq!(run(&place, "kpi.i", sum)?, ["-5"]);
    let filtered = "SELECT sum(i) FILTER (WHERE n > 3) AS x FROM raw.t GROUP BY n";
    assert_eq!(run(&place, "kpi.i", filtered)?, ["", "", "", "-5"]);
    let distinct = "SELECT sum(DISTINCT i) + count(DISTINCT n) AS x FROM raw.t";
    assert_eq!(run(&place, "kpi.i", distinct)?, ["-2"]);
    let nothing = "SELECT sum(i) AS x FROM raw.t WHERE n > 9";
    assert_eq!(run(&place, "kpi.i", nothing)?, [""]);
    let window = "SELECT sum(n) OVER (ORDER BY n ROWS 1 PRECEDING) AS x FROM raw.t";
    assert_eq!(run(&place, "kpi.i", window)?, ["1", "3", "5", "7"]);
    Ok(())
}

#[test]
fn decimals_fail_where_they_do_not_fit_and_quotients_are_rounded() -> Outcome {
    let place = place()?;
    let nines = "CAST(repeat('9', 38) AS DECIMAL(38,0))";
    for query in [
        format!("SELECT {nines} + CAST(1 AS DECIMAL(38,0)) AS x"),
        format!("SELECT sum(d) AS x FROM (VALUES ({nines}), ({nines})) AS t(d)"),
        format!("SELECT {nines} * {nines} AS x"),
        format!("SELECT {nines} / CAST(0.001 AS DECIMAL(4,3)) AS x"),
        "SELECT CAST(1 AS DECIMAL(3,0)) / CAST(0 AS DECIMAL(3,0)) AS x".to_owned(),
        "SELECT CAST(CAST(1000 AS DECIMAL(5,0)) AS DECIMAL(3,0)) AS x".to_owned(),
    ] {
        let (status, message) = place.fail(&script("kpi.d", &query))?;
        assert_eq!(status, 65, "{query}: {message}");
    }
    for (query, result) in [
        (
            "CAST(1.23 AS DECIMAL(12,2)) / CAST(99999.99 AS DECIMAL(20,2))",
            "0.0000123000012300",
        ),
        (
            "CAST(2 AS DECIMAL(1,0)) / CAST(3 AS DECIMAL(1,0))",
            "0.6666666666666667",
        ),
        ("CAST(-2 AS DECIMAL(1,0)) / 3", "-0.6666666666666667"),
        (
            "CAST(7 AS DECIMAL(1,0)) % CAST(-2 AS DECIMAL(1,0))",
            "1.0000000000000000",
        ),
    ] {
        assert_eq!(
            run(&place, "kpi.d", &format!("SELECT {query} AS x"))?,
            [result],
            "{query}"
        );
    }
    let mean = "SELECT avg(CAST(i AS DECIMAL(20,0)) / 3) AS x FROM raw.t WHERE n = 4";
    assert_eq!(run(&place, "kpi.d", mean)?, ["-1.6666666666666667"]);
    let mean = "SELECT avg(d) AS x FROM (VALUES (CAST(1 AS DECIMAL(9,2))), (2), (2)) AS t(d)";
    assert_eq!(run(&place, "kpi.d", mean)?, ["1.6666670000000000"]);
    Ok(())
}

#[test]
fn floats_that_are_finite_stay_finite_or_fail() -> Outcome {
    let place = place()?;
    for (query, reason) in [
        ("f * 10", "is out of range"),
        ("1 / f", "division by zero"),
        ("f / 0.0", "division by zero"),
        ("f % 0.0", "division by zero"),
        ("ln(f)", "is out of range"),
        ("exp(f)", "is out of range"),
        ("sqrt(-1.0 - f)", "square root of a negative number"),
        ("power(f, 2)", "is out of range"),
    ] {
        let query = format!("SELECT CAST({query} AS VARCHAR) AS x FROM raw.t WHERE n < 3");
        let (status, message) = place.fail(&script("kpi.s", &query))?;
        assert_eq!(status, 65, "{query}: {message}");
        assert!(message.contains(reason), "{query}: {message}");
    }
    let not_a_number = "SELECT CAST(f + 1 AS VARCHAR) AS x FROM raw.t WHERE n = 3";
    assert_eq!(run(&place, "kpi.s", not_a_number)?, ["NaN"]);
    let guarded = "SELECT CAST(CASE WHEN f = 0 THEN -1 ELSE 1 / f END AS VARCHAR) AS x \
                   FROM raw.t WHERE n IN (2, 4)";
    assert_eq!(run(&place, "kpi.s", guarded)?, ["-1.0", "0.4"]);
    let null = "SELECT CAST(sum(1 / nullif(f, 0)) AS VARCHAR) AS x FROM raw.t WHERE n IN (2, 4)";
    assert_eq!(run(&place, "kpi.s", null)?, ["0.4"]);
    Ok(())
}

#[test]
fn percentiles_are_exact_and_medians_are_rounded() -> Outcome {
    let place = place()?;
    let of = |values: &str| format!("FROM (VALUES {values}) AS t (v)");
    let billions = of("(0), (1000000000), (2000000000), (3000000000)");
    let below = format!("{billions} WHERE v < 0");
    let extremes = of("(-1e308), (1e308), (-1e308), (1e308)");
    let floats = of("(2.0), (CAST(NULL AS DOUBLE)), (2.0), (3.0), (CAST('NaN' AS DOUBLE))");
    let cents = ["0.01", "0.02", "NULL", "0.02", "0.01"];
    let cents = cents.map(|cent| format!("(CAST({cent} AS DECIMAL(9,2)))"));
    let cents = of(&cents.join(", "));
    let at = |place: &str| format!("percentile_cont({place}) WITHIN GROUP (ORDER BY v)");
    let from_top = "percentile_cont(0.1) WITHIN GROUP (ORDER BY v DESC)".to_owned();
    let median = "median(v)".to_owned();
    for (aggregate, from, result) in [
        (&at("0.1111111"), &billions, "333333300.0"),
        (&from_top, &billions, "2700000000.0"),
        (&at("0"), &billions, "0.0"),
        (&at("1.0"), &billions, "3000000000.0"),
        (
            &"quantile_cont(v, 0.5)".to_owned(),
            &billions,
            "1500000000.0",
        ),
        (&median, &below, ""),
        (&median, &extremes, "0.0"),
        (&median, &floats, "2.5"),
        (&"median(DISTINCT v)".to_owned(), &floats, "3.0"),
        (&at("1"), &floats, "NaN"),
        (&median, &cents, "0.02"),
        (&"median(-v)".to_owned(), &cents, "-0.02"),
    ] {
        let query = format!("SELECT CAST({aggregate} AS VARCHAR) AS x {from}");
        assert_eq!(run(&place, "kpi.s", &query)?, [result], "{query}");
    }
    let grouped = "SELECT CAST(median(v) AS VARCHAR) AS x FROM \
                   (VALUES (1, 1.0), (1, 2.0), (2, 5.0), (3, NULL)) AS t (k, v) GROUP BY k";
    assert_eq!(run(&place, "kpi.s", grouped)?, ["", "1.5", "5.0"]);
    for wrong in ["1.5", "-0.1", "v"] {
        let query = format!("SELECT CAST({} AS VARCHAR) AS x {billions}", at(wrong));
        let (_, message) = place.fail(&script("kpi.s", &query))?;
        assert!(message.contains("from 0 to 1"), "{query}: {message}");
    }
    Ok(())
}

#[test]
fn casts_to_whole_numbers_round() -> Outcome {
    let place = place()?;
    for (query, result) in [
        ("CAST(f AS BIGINT)", "2"),
        ("CAST(f + 1 AS INT)", "4"),
        ("CAST(-f AS BIGINT)", "-2"),
        ("CAST(CAST(f AS DECIMAL(3,1)) AS BIGINT)", "3"),
        ("CAST(CAST(-f AS DECIMAL(3,1)) AS BIGINT)", "-3"),
        ("CAST(CAST(99.5 AS DECIMAL(3,1)) AS BIGINT)", "100"),
        ("TRY_CAST(f AS SMALLINT)", "2"),
        ("TRY_CAST(f * 1e300 AS BIGINT)", ""),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("(i - 9223372036854775803) % -1", "0"),
    ] {
        let query = format!("SELECT {query} AS x FROM raw.t WHERE n = 4");
        assert_eq!(run(&place, "kpi.i", &query)?, [result], "{query}");
    }
    Ok(())
}

/// Whether digits are a literal is seen late, and the type of what is rounded must not follow it:
/// what is compared with it, or stands beside it, is of the type that it had before.
#[test]
fn a_rounded_decimal_is_of_one_type_however_its_digits_are_written() -> Outcome {
    let place = place()?;
    for (expression, expected) in [
        ("CASE WHEN n > 1 THEN round(d, 0) ELSE d END", "1.5"),
        ("CASE WHEN n > 1 THEN round(d, 1 - 1) ELSE d END", "1.5"),
        (
            "CASE WHEN false THEN round(CAST('1.5' AS DECIMAL(12,2)), 0) ELSE d END",
            "1.5",
        ),
        ("CASE WHEN round(d, 0) = d THEN 1 ELSE 2 END", "2"),
        (
            "CASE WHEN d IN (round(d, 0), round(d, 1)) THEN 1 ELSE 2 END",
            "1",
        ),
        (
            "CASE WHEN d BETWEEN trunc(d, 0) AND round(d, 0) THEN 1 ELSE 2 END",
            "1",
        ),
        ("greatest(round(d, 0), d)", "2"),
        ("round(d * 1000, -2)", "1500"),
    ] {
        let query = format!(
            "SELECT {expression} AS x FROM \
             (SELECT n, CAST('1.5' AS DECIMAL(12,2)) AS d FROM raw.t WHERE n = 1) AS t"
        );
        let rows = run(&place, "kpi.d", &query)?;
        let found: f64 = rows[0].parse()?;
        assert_eq!(found, expected.parse::<f64>()?, "{expression}");
    }
    Ok(())
}

#[test]
fn both_zeros_are_one_wherever_a_float_is_looked_up() -> Outcome {
    let place = place()?;
    for expression in [
        "z = 0",
        "z IN (0, 1)",
        "z IN (1, 2, 3, 4, 0)",
        "0 IN (z, 1)",
        "NOT z NOT IN (0, 1)",
        "CASE z WHEN 0 THEN true ELSE false END",
        "CASE CAST(0 AS DOUBLE) WHEN z THEN true ELSE false END",
        "nullif(z, 0) IS NULL",
        "nullif(CAST(0 AS DOUBLE), z) IS NULL",
    ] {
        let query = format!(
            "SELECT CASE WHEN {expression} THEN 'same' ELSE 'apart' END AS x FROM \
             (SELECT f * -1 AS z FROM raw.t WHERE n = 2) AS t"
        );
        assert_eq!(run(&place, "kpi.s", &query)?, ["same"], "{expression}");
    }
    Ok(())
}

#[test]
fn a_column_without_a_name_is_called_by_its_expression() -> Outcome {
    let place = place()?;
    let query = "SELECT \"t.n + Int64(1)\" AS x FROM \
                 (SELECT t.n + 1 FROM raw.t AS t GROUP BY t.n + 1 HAVING t.n + 1 = 2)";
    assert_eq!(run(&place, "kpi.i", query)?, ["2"]);
    Ok(())
}
