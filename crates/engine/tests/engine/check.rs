//! What is told of a script before there is data.

use barecount_engine::{
    error::EngineError,
    job::{CheckSpec, DeclaredTable, check_job},
};

use crate::fixture::{Outcome, schema};

fn table(name: &str, columns: &[&str]) -> Outcome<DeclaredTable> {
    Ok(DeclaredTable {
        table: name.parse()?,
        schema: schema(columns, &[])?,
    })
}

fn check(sql: &str) -> Outcome<Result<(), EngineError>> {
    let orders = table(
        "raw.orders",
        &["id int64", "amount decimal(10,2)", "day date"],
    )?;
    let total = table("kpi.total", &["n int64", "total decimal(38,2)"])?;
    Ok(check_job(CheckSpec {
        sql: sql.to_owned(),
        inputs: vec![orders],
        outputs: vec![total],
        parameters: Default::default(),
    }))
}

#[test]
fn a_script_that_fits_its_tables_can_be_planned_without_them() -> Outcome {
    check(
        "CREATE VIEW large AS SELECT * FROM raw.orders WHERE amount > 100;\n\
         INSERT INTO kpi.total SELECT count(*) AS n, sum(amount) AS total FROM large",
    )??;
    Ok(())
}

#[test]
fn what_does_not_fit_is_told_with_its_place() -> Outcome {
    let insert = "INSERT INTO kpi.total\nSELECT count(*) AS n,";
    for (sql, place, words) in [
        (
            format!("{insert} sum(amuont) AS total FROM raw.orders"),
            (2, 27),
            "amuont",
        ),
        (
            format!("{insert} sum(amount) AS total\nFROM raw.order"),
            (3, 6),
            "raw.order",
        ),
        (
            format!("{insert} sum(amount) AS totals FROM raw.orders"),
            (1, 1),
            "totals",
        ),
        (
            format!("{insert} summe(amount) AS total FROM raw.orders"),
            (2, 23),
            "summe",
        ),
        (
            format!("{insert} sum(amount AS total FROM raw.orders"),
            (2, 34),
            "Expected",
        ),
        (
            format!("{insert} day + true AS total FROM raw.orders"),
            (1, 1),
            "Date32",
        ),
        (
            format!("{insert} 1.5 AS total FROM read_csv('/etc/passwd')"),
            (1, 1),
            "read_csv",
        ),
        (
            "INSERT INTO kpi.totals SELECT 1".to_owned(),
            (1, 1),
            "declared: `kpi.total`",
        ),
        ("COPY raw.orders TO '/tmp/x'".to_owned(), (1, 1), "COPY"),
    ] {
        let error = check(&sql)?.expect_err(&sql);
        let told = error.to_string();
        assert!(told.contains(words), "{sql}: {told}");
        assert!(!told.contains("job."), "{sql}: {told}");
        assert_eq!(error.place(), Some(place), "{sql}: {told}");
    }
    let unwritten = check("CREATE VIEW v AS SELECT 1")?.expect_err("nothing is written");
    assert!(unwritten.to_string().contains("kpi.total"), "{unwritten}");
    Ok(())
}

#[test]
fn statements_as_deep_as_they_may_be_are_checked_and_deeper_ones_refused() -> Outcome {
    let sum = |terms: usize| {
        let terms = vec!["amount"; terms].join(" + ");
        format!(
            "INSERT INTO kpi.total SELECT 1 AS n, CAST({terms} AS DECIMAL(38,2)) AS total FROM raw.orders"
        )
    };
    check(&sum(40))??;
    assert!(check(&sum(100_000))?.is_err());
    Ok(())
}
