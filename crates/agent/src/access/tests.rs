use async_trait::async_trait;
use barecount_api::attempt::AttemptRef;
use barecount_model::{
    class::{NetworkProfile, Phase, RunnerClass, Size},
    id::{RunId, TaskId},
    identity::Workload,
    manifest::{DeadLetterLimits, EgressMode, EgressProtocol, Format, SchemaEvolution, WriteMode},
    pipeline::PartitionFilter,
    plan::{EgressLimits, Pin, Resources, StagePlan, WorkPlan},
    run::outcome::{Failure, FailureKind, StagedDataset},
};
use ed25519_dalek::{Signer as _, SigningKey};

use super::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// When the identities of these tests are issued.
fn issued() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(crate) fn verifier() -> IdentityVerifier {
    IdentityVerifier::new(key().verifying_key())
}

/// Answers everything, and remembers what it was asked for.
#[derive(Default)]
pub(crate) struct Asked(Mutex<Vec<String>>);

impl Asked {
    fn note(&self, what: impl Into<String>) {
        self.0
            .lock()
            .expect("no test panics with it")
            .push(what.into());
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no test panics with it"))
    }
}

#[async_trait]
impl DataPlane for Asked {
    async fn provide(
        &self,
        input: &InputPlan,
        _: &Assignment,
        _: &Path,
    ) -> Result<Value, DataError> {
        self.note(match input {
            InputPlan::Dataset { dataset, .. } => format!("read {dataset}"),
            InputPlan::File { name, .. } => format!("read {name}"),
        });
        Ok(Value::Null)
    }

    async fn stage(
        &self,
        output: &Output,
        _: &Assignment,
        _: &Path,
        _: &Path,
        _: &Letters,
        _: &StagingWatch,
    ) -> Result<StagedOutput, DataError> {
        self.note(format!("write {}", output.dataset));
        Ok(StagedOutput {
            dataset: StagedDataset {
                dataset: output.dataset.to_string(),
                rows: 0,
                bytes: 0,
                digest: String::new(),
                commit: Value::Null,
            },
            tests: Value::Null,
        })
    }

    async fn dead_letters(&self, _: &Assignment, _: &Path, _: &Letters) -> Result<(), DataError> {
        self.note("dead letters");
        Ok(())
    }

    async fn provide_checkpoint(
        &self,
        _: &Assignment,
        _: &Path,
    ) -> Result<Option<String>, DataError> {
        self.note("read checkpoint");
        Ok(None)
    }

    async fn stage_checkpoint(
        &self,
        _: &Assignment,
        _: &Path,
        _: &Path,
    ) -> Result<Option<StagedCheckpoint>, DataError> {
        self.note("write checkpoint");
        Ok(None)
    }

    async fn hand_on_checkpoint(&self, _: &Assignment, _: &Path) -> Result<(), DataError> {
        self.note("hand on checkpoint");
        Ok(())
    }

    async fn job(&self, _: &Assignment, _: &Path) -> Result<Value, DataError> {
        self.note("job");
        Ok(Value::Null)
    }
}

fn dataset(name: &str) -> InputPlan {
    InputPlan::Dataset {
        dataset: name.parse().expect("the test names a dataset"),
        from: None,
        format: Format::Csv,
        partitions: PartitionFilter::All,
        columns: Vec::new(),
    }
}

fn file(digest: &str) -> InputPlan {
    InputPlan::File {
        name: "limits".to_owned(),
        path: "/somewhere/limits.csv".to_owned(),
        digest: digest.to_owned(),
        bytes: 1,
    }
}

fn output(name: &str) -> Output {
    Output {
        dataset: name.parse().expect("the test names a dataset"),
        format: Format::Files,
        mode: WriteMode::Overwrite,
        schema_evolution: SchemaEvolution::default(),
        dead_letters: DeadLetterLimits::default(),
        partition_by: Vec::new(),
        columns: Vec::new(),
        tests: Vec::new(),
    }
}

