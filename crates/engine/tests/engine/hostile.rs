//! Scripts and files that mean harm, or are broken. Each ends by itself, with a bounded message.

use std::fs;
use std::time::Instant;

use barecount_engine::error::FailureKind;
use barecount_engine::process::{Response, engine_main};
use datafusion::arrow::array::{Float64Array, Int64Array};

use crate::fixture::{Outcome, Place, array, schema, write};

/// A place with a table of a thousand numbers.
fn place() -> Outcome<Place> {
    let mut place = Place::new()?;
    let columns = schema(&["a int64", "f float64"], &[])?;
    let folder = place.input("raw.t", &columns)?;
    let numbers = 0..1_000_i64;
    let floats = numbers.clone().map(|n| match n {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => f64::NEG_INFINITY,
        3 => -0.0,
        n => n as f64,
    });
    write(
        &folder.join("a.parquet"),
        vec![
            ("a", array(Int64Array::from_iter_values(numbers))),
            ("f", array(Float64Array::from_iter_values(floats))),
        ],
    )?;
    place.output("kpi.t", &schema(&["a int64", "f float64"], &[])?)?;
    Ok(place)
}

#[test]
fn arithmetic_that_has_no_answer_fails_the_statement() -> Outcome {
    let place = place()?;
    for query in [
        "SELECT a / (a - a) AS a FROM raw.t",
        "SELECT a % 0 AS a FROM raw.t",
        "SELECT CAST('x' AS BIGINT) AS a",
        "SELECT CAST(repeat('9', 38) AS DECIMAL(38,0)) * CAST(10 AS DECIMAL(38,0)) AS f",
        "SELECT CAST(1e40 AS DECIMAL(38,0)) AS f",
        "SELECT CAST(f AS BIGINT) AS a FROM raw.t WHERE a = 1",
    ] {
        let (status, message) = place.fail(&format!("INSERT INTO kpi.t {query}"))?;
        assert_eq!(status, 65, "{query}: {message}");
        assert!(
            message.starts_with("statement 1 (line 1) met a value that it cannot use: "),
            "{query}: {message}"
        );
        assert!(message.len() < 2_000, "{message}");
    }
    Ok(())
}

#[test]
fn nan_and_infinities_pass_through_and_sort_last() -> Outcome {
    let place = place()?;
    place.succeed("INSERT INTO kpi.t SELECT 0 AS a, f FROM raw.t WHERE a < 5")?;
    let expected = ["0,-inf", "0,-0.0", "0,4.0", "0,inf", "0,NaN"];
    assert_eq!(place.rows("kpi.t")?, expected);
    place.succeed("INSERT INTO kpi.t SELECT 1 AS a, sum(f) AS f FROM raw.t")?;
    assert_eq!(place.rows("kpi.t")?, ["1,NaN"]);
    let staged = place.stage("kpi.t", &schema(&["a int64", "f float64"], &[])?)?;
    assert_eq!(staged.rows, 1);
    Ok(())
}

#[test]
fn rows_beyond_memory_and_spill_space_end_in_the_resource_error() -> Outcome {
    let mut place = place()?;
    place.memory_limit_bytes = 16 << 20;
    place.spill_limit_bytes = 8 << 20;
    // A million rows, all different, to be sorted; then a hundred million.
    for query in [
        "SELECT x.a * 1000 + y.a AS a, x.f FROM raw.t AS x CROSS JOIN raw.t AS y",
        "SELECT x.a + y.a * 1000 AS a, x.f FROM raw.t AS x, raw.t AS y, raw.t AS z",
    ] {
        let (status, response) = place.run(&format!("INSERT INTO kpi.t {query}"))?;
        let Response::Failed { kind, message, .. } = response else {
            return Err(format!("{query} succeeded").into());
        };
        assert_eq!((status, kind), (137, FailureKind::OutOfMemory), "{message}");
        assert!(message.contains("needs more memory"), "{message}");
        assert!(message.len() < 2_000, "{message}");
    }
    let left = fs::read_dir(place.path().join("spill"))?.count();
    assert_eq!(left, 0, "spilled files are left behind");
    Ok(())
}

