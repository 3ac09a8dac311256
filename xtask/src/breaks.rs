//! Tests of the tests: each guarantee is broken in a copy of the project, and its test must notice.

mod list;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use self::list::{BREAKS, Break};
use crate::{
    project::Project,
    steps::{Failure, Task},
};

/// Breaks what is named, or all, one after the other.
#[expect(clippy::print_stdout, reason = "the summary is the result")]
pub(crate) fn run(names: &[String]) -> Result<(), Failure> {
    let chosen = choose(names)?;
    let project = Project::find()?;
    let copy = Copy::make(&project)?;
    let mut unnoticed = Vec::new();
    for broken in &chosen {
        let original = copy.apply(broken)?;
        let passed = copy.passes(&project, broken);
        copy.write(broken.file, &original)?;
        let noticed = !passed?;
        println!(
            "{} {}: {}",
            if noticed { "noticed  " } else { "UNNOTICED" },
            broken.name,
            broken.guarantee
        );
        if !noticed {
            unnoticed.push(broken.name);
        }
    }
    if unnoticed.is_empty() {
        return Ok(());
    }
    let reason = format!("no test noticed: {}", unnoticed.join(", "));
    Err(Failure::new("break", reason))
}

fn choose(names: &[String]) -> Result<Vec<&'static Break>, Failure> {
    if let Some(unknown) = names
        .iter()
        .find(|name| BREAKS.iter().all(|known| known.name != **name))
    {
        let known: Vec<_> = BREAKS.iter().map(|known| known.name).collect();
        let reason = format!("there is no such break; there are {}", known.join(", "));
        return Err(Failure::new(unknown.as_str(), reason));
    }
    let wanted = |broken: &&Break| names.is_empty() || names.iter().any(|name| name == broken.name);
    Ok(BREAKS.iter().filter(wanted).collect())
}

/// A copy of the project that may be broken, with a target folder of its own, which is kept.
struct Copy {
    root: PathBuf,
}

impl Copy {
    fn make(project: &Project) -> Result<Self, Failure> {
        let root = project.target.join("broken");
        let failed = |error: io::Error| Failure::new("copy the project", error.to_string());
        let listed = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(&project.root)
            .output()
            .map_err(failed)?;
        if !listed.status.success() {
            let told = String::from_utf8_lossy(&listed.stderr).into_owned();
            return Err(Failure::new("copy the project", told));
        }
        for path in String::from_utf8_lossy(&listed.stdout).split_terminator('\0') {
            let from = project.root.join(path);
            if from.is_file() {
                let content = fs::read(&from).map_err(failed)?;
                write_changed(&root.join(path), &content).map_err(failed)?;
            }
        }
        Ok(Self { root })
    }

    /// Breaks it; answers with the file as it was.
    fn apply(&self, broken: &Break) -> Result<String, Failure> {
        let failed = |reason: String| Failure::new(broken.name, reason);
        let path = self.root.join(broken.file);
        let original = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        let found = original.matches(broken.from).count();
        if found != 1 {
            return Err(failed(format!(
                "`{}` stands {found} times in {}: adapt the break to the code",
                broken.from, broken.file
            )));
        }
        self.write(broken.file, &original.replace(broken.from, broken.to))?;
        Ok(original)
    }

    fn write(&self, file: &str, content: &str) -> Result<(), Failure> {
        write_changed(&self.root.join(file), content.as_bytes())
            .map_err(|error| Failure::new(file, error.to_string()))
    }

    /// Whether the tests pass. What cannot be built is an error: it shows nothing about them.
    fn passes(&self, project: &Project, broken: &Break) -> Result<bool, Failure> {
        let here = Project {
            root: self.root.clone(),
            target: project.target.clone(),
        };
        let text = |path: PathBuf| path.display().to_string();
        let task = |command: &str| {
            Task::new(command)
                .env("CARGO_TARGET_DIR", text(self.root.join("target")))
                .env(
                    "BARECOUNT_BIN",
                    text(self.root.join("target/debug/barecount")),
                )
                .env("BARECOUNT_TEST_PYTHON", text(project.test_python()))
                .minutes(60)
        };
        let log = format!("break-{}", broken.name);
        // No more than what these tests need: a break takes as long as what it has built anew.
        let targets = broken.tests.split(" -- ").next().unwrap_or_default();
        let bins = match broken.tests.starts_with("--test") {
            true => "--bins",
            false => "",
        };
        let build = format!("cargo build --workspace --locked {bins} {targets}");
        task(&build).run(&log, &here)?;
        let tests = format!("cargo test --workspace --locked {}", broken.tests);
        Ok(task(&tests).run(&log, &here).is_ok())
    }
}

/// Leaves what is the same already alone, lest it is built again.
fn write_changed(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::BREAKS;

    #[test]
    fn every_break_still_finds_the_line_that_it_breaks() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for broken in BREAKS {
            let code = std::fs::read_to_string(root.join(broken.file)).unwrap_or_default();
            let found = code.matches(broken.from).count();
            let (name, file) = (broken.name, broken.file);
            assert_eq!(found, 1, "`{name}`: adapt it to what {file} is now");
        }
    }
}
