//! A state with many tasks that wait: what it takes to hold it, to open it, and to dispatch one of
//! them; and what it takes to ask for the latest runs with many behind them.

use std::{fs, path::Path, process::Command, sync::Arc, time::Instant};

use barecount_control::{
    Control, Entries, Fenced, Submission, Submitted, Update, clock::SystemClock, reconcile::Report,
    store::reader::Reader,
};
use barecount_model::{id::TaskId, run::RunState};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    Failure,
    cost::Cost,
    millis, print, quantile,
    service::{Decider, ended, run},
};

/// Has the program open a state that is there, and nothing else.
pub(crate) const OPEN: &str = "--open";
/// Tasks of one run.
const TASKS: usize = 100;
/// Runs that are handed over together.
const TOGETHER: usize = 20;
/// Tasks whose dispatch is measured.
const SAMPLES: usize = 1000;
/// Questions that are asked of a state.
const QUESTIONS: usize = 200;

/// A state that is open, without a ledger.
struct State {
    control: Control,
    updates: mpsc::UnboundedReceiver<Update>,
    /// Kept, so that nothing fails.
    _entries: mpsc::UnboundedReceiver<Entries>,
}

impl State {
    fn open(folder: &Path) -> Result<Self, Failure> {
        let (updates_in, updates) = mpsc::unbounded_channel();
        let (entries_in, entries) = mpsc::unbounded_channel();
        let control = Control::open(
            crate::held(folder)?,
            Arc::new(SystemClock),
            updates_in,
            entries_in,
        )?;
        Ok(Self {
            control,
            updates,
            _entries: entries,
        })
    }

    /// The runs that are open, held as whoever works on them does.
    fn told(&mut self) -> Vec<Update> {
        std::iter::from_fn(|| self.updates.try_recv().ok()).collect()
    }
}

/// Measures states with so many tasks, the first of which is what the others are held against.
pub(crate) async fn measure(folder: &Path, sizes: &[usize]) -> Result<(), Failure> {
    let mut first = None;
    for &tasks in sizes {
        let state = folder.join(format!("queued-{tasks}"));
        fs::create_dir(&state)?;
        let per_task = queued(&state, tasks).await?;
        let beside = *first.get_or_insert(per_task);
        print(&json!({
            "bench": "dispatch", "case": format!("a task of {tasks} queued"),
            "cpu_us_per_task": round(per_task), "times_that_of_the_first": round(per_task / beside),
        }));
        fs::remove_dir_all(&state)?;
    }
    Ok(())
}

/// Opens a state, and says what that takes: in a process that has done nothing else, since one that
/// made the state has memory left from that, in which the state would find room.
pub(crate) async fn opened(folder: &Path, tasks: &str) -> Result<(), Failure> {
    let before = resident()?;
    let begun = Instant::now();
    let mut state = State::open(folder)?;
    let opened = begun.elapsed();
    let open = state.told();
    let held = resident()?.saturating_sub(before);
    print(&json!({
        "bench": "dispatch", "case": format!("{tasks} tasks queued"), "runs": open.len(),
        "open_ms": millis(opened), "resident_mib": held >> 20,
        "disk_mib": size_of(folder)? >> 20,
    }));
    state.control.close().await;
    Ok(())
}

/// Gives the processor time that dispatching one task of a state takes.
async fn queued(folder: &Path, tasks: usize) -> Result<f64, Failure> {
    let decider = Decider::new()?;
    let state = State::open(folder)?;
    let runs = tasks.div_ceil(TASKS);
    let mut number = 0;
    while number < runs {
        let until = runs.min(number + TOGETHER);
        let mut submissions = Vec::new();
        for number in number..until {
            submissions.push(submission(&decider, number, tasks.min(TASKS))?);
        }
        for submitted in state.control.submit_all(submissions).await? {
            let Submitted::New(_) = submitted? else {
                return Err("the token was used before".into());
            };
        }
        number = until;
    }
    state.control.close().await;
    drop(state.updates);

    let itself = std::env::current_exe()?;
    let mut opening = Command::new(itself);
    opening.arg(OPEN).arg(folder).arg(tasks.to_string());
    if !opening.status()?.success() {
        return Err("the state cannot be opened by a process of its own".into());
    }

    let mut state = State::open(folder)?;
    let open = state.told();
    tokio::spawn(async move { while state.updates.recv().await.is_some() {} });
    let before = Cost::now()?;
    let mut done = 0;
    'all: for task in 0..tasks.min(TASKS) {
        for update in &open {
            if done == SAMPLES.min(tasks) {
                break 'all;
            }
            dispatch(&state.control, &update.run.id, task).await?;
            done += 1;
        }
    }
    let cost = Cost::now()?.since(&before);
    state.control.close().await;
    Ok(cost.cpu_us / done as f64)
}

fn submission(decider: &Decider, number: usize, tasks: usize) -> Result<Submission, Failure> {
    let mut run = run(number as u64, format!("queued-{number}"));
    let first = run.tasks.remove(0);
    run.tasks = (0..tasks)
        .map(|index| {
            let mut task = first.clone();
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            id[8..].copy_from_slice(&(index as u64).to_be_bytes());
            task.id = TaskId::from_bytes(id);
            task.partition = Some(format!("part-{index:04}"));
            task
        })
        .collect();
    Ok(Submission {
        run,
        plan: decider.authorise()?,
        place: vec![],
    })
}

async fn dispatch(
    control: &Control,
    run: &barecount_model::id::RunId,
    task: usize,
) -> Result<(), Failure> {
    let update = control.place(run, task).await?;
    if update.run.state != RunState::Running {
        return Err("the run is under way".into());
    }
    let attempt = Fenced {
        run: run.clone(),
        task,
        number: 1,
    };
    let runner = "fake".to_owned();
    let reports = vec![
        (attempt.clone(), Report::Started { runner }),
        (attempt, ended()),
    ];
    for told in control.tell_all(reports).await? {
        told?;
    }
    Ok(())
}

/// What it takes to ask a state for what people ask for first.
pub(crate) fn questions(state: &Path, runs: usize) -> Result<(), Failure> {
    let reader = Reader::open(state)?.ok_or("there is a state")?;
    let newest = reader.runs(1)?;
    let (newest, _) = newest.first().ok_or("there are runs")?;
    let id = newest.id.to_string();
    let ask = |what: &dyn Fn() -> Result<(), Failure>| -> Result<f64, Failure> {
        let mut took = Vec::with_capacity(QUESTIONS);
        for _ in 0..QUESTIONS {
            let begun = Instant::now();
            what()?;
            took.push(begun.elapsed());
        }
        Ok(millis(quantile(&mut took, 0.5)))
    };
    print(&json!({
        "bench": "dispatch", "case": format!("questions with {runs} runs"),
        "runs_ls_p50_ms": ask(&|| Ok(reader.runs(10).map(drop)?))?,
        "evidence_of_a_run_p50_ms": ask(&|| Ok(reader.ledger_entries(Some(&id)).map(drop)?))?,
        "outputs_of_a_run_p50_ms": ask(&|| Ok(reader.outputs_of(&id).map(drop)?))?,
    }));
    Ok(())
}

/// Memory of this process that is in use, in bytes.
fn resident() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib
        .ok_or("the kernel tells what is resident")?
        .parse::<u64>()?
        << 10)
}

fn size_of(folder: &Path) -> Result<u64, Failure> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        size += entry?.metadata()?.len();
    }
    Ok(size)
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