fn destination(host: &str) -> Egress {
    Egress {
        host: host.parse().expect("the test names a host"),
        port: 443,
        protocol: EgressProtocol::Tls,
    }
}

fn stage(name: &str, reads: &[&str], writes: &str) -> StagePlan {
    StagePlan {
        name: name.to_owned(),
        phase: Phase::Utility,
        class: RunnerClass::Container,
        size: Size::Small,
        network_profile: NetworkProfile::PrivateVpc,
        egress: vec![destination("erp.example.com")],
        egress_mode: EgressMode::Enforce,
        egress_limits: EgressLimits::default(),
        boundary: None,
        secrets: std::collections::BTreeMap::new(),
        crossings: Vec::new(),
        backend: "fake".to_owned(),
        isolation: "sandbox".to_owned(),
        resources: Resources {
            cpu_millis: 1,
            memory_bytes: 1,
            pids: 1,
            open_files: 1,
            scratch_bytes: 1,
            disk_bytes: None,
            log_bytes: 1,
            workers: 1,
        },
        concurrency_limit: 1,
        work: WorkPlan::Package {
            package: Pin {
                name: "p".to_owned(),
                digest: "sha256:00".to_owned(),
            },
            command: Vec::new(),
        },
        drivers: Vec::new(),
        inputs: reads.iter().map(|name| dataset(name)).collect(),
        outputs: vec![output(writes)],
        needs: Vec::new(),
        partition_column: None,
        partitions: Vec::new(),
        application_retries: 0,
        infrastructure_retries: 0,
        initial_backoff_ms: 0,
        max_backoff_ms: 0,
        timeout_ms: 60_000,
        grace_ms: 1_000,
        env: std::collections::BTreeMap::new(),
    }
}

fn sign(identity: Identity) -> SignedIdentity {
    let signature = key().sign(&identity.signed_bytes()).to_bytes();
    SignedIdentity {
        identity,
        signature,
    }
}

/// An attempt of stage `first`, which reads `raw.a` and writes `gdp.a`.
fn assignment() -> Assignment {
    assignment_of(2)
}

/// The same, of another task.
pub(crate) fn assignment_of(task: u8) -> Assignment {
    let stage = stage("first", &["raw.a"], "gdp.a");
    let attempt = AttemptRef {
        run: RunId::from_bytes([1; 16]),
        index: 0,
        task: TaskId::from_bytes([task; 16]),
        number: 1,
    };
    let workload = Workload {
        environment: "local".to_owned(),
        tenant: "demo".to_owned(),
        pipeline: "example".to_owned(),
        stage: stage.name.clone(),
        run: attempt.run.clone(),
        task: attempt.task.clone(),
        attempt: attempt.number,
    };
    Assignment {
        path: None,
        reads: Default::default(),
        identity: sign(Identity::issue(workload, &stage, issued())),
        attempt,
        run_token: "token".to_owned(),
        tenant: "demo".to_owned(),
        pipeline: "example".to_owned(),
        version: "sha256:00".to_owned(),
        stage,
        partition: None,
        window: None,
        reuse: "reuse".to_owned(),
    }
}

fn refused(assignment: &Assignment, now: &Now<'_>) -> Result<(), Option<AccessError>> {
    let data = Asked::default();
    let opened = verifier().open(assignment, &data, now);
    opened.map(drop).map_err(Some)
}

