//! What class serverless promises beyond the contract: sandboxes that stay warm, and for whom.

use std::{error::Error, future::Future, pin::Pin, sync::Arc, time::Duration};

use barecount_runner::{
    Runner, RunnerError,
    clock::{Clock, VirtualClock},
    conformance::Behaviour,
    launch::{End, Ended, HandlerProgram, Launch, ReuseKey, Work},
    local::{Host, Local},
    serverless::Serverless,
};
use serde_json::{Value, json};

use crate::{
    function::{MISBEHAVIOUR, Misbehaviour},
    ground::Ground,
    shared::Shared,
    subjects::serverless,
};

pub(crate) type TestResult = Result<(), Box<dyn Error + Send + Sync>>;
pub(crate) type Test = fn(Arc<Shared>) -> Pin<Box<dyn Future<Output = TestResult>>>;

/// Names and bodies.
pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "a_warm_sandbox_serves_the_next_attempt_of_an_equal_key",
        |shared| Box::pin(warm(shared)),
    ),
    (
        "what_each_attempt_on_a_warm_sandbox_used_is_told_apart",
        |shared| Box::pin(used_apart(shared)),
    ),
    (
        "another_key_or_other_variables_get_a_sandbox_of_their_own",
        |shared| Box::pin(other_keys(shared)),
    ),
    (
        "an_attempt_finds_neither_places_nor_scratch_of_the_one_before",
        |shared| Box::pin(nothing_shared(shared)),
    ),
    (
        "a_sandbox_with_a_process_left_behind_is_not_used_again",
        |shared| Box::pin(process_left(shared)),
    ),
    ("idle_sandboxes_end_after_the_idle_time", |shared| {
        Box::pin(scale_to_zero(shared))
    }),
    (
        "a_full_pool_ends_an_idle_sandbox_for_another_function",
        |shared| Box::pin(full_pool(shared)),
    ),
    (
        "a_sandbox_that_died_idle_is_replaced_without_a_failure",
        |shared| Box::pin(died_idle(shared)),
    ),
    ("an_event_above_six_mebibytes_is_refused", |shared| {
        Box::pin(large_event(shared))
    }),
];

/// A runner for functions, on folders of its own.
pub(crate) struct Bench {
    shared: Arc<Shared>,
    pub(crate) ground: Ground,
    pub(crate) runner: Local<Serverless>,
}

impl Bench {
    pub(crate) fn new(shared: Arc<Shared>) -> std::io::Result<Self> {
        let host = shared.host();
        Self::on(shared, host, Duration::from_secs(60))
    }

    pub(crate) fn on(shared: Arc<Shared>, host: Host, idle: Duration) -> std::io::Result<Self> {
        let ground = Ground::new(&shared)?;
        let state = ground.state();
        let runner = Local::open(serverless(host, idle, &state)?, &state)?;
        Ok(Self {
            shared,
            ground,
            runner,
        })
    }

    pub(crate) fn event(&self, number: u32, event: Value) -> Launch {
        let program = HandlerProgram::Package(self.shared.files.join("package"));
        let mut launch = self.ground.launch(number, Work::Handler { program, event });
        launch.reuse = Some(ReuseKey::of_any_run("key"));
        launch
    }

    pub(crate) fn echo(&self, number: u32) -> Launch {
        self.event(number, Value::Null)
    }

    pub(crate) fn behave(&self, number: u32, behaviour: &Behaviour) -> Launch {
        self.event(number, json!(behaviour))
    }

    pub(crate) fn misbehave(&self, number: u32, misbehaviour: Misbehaviour) -> Launch {
        let mut launch = self.echo(number);
        let name = format!("{misbehaviour:?}");
        launch.env.insert(MISBEHAVIOUR.to_owned(), name);
        launch
    }

    pub(crate) async fn carry_out(&self, launch: &Launch) -> Result<Ended, RunnerError> {
        let handle = self.runner.launch(launch).await?;
        self.runner.wait(&handle).await
    }

    /// Ends the test: nothing may be left.
    pub(crate) async fn clean(self) -> TestResult {
        self.runner.shut_down().await;
        for number in 0..10 {
            let token = self.echo(number).token;
            self.runner.destroy(&token).await?;
        }
        let left = self.ground.leftovers().await;
        check(left.is_empty(), &left)
    }
}

pub(crate) fn check(holds: bool, seen: &dyn std::fmt::Debug) -> TestResult {
    if holds {
        Ok(())
    } else {
        Err(format!("{seen:#?}").into())
    }
}

pub(crate) fn answer(ended: &Ended) -> Result<&Value, Box<dyn Error + Send + Sync>> {
    match &ended.end {
        End::Answered { response } => Ok(response),
        _ => Err(format!("{ended:#?}").into()),
    }
}

