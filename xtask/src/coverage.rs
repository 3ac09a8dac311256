//! How much of the control plane and of the agent is gone through by their own tests and by the
//! simulation.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    project::Project,
    setup,
    steps::{Failure, Task},
};

const CARGO_LLVM_COV_VERSION: &str = "0.9.1";
/// What is measured, and what of its lines has to be gone through, in hundredths.
const MEASURED: [(&str, f64); 2] = [("agent", 85.0), ("control", 85.0)];
/// Files that are listed for each: those of which the most lines are not gone through.
const LISTED: usize = 8;

/// What cargo-llvm-cov writes.
#[derive(Deserialize)]
struct Report {
    data: Vec<Export>,
}

#[derive(Deserialize)]
struct Export {
    files: Vec<FileReport>,
}

#[derive(Deserialize)]
struct FileReport {
    filename: PathBuf,
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    lines: Lines,
}

/// Lines with code in them.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Lines {
    count: u64,
    covered: u64,
}

impl Lines {
    fn missed(self) -> u64 {
        self.count.saturating_sub(self.covered)
    }

    fn percent(self) -> f64 {
        match self.count {
            0 => 0.0,
            count => 100.0 * self.covered as f64 / count as f64,
        }
    }
}

/// Measures, prints, and fails where less is gone through than has to be. Compiles cargo-llvm-cov
/// first, where it is not there yet.
pub(crate) fn run(project: &Project) -> Result<(), Failure> {
    let tools = project.target.join("tools");
    let install =
        format!("cargo install cargo-llvm-cov --version {CARGO_LLVM_COV_VERSION} --locked --root");
    Task::new(&install)
        .argument(tools.display().to_string())
        .minutes(30)
        .run("coverage-install", project)?;
    let (profdata, cov) = setup::for_coverage(project)?;
    let report = project.target.join("coverage.json");
    let program = tools.join("bin/cargo-llvm-cov");
    let command = format!(
        "{} llvm-cov --locked -p barecount-agent -p barecount-control -p barecount-sim --json \
         --summary-only --output-path {}",
        program.display(),
        report.display()
    );
    Task::new(&command)
        .env("LLVM_PROFDATA", profdata)
        .env("LLVM_COV", cov)
        .minutes(60)
        .run("coverage", project)?;
    let failed = |reason: String| Failure::new("coverage", reason);
    let text = fs::read(&report).map_err(|error| failed(error.to_string()))?;
    let report: Report =
        serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    let files = report.data.into_iter().flat_map(|export| export.files);
    judge(&by_crate(files, &project.root))
}

/// The lines of each measured crate's files, but for tests.
fn by_crate(
    files: impl Iterator<Item = FileReport>,
    root: &Path,
) -> BTreeMap<&'static str, Vec<(PathBuf, Lines)>> {
    let mut found: BTreeMap<_, Vec<_>> = MEASURED.map(|(name, _)| (name, Vec::new())).into();
    for file in files {
        let Ok(path) = file.filename.strip_prefix(root.join("crates")) else {
            continue;
        };
        let mut parts = path.iter().map(|part| part.to_string_lossy());
        let (name, within) = (parts.next(), parts.next());
        let is_test = parts.any(|part| part == "tests" || part == "tests.rs");
        if let Some(files) = name.and_then(|name| found.get_mut(&*name))
            && within.is_some_and(|within| within == "src")
            && !is_test
        {
            files.push((path.to_owned(), file.summary.lines));
        }
    }
    found
}

#[expect(clippy::print_stdout, reason = "the figures are the result")]
fn judge(crates: &BTreeMap<&'static str, Vec<(PathBuf, Lines)>>) -> Result<(), Failure> {
    let mut missed = Vec::new();
    for (name, least) in MEASURED {
        let mut files = crates.get(name).cloned().unwrap_or_default();
        let all = files
            .iter()
            .fold(Lines::default(), |all, (_, lines)| Lines {
                count: all.count + lines.count,
                covered: all.covered + lines.covered,
            });
        let percent = all.percent();
        println!(
            "{name}: {} of {} lines, {percent:.1} %, at least {least:.0} % wanted",
            all.covered, all.count
        );
        files.sort_by_key(|(_, lines)| std::cmp::Reverse(lines.missed()));
        for (path, lines) in files.iter().take(LISTED) {
            println!(
                "  {:>4} lines are not gone through in {}, {:.0} % are",
                lines.missed(),
                path.display(),
                lines.percent()
            );
        }
        if percent < least {
            missed.push(format!("{name} {percent:.1} %"));
        }
    }
    match missed.is_empty() {
        true => Ok(()),
        false => Err(Failure::new("coverage", missed.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, count: u64, covered: u64) -> FileReport {
        FileReport {
            filename: path.into(),
            summary: Summary {
                lines: Lines { count, covered },
            },
        }
    }

    #[test]
    fn what_counts_is_the_code_of_both_crates_and_not_their_tests() {
        let files = [
            file("/p/crates/agent/src/link.rs", 100, 90),
            file("/p/crates/agent/src/access/tests.rs", 900, 900),
            file("/p/crates/agent/tests/all.rs", 900, 900),
            file("/p/crates/control/src/shard.rs", 100, 80),
            file("/p/crates/model/src/run.rs", 100, 0),
        ];
        let found = by_crate(files.into_iter(), Path::new("/p"));
        let counts: Vec<_> = found
            .values()
            .map(|files| files.iter().map(|(_, lines)| lines.count).sum::<u64>())
            .collect();
        assert_eq!(counts, [100, 100]);
        let failed = judge(&found).expect_err("one has too few");
        assert!(failed.to_string().contains("control 80.0 %"), "{failed}");
        assert!(!failed.to_string().contains("agent"), "{failed}");
    }
}
