//! What comes before a run: artifacts built and pinned, governance asked.

use std::path::Path;

use barecount_artifact::build::Cancel;
use barecount_control::governance::{Action, Governance, Permit, Verdict, explain};
use barecount_model::{
    environment::Environment,
    evidence::{EvidenceKind, Subject, statement},
    lock::Lock,
    manifest::Manifest,
    pipeline::Pipeline,
    version,
};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    embedded::{
        Platform,
        build::{Progress, Workshop},
        lock, policy,
    },
    failure::{Failure, Status, chain},
    printer::Printer,
    requester,
    rules::Rules,
    view::short,
};

/// The runtime that a verb with a platform works in.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Status::Unavailable, "the process cannot start its threads")
                .because(&error)
        })
}

/// A pipeline about to be built or run.
#[derive(Clone, Copy)]
pub(crate) struct Preparation<'a> {
    /// The manifest as it runs.
    pub(crate) pipeline: &'a Pipeline,
    /// The manifest as it is written.
    pub(crate) manifest: &'a Manifest,
    /// Its folder.
    pub(crate) folder: &'a Path,
    /// The state folder.
    pub(crate) state: &'a Path,
    /// Where.
    pub(crate) environment: &'a Environment,
    /// The environment's file, word by word, if it has one.
    pub(crate) rules: Option<&'a [u8]>,
    /// For progress.
    pub(crate) printer: &'a Printer,
}

impl Preparation<'_> {
    /// The lock to run by: refreshed where the environment lets `run` do that, else as it is.
    pub(crate) async fn lock(&self, platform: &Platform, cancel: &Cancel) -> Result<Lock, Failure> {
        if self.environment.refresh_lock {
            return self.build(platform, cancel).await;
        }
        let lock = lock::read(self.folder)?.ok_or_else(|| {
            Failure::new(
                Status::Usage,
                format!("there is no lock file in {}", self.folder.display()),
            )
            .with_code("BC0502")
            .with_help("Run `barecount build` on the manifest, and keep the lock file beside it.")
        })?;
        lock::complete(&lock, self.pipeline)?;
        Ok(lock)
    }

    /// Builds what the pipeline names, and writes the lock file. What was built anew is evidence.
    pub(crate) async fn build(
        &self,
        platform: &Platform,
        cancel: &Cancel,
    ) -> Result<Lock, Failure> {
        let workshop = Workshop::new(
            &platform.artifacts,
            self.pipeline,
            self.folder,
            self.state,
            cancel.clone(),
        );
        let mut notes = Notes {
            printer: self.printer,
            begun: None,
        };
        // Building blocks; other work of this process goes on meanwhile.
        let built = tokio::task::block_in_place(|| {
            workshop.make_all(&mut |progress| notes.tell(&progress))
        })?;
        for fact in built.facts {
            enter(platform, fact).await?;
        }
        if lock::read(self.folder).ok().flatten().as_ref() != Some(&built.lock) {
            self.decide(platform, Action::RefreshLock, &built.lock)
                .await?;
            if lock::write(self.folder, &built.lock)? {
                self.printer.note("pinned what was built in pipeline.lock");
            }
        }
        Ok(built.lock)
    }

    /// Asks governance. A refusal is told with its reasons, entered as evidence, and ends the verb.
    pub(crate) async fn decide(
        &self,
        platform: &Platform,
        action: Action,
        lock: &Lock,
    ) -> Result<(Permit, Rules), Failure> {
        let governance = governance()?;
        let version = version::of(self.manifest, lock).to_string();
        let question = policy::question(
            action,
            self.pipeline,
            &version,
            self.environment,
            &requester::name(),
            Timestamp::now(),
        );
        // Kept before they decide anything: evidence names nothing that is not there.
        let rules = Rules::keep(self.state, self.rules, &governance, &question)?;
        let verdict = governance.decide(&question);
        let text = explain(&verdict);
        let refusal = match verdict {
            Verdict::Permitted(permit) => return Ok((permit, rules)),
            Verdict::Refused(refusal) => refusal,
        };
        let subject = Subject::new(format!("pipeline/{}", self.pipeline.name), &version);
        let predicate = json!({ "decision": refusal.explanation, "rules": rules });
        enter(
            platform,
            statement(EvidenceKind::Refusal, &[subject], predicate),
        )
        .await?;
        self.printer.warn(&text);
        let what = format!("{} is refused: {}", action.as_str(), chain(&refusal));
        Err(Failure::new(Status::Refused, what).with_code("BC0401").with_help(
            "The conditions above say what was not met, and what would change that. The refusal \
             is in the ledger.",
        ))
    }
}

/// The policies in force.
pub(crate) fn governance() -> Result<Governance, Failure> {
    Governance::load(&[])
        .map_err(|error| Failure::from_error(Status::Unavailable, &error).with_code("BC0402"))
}

async fn enter(
    platform: &Platform,
    statement: barecount_model::evidence::Statement,
) -> Result<(), Failure> {
    platform.control.enter(statement).await.map_err(|error| {
        Failure::new(
            Status::Unavailable,
            "the evidence could not be written down",
        )
        .because(&error)
        .with_code("BC0804")
    })
}

/// Tells of builds as they go on. What is there already is worth no line, so that a build is told
/// of with the first word that a tool says.
struct Notes<'a> {
    printer: &'a Printer,
    begun: Option<String>,
}

impl Notes<'_> {
    fn tell(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Begins { kind, name } => {
                self.begun = Some(format!("build     {} {name}", kind.as_str()));
            }
            Progress::Line(line) => {
                if let Some(begun) = self.begun.take() {
                    self.printer.note(&begun);
                }
                self.printer.detail(line);
            }
            Progress::Made {
                kind,
                name,
                digest,
                duration_ms,
            } => self.printer.note(&format!(
                "built     {} {name}  {}  in {:.1} s",
                kind.as_str(),
                short(&digest.to_string()),
                // A figure for people.
                *duration_ms as f64 / 1e3
            )),
            Progress::LeftOut { name, paths } => {
                let shown: Vec<_> = paths.iter().take(5).map(ToString::to_string).collect();
                let more = paths.len().saturating_sub(shown.len());
                let more = match more {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                self.printer.note(&format!(
                    "note: image {name} is taken without its devices and pipes: {}{more}",
                    shown.join(", ")
                ));
            }
            Progress::Unchanged { kind, name } => self
                .printer
                .detail(&format!("unchanged {} {name}", kind.as_str())),
        }
    }
}
