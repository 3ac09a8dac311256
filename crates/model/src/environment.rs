//! Environments: what serves each class, what sizes are worth, and what is allowed there.
//!
//! A manifest says what work needs; an environment file says what that means in one place. Without
//! a file the built-in environment `local` holds, for development on one machine.

mod file;
mod network;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use file::{
    Backend, ClassCatalog, ConcurrencySpec, EnvironmentFile, EnvironmentKind, EnvironmentMetadata,
    EnvironmentSpec, GovernanceSpec, Grant, IsolationSpec, LockSpec, LogLevel, SecretsSpec,
    TenantApprovers, TenantGrants, TenantSelector,
};

pub use network::{
    NetworksSpec, OnPremAgent, PrivateLink, PrivateVpc, PublicEgress, PublicWay, Vpn,
};
pub use tunnel::{PeerSpec, TunnelSpec};

use crate::approval::account;
use crate::catalog::{Catalog, Profile};
use crate::class::{NetworkProfile, RunnerClass, Size};
use crate::codes;
use crate::diagnostic::{self, Diagnostic};
use crate::document::Document;
use crate::manifest::Isolation;
use crate::pipeline::Pipeline;
use crate::schema;
use crate::text::Name;

/// Where environment files had approvals, before those were acts on record.
const APPROVALS: &str = "/spec/governance/approvals";

/// An environment without contradictions, its defaults applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub kind: EnvironmentKind,
    /// What serves each class; a class that is absent is not served.
    pub backends: BTreeMap<RunnerClass, Backend>,
    /// The state folder, if the file names one; relative to the folder of the file.
    pub state: Option<String>,
    /// Sizes and prices.
    pub catalog: Catalog,
    /// Attempts of a class at a time, over all pipelines; no cap where absent.
    pub class_concurrency: BTreeMap<RunnerClass, u32>,
    /// Attempts at a time, over all classes; no cap if absent.
    pub total_concurrency: Option<u32>,
    /// Who may use what without an approval. What no entry allows is refused.
    pub grants: Vec<TenantGrants>,
    /// Who may grant exceptions from that, and to whom.
    pub approvers: Vec<TenantApprovers>,
    /// What each network profile means.
    pub networks: NetworksSpec,
    /// Places that its data is in.
    pub residency: BTreeSet<Name>,
    /// Whether `run` may build and pin anew what changed since the lock was written.
    pub refresh_lock: bool,
    /// Whether stages may ask for `isolation: process`.
    pub process_isolation: bool,
    /// What is logged.
    pub log_level: LogLevel,
    /// Where secrets are fetched from; nowhere if absent.
    pub secrets: Option<SecretsSpec>,
    /// The file of the ledger's signing key, if the file names one; relative to its folder. It
    /// belongs outside the reach of whoever reads the state folder.
    pub signing_key: Option<String>,
}

impl Environment {
    /// The environment that holds without a file: development on one machine, every class served
    /// by the embedded platform, every tenant granted sizes up to `large`.
    pub fn local() -> Self {
        let sizes = BTreeSet::from([Size::Small, Size::Medium, Size::Large]);
        Self {
            name: file::local_name(),
            kind: EnvironmentKind::Development,
            backends: RunnerClass::ALL
                .iter()
                .map(|class| (*class, Backend::Local))
                .collect(),
            state: None,
            catalog: Catalog::builtin(),
            class_concurrency: BTreeMap::new(),
            total_concurrency: None,
            grants: vec![TenantGrants {
                tenant: TenantSelector::Any,
                allow: vec![Grant {
                    classes: RunnerClass::ALL.iter().copied().collect(),
                    sizes,
                    network_profiles: NetworkProfile::ALL.iter().copied().collect(),
                }],
                crossings: BTreeSet::new(),
            }],
            approvers: Vec::new(),
            networks: NetworksSpec::default(),
            residency: BTreeSet::new(),
            refresh_lock: true,
            process_isolation: true,
            log_level: LogLevel::Info,
            secrets: Some(SecretsSpec::default()),
            signing_key: None,
        }
    }

    /// Reads an environment file. `file` is the name that diagnostics give; nothing is read.
    ///
    /// # Errors
    /// Every problem, sorted by place.
    pub fn load(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let document = Document::parse(file, bytes)?;
        if document.value().pointer(APPROVALS).is_some() {
            let span = document.key_span(APPROVALS);
            let message = "an approval is no line of the environment file";
            let diagnostic = Diagnostic::error(codes::APPROVAL_IN_FILE, file, span, message);
            return Err(vec![diagnostic.with_help(
                "name who may approve under `approvers`, and have each approval asked for and \
                 granted: `barecount approvals request`",
            )]);
        }
        Self::read(&document)
    }

