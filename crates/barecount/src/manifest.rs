//! Reading a manifest from disk, and telling what is wrong with it.

use std::{io::Read, path::Path};

use barecount_model::{
    diagnostic::{self, Diagnostic},
    pipeline::{self, Loaded},
};

use crate::failure::{Failure, Status};

/// No manifest needs to be larger; more is not even read.
const MAX_BYTES: u64 = 1 << 20;

/// A manifest file, and what became of it.
pub(crate) struct ReadManifest {
    /// The file's text, as far as it is text.
    pub(crate) source: String,
    /// The pipeline, or every problem that keeps it from being one.
    pub(crate) result: Result<Loaded, Vec<Diagnostic>>,
}

impl ReadManifest {
    /// All diagnostics, errors and warnings.
    pub(crate) fn diagnostics(&self) -> &[Diagnostic] {
        match &self.result {
            Ok(loaded) => &loaded.warnings,
            Err(diagnostics) => diagnostics,
        }
    }

    /// The diagnostics for a person; empty if there are none.
    pub(crate) fn rendered(&self) -> String {
        diagnostic::render(self.diagnostics(), &self.source)
    }
}

/// Reads a manifest.
///
/// # Errors
/// Only if the file cannot be read; what is wrong inside it is in the result.
pub(crate) fn read(path: &Path) -> Result<ReadManifest, Failure> {
    let failed = |error: std::io::Error| {
        let status = match error.kind() {
            std::io::ErrorKind::NotFound => Status::NotFound,
            _ => Status::Usage,
        };
        Failure::new(
            status,
            format!("the manifest {} cannot be read", path.display()),
        )
        .because(&error)
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let result = pipeline::load(&path.display().to_string(), &bytes);
    Ok(ReadManifest {
        source: String::from_utf8_lossy(&bytes).into_owned(),
        result,
    })
}
