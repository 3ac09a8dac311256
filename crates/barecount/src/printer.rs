//! Output: data on standard output, everything else on standard error. Only this file prints.

use std::io::{self, IsTerminal, LineWriter, Write};

use barecount_client::{
    failure::{Failure, Status},
    reporter::Reporter,
};
use barecount_model::untrusted::{self, Untrusted};
use serde_json::{Value, json};

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// Versioned JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

/// When colour is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Prints for one invocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    format: Format,
    quiet: bool,
    verbose: bool,
    color: bool,
    live: bool,
}

impl Printer {
    pub(crate) fn new(format: Format, quiet: bool, verbose: bool, color: ColorChoice) -> Self {
        let color = match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => io::stderr().is_terminal(),
        };
        Self {
            format,
            quiet,
            verbose,
            color,
            live: !quiet && io::stderr().is_terminal(),
        }
    }

    /// Prints data: as JSON or YAML if asked for, else as the text for people.
    pub(crate) fn data(&self, value: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let rendered = match self.format {
            Format::Table => untrusted::text(&text()).into_owned(),
            Format::Json => untrusted::json(&format!("{value:#}\n")).into_owned(),
            Format::Yaml => yaml(value)?,
        };
        write_all(&mut io::stdout().lock(), &rendered)
    }

    /// Prints data whose text for people is printed as it is: a terminal obeys what is in it. JSON
    /// and YAML are what they always are.
    pub(crate) fn raw(&self, value: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => write_all(&mut io::stdout().lock(), &text()),
            Format::Json | Format::Yaml => self.data(value, text),
        }
    }

    /// Prints a document of one form, whatever was asked for.
    pub(crate) fn document(&self, text: &str) -> Result<(), Failure> {
        write_all(&mut io::stdout().lock(), text)
    }

    /// Prints one of many values on a line of its own, as JSON whatever was asked for.
    pub(crate) fn line(&self, value: &Value) -> Result<(), Failure> {
        let text = format!("{value}\n");
        let rendered = untrusted::json(&text);
        write_all(&mut io::stdout().lock(), &rendered)
    }

    /// Prints a list: `{"schema": …, "items": […]}`, or a table of `columns`.
    pub(crate) fn list(
        &self,
        schema: &str,
        items: &[Value],
        table: impl FnOnce() -> Table,
    ) -> Result<(), Failure> {
        let value = json!({ "schema": format!("barecount/{schema}/v1"), "items": items });
        self.data(&value, || table().render())
    }

    /// Tells a person something; nothing that a program would want.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            eprint_line(&untrusted::text(line));
        }
    }

    /// Whether there is a terminal on which lines can be drawn again.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Draws lines in place of the last `before` ones, which were drawn like this. Whoever wrote
    /// them, they stay where they are: no line wraps, and none moves the cursor.
    pub(crate) fn draw(&self, before: usize, lines: &[String]) {
        if !self.live || (before == 0 && lines.is_empty()) {
            return;
        }
        let mut text = String::new();
        if before > 0 {
            text.push_str(&format!("\x1b[{before}A\x1b[J"));
        }
        text.push_str("\x1b[?7l");
        for line in lines {
            text.push_str(&untrusted::text(line));
            text.push('\n');
        }
        text.push_str("\x1b[?7h");
        // Standard error may be closed; then there is nobody to tell.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// Tells a person who asked for details (`--verbose`) something.
    pub(crate) fn detail(&self, line: &str) {
        if self.verbose && !self.quiet {
            eprint_line(&untrusted::text(line));
        }
    }

    /// Tells a person something that `--quiet` does not hide.
    pub(crate) fn warn(&self, text: &str) {
        eprint_line(&untrusted::text(text.trim_end()));
    }

    /// Prints the failure that ends the program.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.is_reported() {
            return;
        }
        let text = failure.to_string();
        let text = match (self.color, text.split_once(':')) {
            (true, Some((head, rest))) => format!("\x1b[1;31m{head}\x1b[0m:{rest}"),
            _ => text,
        };
        eprint_line(text.trim_end());
    }
}

impl Reporter for Printer {
    fn note(&self, line: &str) {
        Self::note(self, line);
    }