    /// Reads an environment that was in force before: an older one may have approvals in it, which
    /// count no longer.
    ///
    /// # Errors
    /// As [`Environment::load`], but for such approvals.
    pub fn load_kept(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let mut document = Document::parse(file, bytes)?;
        document.leave_out(APPROVALS);
        Self::read(&document)
    }

    fn read(document: &Document) -> Result<Self, Vec<Diagnostic>> {
        let written: EnvironmentFile = schema::ENVIRONMENT.read(document)?;
        let mut resolution = Resolution {
            document,
            diagnostics: Vec::new(),
        };
        let environment = resolution.resolve(written);
        if resolution.diagnostics.is_empty() {
            return Ok(environment);
        }
        diagnostic::sort(&mut resolution.diagnostics);
        Err(resolution.diagnostics)
    }

    /// The combinations of class, size and profile that a tenant is granted, each once: the
    /// tenant's row of the matrix together with the row of all tenants.
    pub fn matrix(&self, tenant: &str) -> BTreeSet<(RunnerClass, Size, NetworkProfile)> {
        let rows = self
            .grants
            .iter()
            .filter(|grants| grants.tenant.covers(tenant));
        let mut cells = BTreeSet::new();
        for grant in rows.flat_map(|grants| &grants.allow) {
            for class in &grant.classes {
                for size in &grant.sizes {
                    cells.extend(grant.network_profiles.iter().map(|p| (*class, *size, *p)));
                }
            }
        }
        cells
    }

    /// The accounts that may grant approvals for a tenant's work, as accounts are compared.
    pub fn approvers(&self, tenant: &str) -> BTreeSet<String> {
        let rows = self.approvers.iter();
        let rows = rows.filter(|row| row.tenant.covers(tenant));
        rows.flat_map(|row| &row.accounts)
            .map(|name| account(name))
            .collect()
    }

    /// What of a pipeline this environment cannot carry out whatever policy says: one sentence
    /// each, in the order of the stages.
    pub fn obstacles(&self, pipeline: &Pipeline) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        for stage in &pipeline.stages {
            let mut add = |code: codes::Code, message: String| {
                obstacles.push(Obstacle {
                    stage: stage.name.clone(),
                    code: code.id,
                    message,
                });
            };
            if !self.backends.contains_key(&stage.class) {
                add(
                    codes::BACKEND_MISSING,
                    format!("environment `{}` serves no {}", self.name, stage.class),
                );
            }
            if self.secrets.is_none()
                && let Some(name) = stage.secrets.keys().next()
            {
                // Better than work that starts and does not find what it declared.
                let message = format!(
                    "secret `{name}` cannot be fetched: environment `{}` has no secrets service; \
                     outside of development its file names one under `spec.secrets`",
                    self.name
                );
                add(codes::SECRETS_UNAVAILABLE, message);
            }
            if let Some(place) = stage.residency.as_ref()
                && !self.meets(place, stage.network_profile)
            {
                add(codes::RESIDENCY_UNMET, self.elsewhere(place));
            }
            for (code, message) in self.networks.obstacles(stage) {
                add(code, message);
            }
            if stage.isolation == Isolation::Process && !self.process_isolation {
                add(
                    codes::PROCESS_ISOLATION_REFUSED,
                    format!("environment `{}` runs nothing without a sandbox", self.name),
                );
            }
        }
        obstacles
    }

    /// Whether data that must stay in a place does so here.
    fn meets(&self, place: &Name, profile: NetworkProfile) -> bool {
        let facility = self.networks.on_prem_agent.as_ref();
        let on_site = profile == NetworkProfile::OnPremAgent;
        self.residency.contains(place)
            || on_site && facility.is_some_and(|agent| agent.facility == place.as_str())
    }

    fn elsewhere(&self, place: &Name) -> String {
        let known: Vec<&str> = self.residency.iter().map(Name::as_str).collect();
        let known = match known.as_slice() {
            [] => "it names no place that its data is in".to_owned(),
            places => format!("its data is in {}", places.join(", ")),
        };
        format!(
            "the data must stay in `{place}`, and environment `{}` does not say that it is there: \
             {known}; if it is, add `residency: [{place}]`",
            self.name
        )
    }
}

/// Why an environment cannot carry out a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// The stage.
    pub stage: Name,
    /// The code.
    pub code: &'static str,
    /// What is in the way.
    pub message: String,
}

struct Resolution<'a> {
    document: &'a Document,
    diagnostics: Vec<Diagnostic>,
}

