//! Watching a target's process.

use std::{
    error::Error,
    ffi::OsString,
    fs::{self, File},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io::{self, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use crate::{targets::Target, worker::NUMBER_BYTES};

/// What the kernel counts processor time in towards programs, whatever its own clock.
const TICK: Duration = Duration::from_millis(10);
/// By the clock, an input may take so many times what it may take of the processor.
const BLOCKED: u32 = 12;
/// How often the current input's number is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Of what the process said at its end, so much is shown.
const LAST_WORDS: usize = 2000;

/// How targets are run.
pub(crate) struct Hunt<'a> {
    /// Where the sequence of mutations begins.
    pub(crate) seed: u64,
    /// How long each target is run.
    pub(crate) time: Duration,
    /// How much processor time one input may take.
    pub(crate) patience: Duration,
    /// The folder that offending inputs are kept in.
    pub(crate) found: &'a Path,
}

impl Hunt<'_> {
    /// Runs one target; whether nothing was found. What was found is kept, and told with the command
    /// that shows it again.
    #[expect(clippy::print_stdout, reason = "what is found is the result")]
    pub(crate) fn run(&self, target: &Target) -> Result<bool, Box<dyn Error>> {
        let current = tempfile::NamedTempFile::new()?;
        let (ended, output) = self.supervise(target, current.path())?;
        let reason = match ended {
            Ended::Hung => format!(
                "took more than {} s of processor time, or waits",
                self.patience.as_secs()
            ),
            Ended::Exited(status) if status.success() => {
                println!("{:<18} {}", target.name, output.said.trim());
                return Ok(true);
            }
            Ended::Exited(status) => describe(status),
        };
        let bytes = fs::read(current.path())?;
        let input = bytes.get(NUMBER_BYTES..).unwrap_or_default();
        let path = keep(self.found, target.name, input)?;
        let words = output.complaint.trim_end();
        let start = words.floor_char_boundary(words.len().saturating_sub(LAST_WORDS));
        println!(
            "{:<18} FOUND: an input of {} bytes {reason}\n{}\nagain: cargo xtask fuzz {} --input {}",
            target.name,
            input.len(),
            &words[start..],
            target.name,
            path.display(),
        );
        Ok(false)
    }

    fn supervise(
        &self,
        target: &Target,
        current: &Path,
    ) -> Result<(Ended, Output), Box<dyn Error>> {
        let arguments: [OsString; 7] = [
            target.name.into(),
            "--seed".into(),
            self.seed.to_string().into(),
            "--seconds".into(),
            self.time.as_secs().max(1).to_string().into(),
            "--worker".into(),
            current.into(),
        ];
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = collect(process.stdout.take());
        let complaint = collect(process.stderr.take());
        let ended = wait(&mut process, current, self.patience)?;
        let text = |collected: thread::JoinHandle<io::Result<Vec<u8>>>| {
            let bytes = collected.join().unwrap_or_else(|_| Ok(Vec::new()))?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let output = Output {
            said: text(said)?,
            complaint: text(complaint)?,
        };
        Ok((ended, output))
    }
}

enum Ended {
    Exited(ExitStatus),
    Hung,
}

/// What the process wrote.
struct Output {
    said: String,
    complaint: String,
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

/// Waits for the end, or until one and the same input has taken too long: processor time, which a
/// busy host does not lengthen, or much more time by the clock, as where it waits for itself.
fn wait(process: &mut Child, current: &Path, patience: Duration) -> Result<Ended, Box<dyn Error>> {
    let pid = rustix::process::Pid::from_child(process);
    let (ended_in, ended) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Nobody hears it but the loop below, which waits for it.
            let _ = ended_in.send(process.wait());
        });
        let (mut number, mut since, mut used) = (None, Instant::now(), Duration::ZERO);
        let mut hung = false;
        loop {
            match ended.recv_timeout(LOOK) {
                Ok(_) if hung => return Ok(Ended::Hung),
                Ok(status) => return Ok(Ended::Exited(status?)),
                Err(RecvTimeoutError::Disconnected) => return Err("it was not waited for".into()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // It may have ended in this moment; then there is nothing to look at any more.
            let Some(used_now) = processor_time(pid) else {
                continue;
            };
            let now = number_of(current)?;
            if number != now {
                (number, since, used) = (now, Instant::now(), used_now);
            } else if !hung
                && (used_now.saturating_sub(used) > patience
                    || since.elapsed() > BLOCKED * patience)
            {
                hung = true;
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            }
        }
    })
}

/// What a process and its threads have used so far: fields 14 and 15 of proc_pid_stat(5).
fn processor_time(pid: rustix::process::Pid) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(TICK * u32::try_from(ticks(14)? + ticks(15)?).ok()?)
}

/// The number of the input that is being worked on; none before the first.
fn number_of(current: &Path) -> io::Result<Option<u64>> {
    let mut bytes = [0; NUMBER_BYTES];
    match File::open(current)?.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(u64::from_le_bytes(bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(101), _) => "made it panic".to_owned(),
        (_, Some(signal)) => {
            format!("ended it by signal {signal} (memory, or the stack, beyond its bound?)")
        }
        _ => format!("ended it with {status}"),
    }
}

fn keep(found: &Path, target: &str, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(found)?;
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(input);
    let path = found.join(format!("{target}-{hash:016x}"));
    fs::write(&path, input)?;
    Ok(path)
}
