//! Equal inputs give equal bytes: whatever the number of partitions, the division into files, the
//! order of rows, and the memory.

use std::collections::BTreeMap;
use std::fs;

use datafusion::arrow::array::{Float64Array, Int64Array, StringArray};

use crate::fixture::{Outcome, Place, array, schema, write};

const ROWS: u64 = 4_000;

/// A row from its number: few keys, many ties, floats of very different sizes that cancel.
fn row(number: u64) -> (i64, i64, f64, String) {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = mixed ^ (mixed >> 29);
    let key = (mixed % 7) as i64;
    let tie = (mixed >> 8) as i64 % 11;
    let scale = 10_f64.powi((mixed >> 16) as i32 % 30 - 15);
    let sign = if number.is_multiple_of(2) { 1.0 } else { -1.0 };
    let float = match number % 501 {
        0 => f64::MAX / 4.0 * sign,
        _ => sign * scale * ((mixed >> 20) % 1_000) as f64 / 7.0,
    };
    (key, tie, float, format!("t{}", (mixed >> 40) % 50))
}

/// The same rows, in an order that `seed` gives, in so many files.
fn place(seed: u64, files: usize, partitions: usize, memory: u64) -> Outcome<Place> {
    let mut place = Place::new()?;
    place.partitions = partitions;
    place.memory_limit_bytes = memory;
    let columns = schema(&["k int64", "tie int64", "f float64", "t string"], &[])?;
    let folder = place.input("raw.t", &columns)?;
    let mut numbers: Vec<u64> = (0..ROWS).collect();
    numbers.sort_by_key(|n| {
        (n ^ seed)
            .wrapping_mul(0xd134_2543_de82_ef95)
            .rotate_left(23)
            .wrapping_mul(seed)
    });
    // Of unequal sizes, so that files and batches end elsewhere.
    let mut rest = &numbers[..];
    for file in 0..files {
        let size = if file + 1 == files {
            rest.len()
        } else {
            rest.len() * 2 / 5
        };
        let (now, later) = rest.split_at(size);
        rest = later;
        let rows: Vec<_> = now.iter().map(|n| row(*n)).collect();
        write(
            &folder.join(format!("{:02}.parquet", file)),
            vec![
                (
                    "k",
                    array(rows.iter().map(|r| Some(r.0)).collect::<Int64Array>()),
                ),
                (
                    "tie",
                    array(rows.iter().map(|r| Some(r.1)).collect::<Int64Array>()),
                ),
                (
                    "f",
                    array(rows.iter().map(|r| Some(r.2)).collect::<Float64Array>()),
                ),
                (
                    "t",
                    array(
                        rows.iter()
                            .map(|r| Some(r.3.clone()))
                            .collect::<StringArray>(),
                    ),
                ),
            ],
        )?;
    }
    Ok(place)
}

/// What an output is staged as, and its rows.
type Written = (BTreeMap<String, Vec<u8>>, Vec<String>);

/// Runs a query into an output of these columns under different circumstances; gives its rows.
fn rows_however(columns: &[&str], query: &str) -> Outcome<Vec<String>> {
    let mut first: Option<Written> = None;
    for (seed, files, partitions, memory) in [
        (1, 1, 1, 256 << 20),
        (1, 1, 4, 256 << 20),
        (3, 5, 1, 256 << 20),
        (7, 3, 4, 256 << 20),
        (7, 3, 4, 256 << 20),
        (9, 8, 3, 12 << 20),
    ] {
        let mut place = place(seed, files, partitions, memory)?;
        let output = schema(columns, &[])?;
        place.output("kpi.t", &output)?;
        let case = format!("{query}\nseed {seed}, {files} files, {partitions} partitions");
        place
            .succeed(&format!("INSERT INTO kpi.t {query}"))
            .map_err(|e| format!("{case}: {e}"))?;
        let staged = place.stage("kpi.t", &output)?;
        let bytes = place.staged_files("kpi.t", &staged)?;
        let rows = place.rows("kpi.t")?;
        match &first {
            None => first = Some((bytes, rows)),
            Some(first) => {
                assert_eq!(first.1, rows, "{case}");
                assert!(first.0 == bytes, "other bytes: {case}");
            }
        }
    }
    Ok(first.ok_or("no case")?.1)
}

#[test]
fn all_rows_come_in_one_order() -> Outcome {
    let columns = ["k int64", "tie int64", "f float64", "t string"];
    assert_eq!(
        rows_however(&columns, "SELECT * FROM raw.t")?.len() as u64,
        ROWS
    );
    Ok(())
}

