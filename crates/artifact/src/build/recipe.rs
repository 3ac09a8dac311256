//! The recipe of a source folder, and what follows from it for the artifact.

use std::io::Read;
use std::path::Path;

use super::{BuildError, Cargo, FILE_NAME, Making, Recipe};
use crate::image::spec::RunConfig;
use crate::{Digest, Limits};

/// Reads the recipe of a source folder, and digests it.
pub(super) fn read(source: &Path, limits: &Limits) -> Result<(Recipe, Digest), BuildError> {
    let path = source.join(FILE_NAME);
    let mut bytes = Vec::new();
    std::fs::File::open(&path)
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

/// The image's configuration; the built program is the entry point unless another is named.
pub(super) fn run_config(recipe: &Recipe) -> RunConfig {
    let Making::Image(image) = &recipe.making else {
        return RunConfig::default();
    };
    let entrypoint = match image.entrypoint.is_empty() && recipe.cargo.is_some() {
        true => vec![format!("/{}", place(recipe).trim_start_matches('/'))],
        false => image.entrypoint.clone(),
    };
    let variable = |(name, value): (&String, &String)| format!("{name}={value}");
    RunConfig {
        user: image.user.clone(),
        env: image.env.iter().map(variable).collect(),
        entrypoint,
        cmd: image.cmd.clone(),
        working_dir: image.workdir.clone(),
        labels: image.labels.clone(),
    }
}
