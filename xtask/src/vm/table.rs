//! The table in the documentation: what the rows say, in the words of people.

use std::{fs, path::Path};

use super::rows::{Held, Outcome, Place, ROWS, Row};
use crate::steps::Failure;

const PAGE: &str = "docs/operating.md";
const BEGIN: &str = "<!-- The table is written by `cargo xtask vm --table`. -->\n";
const END: &str = "<!-- Its end. -->\n";

/// Writes it to the page, where it is not so already.
pub(super) fn write(root: &Path) -> Result<(), Failure> {
    let page = root.join(PAGE);
    let failed = |reason: String| Failure::new("vm", format!("{}: {reason}", page.display()));
    let text = fs::read_to_string(&page).map_err(|error| failed(error.to_string()))?;
    let (before, after) = around(&text).ok_or_else(|| failed("it has no table".to_owned()))?;
    let written = format!("{before}{BEGIN}\n{}\n{END}{after}", table());
    if written != text {
        fs::write(&page, written).map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

/// What comes before and after the table.
fn around(text: &str) -> Option<(&str, &str)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some((before, after))
}

fn table() -> String {
    let mut table = "| who runs it, and where | memory | processor time | processes | control groups are made |\n\
                     |---|---|---|---|---|\n"
        .to_owned();
    for row in ROWS {
        table.push_str(&line(row));
    }
    table
}

fn line(row: &Row) -> String {
    let title = row.title;
    match row.outcome {
        Outcome::Held {
            memory,
            cpu,
            pids,
            place,
            ..
        } => {
            let place = match place {
                Place::Own => "in the agent's own".to_owned(),
                Place::Above(group) => format!("in `{group}`"),
                Place::None => "nowhere".to_owned(),
            };
            let weaker = match row.weaker {
                Some((control, held)) => {
                    let control = control.replace('_', " ");
                    format!("; {control}: {}", word(held))
                }
                None => String::new(),
            };
            let (memory, cpu, pids) = (word(memory), word(cpu), word(pids));
            format!("| {title} | {memory} | {cpu} | {pids} | {place}{weaker} |\n")
        }
        Outcome::Refused { remedy, .. } => {
            format!("| {title} | refused | | | what helps: `{remedy}` |\n")
        }
    }
}

fn word(held: Held) -> &'static str {
    match held {
        Held::Enforced => "held",
        Held::Degraded => "in part",
        Held::Absent => "not held",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_table_that_the_machines_are_held_against() -> Result<(), String> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
        let text = fs::read_to_string(page).map_err(|error| error.to_string())?;
        let (before, _) = around(&text).ok_or("the page has no table")?;
        let shown = &text[before.len() + BEGIN.len()..];
        let (shown, _) = shown.split_once(END).ok_or("the table has no end")?;
        assert_eq!(
            shown.trim(),
            table().trim(),
            "write it with `cargo xtask vm --table`"
        );
        Ok(())
    }
}
