//! What a script costs before it is run: it is planned in a process of its own.

use barecount_e2e::{Outcome, place::Place};

use crate::datasets::{NUMBERS, Writes};

#[test]
fn a_script_that_takes_too_much_to_plan_is_refused_and_takes_nobody_with_it() -> Outcome {
    let place = Place::new();
    // A planner computes what is constant.
    let text = Writes {
        columns: "[{ name: n, type: string }]",
        ..NUMBERS
    };
    text.write(&place, "repeat(repeat('x', 10000), 200000) AS n");
    for verb in ["validate", "run"] {
        place
            .barecount([verb, "demo-numbers/pipeline.yaml"])
            .finish()
            .fails_with(2, "BC0233")
            .tells("stage `make`: planning it takes more than 2048 MiB of memory");
    }
    NUMBERS.runs(&place, "CAST(3 AS BIGINT) AS n");
    place.nothing_is_left();
    Ok(())
}
