//! The recipe `build.yaml`: what is built, and what goes where.
//!
//! ```yaml
//! kind: package                              # package, image or driver
//! cargo: { package: fx-ingest, bin: fx-ingest }
//! as: bootstrap                              # package: the executable's name, at the top
//! to: /app/normalize                         # image, driver: the executable's place
//! files: [{ from: LICENSE, to: LICENSE, executable: false }]
//! sources: [../data]                         # more that the build reads, for the source digest
//! user: "1000:1000"                          # image; also entrypoint, cmd, env, workdir, labels
//! name: sqlite                               # driver
//! version: "3.54.1"                          # driver
//! ```

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use barecount_model::codes;
use barecount_model::diagnostic::{self, Diagnostic};
use barecount_model::document::Document;
use barecount_model::lock::ArtifactKind;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{BuildError, RECIPE};
use crate::image::spec::RunConfig;
use crate::package::BOOTSTRAP;
use crate::{Digest, Limits};

/// How one source folder becomes an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// What is compiled, if anything.
    pub cargo: Option<Cargo>,
    /// What else goes into the artifact.
    pub files: Vec<ExtraFile>,
    /// Folders and files outside of the source folder that the build reads, relative to it.
    pub sources: Vec<String>,
    /// What it becomes.
    pub making: Making,
}

/// A program built by cargo.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cargo {
    /// The cargo package.
    pub package: String,
    /// Its binary; the package's name where absent.
    pub bin: Option<String>,
}

impl Cargo {
    /// The name of the binary.
    pub fn bin(&self) -> &str {
        self.bin.as_deref().unwrap_or(&self.package)
    }
}

/// A file or folder that is taken along as it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraFile {
    /// Where it is, relative to the source folder.
    pub from: String,
    /// Its place in the artifact.
    pub to: String,
    /// Whether it can be executed; a folder's files keep what they are.
    #[serde(default)]
    pub executable: bool,
}

/// The artifact that a recipe makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Making {
    /// A function package.
    Package {
        /// The executable's name at the top.
        executable: String,
    },
    /// An OCI image.
    Image {
        /// The place of the executable.
        to: Option<String>,
        /// How it wants to be run.
        config: Box<RunConfig>,
    },
    /// A driver bundle.
    Driver {
        /// The driver's name.
        name: String,
        /// Its version.
        version: String,
        /// The place of the entry point.
        to: String,
    },
}

impl Recipe {
    /// What it makes.
    pub fn kind(&self) -> ArtifactKind {
        match self.making {
            Making::Package { .. } => ArtifactKind::Package,
            Making::Image { .. } => ArtifactKind::Image,
            Making::Driver { .. } => ArtifactKind::Driver,
        }
    }

    /// The driver's name, else that of the source folder.
    pub(super) fn name(&self, source: &Path) -> String {
        match &self.making {
            Making::Driver { name, .. } => name.clone(),
            _ => source
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        }
    }

    /// The place of the executable in the artifact.
    pub(super) fn place(&self) -> String {
        match &self.making {
            Making::Package { executable } => executable.clone(),
            Making::Driver { to, .. } | Making::Image { to: Some(to), .. } => to.clone(),
            Making::Image { to: None, .. } => {
                format!("/app/{}", self.cargo.as_ref().map_or("run", Cargo::bin))
            }
        }
    }

    /// The image's configuration; the executable is the entry point unless another is named.
    pub(super) fn run_config(&self) -> RunConfig {
        let Making::Image { config, .. } = &self.making else {
            return RunConfig::default();
        };
        let mut config = RunConfig::clone(config);
        if config.entrypoint.is_empty() && self.cargo.is_some() {
            config.entrypoint = vec![format!("/{}", self.place().trim_start_matches('/'))];
        }
        config
    }
}

/// Keys of every recipe.
const COMMON: &[&str] = &["kind", "cargo", "files", "sources"];
/// Further keys, by kind.
const KINDS: &[(&str, &[&str])] = &[
    ("package", &["as"]),
    (
        "image",
        &[
            "to",
            "user",
            "env",
            "entrypoint",
            "cmd",
            "workdir",
            "labels",
        ],
    ),
    ("driver", &["to", "name", "version"]),
];

/// Reads the recipe of a source folder, and digests it.
pub(super) fn read(source: &Path, limits: &Limits) -> Result<(Recipe, Digest), BuildError> {
    let path = source.join(RECIPE);
    let mut bytes = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(limits.document_bytes).read_to_end(&mut bytes))
        .map_err(|source| BuildError::NoRecipe {
            path: path.clone(),
            source,
        })?;
    let recipe = parse(&path.display().to_string(), &bytes)
        .map_err(|problems| BuildError::Recipe { path, problems })?;
    Ok((recipe, Digest::of(&bytes)))
}

