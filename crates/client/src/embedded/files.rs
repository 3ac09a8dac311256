//! Files beside the manifest: named by digest when a run is submitted, checked when it reads them.

use std::{fs::OpenOptions, io, path::Path};

use barecount_agent::DataError;
use barecount_artifact::digest;
use barecount_tree::open_regular;

/// A file's digest, `sha256:…`, and its size in bytes.
pub(crate) fn describe(path: &Path) -> io::Result<(String, u64)> {
    let (digest, bytes) = digest::of_reader(open_regular(path)?)?;
    Ok((digest.to_string(), bytes))
}

/// Copies a file into a new folder, and makes sure that it is the one that the run was submitted
/// with.
pub(super) fn provide(from: &Path, folder: &Path, expected: &str) -> Result<(), DataError> {
    let failed = |error: io::Error| {
        DataError::Data {
            code: "BC0702",
            message: format!("the input file {} cannot be read: {error}", from.display()),
        }
        .unless_of_host(&error)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let name = from.file_name().unwrap_or(from.as_os_str());
    let to = folder.join(name);
    let mut source = open_regular(from).map_err(failed)?;
    let mut copy = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&to)
        .map_err(failed)?;
    io::copy(&mut source, &mut copy).map_err(failed)?;
    let (found, _) = describe(&to).map_err(failed)?;
    if found == expected {
        return Ok(());
    }
    Err(DataError::Data {
        code: "BC0702",
        message: format!(
            "the input file {} has changed since the run was submitted: it was {expected}, and is \
             {found}; submit it again for the new content",
            from.display()
        ),
    })
}
