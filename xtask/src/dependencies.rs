//! What is depended on, held to `deny.toml`: licences, sources, and what must be there but once.
//!
//! A part of what cargo-deny does, which takes longer to compile than everything else that the
//! suite needs; [`with_cargo_deny`] runs the whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use crate::{
    project::{Project, metadata},
    steps::{Failure, Task},
};

const CARGO_DENY_VERSION: &str = "0.20.2";
/// Packages in a lock file. Each costs every cold build; a growth past this wants a reason.
const CEILING: usize = 640;
/// The workspaces' folders.
const WORKSPACES: [&str; 3] = ["", "examples/fx-rates", "examples/erp-poll"];

/// The part of `deny.toml` that is checked here.
#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    /// One version is fine.
    #[serde(default)]
    deny_multiple_versions: bool,
    reason: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for a package of this repository.
    source: Option<String>,
}

/// Checks all workspaces; a failure names all problems.
#[expect(clippy::print_stdout, reason = "what runs is shown")]
pub(crate) fn check(project: &Project) -> Result<(), Failure> {
    println!("\n==> dependencies: all workspaces against deny.toml");
    let failed = |reason: String| Failure::new("dependencies", reason);
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| failed(format!("{}: {error}", path.display())))
    };
    let rules: Rules = toml::from_str(&read(&project.root.join("deny.toml"))?)
        .map_err(|error| failed(format!("deny.toml: {error}")))?;
    let platforms: Vec<_> = rules
        .graph
        .targets
        .iter()
        .map(|target| format!("--filter-platform={target}"))
        .collect();
    let platforms: Vec<_> = platforms.iter().map(String::as_str).collect();
    let mut problems = Vec::new();
    for workspace in WORKSPACES {
        let folder = project.root.join(workspace);
        let Metadata { packages } = metadata(&folder.join("Cargo.toml"), &platforms)?;
        let locked = read(&folder.join("Cargo.lock"))?
            .matches("[[package]]")
            .count();
        if locked > CEILING {
            problems.push(format!("{locked} packages are locked, more than {CEILING}"));
        }
        problems.extend(rules.problems(&packages));
        println!("{} packages in use, {locked} locked", packages.len());
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(failed(problems.join("\n  ")))
    }
}

/// Has cargo-deny check `deny.toml` in full, and compiles it first where it is not there yet.
/// Known vulnerabilities are left out: their list is in a repository.
pub(crate) fn with_cargo_deny(project: &Project) -> Result<(), Failure> {
    let tools = project.target.join("tools").display().to_string();
    let install =
        format!("cargo install cargo-deny --version {CARGO_DENY_VERSION} --locked --root");
    let program = Path::new(&tools)
        .join("bin/cargo-deny")
        .display()
        .to_string();
    Task::new(&install)
        .argument(tools)
        .minutes(30)
        .run("deny-install", project)?;
    let config = project.root.join("deny.toml").display().to_string();
    for workspace in WORKSPACES {
        let manifest = project
            .root
            .join(workspace)
            .join("Cargo.toml")
            .display()
            .to_string();
        let command = [
            &program,
            "--manifest-path",
            &manifest,
            "check",
            "--config",
            &config,
        ];
        Task::of(
            command
                .into_iter()
                .chain(["bans", "licenses", "sources"])
                .map(str::to_owned),
        )
        .minutes(5)
        .run("deny", project)?;
    }
    Ok(())
}

impl Rules {
    fn problems(&self, packages: &[Package]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for package in packages {
            let Package { name, version, .. } = package;
            versions.entry(name).or_default().insert(version);
            let Some(source) = &package.source else {
                continue;
            };
            if !source.starts_with("registry+") {
                problems.push(format!("{name} {version} comes from {source}"));
            }
            if let Err(license) = self.permits(package) {
                problems.push(format!("{name} {version} has the licence {license}"));
            }
        }
        for Ban {
            name,
            deny_multiple_versions,
            reason,
        } in &self.bans.deny
        {
            let found = versions.get(name.as_str()).map_or(0, BTreeSet::len);
            if found > usize::from(*deny_multiple_versions) {
                let list: Vec<_> = versions[name.as_str()].iter().copied().collect();
                problems.push(format!("{name} {}: {reason}", list.join(" and ")));
            }
        }
        problems
    }

