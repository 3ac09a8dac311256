//! The secrets of an attempt: fetched when it starts, each access on record; files in memory while
//! its work runs; found in everything that it leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write},
    mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use barecount_api::assignment::Assignment;
use barecount_model::{
    codes::{self, Code},
    digest::Digest,
    id::RunId,
    manifest::SecretSpec,
    run::outcome::{AttemptResult, Failure, FailureKind, Outcome},
    text::{InvalidText, Name},
};
use barecount_runner::{
    clock::Clock,
    launch::{self, ReuseKey},
};
use barecount_secrets::{
    Access, AccessLog, Expired, FetchError, Gate, Lease, MemoryFolder, MountError, Mounted,
    NotRecorded, ProviderError, Redactor, RedactorError, Reference, Scope, SecretName,
    SecretsProvider, StoreError,
};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::{chain::chain, disk::Disk};

/// Where an agent gets secrets, and where their files are.
#[derive(Clone)]
pub struct SecretsService {
    /// Lends them.
    pub provider: Arc<dyn SecretsProvider>,
    /// Has the files of every attempt under way.
    pub memory: MemoryFolder,
    /// What was less than promised when they were given.
    pub hints: Hints,
}

/// What a person is to know of how secrets were given, each once however many attempts it is so for.
#[derive(Debug, Clone, Default)]
pub struct Hints(Arc<Mutex<BTreeSet<String>>>);

impl Hints {
    fn add(&self, hint: String) {
        self.lock().insert(hint);
    }

