//! Measures a warm invocation of a function that echoes: from the launch to the known end, places
//! and log included; of one on the published client for Rust, and of one without any. Beside them,
//! in the same run and turn by turn, the least that any such interface costs: a request over HTTP to
//! another process that echoes its body, over TCP on the loopback device and over a Unix socket.
//! Prints one JSON line.
//!
//! `cargo run --release -p barecount-runner --example invoke [COUNT]`. The binary is its own
//! function.

mod bare;
mod plain;

use std::{
    collections::BTreeMap,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use barecount_model::{class::Size, id::TaskId};
use barecount_runner::{
    Runner,
    clock::SystemClock,
    handler::PoolLimits,
    launch::{
        AttemptToken, End, HandlerProgram, Isolation, Launch, Limits, Places, ReuseKey, Work,
    },
    local::{Host, Local},
    serverless::Serverless,
};
use barecount_sandbox::{Launcher, LauncherConfig};
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

const WARM_UP: usize = 200;
const COUNT: usize = 2000;

#[expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program, not a library"
)]
fn main() -> ExitCode {
    let function = std::env::args().next().as_deref() == Some("/var/task/bootstrap");
    let mut arguments = std::env::args().skip(1);
    let done = if function && std::env::var_os(bare::ASKED_BY).is_some() {
        bare::echo().map(|()| None)
    } else if function {
        echo().map(|()| None)
    } else if let (Some(plain::SERVER), Some(socket)) =
        (arguments.next().as_deref(), arguments.next())
    {
        plain::server(Path::new(&socket)).map(|()| None)
    } else {
        measure().map(Some)
    };
    match done {
        Ok(line) => {
            if let Some(line) = line {
                println!("{line}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn echo() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(lambda_runtime::run(service_fn(
        |event: LambdaEvent<Value>| async move {
            let answer: Result<Value, std::convert::Infallible> =
                Ok(event.payload["event"].clone());
            answer
        },
    )))
}

fn measure() -> Result<Value, Failure> {
    let launcher = Launcher::start(LauncherConfig::new("barecount-bench-invoke"))?;
    let count = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => COUNT,
    };
    let folder = tempfile::tempdir()?;
    let package = folder.path().join("package");
    fs_err::create_dir(&package)?;
    fs_err::copy(std::env::current_exe()?, package.join("bootstrap"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    // On the runtime's own threads, as an agent's work is.
    let folder = folder.path().to_owned();
    runtime.block_on(async {
        tokio::spawn(async move { invoke(launcher, &folder, package, count).await }).await?
    })
}

async fn invoke(
    launcher: Launcher,
    folder: &Path,
    package: PathBuf,
    count: usize,
) -> Result<Value, Failure> {
    let host = Host {
        launcher: Arc::new(launcher),
        clock: Arc::new(SystemClock::start()),
        paths: barecount_network::path::Paths::default(),
        weakest: Isolation::Sandbox,
    };
    let limits = PoolLimits {
        sandboxes: 2,
        idle: Duration::from_secs(60),
    };
    let class = Serverless::new(host, limits, &folder.join("workers"))?;
    let runner = Local::open(class, &folder.join("state"))?;
    let with_client = BTreeMap::new();
    let without = BTreeMap::from([(bare::ASKED_BY.to_owned(), "1".to_owned())]);
    let mut series = [Series::of(with_client), Series::of(without)];
    let (mut tcp, mut unix) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut plain = plain::Plain::start(folder).await?;
    let mut token = 0;
    for number in 0..WARM_UP + count {
        for one in &mut series {
            let launch = launch(folder, package.clone(), token, one.env.clone())?;
            token += 1;
            one.add(number, &runner, &launch).await?;
        }
        let (by_tcp, by_unix) = (plain.tcp().await?, plain.unix().await?);
        if number >= WARM_UP {
            tcp.push(by_tcp);
            unix.push(by_unix);
        }
    }
    runner.shut_down().await;
    let [took, bare] = series;
    let (warm, cold, load) = (took.warm.len(), took.cold, loadavg()?);
    let (took, bare) = (Quantiles::of(took.warm), Quantiles::of(bare.warm));
    let (tcp, unix) = (Quantiles::of(tcp), Quantiles::of(unix));
    Ok(json!({
        "bench": "invoke",
        "warm": warm,
        "of": count,
        "p50_us": took.p50,
        "p99_us": took.p99,
        "bare_p50_us": bare.p50,
        "bare_p99_us": bare.p99,
        "plain_tcp_p50_us": tcp.p50,
        "plain_tcp_p99_us": tcp.p99,
        "plain_unix_p50_us": unix.p50,
        "plain_unix_p99_us": unix.p99,
        "cold_us": micros(cold),
        "load": load,
        "optimised": !cfg!(debug_assertions),
    }))
}

fn loadavg() -> Result<String, Failure> {
    let text = fs_err::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// One function's invocations.
struct Series {
    env: BTreeMap<String, String>,
    cold: Duration,
    warm: Vec<Duration>,
}

impl Series {
    fn of(env: BTreeMap<String, String>) -> Self {
        Self {
            env,
            cold: Duration::ZERO,
            warm: Vec::new(),
        }
    }

    async fn add(
        &mut self,
        number: usize,
        runner: &impl Runner,
        launch: &Launch,
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        let handle = runner.launch(launch).await?;
        let ended = runner.wait(&handle).await?;
        let elapsed = begin.elapsed();
        if !matches!(&ended.end, End::Answered { response } if *response == json!("hello")) {
            return Err(format!("the echo ended as {:?}", ended.end).into());
        }
        match number {
            0 => self.cold = elapsed,
            _ if number >= WARM_UP && ended.warm => self.warm.push(elapsed),
            _ => {}
        }
        Ok(runner.destroy(&launch.token).await?)
    }
}

/// Of a row of measurements, in microseconds; `None` where there are none.
struct Quantiles {
    p50: Option<f64>,
    p99: Option<f64>,
}

impl Quantiles {
    fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |share: usize| took.get(took.len() * share / 1000).copied().map(micros);
        Self {
            p50: at(500),
            p99: at(990),
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn launch(
    folder: &Path,
    package: PathBuf,
    number: u32,
    env: BTreeMap<String, String>,
) -> Result<Launch, Failure> {
    let attempt = folder.join(format!("attempt-{number}"));
    let place = |name: &str| attempt.join(name);
    for name in ["input", "output", "checkpoint"] {
        fs_err::create_dir_all(place(name))?;
    }
    Ok(Launch {
        token: AttemptToken {
            task: TaskId::from_bytes([1; 16]),
            number,
        },
        size: Size::Small,
        work: Work::Handler {
            program: HandlerProgram::Package(package),
            event: json!("hello"),
        },
        limits: Limits {
            memory_bytes: 128 << 20,
            cpu_millis: 1000,
            pids: 32,
            open_files: 256,
            scratch_bytes: 16 << 20,
            file_bytes: None,
            log_bytes: 1 << 20,
        },
        places: Places {
            input: place("input"),
            output: place("output"),
            checkpoint: place("checkpoint"),
            cache: None,
            drivers: BTreeMap::new(),
        },
        env,
        isolation: Isolation::Sandbox,
        reuse: Some(ReuseKey::of_any_run("bench")),
        secrets: None,
        network: None,
        timeout: Duration::from_secs(10),
        log: attempt.join("log"),
    })
}