#[tokio::test]
async fn an_attempt_reaches_what_its_stage_declares() -> TestResult {
    let (assignment, data) = (assignment(), Asked::default());
    let gate = verifier().open(&assignment, &data, &issued)?;
    let place = Path::new("/place");
    gate.reach(&assignment.stage.egress)?;
    gate.provide(&assignment.stage.inputs[0], place).await?;
    gate.job(place).await?;
    gate.provide_checkpoint(place).await?;
    let letters = Letters::in_file(place.join("letters"), 0);
    gate.stage(
        &assignment.stage.outputs[0],
        place,
        place,
        &letters,
        &StagingWatch::default(),
    )
    .await?;
    gate.dead_letters(place, &letters).await?;
    gate.stage_checkpoint(place, place).await?;
    let expected = [
        "read raw.a",
        "job",
        "read checkpoint",
        "write gdp.a",
        "dead letters",
        "write checkpoint",
    ];
    assert_eq!(data.taken(), expected);
    let (evidence, _) = gate.evidence();
    assert_eq!(evidence["accesses"]["allowed"], 7);
    assert_eq!(evidence["accesses"]["refused"], 0);
    assert_eq!(evidence["scopes"]["datasets_read"], json!(["raw.a"]));
    let id = format!(
        "spiffe://local/tenant/demo/pipeline/example/stage/first/run/run_{}/task/task_{}/attempt/1",
        "01".repeat(16),
        "02".repeat(16)
    );
    assert_eq!(evidence["id"], id);
    Ok(())
}

#[tokio::test]
async fn an_attempt_that_asks_for_the_dataset_of_another_stage_is_refused_and_recorded()
-> TestResult {
    let mut assignment = assignment();
    // What it was told is another stage's, whose name it has kept; what was signed is its own.
    assignment.stage.inputs = vec![dataset("raw.b")];
    assignment.stage.outputs = vec![output("gdp.b")];
    assignment.stage.egress = vec![destination("elsewhere.example.com")];
    let data = Asked::default();
    let gate = verifier().open(&assignment, &data, &issued)?;
    let place = Path::new("/place");
    let stage = &assignment.stage;
    let read = gate.provide(&stage.inputs[0], place).await;
    let job = gate.job(place).await;
    let write = gate
        .stage(
            &stage.outputs[0],
            place,
            place,
            &Letters::in_file(place.join("letters"), 0),
            &StagingWatch::default(),
        )
        .await;
    let reach = gate.reach(&stage.egress);
    // Datasets are read or written, and not because the other is allowed.
    let written = gate.provide(&dataset("gdp.a"), place).await;
    let other_file = gate.provide(&file("sha256:ff"), place).await;
    assert_eq!(data.taken(), Vec::<String>::new(), "nothing was reached");
    for refused in [
        read.err(),
        job.err(),
        write.err(),
        reach.err().map(DataError::from),
        written.err(),
        other_file.err(),
    ] {
        let failure = Failure::from(refused.ok_or("an access was allowed")?);
        assert_eq!(failure.kind, FailureKind::Policy);
        assert_eq!(failure.code, "BC0403");
    }
    let accesses = &gate.evidence().0["accesses"];
    assert_eq!(accesses["refused"], 6);
    assert_eq!(accesses["records"][0]["object"], "dataset raw.b");
    assert_eq!(accesses["records"][0]["verdict"], "refused");
    Ok(())
}

#[test]
fn an_attempt_is_given_the_secrets_that_were_placed_with_it_and_in_that_version_alone() -> TestResult
{
    let secret = |from: &str, version| -> Result<SecretSpec, Box<dyn std::error::Error>> {
        Ok(SecretSpec {
            from: from.parse()?,
            version,
            env: None,
        })
    };
    let mut assignment = assignment();
    let mut identity = assignment.identity.identity.clone();
    identity.scopes.secrets.insert("erp/token@2".to_owned());
    assignment.identity = sign(identity);
    let data = Asked::default();
    let gate = verifier().open(&assignment, &data, &issued)?;
    gate.fetch([&secret("erp/token", Some(2))?])?;
    for other in [
        secret("erp/token", None)?,
        secret("erp/token", Some(1))?,
        secret("erp/other", Some(2))?,
    ] {
        let refused = gate.fetch([&other]).err().ok_or("it was given")?;
        assert_eq!(Failure::from(refused).code, "BC0403");
    }
    let accesses = &gate.evidence().0["accesses"];
    assert_eq!(accesses["records"][0]["object"], "secret erp/token@2");
    assert_eq!(accesses["refused"], 3);
    Ok(())
}