#[test]
fn with_spill_space_the_same_rows_are_sorted_in_little_memory() -> Outcome {
    let mut place = place()?;
    place.memory_limit_bytes = 8 << 20;
    let many = "SELECT x.a * 1000 + y.a AS a, x.f FROM raw.t AS x, raw.t AS y WHERE x.a < 300";
    let report = place.succeed(&format!("INSERT INTO kpi.t {many}"))?;
    assert_eq!(report.rows.values().sum::<u64>(), 300_000);
    assert!(report.metrics.spilled_bytes > 0, "{:?}", report.metrics);
    Ok(())
}

#[test]
fn a_join_that_explodes_without_memory_ends_with_its_time() -> Outcome {
    let mut place = place()?;
    place.timeout_ms = 2_000;
    let from = ["raw.t"; 6];
    let from = from
        .iter()
        .enumerate()
        .map(|(n, table)| format!("{table} AS t{n}"));
    let from = from.collect::<Vec<_>>().join(" CROSS JOIN ");
    for partitions in [1, 2] {
        place.partitions = partitions;
        let started = Instant::now();
        let sql = format!("INSERT INTO kpi.t SELECT sum(t0.a + t5.a) AS a FROM {from}");
        let (status, message) = place.fail(&sql)?;
        assert_eq!((status, message.as_str()), (124, "not done after 2000 ms"));
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
    Ok(())
}

#[test]
fn patterns_that_other_engines_choke_on_are_matched_or_refused() -> Outcome {
    let place = place()?;
    // Linear in the text, for there is no going back.
    let slow = format!("regexp_like('{}', '^(a+)+$')", "a".repeat(5_000) + "b");
    let sql = format!("INSERT INTO kpi.t SELECT CASE WHEN {slow} THEN 1 ELSE 0 END AS a");
    place.succeed(&sql)?;
    assert_eq!(place.rows("kpi.t")?, ["0,"]);
    for pattern in [
        "((a{1000}){1000}){1000}",
        "\\x{10FFFF}{99999999}",
        "(",
        "a**",
    ] {
        let sql = format!(
            "INSERT INTO kpi.t SELECT CASE WHEN regexp_like(t.x, '{pattern}') THEN 1 END AS a \
             FROM (VALUES ('a'), ('b')) AS t(x)"
        );
        let (status, response) = place.run(&sql)?;
        assert!(matches!(status, 0 | 1), "{pattern}: {response:?}");
    }
    Ok(())
}

#[test]
fn views_that_multiply_are_refused() -> Outcome {
    let place = place()?;
    let mut sql = "CREATE VIEW v0 AS SELECT a FROM raw.t;".to_owned();
    for n in 1..60 {
        let m = n - 1;
        sql +=
            &format!("CREATE VIEW v{n} AS SELECT x.a FROM v{m} AS x JOIN v{m} AS y ON x.a = y.a;");
    }
    sql += "INSERT INTO kpi.t SELECT a FROM v59";
    let (status, message) = place.fail(&sql)?;
    assert_eq!(status, 78);
    assert!(message.contains("operators"), "{message}");
    let mut sql = "CREATE VIEW v0 AS SELECT a FROM raw.t;".to_owned();
    for n in 1..400 {
        sql += &format!("CREATE VIEW v{n} AS SELECT a + 1 AS a FROM v{};", n - 1);
    }
    sql += "INSERT INTO kpi.t SELECT a FROM v399";
    let (status, message) = place.fail(&sql)?;
    assert_eq!(status, 78);
    assert!(message.contains("upon each other"), "{message}");
    Ok(())
}

#[test]
fn statements_as_deep_as_they_may_be_are_planned_and_run() -> Outcome {
    let place = place()?;
    let sum = |n: usize| format!("a{}", " + a".repeat(n));
    let sql = format!("INSERT INTO kpi.t SELECT {} AS a FROM raw.t", sum(190));
    place.succeed(&sql)?;
    let union = " UNION ALL SELECT a FROM raw.t".repeat(95);
    place.succeed(&format!("INSERT INTO kpi.t SELECT a FROM raw.t{union}"))?;
    let nested = format!("{}a{}", "abs(".repeat(50), ")".repeat(50));
    place.succeed(&format!(
        "INSERT INTO kpi.t SELECT {nested} AS a FROM raw.t"
    ))?;
    let mut sql = "CREATE VIEW v0 AS SELECT a FROM raw.t;".to_owned();
    for n in 1..60 {
        sql += &format!("CREATE VIEW v{n} AS SELECT a + 1 AS a FROM v{};", n - 1);
    }
    place.succeed(&(sql + "INSERT INTO kpi.t SELECT a FROM v59"))?;
    Ok(())
}

#[test]
fn broken_files_are_the_data_s_fault() -> Outcome {
    let place = place()?;
    let path = place.path().join("in/raw.t/a.parquet");
    let whole = fs::read(&path)?;
    let read_all = "INSERT INTO kpi.t SELECT * FROM raw.t";
    let mut broken = vec![Vec::new(), b"PAR1".to_vec(), b"not parquet at all".to_vec()];
    for cut in [1, 8, whole.len() / 2, whole.len() - 20] {
        broken.push(whole[..whole.len() - cut].to_vec());
    }
    // Page headers, dictionaries, the footer: every byte of them lies, in turn.
    for at in (4..whole.len()).step_by(whole.len() / 20) {
        let mut lying = whole.clone();
        lying[at] ^= 0xff;
        broken.push(lying);
    }
    for (case, bytes) in broken.iter().enumerate() {
        fs::write(&path, bytes)?;
        let (status, response) = place.run(read_all)?;
        match response {
            // A flipped bit in a value is a value; digests are for that.
            Response::Job(_) => assert!(case >= 7, "case {case} was read"),
            Response::Failed { kind, message, .. } => {
                assert!(message.len() < 3_000, "case {case}: {message}");
                let is_told = matches!(kind, FailureKind::Data | FailureKind::Execution);
                assert!(
                    is_told && matches!(status, 65 | 1),
                    "case {case}, {status}: {message}"
                );
                if case < 7 {
                    assert_eq!(status, 65, "case {case}: {message}");
                }
            }
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

#[test]
fn files_with_other_columns_are_the_data_s_fault_or_null() -> Outcome {
    let place = place()?;
    let path = place.path().join("in/raw.t/a.parquet");
    write(
        &path,
        vec![(
            "a",
            array(datafusion::arrow::array::StringArray::from(vec!["x"])),
        )],
    )?;
    let (status, message) = place.fail("INSERT INTO kpi.t SELECT a FROM raw.t")?;
    assert!(matches!(status, 1 | 65), "{status}: {message}");
    Ok(())
}

#[test]
fn requests_that_are_none_are_a_matter_of_configuration() -> Outcome {
    let folder = tempfile::tempdir()?;
    let result = folder.path().join("result.json");
    for request in [
        "",
        "{",
        "null",
        "{\"job\":{}}",
        "{\"unknown\":{}}",
        "\u{0}",
        "[[[[",
    ] {
        assert_eq!(engine_main(request.as_bytes(), &result), 78, "{request}");
        let response: Response = serde_json::from_slice(&fs::read(&result)?)?;
        assert!(
            matches!(
                response,
                Response::Failed {
                    exit_status: 78,
                    ..
                }
            ),
            "{response:?}"
        );
    }
    assert_eq!(engine_main(std::io::repeat(b' '), &result), 78);
    assert_eq!(
        engine_main(&b"{}"[..], &folder.path().join("none/result.json")),
        74
    );
    Ok(())
}

#[test]
fn rows_that_nobody_reads_end_their_decoding_at_once() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (rows, result) = (folder.path().join("rows"), folder.path().join("result"));
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &rows, fifo, mode, 0)?;
    let request = serde_json::json!({ "decode": {
        "folder": folder.path(), "files": [], "limits": {}, "rows": rows,
    }});
    // It may not wait for a reader, who was there before and has gone.
    engine_main(request.to_string().as_bytes(), &result);
    let response: Response = serde_json::from_slice(&fs::read(&result)?)?;
    let Response::Failed { kind, .. } = response else {
        return Err(format!("nobody had the rows: {response:?}").into());
    };
    assert_eq!(kind, FailureKind::Write);
    Ok(())
}
