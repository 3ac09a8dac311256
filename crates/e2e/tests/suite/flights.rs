//! The example in Python and SQL: its figures are those that another engine computes.

use barecount_e2e::{Outcome, flights};
use serde_json::json;

/// One of so many flights is looked at, of all months. `BARECOUNT_FLIGHTS=all` looks at each, which
/// takes minutes.
const ONE_OF: usize = 20;

#[test]
fn figures_of_flights_are_those_that_duckdb_computes_from_the_published_files() -> Outcome {
    let all = std::env::var("BARECOUNT_FLIGHTS").is_ok_and(|chosen| chosen == "all");
    let place = flights::place(|line, _| all || line % ONE_OF == 0);
    let asked = ["run", "flights/pipeline.yaml", "-o", "json"];
    let first = place.barecount(asked).finish().exits_with(0).json("run");
    assert_eq!(first["dead_letters"], 3, "{first}");
    let outputs = first["outputs"].as_array().ok_or("there are outputs")?;
    let landed = outputs
        .iter()
        .find(|output| output["dataset"] == "raw.flights");
    let flights = if all { 336_776 } else { 336_776 / ONE_OF };
    assert_eq!(landed.map(|output| &output["rows"]), Some(&json!(flights)));
    let told = flights::compared(&place)?;
    assert_eq!(told.lines().count(), flights::FIGURES.len(), "{told}");
    let again = place.barecount(asked).finish().exits_with(0).json("run");
    assert_eq!(again["id"], first["id"], "nothing runs again");
    place.nothing_is_left();
    Ok(())
}