impl Resolution<'_> {
    fn resolve(&mut self, file: EnvironmentFile) -> Environment {
        let spec = file.spec;
        let development = spec.kind == EnvironmentKind::Development;
        let refresh_lock = spec.lock.refresh_on_run.unwrap_or(development);
        let process_isolation = spec.isolation.process.unwrap_or(development);
        self.hold_to_kind(
            spec.kind,
            refresh_lock,
            process_isolation,
            spec.networks.audit,
        );
        self.check_tunnel(&spec.networks);
        let secrets = spec.secrets.clone();
        let secrets = secrets.or_else(|| development.then(SecretsSpec::default));
        let of_secrets = secrets.clone().unwrap_or_default();
        for (key, path) in [
            ("state", &spec.state),
            ("signing_key", &spec.signing_key),
            ("secrets/store", &of_secrets.store),
            ("secrets/key_file", &of_secrets.key_file),
            ("secrets/passphrase_file", &of_secrets.passphrase_file),
            ("secrets/memory", &of_secrets.memory),
        ] {
            if path.as_ref().is_some_and(|path| path.contains('\0')) {
                let pointer = format!("/spec/{key}");
                let message = "a path has no character NUL";
                self.error(codes::INVALID_ENVIRONMENT, &pointer, message, "");
            }
        }
        if of_secrets.key_file.is_some() && of_secrets.passphrase_file.is_some() {
            let message = "a store is encrypted under a key or a passphrase, not both";
            let help = "leave one of the two out; `barecount secrets rotate` changes over";
            let pointer = "/spec/secrets/passphrase_file";
            self.error(codes::INVALID_ENVIRONMENT, pointer, message, help);
        }
        Environment {
            name: file.metadata.name,
            kind: spec.kind,
            backends: spec.backends,
            state: spec.state,
            catalog: self.catalog(&spec.catalog),
            class_concurrency: spec.concurrency.classes,
            total_concurrency: spec.concurrency.total,
            grants: spec.governance.matrix,
            approvers: spec.governance.approvers,
            networks: spec.networks,
            residency: spec.residency,
            refresh_lock,
            process_isolation,
            log_level: spec.log_level.unwrap_or_default(),
            secrets,
            signing_key: spec.signing_key,
        }
    }

    fn check_tunnel(&mut self, networks: &NetworksSpec) {
        for fault in networks.vpn.iter().flat_map(Vpn::faults) {
            let pointer = format!("/spec/networks/vpn{}", fault.pointer);
            self.error(
                codes::INVALID_ENVIRONMENT,
                &pointer,
                fault.message,
                fault.help,
            );
        }
    }

    /// What an environment's kind forbids it to allow.
    fn hold_to_kind(
        &mut self,
        kind: EnvironmentKind,
        refresh_lock: bool,
        process_isolation: bool,
        audit: bool,
    ) {
        if refresh_lock && kind != EnvironmentKind::Development {
            let message = format!("a {} environment runs what the lock pins", kind.as_str());
            let help = "set `refresh_on_run: false`; build and promote instead";
            let pointer = "/spec/lock/refresh_on_run";
            self.error(
                codes::LOCK_REFRESH_OUTSIDE_DEVELOPMENT,
                pointer,
                message,
                help,
            );
        }
        if kind != EnvironmentKind::Production {
            return;
        }
        if process_isolation {
            let message = "a production environment runs nothing without a sandbox";
            let pointer = "/spec/isolation/process";
            self.error(
                codes::PROCESS_ISOLATION_IN_PRODUCTION,
                pointer,
                message,
                "set `process: false`",
            );
        }
        if audit {
            let message = "production lets nothing through that was not declared";
            let help = "leave `audit` to environments for development and staging";
            self.error(
                codes::INVALID_ENVIRONMENT,
                "/spec/networks/audit",
                message,
                help,
            );
        }
    }

    fn catalog(&mut self, changes: &BTreeMap<RunnerClass, ClassCatalog>) -> Catalog {
        let mut catalog = Catalog::builtin();
        for (class, sizes) in changes {
            for (size, change) in sizes {
                let pointer = format!("/spec/catalog/{class}/{size}");
                if !catalog.change(*class, *size, change) {
                    let message = format!("the size {size} has no profile; its stage declares it");
                    let help = "override small, medium, large or xlarge";
                    self.error(codes::INVALID_CATALOG, &pointer, message, help);
                }
                let least = [
                    ("memory", change.memory, Profile::MIN_MEMORY),
                    ("disk", change.disk, Profile::MIN_DISK),
                ];
                for (what, given, least) in least {
                    if given.is_some_and(|given| given < least) {
                        let message = format!("less than {least} of {what} runs nothing");
                        let pointer = format!("{pointer}/{what}");
                        self.error(codes::INVALID_CATALOG, &pointer, message, "");
                    }
                }
            }
        }
        catalog
    }

    fn error(&mut self, code: codes::Code, pointer: &str, message: impl Into<String>, help: &str) {
        let span = self.document.value_span(pointer);
        let diagnostic = Diagnostic::error(code, self.document.file(), span, message);
        let with_help = !help.is_empty();
        self.diagnostics.push(if with_help {
            diagnostic.with_help(help)
        } else {
            diagnostic
        });
    }
}

#[cfg(test)]
mod tests;