async fn used_apart(shared: Arc<Shared>) -> TestResult {
    const MILLIS: u64 = 200;
    let measured = shared.measures_processor_time();
    let bench = Bench::new(shared)?;
    let first = bench.carry_out(&bench.echo(1)).await?;
    let burnt = bench
        .carry_out(&bench.behave(2, &Behaviour::Burn(MILLIS)))
        .await?;
    let last = bench.carry_out(&bench.echo(3)).await?;
    let attempts = [&first, &burnt, &last];
    check(!first.warm && burnt.warm && last.warm, &attempts)?;
    let micros = attempts.map(|ended| ended.usage.cpu_micros);
    match micros {
        // A busy host gives the burner less than all of its time.
        [Some(_), Some(burnt), Some(last)] => {
            check(burnt >= 1_000 * MILLIS / 20 && burnt > 2 * last, &attempts)?;
        }
        _ => check(!measured && micros == [None; 3], &attempts)?,
    }
    bench.clean().await
}

async fn warm(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    let first = bench.carry_out(&bench.echo(1)).await?;
    let second = bench.carry_out(&bench.echo(2)).await?;
    check(!first.warm && second.warm, &(&first, &second))?;
    let (first, second) = (answer(&first)?, answer(&second)?);
    check(first["pid"] == second["pid"], &(first, second))?;
    check(first["input_dir"] != second["input_dir"], &(first, second))?;
    check(
        first["request_id"] != second["request_id"],
        &(first, second),
    )?;
    check(second["stage"] == "under-test", &second)?;
    check(second["attempt"] == 2, &second)?;
    bench.clean().await
}

async fn other_keys(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    bench.carry_out(&bench.echo(1)).await?;
    let mut other_key = bench.echo(2);
    other_key.reuse = Some(ReuseKey::of_any_run("other"));
    let mut no_key = bench.echo(3);
    no_key.reuse = None;
    let mut other_variables = bench.echo(4);
    other_variables
        .env
        .insert("SETTING".to_owned(), "2".to_owned());
    for launch in [other_key, no_key, other_variables] {
        let ended = bench.carry_out(&launch).await?;
        check(!ended.warm, &ended)?;
        answer(&ended)?;
    }
    bench.clean().await
}

async fn nothing_shared(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    for (number, name) in [(1, "one"), (2, "two"), (3, "three")] {
        let launch = bench.behave(number, &Behaviour::Append(name.to_owned()));
        let ended = bench.carry_out(&launch).await?;
        check(ended.warm == (number > 1), &ended)?;
        answer(&ended)?;
        let mut written = fs_err::read_dir(&launch.places.output)?;
        let first = written.next().transpose()?.map(|entry| entry.file_name());
        check(
            first.as_deref() == Some(name.as_ref()) && written.next().is_none(),
            &first,
        )?;
    }
    for number in [4, 5] {
        let launch = bench.behave(number, &Behaviour::FreshScratch);
        let ended = bench.carry_out(&launch).await?;
        check(ended.warm, &ended)?;
        answer(&ended)?;
    }
    let launch = bench.behave(6, &Behaviour::KeepInput);
    let ended = bench.carry_out(&launch).await?;
    check(ended.warm, &ended)?;
    answer(&ended)?;
    bench.clean().await
}

async fn process_left(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    let left = bench
        .carry_out(&bench.behave(1, &Behaviour::LeaveProcess))
        .await?;
    answer(&left)?;
    let next = bench.carry_out(&bench.echo(2)).await?;
    check(!next.warm, &next)?;
    bench.clean().await
}

async fn scale_to_zero(shared: Arc<Shared>) -> TestResult {
    let clock = Arc::new(VirtualClock::at(0));
    let mut host = shared.host();
    host.clock = clock.clone() as Arc<dyn Clock>;
    let bench = Bench::on(shared, host, Duration::from_secs(300))?;
    bench.carry_out(&bench.echo(1)).await?;
    until(|| bench.runner.class().warm() == 1).await;
    clock.advance(Duration::from_secs(299));
    let warm = bench.carry_out(&bench.echo(2)).await?;
    check(warm.warm, &warm)?;
    until(|| bench.runner.class().warm() == 1).await;
    clock.advance(Duration::from_secs(300));
    until(|| bench.runner.class().warm() == 0).await;
    let left = bench.ground.leftovers().await;
    // The records of the two attempts, and no process.
    check(left.iter().all(|left| !left.contains("process")), &left)?;
    bench.clean().await
}

/// Resolves once it is so; the suite as a whole is bounded.
async fn until(holds: impl Fn() -> bool) {
    let mut tries = tokio::time::interval(Duration::from_millis(2));
    while !holds() {
        tries.tick().await;
    }
}

async fn full_pool(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    // One more than there may be sandboxes.
    for number in 1..=5 {
        let mut launch = bench.echo(number);
        launch.reuse = Some(ReuseKey::of_any_run(number.to_string()));
        let ended = bench.carry_out(&launch).await?;
        check(!ended.warm, &ended)?;
    }
    bench.clean().await
}

async fn died_idle(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    for number in 1..=3 {
        let launch = bench.misbehave(number, Misbehaviour::EndsAfterwards);
        let ended = bench.carry_out(&launch).await?;
        check(*answer(&ended)? == json!(1), &ended)?;
    }
    bench.clean().await
}

async fn large_event(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(shared)?;
    let launch = bench.event(1, json!("x".repeat(6 << 20)));
    let refused = bench.runner.launch(&launch).await;
    check(
        matches!(refused, Err(RunnerError::Unlaunchable { .. })),
        &refused,
    )?;
    bench.clean().await
}