    fn detail(&self, line: &str) {
        Self::detail(self, line);
    }

    fn warn(&self, text: &str) {
        Self::warn(self, text);
    }
}

/// Standard output for data of somebody else: byte for byte, unless a terminal would obey it.
pub(crate) fn stream() -> Box<dyn Write + Send> {
    let stdout = io::stdout();
    match stdout.is_terminal() {
        true => Box::new(LineWriter::new(Screen(stdout))),
        false => Box::new(stdout),
    }
}

/// Shows what is written to it as text of lines.
struct Screen<W>(W);

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(untrusted::text(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Asks a person something, who answers on the same line.
pub(crate) fn ask(question: &str) {
    let question = untrusted::text(question);
    let mut stderr = io::stderr().lock();
    // Without a standard error there is nobody to ask; then the answer is no.
    let _ = stderr
        .write_all(question.as_bytes())
        .and_then(|()| stderr.flush());
}

fn eprint_line(line: &str) {
    // Standard error may be closed; then there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes data out; a reader that has gone away is no failure of ours.
fn write_all(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Status::Failed,
            "standard output cannot be written",
        )
        .with_help("What was done is done; print it again where there is room for it.")
        .because(&error)),
        _ => Ok(()),
    }
}

/// Data as YAML 1.2, which has every JSON document: what a terminal would obey needs its escapes.
fn yaml(value: &Value) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value).map_err(|error| {
        Failure::new(Status::Bug, "the data cannot be written as YAML").because(&error)
    })?;
    let json = untrusted::json(&text);
    match *json == *text {
        true => Ok(text),
        false => Ok(untrusted::json(&format!("{value:#}\n")).into_owned()),
    }
}

/// A cell of a table. One that is longer is read in JSON: a line of it fills a screen.
type Cell = Untrusted<320>;

/// Rows under headings, aligned.
#[derive(Debug, Default)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    empty: &'static str,
}

impl Table {
    /// A table with these headings; `empty` is said where there are no rows.
    pub(crate) fn new(headings: &[&'static str], empty: &'static str) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
            empty,
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| Cell::from(cell.into()).to_string())
                .collect(),
        );
    }

    /// The table without a column.
    pub(crate) fn without(mut self, heading: &str) -> Self {
        if let Some(column) = self.headings.iter().position(|found| *found == heading) {
            self.headings.remove(column);
            for row in &mut self.rows {
                row.remove(column);
            }
        }
        self
    }

    /// The table as text.
    pub(crate) fn render(&self) -> String {
        if self.rows.is_empty() {
            return format!("{}\n", self.empty);
        }
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widest.max(self.headings[column].chars().count())
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let headings = self
            .headings
            .iter()
            .map(|heading| heading.to_uppercase())
            .collect();
        std::iter::once(&headings)
            .chain(&self.rows)
            .map(|row: &Vec<String>| {
                let cells: Vec<String> = row
                    .iter()
                    .zip(&widths)
                    .map(|(cell, &width)| format!("{cell:<width$}"))
                    .collect();
                format!("{}\n", cells.join("  ").trim_end())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_does_not_obey_what_is_exported_to_it() -> io::Result<()> {
        let mut shown = Vec::new();
        let mut screen = LineWriter::new(Screen(&mut shown));
        for piece in ["id,text\n1,a\x1b[2J\u{c3}", "\u{202e}\n"] {
            screen.write_all(piece.as_bytes())?;
        }
        screen.flush()?;
        drop(screen);
        let shown = String::from_utf8_lossy(&shown);
        assert_eq!(shown, "id,text\n1,a\\u{1b}[2JÃ\\u{202e}\n");
        Ok(())
    }

    #[test]
    fn a_cell_of_megabytes_is_cut_and_its_table_is_printed() {
        let mut table = Table::new(&["name", "what"], "nothing");
        table.row(["x".repeat(5 << 20), "\u{1b}\n".to_owned()]);
        let text = table.render();
        assert!(text.len() < 2_000, "{} bytes", text.len());
        assert!(
            text.contains("more bytes)") && text.contains("\\u{1b}\\n"),
            "{text}"
        );
    }
}