/// Parses a recipe; `file` is the name that problems give.
pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Recipe, Vec<Diagnostic>> {
    let document = Document::parse(file, bytes)?;
    let mut reader = Reader {
        document: &document,
        problems: Vec::new(),
    };
    let recipe = reader.recipe();
    match recipe {
        Some(recipe) if reader.problems.is_empty() => Ok(recipe),
        _ => {
            diagnostic::sort(&mut reader.problems);
            Err(reader.problems)
        }
    }
}

/// Takes a document apart, key by key, and notes every problem with its place.
struct Reader<'a> {
    document: &'a Document,
    problems: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn recipe(&mut self) -> Option<Recipe> {
        let Some(mapping) = self.document.value().as_object() else {
            self.problem(codes::WRONG_TYPE, "", "a recipe is a mapping");
            return None;
        };
        let kind: String = self.required("kind")?;
        let Some((_, keys)) = KINDS.iter().find(|(known, _)| *known == kind) else {
            let known = KINDS.iter().map(|(known, _)| *known);
            let help = diagnostic::suggestion(&kind, known)
                .map(|known| format!("did you mean `{known}`?"));
            self.problem(
                codes::UNKNOWN_VALUE,
                "kind",
                "a kind is package, image or driver",
            );
            self.help(help.unwrap_or_else(|| "kinds are package, image and driver".to_owned()));
            return None;
        };
        let known = || COMMON.iter().chain(*keys).copied();
        for key in mapping
            .keys()
            .filter(|key| !known().any(|known| known == *key))
        {
            let span = self.document.key_span(&pointer(key));
            let message = format!(
                "a recipe of the kind {kind} has no key {}",
                diagnostic::quoted(key)
            );
            let file = self.document.file();
            self.problems
                .push(Diagnostic::error(codes::UNKNOWN_KEY, file, span, message));
            if let Some(known) = diagnostic::suggestion(key, known()) {
                self.help(format!("did you mean `{known}`?"));
            }
        }
        let cargo: Option<Cargo> = self.optional("cargo");
        let files: Option<Vec<ExtraFile>> = self.optional("files");
        let sources = self.optional("sources").unwrap_or_default();
        if cargo.is_none() && files.is_none() && self.problems.is_empty() {
            self.problem(
                codes::MISSING_KEY,
                "",
                "a recipe has `cargo`, `files` or both",
            );
        }
        let making = self.making(&kind)?;
        Some(Recipe {
            cargo,
            files: files.unwrap_or_default(),
            sources,
            making,
        })
    }

    fn making(&mut self, kind: &str) -> Option<Making> {
        Some(match kind {
            "package" => Making::Package {
                executable: self.optional("as").unwrap_or_else(|| BOOTSTRAP.to_owned()),
            },
            "image" => Making::Image {
                to: self.optional("to"),
                config: Box::new(RunConfig {
                    user: self.optional("user").unwrap_or_default(),
                    env: self
                        .optional::<BTreeMap<String, String>>("env")
                        .unwrap_or_default()
                        .into_iter()
                        .map(|(name, value)| format!("{name}={value}"))
                        .collect(),
                    entrypoint: self.optional("entrypoint").unwrap_or_default(),
                    cmd: self.optional("cmd").unwrap_or_default(),
                    working_dir: self.optional("workdir").unwrap_or_default(),
                    labels: self.optional("labels").unwrap_or_default(),
                }),
            },
            _ => Making::Driver {
                name: self.required("name")?,
                version: self.required("version")?,
                to: self.required("to")?,
            },
        })
    }

    fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if self.document.value().get(key).is_none() {
            self.problem(
                codes::MISSING_KEY,
                "",
                &format!("the key `{key}` is missing"),
            );
            return None;
        }
        self.optional(key)
    }

    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.document.value().get(key)?;
        match serde_json::from_value(value.clone()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(
                    codes::INVALID_VALUE,
                    key,
                    &format!("`{key}` has an {error}"),
                );
                None
            }
        }
    }

    fn problem(&mut self, code: codes::Code, key: &str, message: &str) {
        let pointer = if key.is_empty() {
            String::new()
        } else {
            pointer(key)
        };
        let span = self.document.value_span(&pointer);
        self.problems
            .push(Diagnostic::error(code, self.document.file(), span, message));
    }

    /// Adds advice to the last problem.
    fn help(&mut self, help: String) {
        if let Some(problem) = self.problems.pop() {
            self.problems.push(problem.with_help(help));
        }
    }
}

fn pointer(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}
