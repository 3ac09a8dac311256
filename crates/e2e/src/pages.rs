//! The pages of `docs/` as a reader follows them: files to write, commands to type, and what those
//! print.
//!
//! A file is a fenced block after a comment `<!-- file: NAME -->`. A command is a line `$ …` of a
//! block `console`; a remark `# exit status N` at its end says how it ends if not with 0. The lines
//! below it are what it prints on either stream: each stands in a line of it, in this order. `…`
//! stands for any text, and alone on a line for any lines.

use std::path::Path;

/// What a page asks its reader to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write a file.
    File {
        /// Its name.
        name: String,
        /// What is in it.
        content: String,
    },
    /// Type a command.
    Command {
        /// The line of the page that it stands on, from 1.
        line: usize,
        /// The command.
        text: String,
        /// How it ends.
        status: i32,
        /// Lines that it prints, `…` standing for any text.
        prints: Vec<String>,
    },
}

/// The pages in the order of their table of contents.
///
/// # Panics
/// If the table of contents cannot be read.
pub fn in_order(docs: &Path) -> Vec<String> {
    let contents = fs_err::read_to_string(docs.join("SUMMARY.md")).expect("a table of contents");
    contents.lines().filter_map(linked).collect()
}

fn linked(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("](")?;
    let (page, _) = rest.split_once(')')?;
    Some(page.to_owned())
}

/// What a page asks its reader to do, in order.
///
/// # Panics
/// If a block has no end, or a block of commands begins with something else.
pub fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut file = None;
    while let Some((_, line)) = lines.next() {
        let name = line
            .strip_prefix("<!-- file: ")
            .and_then(|rest| rest.strip_suffix(" -->"));
        if let Some(name) = name {
            file = Some(name.to_owned());
        }
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let mut block = Vec::new();
        loop {
            let (number, line) = lines.next().expect("a block has an end");
            if line == "```" {
                break;
            }
            block.push((number + 1, line));
        }
        if let Some(name) = file.take() {
            let content = block.iter().flat_map(|(_, line)| [*line, "\n"]).collect();
            steps.push(Step::File { name, content });
        } else if language == "console" {
            commands(&block, &mut steps);
        }
    }
    steps
}

fn commands(block: &[(usize, &str)], steps: &mut Vec<Step>) {
    for (number, line) in block {
        if let Some(typed) = line.strip_prefix("$ ") {
            let (text, status) = match typed.rsplit_once("# exit status ") {
                Some((text, status)) => (text.trim_end(), status.parse().expect("a number")),
                None => (typed, 0),
            };
            steps.push(Step::Command {
                line: *number,
                text: text.to_owned(),
                status,
                prints: Vec::new(),
            });
        } else {
            match steps.last_mut() {
                Some(Step::Command { prints, .. }) => prints.push((*line).to_owned()),
                _ => panic!("line {number}: a block of commands begins with one"),
            }
        }
    }
}

/// The first of the lines that `printed` does not have in this order.
pub fn missing<'a>(prints: &'a [String], printed: &str) -> Option<&'a str> {
    let mut lines = printed.lines();
    prints
        .iter()
        .filter(|wanted| *wanted != "…")
        .find(|wanted| !lines.any(|line| matches(wanted, line)))
        .map(String::as_str)
}

/// Whether a line is as the page has it. Spaces count as one: columns are as wide as they need be.
fn matches(wanted: &str, line: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (wanted, line) = (words(wanted), words(line));
    let mut parts = wanted.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first.trim_end()) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        open = part.is_empty();
        let part = part.trim();
        let Some(found) = rest.find(part) else {
            return false;
        };
        rest = &rest[found + part.len()..];
    }
    open || rest.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_the_page_has_it_but_for_what_it_leaves_open() {
        assert!(matches("state     succeeded", "state succeeded"));
        assert!(!matches("state     succeeded", "state failed"));
        assert!(matches("valid: …", "valid: 4 entries"));
        assert!(matches("…succeeded…", "run_1 shop succeeded 2026"));
        assert!(!matches("…failed…", "run_1 shop succeeded 2026"));
        assert!(!matches("0,52", "0,520"));
        assert!(!matches("…52", "0,520"));
    }

    #[test]
    fn lines_are_missed_where_they_are_not_in_order() {
        let lines = ["a", "…", "c"].map(str::to_owned);
        assert_eq!(missing(&lines, "a\nb\nc\n"), None);
        assert_eq!(missing(&lines, "c\na\n"), Some("c"));
    }

    #[test]
    fn a_page_is_files_and_commands() {
        let page = "<!-- file: a.txt -->\n```text\none\n```\n\n```console\n$ cat a.txt\none\n$ false   # exit status 1\n```\n";
        let command = |line, text: &str, status, prints: &[&str]| Step::Command {
            line,
            text: text.to_owned(),
            status,
            prints: prints.iter().map(|line| (*line).to_owned()).collect(),
        };
        let file = Step::File {
            name: "a.txt".to_owned(),
            content: "one\n".to_owned(),
        };
        assert_eq!(
            steps(page),
            [
                file,
                command(7, "cat a.txt", 0, &["one"]),
                command(9, "false", 1, &[])
            ]
        );
    }
}
