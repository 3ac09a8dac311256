//! Build recipes, `build.yaml`: how a source folder becomes an artifact.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::diagnostic::{self, Diagnostic, quoted, suggestion};
use crate::document::{Document, token};
use crate::lock::ArtifactKind;
use crate::schema;

/// The name of a recipe in its source folder.
pub const FILE_NAME: &str = "build.yaml";
/// A function package's executable, where the recipe names no other.
pub const BOOTSTRAP: &str = "bootstrap";

/// A recipe as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecipeFile {
    /// What it becomes: a function package, an OCI image or a driver bundle.
    kind: Kind,
    /// A program that cargo builds, linked statically. A recipe has `cargo`, `python` or `files`.
    cargo: Option<Cargo>,
    /// Of an image: a Python script, which comes with the interpreter of the host that builds.
    python: Option<Python>,
    /// Files and folders that are taken along as they are.
    #[serde(default)]
    files: Vec<ExtraFile>,
    /// Folders and files outside of the source folder that the build reads, relative to it: a
    /// change of theirs is a change of the source.
    #[serde(default)]
    sources: Vec<String>,
    /// Of a package: the name of the program at its top; `bootstrap` where absent.
    #[serde(rename = "as")]
    executable: Option<String>,
    /// Of an image or a driver: the place of the program. An image's is `/app/` and the name of
    /// the binary where absent.
    to: Option<String>,
    /// Of an image: who the program runs as, `uid:gid` or names of the image's own.
    user: Option<String>,
    /// Of an image: variables that the program finds.
    env: Option<BTreeMap<String, String>>,
    /// Of an image: the program and the arguments that it always gets; the built program where
    /// absent.
    entrypoint: Option<Vec<String>>,
    /// Of an image: further arguments, which a stage may replace.
    cmd: Option<Vec<String>>,
    /// Of an image: the folder that the program starts in.
    workdir: Option<String>,
    /// Of an image: free labels.
    labels: Option<BTreeMap<String, String>>,
    /// Of a driver: its name, as manifests say it.
    name: Option<String>,
    /// Of a driver: its version.
    version: Option<String>,
}

/// What a recipe makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// A function package.
    Package,
    /// An OCI image.
    Image,
    /// A driver bundle.
    Driver,
}

/// How one source folder becomes an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// What is compiled, if anything.
    pub cargo: Option<Cargo>,
    /// The script that it runs, if it is one of Python.
    pub python: Option<Python>,
    /// What else goes into the artifact.
    pub files: Vec<ExtraFile>,
    /// Folders and files outside of the source folder that the build reads, relative to it.
    pub sources: Vec<String>,
    /// What it becomes.
    pub making: Making,
}

/// A program built by cargo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// A Python script, and the packages that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Python {
    /// The script, relative to the source folder. It is put into `/app`.
    pub script: String,
    /// A list for pip that pins all packages, each with its hashes, relative to the source folder.
    pub requirements: Option<String>,
}

/// A file or folder that is taken along as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
        /// The program's name at the top.
        executable: String,
    },
    /// An OCI image.
    Image(Box<Image>),
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

/// How an image wants to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The place of the program.
    pub to: Option<String>,
    /// Who it runs as; empty for root, as the OCI image format has it.
    pub user: String,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// The program and the arguments that it always gets; empty for the built program.
    pub entrypoint: Vec<String>,
    /// Further arguments.
    pub cmd: Vec<String>,
    /// The folder that it starts in; empty for the root.
    pub workdir: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

impl Recipe {
    /// Parses a recipe; `file` is the name that problems give.
    ///
    /// # Errors
    /// Everything that is wrong with it, sorted by place.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let document = Document::parse(file, bytes)?;
        let recipe: RecipeFile = schema::RECIPE.read(&document)?;
        let mut problems = recipe.problems(&document);
        if problems.is_empty() {
            return Ok(recipe.into());
        }
        diagnostic::sort(&mut problems);
        Err(problems)
    }

    /// What it makes.
    pub fn kind(&self) -> ArtifactKind {
        match self.making {
            Making::Package { .. } => ArtifactKind::Package,
            Making::Image(_) => ArtifactKind::Image,
            Making::Driver { .. } => ArtifactKind::Driver,
        }
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Image => "image",
            Self::Driver => "driver",
        }
    }

    /// The keys that recipes of this kind have, and others have not.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Package => &["as"],
            Self::Image => &[
                "python",
                "to",
                "user",
                "env",
                "entrypoint",
                "cmd",
                "workdir",
                "labels",
            ],
            Self::Driver => &["to", "name", "version"],
        }
    }

    /// The keys of its own that it cannot do without.
    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Driver => self.keys(),
            Self::Package | Self::Image => &[],
        }
    }
}

/// Keys that recipes of every kind have.
const COMMON: [&str; 4] = ["kind", "cargo", "files", "sources"];

