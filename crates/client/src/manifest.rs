//! Reading a manifest from disk, and telling what is wrong with it.

use std::{io::Read, os::unix::fs::OpenOptionsExt, path::Path};

use barecount_model::{
    diagnostic::{self, Diagnostic, Severity},
    pipeline::{self, Loaded},
};
use rustix::fs::OFlags;

use crate::{
    failure::{Failure, Status},
    reporter::Reporter,
};

/// No manifest needs to be larger; more is not even read.
const MAX_BYTES: u64 = 1 << 20;

/// A manifest file, and what became of it.
pub struct ReadManifest {
    /// The file's text, as far as it is text.
    pub source: String,
    /// The pipeline, or every problem that keeps it from being one.
    pub result: Result<Loaded, Vec<Diagnostic>>,
}

impl ReadManifest {
    /// All diagnostics, errors and warnings.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match &self.result {
            Ok(loaded) => &loaded.warnings,
            Err(diagnostics) => diagnostics,
        }
    }

    /// The diagnostics for a person; empty if there are none.
    pub fn rendered(&self) -> String {
        diagnostic::render(self.diagnostics(), &self.source)
    }
}

/// Reads a manifest.
///
/// # Errors
/// Only if the file cannot be read; what is wrong inside it is in the result.
pub fn read(path: &Path) -> Result<ReadManifest, Failure> {
    let failed = |error: std::io::Error| {
        let status = match error.kind() {
            std::io::ErrorKind::NotFound => Status::NotFound,
            _ => Status::Usage,
        };
        Failure::new(
            status,
            format!("the manifest {} cannot be read", path.display()),
        )
        .at(path, &error)
    };
    let bytes = read_bounded(path, MAX_BYTES).map_err(failed)?;
    let result = pipeline::load(&path.display().to_string(), &bytes);
    Ok(ReadManifest {
        source: String::from_utf8_lossy(&bytes).into_owned(),
        result,
    })
}

/// The first bytes of a file, one more than `limit` at most, so that whoever parses them sees that
/// there are too many. A pipe or a device is refused, for it may never end.
pub fn read_bounded(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file to be read, which is no pipe and no device.
pub(crate) fn open_regular(path: &Path) -> std::io::Result<std::fs::File> {
    // Opening a pipe would wait for whoever writes to it.
    let no_wait = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(no_wait.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    Ok(file)
}

/// The folder of a manifest, as an absolute path.
pub fn folder(path: &Path) -> Result<std::path::PathBuf, Failure> {
    let file = path.canonicalize().map_err(|error| {
        Failure::new(
            Status::NotFound,
            format!("the manifest {} cannot be read", path.display()),
        )
        .at(path, &error)
    })?;
    Ok(file.parent().unwrap_or(Path::new("/")).to_owned())
}

/// A valid manifest; warnings are told, problems end the verb.
pub fn load(path: &Path, reporter: &dyn Reporter) -> Result<Loaded, Failure> {
    let read = read(path)?;
    let rendered = read.rendered();
    match read.result {
        Ok(loaded) => {
            if !rendered.is_empty() {
                reporter.note(&rendered);
            }
            Ok(loaded)
        }
        Err(diagnostics) => {
            reporter.warn(&rendered);
            let errors = diagnostics
                .iter()
                .filter(|found| found.severity == Severity::Error)
                .count();
            let noun = if errors == 1 { "problem" } else { "problems" };
            Err(Failure::new(
                Status::Usage,
                format!("the manifest {} has {errors} {noun}", path.display()),
            ))
        }
    }
}
