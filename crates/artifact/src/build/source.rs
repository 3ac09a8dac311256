//! The digest of all that a build reads: the source folder, the local packages it depends on, and
//! the files of the workspace that decide what is compiled.

use std::path::Path;

use super::cargo::Workspace;
use super::{BuildError, Recipe, Request, bad_place, source_error};
use crate::Digest;
use crate::entry::EntryPath;
use crate::walk::{self, Content, Contents};

/// Files at the top of a workspace that decide what is compiled, where they are there.
const WORKSPACE_FILES: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain",
    "rust-toolchain.toml",
    ".cargo/config.toml",
];

pub(super) fn digest(
    request: &Request,
    recipe: &Recipe,
    workspace: Option<&Workspace>,
) -> Result<Digest, BuildError> {
    let mut contents = Contents::new();
    let mut add = |prefix: &str, folder: &Path| add(&mut contents, request, prefix, folder);
    add("source", &request.source)?;
    for (number, extra) in recipe.sources.iter().enumerate() {
        add(&format!("sources/{number}"), &request.source.join(extra))?;
    }
    if let (Some(workspace), Some(cargo)) = (workspace, &recipe.cargo) {
        for (name, folder) in workspace.local_packages(&cargo.package) {
            add(&format!("packages/{name}"), folder)?;
        }
        for file in WORKSPACE_FILES {
            let path = workspace.root.join(file);
            if path.exists() {
                add(&format!("workspace/{file}"), &path)?;
            }
        }
    }
    walk::digest(&contents).map_err(|error| source_error(request, error))
}

fn add(
    contents: &mut Contents,
    request: &Request,
    prefix: &str,
    path: &Path,
) -> Result<(), BuildError> {
    let place = |text: &str| {
        EntryPath::parse(text.as_bytes(), &request.limits)
            .map_err(|fault| bad_place(request, text, fault))
    };
    if path.is_file() {
        contents.insert(
            place(prefix)?,
            Content::File {
                from: path.to_owned(),
                executable: false,
            },
        );
        return Ok(());
    }
    let found = walk::walk(path, &request.limits, &skipped)
        .map_err(|error| source_error(request, error))?;
    for (path, content) in found {
        contents.insert(place(&format!("{prefix}/{path}"))?, content);
    }
    Ok(())
}

/// What builds and runs leave behind is no source.
fn skipped(path: &EntryPath) -> bool {
    path.as_str() == "target"
        || path
            .split()
            .is_some_and(|(_, name)| matches!(name, ".git" | ".barecount"))
}