impl RecipeFile {
    /// What the schema does not say: which keys go with which kind.
    fn problems(&self, document: &Document) -> Vec<Diagnostic> {
        let kind = self.kind;
        let value = document.value();
        let keys = value.as_object().into_iter().flat_map(|keys| keys.keys());
        let known = || COMMON.iter().chain(kind.keys()).copied();
        let mut problems: Vec<Diagnostic> = keys
            .filter(|key| !known().any(|known| known == key.as_str()))
            .map(|key| {
                let span = document.key_span(&format!("/{}", token(key)));
                let kind = kind.as_str();
                let message = format!("a recipe of kind `{kind}` has no key {}", quoted(key));
                let problem = Diagnostic::error(codes::UNKNOWN_KEY, document.file(), span, message);
                match suggestion(key, known()) {
                    Some(known) => problem.with_help(format!("did you mean `{known}`?")),
                    None => problem,
                }
            })
            .collect();
        let missing = kind
            .required()
            .iter()
            .filter(|key| value.get(key).is_none());
        let missing = missing.map(|key| format!("the key `{key}` is missing"));
        let nothing = (self.cargo.is_none() && self.python.is_none() && self.files.is_empty())
            .then(|| "a recipe has `cargo`, `python` or `files`".to_owned());
        problems.extend(missing.chain(nothing).map(|message| {
            let span = document.value_span("");
            Diagnostic::error(codes::MISSING_KEY, document.file(), span, message)
        }));
        let python = self.python.iter().flat_map(|python| {
            let list = python.requirements.as_deref();
            let list = list.map(|list| ("/python/requirements", list));
            std::iter::once(("/python/script", python.script.as_str())).chain(list)
        });
        // What is outside is no part of the source, so that a change of it would go unseen.
        for (pointer, path) in python.filter(|(_, path)| !is_below(path)) {
            let message = format!("{} is not below the source folder", quoted(path));
            let span = document.value_span(pointer);
            problems.push(Diagnostic::error(
                codes::INVALID_VALUE,
                document.file(),
                span,
                message,
            ));
        }
        if self.cargo.is_some() && self.python.is_some() {
            let message = "a recipe has one program: `cargo` or `python`";
            let span = document.key_span("/python");
            problems.push(Diagnostic::error(
                codes::INVALID_VALUE,
                document.file(),
                span,
                message,
            ));
        }
        problems
    }
}

/// Whether a relative path stays below the folder that it begins in.
fn is_below(path: &str) -> bool {
    let mut parts = std::path::Path::new(path).components();
    !path.is_empty() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}

impl From<RecipeFile> for Recipe {
    fn from(file: RecipeFile) -> Self {
        let making = match file.kind {
            Kind::Package => Making::Package {
                executable: file.executable.unwrap_or_else(|| BOOTSTRAP.to_owned()),
            },
            Kind::Image => Making::Image(Box::new(Image {
                to: file.to,
                user: file.user.unwrap_or_default(),
                env: file.env.unwrap_or_default(),
                entrypoint: file.entrypoint.unwrap_or_default(),
                cmd: file.cmd.unwrap_or_default(),
                workdir: file.workdir.unwrap_or_default(),
                labels: file.labels.unwrap_or_default(),
            })),
            Kind::Driver => Making::Driver {
                name: file.name.unwrap_or_default(),
                version: file.version.unwrap_or_default(),
                to: file.to.unwrap_or_default(),
            },
        };
        Self {
            cargo: file.cargo,
            python: file.python,
            files: file.files,
            sources: file.sources,
            making,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let problems = Recipe::parse("build.yaml", text.as_bytes()).expect_err("it is wrong");
        let told = problems.into_iter().map(|problem| {
            let help = problem.help.unwrap_or_default();
            format!(
                "{}:{} {} {help}",
                problem.line, problem.column, problem.message
            )
        });
        told.collect()
    }

    #[test]
    fn mistakes_have_their_place_and_advice() {
        for (text, told) in [
            ("kind: packge\n", "1:7|did you mean `package`?"),
            (
                "kind: image\ncargo: { package: a }\nworkdr: /\n",
                "3:1|did you mean `workdir`?",
            ),
            (
                "kind: package\ncargo: { package: a }\nuser: me\n",
                "3:1|has no key `user`",
            ),
            ("kind: image\ncargo: { package: a }\ncmd: run\n", "3:6|cmd"),
            ("kind: package\n", "1:1|`cargo`, `python` or `files`"),
            ("files: []\n", "1:1|kind"),
            (
                "kind: image\npython: { script: ../a.py }\n",
                "2:19|not below the source folder",
            ),
            (
                "kind: image\npython: { script: a.py, requirements: /etc/a }\n",
                "2:39|not below the source folder",
            ),
            (
                "kind: package\npython: { script: a.py }\n",
                "2:1|has no key `python`",
            ),
            (
                "kind: image\npython: { script: a.py }\ncargo: { package: a }\n",
                "2:1|one program",
            ),
            ("[]", "1:1|"),
            ("kind: [", "1:"),
        ] {
            let problems = problems(text);
            let [problem] = &problems[..] else {
                panic!("{text}: {problems:?}");
            };
            let (place, words) = told.split_once('|').unwrap_or((told, ""));
            assert!(problem.starts_with(place), "{text}: {problem}");
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }

    #[test]
    fn a_driver_cannot_do_without_its_name_version_and_place() {
        let problems = problems("kind: driver\ncargo: { package: a }\n");
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn what_a_recipe_leaves_out_has_its_usual_value() {
        let text = "kind: package\ncargo: { package: tiny }\n";
        let recipe = Recipe::parse("build.yaml", text.as_bytes()).expect("a recipe");
        assert_eq!(recipe.cargo.as_ref().map(Cargo::bin), Some("tiny"));
        let Making::Package { executable } = recipe.making else {
            panic!("{recipe:?}");
        };
        assert_eq!(executable, BOOTSTRAP);
    }
}