#[test]
fn an_identity_whose_scopes_were_widened_opens_nothing() {
    let mut widened = assignment();
    let scopes = &mut widened.identity.identity.scopes;
    scopes
        .datasets_read
        .insert("raw.b".parse().expect("a dataset"));
    assert_eq!(refused(&widened, &issued), Err(Some(AccessError::Forged)));
    let mut prolonged = assignment();
    prolonged.identity.identity.expires_at = Timestamp::MAX;
    assert_eq!(refused(&prolonged, &issued), Err(Some(AccessError::Forged)));
    let mut signed_by_another = assignment();
    let identity = &signed_by_another.identity.identity;
    let other = SigningKey::from_bytes(&[8; 32]);
    signed_by_another.identity.signature = other.sign(&identity.signed_bytes()).to_bytes();
    assert_eq!(
        refused(&signed_by_another, &issued),
        Err(Some(AccessError::Forged))
    );
}

#[test]
fn an_identity_opens_nothing_for_another_attempt() {
    let others: [fn(&mut Assignment); 6] = [
        |a| a.attempt.run = RunId::from_bytes([9; 16]),
        |a| a.attempt.task = TaskId::from_bytes([9; 16]),
        |a| a.attempt.number = 2,
        |a| a.tenant = "other".to_owned(),
        |a| a.pipeline = "other".to_owned(),
        |a| a.stage.name = "second".to_owned(),
    ];
    for change in others {
        let mut assignment = assignment();
        change(&mut assignment);
        let holder = assignment.identity.identity.workload.to_string();
        assert_eq!(
            refused(&assignment, &issued),
            Err(Some(AccessError::NotOurs { holder }))
        );
    }
}

/// The first moment at which the identity of these tests holds no more: timeout, grace period and
/// an hour after it was issued.
fn expired() -> Timestamp {
    issued() + jiff::SignedDuration::from_secs(60 + 1 + 3_600)
}

#[tokio::test]
async fn an_identity_opens_nothing_once_it_has_expired() -> TestResult {
    let (assignment, data) = (assignment(), Asked::default());
    let expires_at = expired();
    assert_eq!(
        refused(&assignment, &expired),
        Err(Some(AccessError::Expired { expires_at }))
    );
    let before: fn() -> Timestamp = || issued() - jiff::SignedDuration::from_mins(6);
    assert!(refused(&assignment, &before).is_err(), "it holds not yet");
    let mut gate = verifier().open(&assignment, &data, &issued)?;
    gate.now = &expired;
    let read = gate
        .provide(&assignment.stage.inputs[0], Path::new("/"))
        .await;
    let checkpoint = gate.hand_on_checkpoint(Path::new("/")).await;
    for refused in [read.err(), checkpoint.err()] {
        let failure = Failure::from(refused.ok_or("an access was allowed")?);
        assert_eq!(failure.code, "BC0404");
    }
    assert_eq!(data.taken(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn evidence_of_accesses_is_bounded_keeps_the_refusal_and_has_the_digest_of_the_rest()
-> TestResult {
    let (assignment, data) = (assignment(), Asked::default());
    let gate = verifier().open(&assignment, &data, &issued)?;
    for _ in 0..1_000 {
        gate.provide(&assignment.stage.inputs[0], Path::new("/"))
            .await?;
    }
    assert!(
        gate.provide(&dataset("raw.b"), Path::new("/"))
            .await
            .is_err()
    );
    let (evidence, whole) = gate.evidence();
    let accesses = &evidence["accesses"];
    assert_eq!(accesses["allowed"], 1_000);
    let whole = whole.ok_or("there is more than evidence shows")?;
    assert_eq!(whole.lines().count(), 1_001);
    assert_eq!(accesses["digest"], json!(Digest::of(whole.as_bytes())));
    assert_eq!(accesses["unlisted"], 0);
    let records = accesses["records"].as_array().ok_or("a list")?;
    assert_eq!(records.len(), RECORDED + 1);
    assert_eq!(records[RECORDED]["object"], "dataset raw.b");
    assert_eq!(accesses["left_out"], 1_000 - RECORDED);
    Ok(())
}
