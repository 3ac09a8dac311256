//! What is held in memory of rows that work has chosen: some tens of MiB, whatever they are, where they
//! are staged and wherever a table is read again.

use std::ffi::OsString;

use barecount_e2e::{Outcome, place::Place, process::Finished, programs, python};

use crate::{budgets, pipelines::of_stages, poison::repeated};

/// No program of ours holds more, with all that it is made of,
const MOST_MIB: u64 = 400;
/// but for what compresses and unpacks each of a thousand columns.
const MOST_OF_WIDE_MIB: u64 = 370;

/// Starts a program, and writes down how much it or a child of it held at most, in KiB.
const MEASURE: &str = "
import os, sys
pid = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], 'w') as report:
    report.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
";

/// What programs held that were started in a place.
struct Held<'p> {
    place: &'p Place,
    most_mib: u64,
    /// By which words, and how much.
    mib: Vec<(String, u64)>,
}

impl<'p> Held<'p> {
    fn of(place: &'p Place, most_mib: u64) -> Self {
        Self {
            place,
            most_mib,
            mib: Vec::new(),
        }
    }

    /// The binary with these arguments, which must end well.
    #[track_caller]
    fn by(&mut self, arguments: &[&str]) -> Finished {
        let report = self.place.join("held");
        let measured: Vec<OsString> = vec![
            python::interpreter().into(),
            "-c".into(),
            MEASURE.into(),
            report.clone().into(),
        ];
        let done = self.place.barecount(arguments).behind(&measured).finish();
        let done = done.exits_with(0);
        let held = fs_err::read_to_string(report).expect("it was measured");
        let held: u64 = held.trim().parse().expect("a number");
        self.mib.push((arguments.join(" "), held >> 10));
        done
    }

    #[track_caller]
    fn hold(&self) {
        let most = self.most_mib;
        let is_little = self.mib.iter().all(|(_, mib)| *mib < most);
        assert!(is_little, "{most} MiB at most: {:#?}", self.mib);
        self.place.nothing_is_left();
    }
}

/// A stage that has a package of this name, and hands over `output`.
fn stage(name: &str, more: &str, output: &str) -> String {
    format!(
        "    - name: {name}
      phase: ingestion
      runner: {{ class: serverless, size: small, network_profile: private_vpc, package: {name}.zip }}
{more}      outputs:
        - {output}
"
    )
}

/// A pipeline whose stage `writes` hands over a dataset, which the stage `reads` has as an input in
/// that format.
fn place(writes: &str, wrote: &[(&str, &[u8])], dataset: &str, format: &str) -> Place {
    let place = Place::new();
    programs::package(&place, "writes.zip", "bootstrap", wrote);
    let rows: &[(&str, &[u8])] = &[("rows/raw.read/part.csv", b"id\n1\n")];
    programs::package(&place, "reads.zip", "bootstrap", rows);
    let input = format!("      inputs: [{{ dataset: {dataset}{format} }}]\n");
    let output =
        "{ dataset: raw.read, format: csv, mode: overwrite, columns: [{ name: id, type: int64 }] }";
    let stages = format!("{writes}{}", stage("reads", &input, output));
    place.write("pipeline.yaml", of_stages("held", &stages));
    place
}

#[test]
fn of_long_texts_that_repeat() -> Outcome {
    let texts = repeated(&"x".repeat(64 << 10), 6000)?;
    let output = "{ dataset: raw.texts, format: parquet, mode: overwrite, columns: [{ name: text, type: string }] }";
    let writes = stage("writes", "", output);
    let wrote: &[(&str, &[u8])] = &[("rows/raw.texts/part.parquet", &texts)];
    let place = place(&writes, wrote, "raw.texts", ", format: csv");
    let mut held = Held::of(&place, MOST_MIB);
    held.by(&["run", "pipeline.yaml"]).tells("6000");
    held.by(&["outputs", "show", "raw.texts"]);
    held.by(&["evidence", "verify", "--data"]);
    for format in ["csv", "parquet"] {
        let words = ["outputs", "export", "raw.texts", "--format", format];
        let to = place.join(format!("texts.{format}")).display().to_string();
        held.by(&[&words[..], &["--to", &to]].concat());
    }
    held.hold();
    Ok(())
}

#[test]
fn of_large_files_of_nothing() -> Outcome {
    let more = "      env: { BEHAVIOUR: write holes, HOLES: 10 of 63, DATASET: raw.holes }\n";
    let output = "{ dataset: raw.holes, format: files, mode: overwrite }";
    let place = place(&stage("writes", more, output), &[], "raw.holes", "");
    let mut held = Held::of(&place, MOST_MIB);
    held.by(&["run", "pipeline.yaml"]);
    held.by(&["outputs", "show", "raw.holes"]);
    held.by(&["evidence", "verify", "--data"]);
    let to = place.join("holes").display().to_string();
    let words = ["outputs", "export", "raw.holes", "--format"];
    held.by(&[&words[..], &["files", "--to", &to]].concat());
    assert_eq!(fs_err::read_dir(&to)?.count(), 10);
    let to = place.join("holes.parquet").display().to_string();
    held.by(&[&words[..], &["parquet", "--to", &to]].concat());
    held.hold();
    Ok(())
}

#[test]
fn of_rows_that_are_wide_and_empty() -> Outcome {
    let columns = (0..1000).map(|number| format!("{{ name: c{number}, type: \"decimal(38,2)\" }}"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let output =
        format!("{{ dataset: raw.wide, format: ndjson, mode: overwrite, columns: [{columns}] }}");
    let rows = "{}\n".repeat(24_000);
    let wrote: &[(&str, &[u8])] = &[("rows/raw.wide/part.ndjson", rows.as_bytes())];
    let writes = stage("writes", "", &output);
    let place = place(&writes, wrote, "raw.wide", ", format: ndjson");
    let mut held = Held::of(&place, MOST_OF_WIDE_MIB);
    held.by(&["run", "pipeline.yaml"]).tells("24000");
    held.by(&["outputs", "show", "raw.wide"]);
    held.by(&["evidence", "verify", "--data"]);
    held.hold();
    Ok(())
}

#[test]
fn a_file_of_holes_counts_by_its_length() {
    let csv = "{ dataset: raw.holes, format: csv, mode: overwrite, columns: [{ name: id, type: int64 }] }";
    let files = "{ dataset: raw.holes, format: files, mode: overwrite }";
    let first = ", FIRST_LINE: id";
    for (output, first) in [(csv, first), (files, "")] {
        let more = format!(
            "      env: {{ BEHAVIOUR: write holes, HOLES: 2 of 40, DATASET: raw.holes{first} }}\n"
        );
        let place = budgets::tight(place(&stage("writes", &more, output), &[], "raw.holes", ""));
        budgets::run(&place)
            .fails_with(1, "BC0615")
            .tells("its files have 80 MiB by their length, holes included");
        place.nothing_is_left();
    }
}