    /// Whether the package's licence, or one that it gives the choice of, is allowed.
    fn permits<'p>(&self, package: &'p Package) -> Result<(), &'p str> {
        let license = package.license.as_deref().unwrap_or("(none stated)");
        // Older packages put a slash between alternatives.
        let Ok(expression) = Expression::parse_mode(license, ParseMode::LAX) else {
            return Err(license);
        };
        let own = self
            .licenses
            .exceptions
            .iter()
            .filter(|exception| exception.name == package.name)
            .flat_map(|exception| &exception.allow);
        let allowed: Vec<_> = self
            .licenses
            .allow
            .iter()
            .chain(own)
            .filter_map(|license| Licensee::parse(license).ok())
            .collect();
        if expression.evaluate(|wanted| allowed.iter().any(|licensee| licensee.satisfies(wanted))) {
            Ok(())
        } else {
            Err(license)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(
            r#"
            [graph]
            targets = []
            [licenses]
            allow = ["MIT", "Apache-2.0"]
            exceptions = [{ crate = "table", allow = ["CDLA-Permissive-2.0"] }]
            [bans]
            deny = [
                { crate = "engine", deny-multiple-versions = true, reason = "large" },
                { crate = "old", reason = "gone" },
            ]
            "#,
        )
        .expect("it has all parts")
    }

    fn package(name: &str, version: &str, license: Option<&str>) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            license: license.map(str::to_owned),
            source: Some("registry+index".into()),
        }
    }

    #[test]
    fn a_choice_of_licences_is_fine_if_one_is_allowed() {
        for license in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR ISC) AND Apache-2.0",
        ] {
            assert_eq!(
                rules().problems(&[package("a", "1", Some(license))]),
                [""; 0]
            );
        }
    }

    #[test]
    fn a_licence_that_is_not_listed_is_a_problem() {
        for license in [
            "GPL-3.0-only",
            "MIT AND ISC",
            "Apache-2.0 WITH LLVM-exception",
            "unheard of",
        ] {
            let told = format!("a 1 has the licence {license}");
            assert_eq!(
                rules().problems(&[package("a", "1", Some(license))]),
                [told]
            );
        }
        let told = ["a 1 has the licence (none stated)"];
        assert_eq!(rules().problems(&[package("a", "1", None)]), told);
    }

    #[test]
    fn an_exception_is_for_its_own_package_alone() {
        let license = Some("CDLA-Permissive-2.0");
        assert_eq!(rules().problems(&[package("table", "1", license)]), [""; 0]);
        assert_eq!(rules().problems(&[package("other", "1", license)]).len(), 1);
    }

    #[test]
    fn what_is_large_may_be_there_but_once() {
        let mit = Some("MIT");
        let (one, two) = (package("engine", "1", mit), package("engine", "2", mit));
        let (small, smaller) = (package("small", "1", mit), package("small", "2", mit));
        assert_eq!(rules().problems(&[one, small, smaller]), [""; 0]);
        let one = package("engine", "1", mit);
        assert_eq!(rules().problems(&[one, two]), ["engine 1 and 2: large"]);
        assert_eq!(
            rules().problems(&[package("old", "1", mit)]),
            ["old 1: gone"]
        );
    }

    #[test]
    fn a_package_from_a_repository_is_a_problem_and_our_own_is_none() {
        let mut foreign = package("a", "1", Some("MIT"));
        foreign.source = Some("git+ssh://example.com/a".into());
        let told = ["a 1 comes from git+ssh://example.com/a"];
        assert_eq!(rules().problems(&[foreign]), told);
        let own = Package {
            source: None,
            ..package("own", "1", None)
        };
        assert_eq!(rules().problems(&[own]), [""; 0]);
    }
}