#[test]
fn sums_means_and_deviations_of_floats_do_not_depend_on_order() -> Outcome {
    let columns = [
        "k int64",
        "a float64",
        "b float64",
        "c float64",
        "d float64",
        "e float64",
        "n int64",
    ];
    let query = "SELECT k, sum(f) AS a, avg(f) AS b, stddev(f / CAST('1e300' AS DOUBLE)) AS c, var_pop(tie) AS d, \
                 sum(f) FILTER (WHERE tie > 3) AS e, count(*) AS n FROM raw.t GROUP BY k";
    assert_eq!(rows_however(&columns, query)?.len(), 7);
    // As many groups as rows, so that states are spilled and merged.
    let query = "SELECT k, sum(f) AS a, avg(f * (k % 4)) AS b FROM \
                 (SELECT row_number() OVER (ORDER BY f) % 2000 AS k, f FROM raw.t) AS g GROUP BY k";
    rows_however(&columns[..3], query)?;
    Ok(())
}

#[test]
fn the_sum_is_the_exact_one_rounded_once() -> Outcome {
    let rows = rows_however(
        &["a float64"],
        "SELECT sum(x) AS a FROM (SELECT CAST(t.x AS DOUBLE) AS x FROM (VALUES ('1e100'), ('1.0'), ('-1e100'), ('0.1'), ('0.2')) AS t(x)) AS u",
    )?;
    assert_eq!(rows, ["1.3"]);
    Ok(())
}

#[test]
fn ties_are_broken_by_the_rows_themselves() -> Outcome {
    let columns = ["k int64", "a int64", "b float64", "c string", "d float64"];
    rows_however(
        &columns,
        "SELECT k, row_number() OVER (PARTITION BY k ORDER BY tie) AS a, \
         lag(f) OVER (PARTITION BY k ORDER BY tie) AS b, \
         first_value(t) OVER (PARTITION BY k ORDER BY tie) AS c, \
         sum(f) OVER (PARTITION BY k ORDER BY tie ROWS BETWEEN 5 PRECEDING AND CURRENT ROW) AS d \
         FROM raw.t",
    )?;
    // Peers have one rank, beside a row number in the same order.
    rows_however(
        &["k int64", "a int64", "b int64", "c int64"],
        "SELECT k, rank() OVER (PARTITION BY k ORDER BY tie) AS a, \
         row_number() OVER (PARTITION BY k ORDER BY tie) AS b, \
         CAST(ntile(7) OVER (PARTITION BY k ORDER BY tie) AS BIGINT) AS c FROM raw.t",
    )?;
    // Windows upon windows.
    rows_however(
        &["a int64", "b int64"],
        "SELECT n AS a, lag(n) OVER (ORDER BY tie) AS b FROM \
         (SELECT tie, row_number() OVER (PARTITION BY tie ORDER BY t) AS n FROM raw.t) AS x",
    )?;
    Ok(())
}

#[test]
fn limits_keep_the_same_rows() -> Outcome {
    let columns = ["k int64", "f float64"];
    for query in [
        "SELECT k, f FROM raw.t LIMIT 10",
        "SELECT k, f FROM raw.t ORDER BY tie LIMIT 10 OFFSET 5",
        "SELECT k, f FROM (SELECT * FROM raw.t ORDER BY tie DESC LIMIT 100) AS x WHERE k >= 0",
        "SELECT DISTINCT ON (k) k, f FROM raw.t ORDER BY k, tie",
        "SELECT DISTINCT ON (k) k, f FROM raw.t",
    ] {
        let rows = rows_however(&columns, query)?;
        assert!(
            (7..=100).contains(&rows.len()),
            "{query}: {} rows",
            rows.len()
        );
    }
    Ok(())
}

#[test]
fn what_is_strung_together_is_strung_together_in_one_order() -> Outcome {
    rows_however(
        &["k int64", "a string", "b string", "c float64", "d float64"],
        "SELECT k, string_agg(t, ',') AS a, string_agg(t, ',' ORDER BY tie DESC) AS b, \
         first_value(f ORDER BY tie) AS c, last_value(f) AS d FROM raw.t GROUP BY k",
    )?;
    Ok(())
}

#[test]
fn an_answer_that_stays_open_is_refused() -> Outcome {
    let mut place = place(1, 1, 1, 256 << 20)?;
    place.output("kpi.t", &schema(&["a float64"], &[])?)?;
    for query in [
        "SELECT last_value(f) OVER (ORDER BY tie) AS a FROM raw.t",
        "SELECT corr(f, k) AS a FROM raw.t",
        "SELECT approx_percentile_cont(f, 0.5) AS a FROM raw.t",
        "SELECT regr_slope(f, k) OVER (ORDER BY k) AS a FROM raw.t",
    ] {
        let (status, message) = place.fail(&format!("INSERT INTO kpi.t {query}"))?;
        assert_eq!(status, 78, "{message}");
        assert!(message.contains("row"), "{message}");
    }
    assert_eq!(fs::read_dir(place.path().join("out"))?.count(), 0);
    Ok(())
}
