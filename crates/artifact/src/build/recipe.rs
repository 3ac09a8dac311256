//! The recipe of a source folder, and what follows from it for the artifact.

use std::io::Read;
use std::path::Path;

use super::{BuildError, Cargo, FILE_NAME, Making, Recipe, python};
use crate::image::spec::RunConfig;
use crate::{Digest, Limits};

/// Reads the recipe of a source folder, and digests it.
pub(super) fn read(source: &Path, limits: &Limits) -> Result<(Recipe, Digest), BuildError> {
    let path = source.join(FILE_NAME);
    let mut bytes = Vec::new();
    barecount_tree::open_regular(&path)
        .and_then(|file| file.take(limits.document_bytes).read_to_end(&mut bytes))
        .map_err(|source| BuildError::NoRecipe {
            path: path.clone(),
            source,
        })?;
    let recipe = Recipe::parse(&path.display().to_string(), &bytes)
        .map_err(|problems| BuildError::Recipe { path, problems })?;
    Ok((recipe, Digest::of(&bytes)))
}

/// The driver's name, else that of the source folder.
pub(super) fn name(recipe: &Recipe, source: &Path) -> String {
    match &recipe.making {
        Making::Driver { name, .. } => name.clone(),
        _ => source
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    }
}

/// The place of the program in the artifact.
pub(super) fn place(recipe: &Recipe) -> String {
    match &recipe.making {
        Making::Package { executable } => executable.clone(),
        Making::Driver { to, .. } => to.clone(),
        Making::Image(image) => image
            .to
            .clone()
            .unwrap_or_else(|| format!("/app/{}", recipe.cargo.as_ref().map_or("run", Cargo::bin))),
    }
}

/// The image's configuration; the built program or the script is the entry point unless another is
/// named, and finds its interpreter's variables unless they are set.
pub(super) fn run_config(recipe: &Recipe) -> RunConfig {
    let Making::Image(image) = &recipe.making else {
        return RunConfig::default();
    };
    let entrypoint = match (&recipe.cargo, &recipe.python) {
        _ if !image.entrypoint.is_empty() => image.entrypoint.clone(),
        (Some(_), _) => vec![format!("/{}", place(recipe).trim_start_matches('/'))],
        (None, Some(python)) => python::entrypoint(python),
        (None, None) => Vec::new(),
    };
    let mut env = image.env.clone();
    if recipe.python.is_some() {
        for (name, value) in python::VARIABLES {
            env.entry((*name).to_owned())
                .or_insert_with(|| (*value).to_owned());
        }
    }
    let variable = |(name, value): (&String, &String)| format!("{name}={value}");
    RunConfig {
        user: image.user.clone(),
        env: env.iter().map(variable).collect(),
        entrypoint,
        cmd: image.cmd.clone(),
        working_dir: image.workdir.clone(),
        labels: image.labels.clone(),
    }
}
