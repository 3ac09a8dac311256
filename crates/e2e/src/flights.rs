//! The third example: flights, in Python and SQL. Its data is got once, by its own program `prepare`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use rustix::fs::{FlockOperation, flock};

use crate::{Failure, binary, example, place::Place, process::Finished, python};

/// The example's figures.
pub const FIGURES: [&str; 5] = [
    "kpi.carriers",
    "kpi.days",
    "kpi.routes",
    "kpi.weather",
    "kpi.fleet",
];

/// The example's folder, which its data may not be in.
pub fn source() -> PathBuf {
    binary::workspace().join("examples/flights")
}

/// A place with the example in `flights`, its artifacts in the state folder, and of its flights
/// those that are chosen, by their line from 1.
///
/// # Panics
/// If the example cannot be prepared or built.
pub fn place(chosen: impl Fn(usize, &str) -> bool) -> Place {
    let place = example::place_with("flights", built());
    let folder = place.join("flights");
    example::copy(&prepared().join("data"), &folder.join("data"), &[]);
    let flights = folder.join("data/flights.csv");
    let whole = fs_err::read_to_string(&flights).expect("the data was prepared");
    let mut lines = whole.split_inclusive('\n').enumerate();
    let header = lines.next().map(|(_, line)| line).unwrap_or_default();
    let rows = lines.filter(|(number, line)| chosen(*number, line));
    let some: String = std::iter::once(header)
        .chain(rows.map(|(_, line)| line))
        .collect();
    fs_err::write(flights, some).expect("a file in the test's own folder");
    place
}

/// Compares the figures of a place's datasets with what DuckDB makes of its files; what it says
/// tells how many.
///
/// # Errors
/// If it cannot be asked.
///
/// # Panics
/// With the differences.
pub fn compared(place: &Place) -> Result<String, Failure> {
    let mut check = Command::new(python::interpreter());
    check
        .arg(source().join("tests/independent/check.py"))
        .arg("--data")
        .arg(place.join("flights/data"))
        .current_dir(place.path());
    for dataset in FIGURES {
        let file = place.join(format!("{dataset}.csv"));
        export(place, dataset, &file).exits_with(0);
        check.arg(format!("{dataset}={}", file.display()));
    }
    let output = check.output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{error}");
    Ok(told)
}

fn export(place: &Place, dataset: &str, to: &Path) -> Finished {
    place
        .barecount(["outputs", "export", dataset, "--to"])
        .argument(to)
        .finish()
}

/// Where the data is, got by whoever needs it first.
fn prepared() -> &'static Path {
    static PREPARED: LazyLock<PathBuf> = LazyLock::new(|| {
        let scratch = binary::scratch();
        let lock = fs_err::File::create(scratch.join("flights-data.lock")).expect("a lock file");
        flock(&lock, FlockOperation::LockExclusive).expect("a lock on a file of our own");
        let folder = scratch.with_file_name("flights");
        let status = Command::new(python::interpreter())
            .arg(source().join("prepare"))
            .arg("--to")
            .arg(&folder)
            .status()
            .expect("python can be started");
        assert!(status.success(), "the example is prepared: {status}");
        folder
    });
    &PREPARED
}

/// The state folder in which the example was built.
fn built() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| example::build("flights", "flights"));
    &BUILT
}
