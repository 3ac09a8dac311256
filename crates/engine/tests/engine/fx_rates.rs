//! The SQL job of the pipeline example, on all its input.

#[path = "../../examples/etl/rates.rs"]
mod rates;

use std::collections::BTreeMap;

use barecount_engine::acceptance::{AcceptanceSpec, AcceptanceTest};
use barecount_engine::process::{Request, Response};
use barecount_engine::session::InputTable;

use crate::fixture::{Outcome, Place};

const TESTS: [(&str, &str); 2] = [
    (
        "kpi.fx_monthly",
        r#"[{"row_count": {"min": 10393, "max": 10393}}, {"unique": ["month", "currency"]},
            {"range": {"column": "month_end_rate", "min": "0.000001"}},
            {"sql": {"name": "a month lies in its year", "assert":
             "SELECT count(*) = 0 FROM output WHERE extract(year FROM month) <> year"}}]"#,
    ),
    (
        "kpi.fx_drawdown",
        r#"[{"row_count": {"min": 41, "max": 41}}, {"unique": ["currency"]},
            {"range": {"column": "worst_drawdown", "min": "-1", "max": "0"}}]"#,
    ),
];

fn place(partitions: usize) -> Outcome<Place> {
    let mut place = Place::new()?;
    place.partitions = partitions;
    let folder = place.input("gdp.fx_rates", &rates::input_schema()?)?;
    rates::write(&folder.join("part-00000.parquet"))?;
    for output in rates::outputs()? {
        place.output(output.table.as_str(), &output.schema)?;
    }
    Ok(place)
}

#[test]
fn the_example_gives_the_same_figures_on_one_partition_and_on_four_and_they_are_accepted() -> Outcome
{
    let mut files = Vec::new();
    for partitions in [1, 4] {
        let place = place(partitions)?;
        let report = place.succeed(&rates::script()?)?;
        let expected = [
            ("kpi.fx_monthly".parse()?, 10_393),
            ("kpi.fx_drawdown".parse()?, 41),
        ];
        assert_eq!(report.rows, BTreeMap::from(expected));
        let monthly = place.rows("kpi.fx_monthly")?;
        let usd = monthly
            .iter()
            .find(|row| row.starts_with("1999,1999-01-01,USD,"));
        // 20 days were published, so there is no volatility yet
        let expected = "1999,1999-01-01,USD,1.138400,1.160780,,";
        assert_eq!(usd.map(String::as_str), Some(expected));
        files.push(accept(&place)?);
    }
    assert!(files[0] == files[1], "the files differ");
    Ok(())
}

/// Stages both outputs and puts the pipeline's tests to them. Gives the files.
fn accept(place: &Place) -> Outcome<Vec<BTreeMap<String, Vec<u8>>>> {
    let mut files = Vec::new();
    for (output, (table, tests)) in rates::outputs()?.into_iter().zip(TESTS) {
        let staged = place.stage(table, &output.schema)?;
        assert_eq!(staged.dead_letters, 0);
        let tests: Vec<AcceptanceTest> = serde_json::from_str(tests)?;
        let request = Request::Acceptance(AcceptanceSpec {
            tests,
            output: InputTable {
                table: table.parse()?,
                path: place.staging(table),
                schema: output.schema,
            },
            resources: place.resources(),
            timeout_ms: 900_000,
        });
        let (_, response) = place.ask(&request)?;
        let Response::Acceptance(results) = response else {
            return Err(format!("{response:?}").into());
        };
        for result in results {
            assert!(result.passed, "{table}: {result:?}");
        }
        files.push(place.staged_files(table, &staged)?);
    }
    Ok(files)
}
