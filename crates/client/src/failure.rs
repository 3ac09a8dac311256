//! The one kind of failure that people see: what happened, why, what to do; with a code and an
//! exit status from one table.

use std::{error::Error, fmt, io, path::Path};

use barecount_api::problem::{Problem, ProblemKind};
use barecount_model::untrusted::Report;

/// Exit statuses, as the command-line page lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The work failed.
    Failed = 1,
    /// Wrong usage or manifest.
    Usage = 2,
    /// Refused by policy, or an approval is missing.
    Refused = 3,
    /// Not found.
    NotFound = 4,
    /// A token or version is already used differently.
    Conflict = 5,
    /// The platform or a backend cannot be reached.
    Unavailable = 6,
    /// Evidence or a signature does not verify.
    Unverified = 7,
    /// A bug of ours.
    Bug = 70,
}

impl Status {
    /// Which kind of problem ends a process so.
    fn kind(self) -> ProblemKind {
        match self {
            Self::Failed => ProblemKind::Failed,
            Self::Usage => ProblemKind::Usage,
            Self::Refused => ProblemKind::Refused,
            Self::NotFound => ProblemKind::NotFound,
            Self::Conflict => ProblemKind::Conflict,
            Self::Unavailable => ProblemKind::Unavailable,
            Self::Unverified => ProblemKind::Unverified,
            Self::Bug => ProblemKind::Bug,
        }
    }
}

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    status: Status,
    code: Option<&'static str>,
    what: Report,
    causes: Vec<Report>,
    help: Option<Report>,
    reported: bool,
}

impl Failure {
    /// A failure that says what happened.
    pub fn new(status: Status, what: impl Into<String>) -> Self {
        Self {
            status,
            code: None,
            what: what.into().into(),
            causes: Vec::new(),
            help: None,
            reported: false,
        }
    }

    /// A failure whose report is printed already: only the exit status is left.
    pub fn reported(status: Status) -> Self {
        Self {
            reported: true,
            ..Self::new(status, "")
        }
    }

    /// A failure that an error caused; the error's own words are what happened.
    pub fn from_error(status: Status, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(status, error.to_string()).because(error);
        failure.causes = causes(error.source());
        failure
    }

    /// Adds why, from an error and its causes. Where a disk is at fault, nothing that was asked for
    /// is: then the platform is what cannot be reached, whatever was tried.
    pub fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        self.causes = causes(Some(error));
        if let Some(remedy) = remedy_of_disk(error) {
            self.status = Status::Unavailable;
            self.help.get_or_insert_with(|| remedy.into());
        }
        self
    }

    /// Adds why nothing can be done with a file or folder, and what helps where its name is at
    /// fault.
    pub fn at(self, path: &Path, error: &io::Error) -> Self {
        let remedy = remedy_of_name(path, error);
        let mut failure = self.because(error);
        if let Some(remedy) = remedy {
            failure.help.get_or_insert_with(|| remedy.into());
        }
        failure
    }

    /// Adds the code, which has a page.
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Adds what to do, as a whole sentence.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into().into());
        self
    }

    /// Adds what to do where nothing better is known yet.
    pub fn or_help(mut self, help: &str) -> Self {
        self.help.get_or_insert_with(|| help.into());
        self
    }

    /// The same as it passes between parts of the platform. Where it lies in a document, diagnostics
    /// say it that were told before.
    pub fn problem(&self) -> Problem {
        Problem {
            kind: self.status.kind(),
            code: self.code.map(str::to_owned),
            detail: self.what.clone(),
            causes: self.causes.clone(),
            remedy: self.help.clone(),
        }
    }

    /// The process's exit status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether there is anything left to print.
    pub fn is_reported(&self) -> bool {
        self.reported
    }
}

/// Whether a disk has no room for what was to be written.
pub(crate) fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::StorageFull) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What helps where a disk has no room, or takes nothing.
fn remedy_of_disk(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref().map(io::Error::kind);
        match kind {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                return Some(
                    "Make room on the disk, or choose another with `--state`; then run it again.",
                );
            }
            Some(io::ErrorKind::FileTooLarge) => {
                return Some(
                    "This process may not write files of such a size: raise `ulimit -f`, or \
                     `LimitFSIZE=` of its service.",
                );
            }
            Some(io::ErrorKind::ReadOnlyFilesystem) => {
                return Some("Name a folder that can be written with `--state`.");
            }
            _ => cause = error.source(),
        }
    }
    None
}

/// What helps where a name leads to nothing, to something else, or is none.
fn remedy_of_name(path: &Path, error: &io::Error) -> Option<String> {
    let is_there = path.symlink_metadata().is_ok();
    let link = path.read_link().ok().filter(|_| !path.exists());
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    match (error.kind(), link) {
        (io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists, Some(target)) => Some(format!(
            "{} is a link to {}, which is not there.",
            path.display(),
            target.display()
        )),
        (io::ErrorKind::AlreadyExists, None) if is_there => {
            Some("Nothing is replaced: remove it, or name another.".to_owned())
        }
        (io::ErrorKind::NotFound, None) => match parent.filter(|parent| !parent.exists()) {
            Some(parent) => Some(format!("There is no folder {}.", parent.display())),
            None => {
                Some("Look for a slip in the name, and from which folder it is named.".to_owned())
            }
        },
        (io::ErrorKind::InvalidFilename, _) => Some(
            "Name a shorter one: Linux takes 255 bytes between two slashes, and 4,095 in all."
                .to_owned(),
        ),
        _ => None,
    }
}

/// An error and its causes in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = causes(Some(error));
    causes
        .iter()
        .map(Report::raw)
        .collect::<Vec<_>>()
        .join(": ")
}

fn causes(mut error: Option<&(dyn Error + 'static)>) -> Vec<Report> {
    let mut causes: Vec<Report> = Vec::new();
    while let Some(cause) = error {
        let text = Report::from(cause.to_string());
        // A transparent wrapper says the same twice.
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        error = cause.source();
    }
    causes
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => writeln!(f, "error[{code}]: {}", self.what.lines())?,
            None => writeln!(f, "error: {}", self.what.lines())?,
        }
        for cause in &self.causes {
            writeln!(f, "  because {}", cause.lines())?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "  help: {}", help.lines())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_passes_on_all_that_a_person_is_told() -> Result<(), serde_json::Error> {
        let cause = io::Error::new(io::ErrorKind::NotFound, "it is not there");
        let failure = Failure::new(Status::NotFound, "there is no run `x`")
            .because(&cause)
            .with_code("BC0802")
            .with_help("`barecount runs ls` lists the runs.");
        let problem = failure.problem();
        let read: Problem = serde_json::from_str(&serde_json::to_string(&problem)?)?;
        assert_eq!(read, problem);
        let shown = failure.to_string();
        let told = std::iter::once(&problem.detail).chain(&problem.remedy);
        for text in told.chain(&problem.causes) {
            assert!(shown.contains(text.raw()), "{text}");
        }
        assert!(shown.contains("BC0802"), "{shown}");
        assert_eq!(problem.kind, ProblemKind::NotFound);
        Ok(())
    }
}
