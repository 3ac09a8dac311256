//! The battery in every place, and what must come of it.

use std::{path::Path, sync::OnceLock};

use super::{
    Outcome, Outcomes,
    places::Outside,
    runc::{self, Way},
    table::{self, Rows},
};
use crate::{TestResult, launcher};

tests!(
    the_probes_succeed_where_nothing_holds_them,
    nothing_is_possible_that_runc_refuses,
    nothing_is_possible_that_docker_refuses,
    nothing_is_possible_that_runc_of_an_ordinary_user_refuses,
    a_boundary_that_is_missing_is_noticed,
    the_table_of_what_is_possible_is_current,
);

/// What has the host as its control, or runc beside it, which an ordinary user has neither of.
pub(crate) const AS_ROOT: &[&str] = &[
    "the_probes_succeed_where_nothing_holds_them",
    "a_boundary_that_is_missing_is_noticed",
    "the_table_of_what_is_possible_is_current",
];

/// Where the columns are.
const OURS: [usize; 2] = [0, 1];
const RUNC: usize = 2;
const DOCKER: usize = 3;
const ROOTLESS: usize = 4;

/// What an ordinary user's sandbox cannot refuse, and root's runc does: devices are root's to make.
const ORDINARY: &[&str] = &["notice a lock of the host on a device"];

/// Set to write the table anew.
const REWRITE: &str = "BARECOUNT_REWRITE_TABLES";

struct Found {
    control: Outcomes,
    runc: Outcomes,
    rows: Rows,
}

/// Everything is tried once, as root.
fn found() -> Result<&'static Found, Box<dyn std::error::Error>> {
    static FOUND: OnceLock<Result<Found, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| try_everything().map_err(|error| error.to_string()));
    Ok(found.as_ref().map_err(String::clone)?)
}

fn try_everything() -> Result<Found, Box<dyn std::error::Error>> {
    let outside = Outside::set_up()?;
    let control = outside.control()?;
    let ours = outside.ours(launcher())?;
    let ordinary = outside.ours_of_ordinary_user()?;
    let runc = runc::run(&outside, Way::Default)?;
    let docker = runc::run(&outside, Way::Filtered)?;
    let rootless = runc::run(&outside, Way::Rootless)?;
    let places = [&ours, &ordinary, &runc, &docker, &rootless];
    let rows = table::rows(&control, places);
    Ok(Found {
        control,
        runc,
        rows,
    })
}

/// What an ordinary user finds, in the rows of the table. Once, too.
fn rows_of_ordinary_user() -> Result<&'static Rows, Box<dyn std::error::Error>> {
    static ROWS: OnceLock<Result<Rows, String>> = OnceLock::new();
    let rows = ROWS.get_or_init(|| try_as_ordinary_user().map_err(|error| error.to_string()));
    Ok(rows.as_ref().map_err(String::clone)?)
}

fn try_as_ordinary_user() -> Result<Rows, Box<dyn std::error::Error>> {
    let ours = Outside::set_up()?.ours(launcher())?;
    let mut rows = table::parse(table::CHECKED_IN);
    for (name, row) in &mut rows {
        let line = ours.get(name).ok_or("the table has another row")?;
        for column in OURS {
            row[column] = match line.outcome {
                Outcome::Possible => table::Cell::Possible,
                _ => table::Cell::Refused,
            };
        }
    }
    Ok(rows)
}

fn nothing_weaker_than(theirs: usize) -> TestResult {
    // An ordinary user has no control and no runc: there the sandbox is held against the table.
    let rows = if launcher().host().root {
        &found()?.rows
    } else {
        rows_of_ordinary_user()?
    };
    for column in OURS {
        let weaker = table::weaker(rows, column, theirs);
        let ordinary = column == OURS[1] || !launcher().host().root;
        let known = if ordinary && theirs != ROOTLESS {
            ORDINARY
        } else {
            &[]
        };
        assert_eq!(weaker, known, "{}", table::COLUMNS[column]);
    }
    Ok(())
}

fn the_probes_succeed_where_nothing_holds_them() -> TestResult {
    let found = found()?;
    let count = |outcome| {
        let lines = found.control.values();
        lines.filter(|line| line.outcome == outcome).count()
    };
    let (possible, refused) = (count(Outcome::Possible), count(Outcome::Refused));
    // What is refused even here, the machine does not have: devices, protocols.
    assert!(
        possible > 2 * refused,
        "{possible} possible, {refused} refused: {:#?}",
        found.control
    );
    Ok(())
}

fn nothing_is_possible_that_runc_refuses() -> TestResult {
    nothing_weaker_than(RUNC)
}

fn nothing_is_possible_that_docker_refuses() -> TestResult {
    nothing_weaker_than(DOCKER)
}

fn nothing_is_possible_that_runc_of_an_ordinary_user_refuses() -> TestResult {
    nothing_weaker_than(ROOTLESS)
}

/// The host in place of a sandbox.
fn a_boundary_that_is_missing_is_noticed() -> TestResult {
    let found = found()?;
    let (host, runc) = (&found.control, &found.runc);
    let rows = table::rows(host, [host, host, runc, runc, runc]);
    let weaker = table::weaker(&rows, 0, RUNC);
    for known in [
        "hold CAP_SYS_ADMIN",
        "mount a new tmpfs",
        "reach a file of the host by its path",
        "reach the host's loopback",
        "signal a process outside",
        "write /proc/sys/kernel/core_pattern",
    ] {
        assert!(
            weaker.contains(&known),
            "{known} goes unnoticed: {weaker:#?}"
        );
    }
    Ok(())
}

fn the_table_of_what_is_possible_is_current() -> TestResult {
    let found = found()?;
    let page = table::page(&found.rows);
    if std::env::var_os(REWRITE).is_some() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/escape-battery.md");
        std::fs::write(place, &page)?;
        return Ok(());
    }
    let differences = table::differences(&table::parse(table::CHECKED_IN), &found.rows);
    assert!(
        differences.is_empty(),
        "docs/escape-battery.md is not current in what is ours; {REWRITE}=1 writes it anew: {differences:#?}"
    );
    Ok(())
}
