//! What the next process finds after an agent was killed: this binary, started once more as an agent
//! that launches attempts and is then ended by `SIGKILL`.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use barecount_model::id::TaskId;
use barecount_runner::{
    Handle, Health, Phase, Recovered, Runner,
    conformance::{Behaviour, Subject, succeeded},
    launch::{AttemptToken, End},
};
use barecount_sandbox::{Launcher, LauncherConfig};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    functions::{Test, TestResult, check},
    ground::{CGROUP_PREFIX, Ground, remaining},
    payload::tell,
    shared::Shared,
    subjects::{LocalSubject, Under},
};

/// The first argument that makes this binary an agent.
pub(crate) const AGENT: &str = "agent";

/// Attempts of the agent: one that has ended, one that leaves a warm process where there are such,
/// one that goes on.
const ENDED: u32 = 1;
const WARM: u32 = 2;
const RUNNING: u32 = 3;

/// Names and bodies.
pub(crate) const TESTS: &[(&str, Test)] = &[
    ("nothing_of_an_agent_that_was_killed_goes_on", |shared| {
        Box::pin(killed(shared, false))
    }),
    (
        "what_an_agent_and_its_launcher_left_when_both_were_killed_is_cleared",
        |shared| Box::pin(killed(shared, true)),
    ),
    (
        "processors_leased_by_another_process_are_waited_for_and_free_when_it_is_killed",
        |shared| Box::pin(leased(shared)),
    ),
];

/// An agent in a process of its own. Killed when dropped.
struct Agent {
    process: Child,
    launcher: Pid,
}

impl Agent {
    fn start(
        shared: &Shared,
        under: Under,
        ground: &Ground,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([AGENT, under.name(), &*ground.task.printed()])
            .args([&shared.files, &ground.folder])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let launcher = line.trim().parse().ok().and_then(Pid::from_raw);
        let launcher = launcher.ok_or("the agent did not get ready")?;
        Ok(Self { process, launcher })
    }

    fn kill(mut self, with_launcher: bool) -> std::io::Result<()> {
        if with_launcher {
            // Held still first, so that it cannot see its agent die and clear up.
            kill_process(self.launcher, Signal::STOP)?;
        }
        self.process.kill()?;
        if with_launcher {
            kill_process(self.launcher, Signal::KILL)?;
        }
        self.process.wait().map(drop)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Is an agent, until it is killed.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    match agent(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

fn agent(arguments: &[String]) -> TestResult {
    let [under, task, files, folder] = arguments else {
        return Err("an agent needs a class, a task and two folders".into());
    };
    let launcher = Launcher::start(LauncherConfig::new(CGROUP_PREFIX))?;
    let pid = launcher.pid();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let shared = Shared::on(launcher, runtime, PathBuf::from(files));
    let under = Under::ALL.iter().find(|known| known.name() == under);
    let under = under.ok_or("no such class")?;
    let task: TaskId = task.parse()?;
    let subject = under.local(&shared, Ground::of(PathBuf::from(folder), task));
    shared.runtime.block_on(async {
        let runner = subject.open().await;
        for (number, behaviour) in [(ENDED, Behaviour::Exit(65)), (WARM, Behaviour::Succeed)] {
            let handle = runner
                .launch(&launch(&subject, number, &behaviour)?)
                .await?;
            runner.wait(&handle).await?;
        }
        runner
            .launch(&launch(&subject, RUNNING, &Behaviour::Hang)?)
            .await?;
        ready(pid);
        std::future::pending().await
    })
}

#[expect(clippy::print_stdout, reason = "the other process waits for it")]
fn ready(launcher: i32) {
    println!("{launcher}");
}

fn launch(
    subject: &LocalSubject,
    number: u32,
    behaviour: &Behaviour,
) -> Result<barecount_runner::launch::Launch, &'static str> {
    subject
        .launch(number, behaviour)
        .ok_or("it cannot behave so")
}

fn token(ground: &Ground, number: u32) -> AttemptToken {
    AttemptToken {
        task: ground.task.clone(),
        number,
    }
}

async fn killed(shared: Arc<Shared>, with_launcher: bool) -> TestResult {
    for under in [
        Under::Container,
        Under::ManagedEtl,
        Under::DedicatedCompute,
        Under::WarmServerless,
    ] {
        let subject = under.local(&shared, Ground::new(&shared)?);
        let ground = &subject.ground;
        let agent = Agent::start(&shared, under, ground)?;
        check(!ground.processes()?.is_empty(), &"nothing ran")?;
        let groups = ground.control_groups()?;
        check(!groups.is_empty(), &"nothing was in a control group")?;
        agent.kill(with_launcher)?;

        let later = subject.open().await;
        let found = later.recover(&token(ground, ENDED)).await?;
        match &found {
            Recovered::Ended(ended) => check(ended.end == End::Exited { code: 65 }, &found)?,
            _ => check(false, &found)?,
        }
        let found = later.recover(&token(ground, RUNNING)).await?;
        check(found == Recovered::Gone, &found)?;
        for number in [ENDED, WARM, RUNNING] {
            later.destroy(&token(ground, number)).await?;
        }
        let left = subject.leftovers().await;
        check(left.is_empty(), &(under, left))?;
        let left = remaining(&groups).await;
        check(left.is_empty(), &(under, left))?;
    }
    Ok(())
}

/// Holds that an attempt does not run, and says for whom it waits.
async fn provisioned(runner: &dyn Runner, handle: &Handle, holder: &str) -> TestResult {
    match runner.progress(handle, None).await? {
        Phase::Provisioning { waits_for } => check(waits_for.raw().contains(holder), &waits_for),
        other => check(false, &other),
    }
}

async fn leased(shared: Arc<Shared>) -> TestResult {
    let under = Under::DedicatedCompute;
    let subject = under.local(&shared, Ground::new(&shared)?);
    let ground = &subject.ground;
    let runner = subject.open().await;
    check(runner.probe().await == Health::Healthy, &"it is not free")?;
    let agent = Agent::start(&shared, under, ground)?;
    let health = runner.probe().await;
    let holder = format!(
        "{} (process {})",
        token(ground, RUNNING),
        agent.process.id()
    );
    match &health {
        Health::Busy { reason, .. } => check(reason.contains(&holder), &(reason, &holder))?,
        _ => check(false, &health)?,
    }

    // One that waits can be stopped, and has then done nothing.
    let waiting = launch(&subject, 4, &Behaviour::Append("lines".to_owned()))?;
    let handle = runner.launch(&waiting).await?;
    provisioned(&*runner, &handle, &holder).await?;
    runner.stop(&handle, Duration::ZERO).await?;
    let ended = runner.wait(&handle).await?;
    check(ended.end == End::Stopped, &ended)?;
    check(!waiting.places.output.join("lines").exists(), &"it ran")?;

    let next = launch(&subject, 5, &Behaviour::Succeed)?;
    let handle = runner.launch(&next).await?;
    provisioned(&*runner, &handle, &holder).await?;
    agent.kill(false)?;
    let ended = runner.wait(&handle).await?;
    check(succeeded(&ended.end), &ended)?;
    for number in 1..=5 {
        runner.destroy(&token(ground, number)).await?;
    }
    check(runner.probe().await == Health::Healthy, &"it is not free")?;
    // What the killed agent recorded is for a process that opens the state after it.
    let later = subject.open().await;
    later.destroy(&token(ground, ENDED)).await?;
    later.destroy(&token(ground, WARM)).await?;
    let left = subject.leftovers().await;
    check(left.is_empty(), &left)
}
