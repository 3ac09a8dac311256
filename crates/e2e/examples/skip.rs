//! How long a pipeline of twenty tasks takes when nothing has changed: whole commands, from outside.
//!
//! `skip [TIMES]` prints a JSON line a case, with the median and the longest of so many commands, 20
//! if not given. `BARECOUNT_BIN` names the binary. Beside it, the same binary that only prints its
//! version: what starting it costs.

use std::time::{Duration, Instant};

use barecount_e2e::{Failure, place::Place};
use serde_json::json;

/// Half of them write, and each of the others reads what one of those wrote.
const STAGES: usize = 20;

fn main() -> Result<(), Failure> {
    let times = match std::env::args().nth(1) {
        Some(times) => times.parse()?,
        None => 20,
    };
    let place = Place::new();
    for stage in 0..STAGES {
        let from = match stage.checked_sub(STAGES / 2) {
            Some(read) => format!("n FROM raw.n{read}"),
            None => format!("CAST({stage} AS BIGINT) AS n"),
        };
        let sql = format!("INSERT INTO raw.n{stage} SELECT {from};\n");
        place.write(format!("jobs/n{stage}.sql"), sql);
    }
    let run = |owner: usize| -> Result<Duration, Failure> {
        place.write("pipeline.yaml", manifest(owner));
        took(&place, &["run", "pipeline.yaml"])
    };
    run(0)?;
    let versions = (0..times).map(|_| took(&place, &["--version"]));
    print("starting the binary", versions.collect::<Result<_, _>>()?)?;
    let unchanged = (0..times).map(|_| run(0));
    print("nothing has changed", unchanged.collect::<Result<_, _>>()?)?;
    let owners = (1..=times).map(run);
    print("another owner", owners.collect::<Result<_, _>>()?)
}

fn manifest(owner: usize) -> String {
    let mut text = format!(
        "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: skip, tenant: demo, owner: owner-{owner}@example.com }}
spec:
  classification: public
  stages:
"
    );
    for stage in 0..STAGES {
        let input = match stage.checked_sub(STAGES / 2) {
            Some(read) => format!("      inputs: [{{ dataset: raw.n{read} }}]\n"),
            None => String::new(),
        };
        text += &format!(
            "    - name: n{stage}
      phase: ingestion
      runner: {{ class: managed_etl, size: small, network_profile: private_vpc, job: jobs/n{stage}.sql }}
{input}      outputs:
        - dataset: raw.n{stage}
          format: parquet
          columns: [{{ name: n, type: int64 }}]
"
        );
    }
    text
}

fn took(place: &Place, arguments: &[&str]) -> Result<Duration, Failure> {
    let began = Instant::now();
    let finished = place.barecount(arguments).finish();
    let took = began.elapsed();
    match finished.status.success() {
        true => Ok(took),
        false => Err(finished.to_string().into()),
    }
}

#[expect(clippy::print_stdout, reason = "the figures are the result")]
fn print(case: &str, mut took: Vec<Duration>) -> Result<(), Failure> {
    took.sort_unstable();
    let ms = |took: &Duration| took.as_secs_f64() * 1e3;
    let median = took.get(took.len() / 2).map(ms);
    let longest = took.last().map(ms);
    let line = json!({ "bench": "skip", "case": case, "p50_ms": median, "max_ms": longest });
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}
