//! What comes before a run: artifacts built and pinned, governance asked.

use std::path::Path;

use barecount_artifact::build::Cancel;
use barecount_control::{
    Control,
    governance::{Action, Governance, Permit, Question, Refusal, Verdict, explain},
};
use barecount_dataset::table::StateTables;
use barecount_model::{
    evidence::{EvidenceKind, Subject, statement},
    id::RunId,
    lock::Lock,
    manifest::Manifest,
    pipeline::Pipeline,
    version,
};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    approvals,
    embedded::{
        self, Embedded, Platform,
        build::{Progress, Workshop},
        hold::Purpose,
        lock, policy,
    },
    environment::{self, Found},
    failure::{Failure, Status, chain},
    manifest,
    reporter::Reporter,
    requester,
    rules::Rules,
    runtime::runtime,
    words::short,
};

/// Opens the platform of a state folder that is there, in the environment that the folder belongs
/// to, does something with it, and closes it in good order. Before there is a second thread.
///
/// # Errors
/// Of the work; else of what is left behind.
pub(crate) fn on_platform<T>(
    client: &Embedded,
    purpose: Purpose<'_>,
    reporter: &dyn Reporter,
    work: impl AsyncFnOnce(&mut Platform, &Path, &Found) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let folder = embedded::state_folder(&client.state)?;
    let found = environment::of_run(client.environment.as_deref(), &folder)?;
    let launcher = embedded::fork_launcher(&folder)?;
    let lock = client.hold(&folder, purpose, reporter)?;
    runtime()?.block_on(async {
        let tables = StateTables::new(folder.clone());
        let mut platform = Platform::open(launcher, lock, &found, tables, reporter).await?;
        let done = work(&mut platform, &folder, &found).await;
        let closed = platform.close().await;
        let done = done?;
        closed.map(|_| done)
    })
}

impl Embedded {
    /// Builds everything that a pipeline runs, and pins it.
    pub(crate) fn make(&self, manifest: &Path, reporter: &dyn Reporter) -> Result<Lock, Failure> {
        let loaded = manifest::load(manifest, reporter)?;
        let folder = manifest::folder(manifest)?;
        let found = environment::find(&folder, self.environment.as_deref())?;
        let state = embedded::state_folder(&self.state)?;
        let launcher = embedded::fork_launcher(&state)?;
        let purpose = Purpose {
            verb: "build",
            pipeline: Some(loaded.pipeline.name.as_str()),
        };
        let lock = self.hold(&state, purpose, reporter)?;
        runtime()?.block_on(async {
            let tables = StateTables::new(state.clone());
            let platform = Platform::open(launcher, lock, &found, tables, reporter).await?;
            let preparation = Preparation {
                pipeline: &loaded.pipeline,
                manifest: &loaded.manifest,
                file: manifest,
                folder: &folder,
                state: &state,
                found: &found,
                reporter,
            };
            let built = preparation.build(&platform, &Cancel::default()).await;
            let closed = platform.close().await;
            let lock = built?;
            closed.map(|_| lock)
        })
    }
}

/// A pipeline about to be built or run.
#[derive(Clone, Copy)]
pub(crate) struct Preparation<'a> {
    /// The manifest as it runs.
    pub(crate) pipeline: &'a Pipeline,
    /// The manifest as it is written.
    pub(crate) manifest: &'a Manifest,
    /// The manifest's file.
    pub(crate) file: &'a Path,
    /// Its folder.
    pub(crate) folder: &'a Path,
    /// The state folder.
    pub(crate) state: &'a Path,
    /// Where.
    pub(crate) found: &'a Found,
    /// For progress.
    pub(crate) reporter: &'a dyn Reporter,
}