    /// What there is to be told. It is not told again by the next call.
    pub fn take(&self) -> Vec<String> {
        mem::take(&mut *self.lock()).into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an attempt was given.
pub(crate) struct Given {
    mounted: Mounted,
    /// Each file's name, and the secret in it with its version.
    references: Vec<(Name, Reference)>,
    launch: launch::Secrets,
}

/// Why an attempt does not get its secrets.
#[derive(Debug, thiserror::Error)]
enum GiveError {
    #[error("tenant `{tenant}` cannot have secrets")]
    Tenant { tenant: String, source: InvalidText },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Expired(#[from] Expired),
    #[error(transparent)]
    Redactor(#[from] RedactorError),
    #[error("secret `{name}` has bytes that no environment variable can have")]
    Variable { name: SecretName },
    #[error("the attempt's secrets cannot be mounted")]
    Mount(#[from] MountError),
    #[error("the record of accesses to secrets cannot be opened")]
    Record(#[source] io::Error),
}

/// Gives an attempt what its stage declares, in `service`. Every access is in the file `record`
/// before its value is given; `detail` gets what evidence has of them, also after a failure.
///
/// Dying after a value was mounted leaves it in memory, where the next start sweeps it away.
pub(crate) async fn give(
    service: Option<&SecretsService>,
    assignment: &Assignment,
    record: PathBuf,
    (clock, disk): (&Arc<dyn Clock>, Disk),
    detail: &mut Value,
) -> Result<Option<Given>, Failure> {
    if assignment.stage.secrets.is_empty() {
        return Ok(None);
    }
    let Some(service) = service.cloned() else {
        return Err(Failure {
            kind: FailureKind::Policy,
            code: codes::SECRETS_UNAVAILABLE.id.to_owned(),
            message: "there is no service here that secrets could be fetched from".into(),
        });
    };
    let (given_to, clock) = (assignment.clone(), Arc::clone(clock));
    // Reading a store, stretching a passphrase and synchronising the record block.
    let given = disk.run_all(async move {
        let log = match AccessFile::open(&record) {
            Ok(log) => log,
            Err(error) => return (Err(GiveError::Record(error)), json!(null)),
        };
        let given = fetch_all(&service, &given_to, &log, &*clock).await;
        (given, log.evidence(&given_to, &service.hints))
    });
    let (given, evidence) = given.await.map_err(|error| {
        let message = format!("the attempt's secrets were not fetched: {error}");
        failure(FailureKind::Infrastructure, codes::SECRETS_STORE, message)
    })?;
    detail["secrets"] = evidence;
    given
        .map(Some)
        .map_err(|error| explained(&error, &assignment.tenant))
}

async fn fetch_all(
    service: &SecretsService,
    assignment: &Assignment,
    log: &AccessFile,
    clock: &dyn Clock,
) -> Result<Given, GiveError> {
    let scope = scope(assignment)?;
    let gate = Gate::new(service.provider.clone(), log);
    let mut leases: Vec<(&Name, &SecretSpec, Lease)> = Vec::new();
    for (name, spec) in &assignment.stage.secrets {
        let wanted = reference(spec);
        let lease = gate.fetch(&wanted, &scope, clock.timestamp()).await?;
        leases.push((name, spec, lease));
    }
    let named = leases
        .iter()
        .map(|(_, _, lease)| (lease.reference().name.as_str(), lease.redactable()));
    let redactor = Redactor::new(named)?;
    for name in redactor.partly() {
        service.hints.add(format!(
            "hint: secret `{name}` of stage `{}` is too long to be looked for in its rare encodings, \
             which docs/secrets.md lists",
            assignment.stage.name
        ));
    }
    let now = clock.timestamp();
    let (mut files, mut variables) = (Vec::new(), BTreeMap::new());
    for (name, spec, lease) in &leases {
        let value = lease.value(now)?;
        files.push((*name, value));
        if let Some(variable) = &spec.env {
            if value.expose().contains(&0) || std::str::from_utf8(value.expose()).is_err() {
                let name = spec.from.clone();
                return Err(GiveError::Variable { name });
            }
            variables.insert(variable.clone(), value.clone());
        }
    }
    let token = assignment.attempt.token().to_string();
    let mounted = service.memory.mount(&token, files)?;
    let launch = launch::Secrets {
        folder: mounted.folder().to_owned(),
        variables,
        redactor,
    };
    let references = leases
        .iter()
        .map(|(name, _, lease)| ((*name).clone(), lease.reference().clone()))
        .collect();
    Ok(Given {
        mounted,
        references,
        launch,
    })
}

fn scope(assignment: &Assignment) -> Result<Scope, GiveError> {
    let name = |text: &str| {
        text.parse().map_err(|source| GiveError::Tenant {
            tenant: assignment.tenant.clone(),
            source,
        })
    };
    let lasts = assignment.timeout() + assignment.grace();
    let declared: BTreeSet<Reference> = assignment.stage.secrets.values().map(reference).collect();
    Ok(Scope {
        tenant: name(&assignment.tenant)?,
        pipeline: name(&assignment.pipeline)?,
        stage: name(&assignment.stage.name)?,
        run: assignment.attempt.run.clone(),
        attempt: assignment.attempt.number,
        declared,
        lasts: SignedDuration::try_from(lasts).unwrap_or(SignedDuration::MAX),
    })
}

fn reference(spec: &SecretSpec) -> Reference {
    match spec.version {
        Some(number) => Reference::exact(spec.from.clone(), number),
        None => Reference::current(spec.from.clone()),
    }
}

impl Given {
    /// What the runner is told of them.
    pub(crate) fn launch(&self) -> launch::Secrets {
        self.launch.clone()
    }

    /// Which attempts may have the same process one after the other.
    pub(crate) fn reuse(&self, assignment: &Assignment) -> ReuseKey {
        reuse(&assignment.reuse, &assignment.attempt.run, &self.references)
    }

    /// Overwrites and removes the files; answers with what still finds the values. To be called
    /// once the work has ended.
    pub(crate) fn take_back(self) -> Redactor {
        if let Err(error) = self.mounted.remove() {
            let error = chain(&error);
            tracing::error!(
                error,
                "an attempt's secrets were not removed; the next start does"
            );
        }
        self.launch.redactor
    }
}

/// The key of attempts with secrets: of one run alone, and only of those that have the same secrets,
/// at the same versions, under the same names. What a process has read it may keep, but whoever is
/// served by it has been given the same. Names have no line feed and no `=`.
fn reuse(shared: &str, run: &RunId, references: &[(Name, Reference)]) -> ReuseKey {
    let mut key = shared.to_owned();
    for (file, reference) in references {
        key.push_str(&format!("\n{file}={reference}"));
    }
    ReuseKey::of_run(run.clone(), key)
}

/// Redacts what is told of an attempt. What it set aside was redacted before it was written.
pub(crate) fn redact(redactor: &Redactor, outcome: &mut Outcome) {
    if let AttemptResult::Failed(failure) = &mut outcome.result {
        failure.message = redactor.redact_excerpt(failure.message.raw()).into();
    }
    redactor.redact_json(&mut outcome.detail);
}

/// Redacts what a function said of its failure.
pub(crate) fn redact_end(redactor: &Redactor, end: &mut launch::End) {
    if let launch::End::HandlerError {
        error_type,
        message,
    } = end
    {
        *error_type = redactor.redact_excerpt(error_type.raw()).into();
        *message = redactor.redact_excerpt(message.raw()).into();
    }
}

/// The record of an attempt's accesses: a JSON object a line, durable before a value is given.
struct AccessFile {
    path: PathBuf,
    file: Mutex<File>,
    accesses: Mutex<Vec<Access>>,
}

impl AccessFile {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            accesses: Mutex::default(),
        })
    }

    /// What evidence has: every access of this attempt, and the digest of the record.
    fn evidence(&self, assignment: &Assignment, hints: &Hints) -> Value {
        let accesses = self.accesses.lock().unwrap_or_else(PoisonError::into_inner);
        // They were asked for in this order, one access each.
        let names = assignment.stage.secrets.keys();
        let records = names.zip(&*accesses).map(|(name, access)| {
            json!({
                "name": name, "reference": access.reference, "at": access.at,
                "verdict": access.verdict, "reason": access.reason,
            })
        });
        let records: Vec<Value> = records.collect();
        let digest = std::fs::read(&self.path).map(|bytes| Digest::of(&bytes).to_string());
        let mut evidence = json!({ "digest": digest.ok(), "records": records });
        let unlocked = barecount_secrets::unlocked_bytes();
        if unlocked > 0 {
            hints.add(
                "hint: secrets are in memory that this host may swap, since it lets this process lock \
                 too little; raise `ulimit -l`, or `LimitMEMLOCK=` of its service"
                    .to_owned(),
            );
            evidence["swappable_bytes"] = json!(unlocked);
        }
        evidence
    }
}

#[async_trait]
impl AccessLog for AccessFile {
    async fn record(&self, access: &Access) -> Result<(), NotRecorded> {
        let not_recorded = |error: io::Error| NotRecorded(Box::new(error));
        let mut line = serde_json::to_vec(access).map_err(|error| NotRecorded(Box::new(error)))?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)
            .and_then(|()| file.sync_data())
            .map_err(not_recorded)?;
        let mut accesses = self.accesses.lock().unwrap_or_else(PoisonError::into_inner);
        accesses.push(access.clone());
        Ok(())
    }
}

/// Whose failure it is, under which code. What another try would meet again is not tried again.
fn explained(error: &GiveError, tenant: &str) -> Failure {
    let (kind, code) = judged(error);
    let help = match error {
        GiveError::Fetch(error) => help_of_fetch(error, tenant),
        GiveError::Mount(error) => error.help(),
        GiveError::Variable { .. } => Some("Read it from its file instead.".to_owned()),
        _ => None,
    };
    let help = help.map(|help| format!("; {help}")).unwrap_or_default();
    failure(kind, code, chain(error) + &help)
}

fn judged(error: &GiveError) -> (FailureKind, Code) {
    use FailureKind::{Infrastructure, Policy};
    match error {
        GiveError::Fetch(FetchError::Provider { source, .. }) => match source {
            ProviderError::NotFound { .. } => (Policy, codes::SECRET_NOT_FOUND),
            ProviderError::OtherTenant { .. } => (Policy, codes::SECRET_REFUSED),
            ProviderError::Unavailable { source } => match source.downcast_ref() {
                Some(StoreError::Key(_) | StoreError::WrongKey { .. }) => {
                    (Infrastructure, codes::SECRETS_KEY)
                }
                _ => (Infrastructure, codes::SECRETS_STORE),
            },
        },
        GiveError::Fetch(FetchError::NotDeclared { .. }) | GiveError::Tenant { .. } => {
            (Policy, codes::SECRET_REFUSED)
        }
        GiveError::Fetch(FetchError::NotRecorded { .. })
        | GiveError::Record(_)
        | GiveError::Expired(_) => (Infrastructure, codes::SECRET_REFUSED),
        GiveError::Redactor(_) | GiveError::Variable { .. } => (Policy, codes::SECRET_VALUE),
        GiveError::Mount(_) => (Infrastructure, codes::SECRETS_MEMORY),
    }
}

fn help_of_fetch(error: &FetchError, tenant: &str) -> Option<String> {
    match error {
        FetchError::Provider {
            source: ProviderError::NotFound { reference, .. },
            ..
        } => {
            let name = &reference.name;
            Some(format!(
                "`barecount secrets ls --tenant {tenant}` shows what there is, `barecount secrets \
                 set {name} --tenant {tenant}` sets it"
            ))
        }
        FetchError::Provider {
            source: ProviderError::Unavailable { source },
            ..
        } => source.downcast_ref().and_then(StoreError::help),
        _ => error.help(),
    }
}

fn failure(kind: FailureKind, code: Code, message: String) -> Failure {
    Failure {
        kind,
        code: code.id.to_owned(),
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(file: &str, reference: &str) -> (Name, Reference) {
        let name = file.parse().expect("it is a name");
        (name, reference.parse().expect("it is a reference"))
    }

    #[test]
    fn a_process_is_shared_within_one_run_by_attempts_that_have_the_same_secrets() {
        let run = |byte| RunId::from_bytes([byte; 16]);
        let one = [named("token", "erp/token@1")];
        let key = reuse("digest", &run(1), &one);
        assert_eq!(key, reuse("digest", &run(1), &one));
        assert_eq!(key.run, Some(run(1)));
        for other in [
            reuse("digest", &run(2), &one),
            reuse("other", &run(1), &one),
            reuse("digest", &run(1), &[named("token", "erp/token@2")]),
            reuse("digest", &run(1), &[named("key", "erp/token@1")]),
            reuse("digest", &run(1), &[named("token", "erp/other@1")]),
            reuse("digest", &run(1), &[]),
        ] {
            assert_ne!(key, other);
        }
    }
}
