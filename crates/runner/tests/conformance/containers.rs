//! What class container promises of handlers beyond the contract: what a warm container keeps from one
//! task to the next, what it does not, and how it is stopped.

use std::{collections::BTreeMap, error::Error, io, path::PathBuf, sync::Arc, time::Duration};

use barecount_model::id::RunId;
use barecount_runner::{
    Runner, RunnerError,
    container::Container,
    launch::{End, Ended, Launch, ReuseKey, Root, Secrets, Work},
    local::Local,
};
use barecount_secrets::{Redactor, Secret};
use serde_json::{Value, json};

use crate::{
    function::{LOOK, MISBEHAVIOUR, Misbehaviour, WAITING},
    functions::{Test, TestResult, answer, check},
    ground::Ground,
    payload::SAVE,
    shared::Shared,
    subjects::{container, image_handler},
};

/// Names and bodies.
pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "a_warm_container_keeps_its_memory_and_its_cache_and_nothing_else_of_a_task",
        |shared| Box::pin(kept(shared)),
    ),
    (
        "secrets_are_inside_for_the_time_of_an_attempt_and_its_own",
        |shared| Box::pin(secrets_of_each(shared)),
    ),
    (
        "a_process_that_was_given_secrets_serves_nobody_who_was_not_given_them",
        |shared| Box::pin(secrets_apart(shared)),
    ),
    (
        "what_is_warm_for_one_run_ends_with_it_and_the_rest_stays",
        |shared| Box::pin(released(shared)),
    ),
    (
        "a_handler_that_is_asked_to_stop_says_that_its_checkpoint_is_whole",
        |shared| Box::pin(stopped(shared)),
    ),
    (
        "a_command_that_is_asked_to_stop_says_so_by_its_exit_status",
        |shared| Box::pin(stopped_command(shared)),
    ),
];

/// Containers, on folders of their own.
struct Bench {
    image: PathBuf,
    ground: Ground,
    runner: Local<Container>,
    /// Where secrets are, as below the agent's own folder in memory.
    memory: PathBuf,
}

impl Bench {
    fn new(shared: &Shared) -> io::Result<Self> {
        let ground = Ground::new(shared)?;
        let state = ground.state();
        let class = container(shared.host(), Duration::from_secs(60), &state)?;
        let memory = ground.folder.join("memory");
        fs_err::create_dir(&memory)?;
        Ok(Self {
            image: shared.files.join("image"),
            runner: Local::open(class, &state)?,
            ground,
            memory,
        })
    }

    fn event(&self, number: u32, event: Value) -> io::Result<Launch> {
        let program = image_handler(&self.image);
        let mut launch = self.ground.launch(number, Work::Handler { program, event });
        let cache = self.ground.folder.join("cache");
        fs_err::create_dir_all(&cache)?;
        launch.places.cache = Some(cache);
        launch.reuse = Some(ReuseKey::of_any_run("key"));
        Ok(launch)
    }

    fn look(&self, number: u32) -> io::Result<Launch> {
        self.event(number, json!({ LOOK: number.to_string() }))
    }

    /// A launch of this run with one secret.
    fn with_secret(&self, number: u32, run: u8, value: &str) -> io::Result<Launch> {
        let mut launch = self.look(number)?;
        launch.reuse = Some(ReuseKey::of_run(RunId::from_bytes([run; 16]), "key"));
        let folder = self.memory.join(number.to_string());
        fs_err::create_dir(&folder)?;
        fs_err::write(folder.join("token"), value)?;
        let secret = Secret::new(value.as_bytes());
        let redactor = Redactor::new([("erp/token", &secret)]).map_err(io::Error::other)?;
        launch.secrets = Some(Secrets {
            folder,
            variables: BTreeMap::new(),
            redactor,
        });
        Ok(launch)
    }

    async fn carry_out(&self, launch: &Launch) -> Result<Ended, RunnerError> {
        let handle = self.runner.launch(launch).await?;
        self.runner.wait(&handle).await
    }

    /// Stops it once it has said this in its log.
    async fn stop_after(
        &self,
        launch: &Launch,
        said: &str,
    ) -> Result<Ended, Box<dyn Error + Send + Sync>> {
        let handle = self.runner.launch(launch).await?;
        let mut tries = tokio::time::interval(Duration::from_millis(2));
        // What has printed nothing has no log.
        let log = || fs_err::read_to_string(&launch.log).unwrap_or_default();
        while !log().contains(said) {
            tries.tick().await;
        }
        self.runner.stop(&handle, Duration::from_secs(30)).await?;
        Ok(self.runner.wait(&handle).await?)
    }

    /// Resolves once so many are warm; the suite as a whole is bounded.
    async fn warm(&self, count: usize) {
        let mut tries = tokio::time::interval(Duration::from_millis(2));
        while self.runner.class().warm() != count {
            tries.tick().await;
        }
    }

    /// Ends the test: nothing may be left, and no folder for secrets but those of attempts.
    async fn clean(self) -> TestResult {
        self.runner.shut_down().await;
        for number in 0..10 {
            let token = self.look(number)?.token;
            self.runner.destroy(&token).await?;
        }
        let left = self.ground.leftovers().await;
        check(left.is_empty(), &left)?;
        for entry in fs_err::read_dir(&self.memory)? {
            let name = entry?.file_name();
            let of_attempt = name.to_string_lossy().parse::<u32>().is_ok();
            check(of_attempt, &name)?;
        }
        Ok(())
    }
}