impl Preparation<'_> {
    /// The lock to run by: refreshed where the environment lets `run` do that, else as it is.
    pub(crate) async fn lock(&self, platform: &Platform, cancel: &Cancel) -> Result<Lock, Failure> {
        if self.found.environment.refresh_lock {
            return self.build(platform, cancel).await;
        }
        let lock = lock::read(self.folder)?.ok_or_else(|| no_lock(self.folder))?;
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
            reporter: self.reporter,
            begun: None,
        };
        // Building blocks; other work of this process goes on meanwhile.
        let built = tokio::task::block_in_place(|| {
            workshop.make_all(&mut |progress| notes.tell(&progress))
        })?;
        for fact in built.facts {
            enter(&platform.control, fact).await?;
        }
        if !lock::is(self.folder, &built.lock) {
            self.decide(platform, Action::RefreshLock, &built.lock, None)
                .await?;
            if lock::write(self.folder, &built.lock)? {
                self.reporter.note("pinned what was built in pipeline.lock");
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
        run: Option<&RunId>,
    ) -> Result<(Permit, Rules), Failure> {
        platform.signed().await;
        let (verdict, rules) = self.put(action, lock, run)?;
        permitted(&platform.control, action, verdict, rules, self.reporter).await
    }

    /// Puts a question to governance, and keeps the rules that it is answered by. `run` is the run
    /// that is asked about, where it has begun.
    pub(crate) fn put(
        &self,
        action: Action,
        lock: &Lock,
        run: Option<&RunId>,
    ) -> Result<(Verdict, Rules), Failure> {
        let question = self.question(action, lock, run)?;
        put(self.state, self.found.text.as_deref(), &question)
    }

    /// The question that [`Preparation::put`] puts.
    pub(crate) fn question(
        &self,
        action: Action,
        lock: &Lock,
        run: Option<&RunId>,
    ) -> Result<Question, Failure> {
        let version = version::of(self.manifest, lock).to_string();
        let approvals = approvals::on_record(self.state, self.found, self.pipeline, run)?;
        Ok(policy::question(
            action,
            self.pipeline,
            &version,
            &self.found.environment,
            &requester::name(),
            approvals,
            Timestamp::now(),
        ))
    }
}

/// Puts a question to governance; `rules` is the environment's file, word by word, if it has one.
fn put(
    state: &Path,
    rules: Option<&[u8]>,
    question: &Question,
) -> Result<(Verdict, Rules), Failure> {
    let governance = governance()?;
    // Kept before they decide anything: evidence names nothing that is not there.
    let rules = Rules::keep(state, rules, &governance, question)?;
    Ok((governance.decide(question), rules))
}

/// Asks governance. A refusal is told with its reasons, entered as evidence, and ends the verb.
pub(crate) async fn ask(
    control: &Control,
    state: &Path,
    rules: Option<&[u8]>,
    question: &Question,
    reporter: &dyn Reporter,
) -> Result<(Permit, Rules), Failure> {
    let (verdict, rules) = put(state, rules, question)?;
    permitted(control, question.action, verdict, rules, reporter).await
}

async fn permitted(
    control: &Control,
    action: Action,
    verdict: Verdict,
    rules: Rules,
    reporter: &dyn Reporter,
) -> Result<(Permit, Rules), Failure> {
    let text = explain(verdict.explanation());
    let refusal = match verdict {
        Verdict::Permitted(permit) => return Ok((permit, rules)),
        Verdict::Refused(refusal) => refusal,
    };
    let asked = &refusal.explanation;
    let subject = Subject::new(format!("pipeline/{}", asked.pipeline), &asked.version);
    let predicate = json!({ "decision": asked, "rules": rules });
    let refused = statement(EvidenceKind::Refusal, &[subject], predicate);
    enter(control, refused).await?;
    reporter.warn(&text);
    Err(refused_failure(action, &refusal))
}

/// The failure of what was refused, whose reasons were told.
pub(crate) fn refused_failure(action: Action, refusal: &Refusal) -> Failure {
    let what = format!("{} is refused: {}", action.as_str(), chain(refusal));
    Failure::new(Status::Refused, what).with_code("BC0401").with_help(
        "The conditions above say what was not met, and what would change that. The refusal is in \
         the ledger.",
    )
}

/// There is no lock where one has to be.
pub(crate) fn no_lock(folder: &Path) -> Failure {
    let what = format!("there is no lock file in {}", folder.display());
    Failure::new(Status::Usage, what)
        .with_code("BC0502")
        .with_help("Run `barecount build` on the manifest, and keep the lock file beside it.")
}

/// The policies in force.
pub(crate) fn governance() -> Result<Governance, Failure> {
    Governance::load(&[])
        .map_err(|error| Failure::from_error(Status::Unavailable, &error).with_code("BC0402"))
}

/// Enters a fact in the ledger.
///
/// # Errors
/// If it cannot be made durable.
pub(crate) async fn enter(
    control: &Control,
    statement: barecount_model::evidence::Statement,
) -> Result<(), Failure> {
    control.enter(statement).await.map_err(|error| {
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
    reporter: &'a dyn Reporter,
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
                    self.reporter.note(&begun);
                }
                self.reporter.detail(line);
            }
            Progress::Made {
                kind,
                name,
                digest,
                duration_ms,
            } => self.reporter.note(&format!(
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
                self.reporter.note(&format!(
                    "note: image {name} is taken without its devices and pipes: {}{more}",
                    shown.join(", ")
                ));
            }
            Progress::Unchanged { kind, name } => self
                .reporter
                .detail(&format!("unchanged {} {name}", kind.as_str())),
        }
    }
}