async fn kept(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(&shared)?;
    let first = bench.carry_out(&bench.look(1)?).await?;
    let second_launch = bench.look(2)?;
    let second = bench.carry_out(&second_launch).await?;
    check(!first.warm && second.warm, &(&first, &second))?;
    let expected = |served: u32, cache: &[&str]| {
        json!({
            "served": served, "cache_dir": cache, "checkpoint_dir": [], "output_dir": [],
            "scratch_dir": [], "input_dirs": 1, "output_dirs": 1, "checkpoint_dirs": 1,
            "secrets": {},
        })
    };
    check(*answer(&first)? == expected(1, &[]), &first)?;
    check(*answer(&second)? == expected(2, &["1"]), &second)?;
    let written = second_launch.places.output.join("2");
    check(fs_err::read_to_string(written)? == "2", &second)?;
    bench.clean().await
}

async fn secrets_of_each(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(&shared)?;
    for (number, value) in [(1, "canary of the first"), (2, "canary of the second one")] {
        let launch = bench.with_secret(number, 1, value)?;
        let ended = bench.carry_out(&launch).await?;
        check(ended.warm == (number > 1), &ended)?;
        let token = json!({ "token": { "length": value.len(), "written": false } });
        check(answer(&ended)?["secrets"] == token, &ended)?;
        // They are back where whoever made them removes them, as they were.
        let folder = bench.memory.join(number.to_string());
        check(
            fs_err::read_to_string(folder.join("token"))? == value,
            &number,
        )?;
        let inside = bench.memory.join("1.sandbox");
        check(fs_err::read_dir(inside)?.next().is_none(), &number)?;
        let log = fs_err::read_to_string(&launch.log)?;
        check(log.contains("the value is <[redacted:erp/token]>"), &log)?;
        check(!log.contains("canary"), &log)?;
    }
    bench.clean().await
}

async fn secrets_apart(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(&shared)?;
    let with = bench.with_secret(1, 1, "canary of the first")?;
    bench.carry_out(&with).await?;
    bench.warm(1).await;
    let other_run = bench.with_secret(2, 2, "canary of the first")?;
    // The same key, as nobody should give it, without a secret and with it as a variable.
    let mut without = bench.look(3)?;
    without.reuse.clone_from(&with.reuse);
    let mut as_variable = bench.with_secret(4, 1, "canary of the first")?;
    if let Some(secrets) = &mut as_variable.secrets {
        let value = Secret::new(b"canary of the first");
        secrets.variables.insert("TOKEN".to_owned(), value);
    }
    for launch in [other_run, without, as_variable] {
        let ended = bench.carry_out(&launch).await?;
        check(!ended.warm, &ended)?;
        answer(&ended)?;
    }
    bench.clean().await
}

async fn released(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(&shared)?;
    for launch in [
        bench.look(1)?,
        bench.with_secret(2, 1, "canary of the first")?,
        bench.with_secret(3, 2, "canary of the second")?,
    ] {
        answer(&bench.carry_out(&launch).await?)?;
    }
    bench.warm(3).await;
    bench.runner.release(&RunId::from_bytes([1; 16])).await;
    check(bench.runner.class().warm() == 2, &"two others are warm")?;
    let again = bench.with_secret(4, 1, "canary of the first")?;
    let again = bench.carry_out(&again).await?;
    check(!again.warm, &again)?;
    // One that is not at rest yet is not kept either.
    bench.runner.release(&RunId::from_bytes([1; 16])).await;
    let other = bench.with_secret(5, 2, "canary of the second")?;
    let other = bench.carry_out(&other).await?;
    check(other.warm, &other)?;
    let later = bench.with_secret(6, 1, "canary of the first")?;
    let later = bench.carry_out(&later).await?;
    check(!later.warm, &later)?;
    bench.clean().await
}

async fn stopped(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(&shared)?;
    for (number, misbehaviour, saved) in [
        (1, Misbehaviour::ExitsWhenAsked, true),
        (2, Misbehaviour::AnswersWhenAsked, true),
        (3, Misbehaviour::HangsAtWork, false),
    ] {
        let mut launch = bench.event(number, Value::Null)?;
        let name = format!("{misbehaviour:?}");
        launch.env.insert(MISBEHAVIOUR.to_owned(), name);
        let said = if saved { WAITING } else { "hanging" };
        let ended = bench.stop_after(&launch, said).await?;
        check(ended.end == End::Stopped && ended.saved == saved, &ended)?;
    }
    bench.clean().await
}

async fn stopped_command(shared: Arc<Shared>) -> TestResult {
    let bench = Bench::new(&shared)?;
    let mut launch = bench.look(1)?;
    launch.work = Work::Command {
        root: Root::Image(bench.image.clone()),
        argv: vec!["/payload".to_owned(), SAVE.to_owned()],
        working_dir: PathBuf::from("/"),
    };
    let ended = bench.stop_after(&launch, WAITING).await?;
    check(ended.end == End::Stopped && ended.saved, &ended)?;
    bench.clean().await
}
