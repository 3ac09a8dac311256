//! Progress of a run on standard error: a line for each change of a task, and on a terminal, below
//! these, a line for each task that is under way, drawn again as it goes on.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use barecount_api::activity::{Activity, Phase};
use barecount_client::{
    reporter::{Reporter, Watcher},
    words::{bytes, counted},
};
use barecount_model::{
    run::{Attempt, AttemptState, Run, Task, TaskState, WaitingReason},
    untrusted,
};
use jiff::Timestamp;

use crate::{printer::Printer, view};

/// Shows one run on standard error, from when it is followed until it has ended.
pub(crate) struct Display<'a> {
    printer: &'a Printer,
    progress: Mutex<Option<Progress<'a>>>,
}

impl<'a> Display<'a> {
    pub(crate) fn new(printer: &'a Printer) -> Self {
        Self {
            printer,
            progress: Mutex::new(None),
        }
    }

    fn with(&self, tell: impl FnOnce(&mut Option<Progress<'a>>)) {
        tell(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Watcher for Display<'_> {
    fn reporter(&self) -> &dyn Reporter {
        self.printer
    }

    fn begins(&self, run: &Run, new: bool) {
        self.with(|progress| *progress = Some(Progress::new(self.printer, run, new)));
    }

    fn changed(&self, run: &Run) {
        self.with(|shown| {
            if let Some(progress) = shown {
                progress.show(run);
            }
            if run.state.is_final() {
                *shown = None;
            }
        });
    }

    fn under_way(&self, run: &Run, activities: &[Activity]) {
        self.with(|shown| {
            if let Some(progress) = shown {
                progress.watch(run, activities);
            }
        });
    }

    fn line(&self, text: &str) {
        self.with(|shown| match shown {
            Some(progress) => progress.line(text),
            None => self.printer.note(text),
        });
    }
}

/// So many tasks that are under way are drawn.
const DRAWN: usize = 8;
/// A staging that takes longer is worth a line where nothing is drawn.
const LONG_STAGING_SECONDS: f64 = 1.0;

/// What of a task is told when it changes.
type Shown = (TaskState, usize, Option<WaitingReason>);

/// Shows a run as it goes on.
struct Progress<'a> {
    printer: &'a Printer,
    began: Timestamp,
    shown: HashMap<usize, Shown>,
    width: usize,
    /// Lines that are drawn below all others.
    drawn: usize,
    /// Stagings that were told of, by task and attempt.
    staging: HashSet<(usize, u32)>,
}

impl<'a> Progress<'a> {
    /// Shows from here on. What a run has behind it that was there before is not told again; of one
    /// that is `new`, nothing was told.
    fn new(printer: &'a Printer, run: &Run, new: bool) -> Self {
        let width = run
            .tasks
            .iter()
            .map(|task| task.name().len())
            .max()
            .unwrap_or(0);
        let mut progress = Self {
            printer,
            began: Timestamp::now(),
            shown: HashMap::new(),
            width,
            drawn: 0,
            staging: HashSet::new(),
        };
        if new {
            progress.show(run);
        } else {
            let shown = run.tasks.iter().map(shown).enumerate();
            progress.shown.extend(shown);
        }
        progress
    }

    /// Tells what has changed since the last time.
    fn show(&mut self, run: &Run) {
        for (index, task) in run.tasks.iter().enumerate() {
            let now = shown(task);
            if self.shown.insert(index, now.clone()) == Some(now) {
                continue;
            }
            if let Some(text) = change(task) {
                let name = task.name();
                let text = format!("{name:width$}  {text}", width = self.width);
                self.line(&text);
            }
        }
    }

    /// Shows what is under way now.
    fn watch(&mut self, run: &Run, activities: &[Activity]) {
        if !self.printer.is_live() {
            return self.tell_of_staging(run, activities);
        }
        let now = Timestamp::now();
        let mut lines = Vec::new();
        for task in &run.tasks {
            if let Some(text) = under_way(task, activities, now) {
                let name = task.name();
                lines.push(format!(
                    "          {name:width$}  {text}",
                    width = self.width
                ));
            }
        }
        if lines.len() > DRAWN {
            let more = lines.len() - DRAWN;
            lines.truncate(DRAWN);
            lines.push(format!("          … and {more} more"));
        }
        self.printer.draw(self.drawn, &lines);
        self.drawn = lines.len();
    }

    /// Says once of each long staging that it goes on.
    fn tell_of_staging(&mut self, run: &Run, activities: &[Activity]) {
        let now = Timestamp::now();
        for (index, task) in run.tasks.iter().enumerate() {
            let Some(activity) = activity_of(task, activities) else {
                continue;
            };
            let long = seconds_since(activity.since, now) >= LONG_STAGING_SECONDS;
            if activity.phase == Phase::Staging
                && long
                && self.staging.insert((index, activity.attempt.number))
            {
                let name = task.name();
                self.line(&format!(
                    "{name:width$}  its work is done; staging what it wrote",
                    width = self.width
                ));
            }
        }
    }

    /// A line with the time since the beginning.
    fn line(&mut self, text: &str) {
        self.printer.draw(self.drawn, &[]);
        self.drawn = 0;
        let elapsed = Timestamp::now().duration_since(self.began).as_secs_f64();
        let text = untrusted::line(text);
        self.printer.note(&format!("{elapsed:7.2}s  {text}"));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.printer.draw(self.drawn, &[]);
    }
}

fn activity_of<'b>(task: &Task, activities: &'b [Activity]) -> Option<&'b Activity> {
    let number = task.current()?.number;
    activities
        .iter()
        .find(|activity| activity.attempt.task == task.id && activity.attempt.number == number)
}

fn seconds_since(since: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(since).as_secs_f64().max(0.0)
}

/// What of a task is under way, if anything is: which part, for how long, how far.
fn under_way(task: &Task, activities: &[Activity], now: Timestamp) -> Option<String> {
    let attempt = task.current()?;
    let (phase, since) = match (task.state, activity_of(task, activities)) {
        (TaskState::Committing, _) => ("committing", attempt.ended_at?),
        (TaskState::Active, Some(activity)) => {
            let phase = match activity.phase {
                Phase::Preparing => "preparing",
                Phase::Provisioning => "waiting",
                Phase::Running => "running",
                Phase::Staging => return Some(staging(activity, now)),
            };
            (phase, activity.since)
        }
        _ => return None,
    };
    Some(format!("{phase:<10} {:6.1} s", seconds_since(since, now)))
}

fn staging(activity: &Activity, now: Timestamp) -> String {
    let seconds = seconds_since(activity.since, now);
    // Only a figure for people: what the conversions lose is below what is shown.
    let rate = activity.rows as f64 / seconds.max(0.1);
    format!(
        "{:<10} {seconds:6.1} s  {} rows  {}  {rate:.0} rows/s",
        "staging",
        activity.rows,
        bytes(activity.bytes)
    )
}

fn shown(task: &Task) -> Shown {
    let reason = task.held.as_ref().map(|held| held.reason.clone());
    (task.state, task.attempts.len(), reason)
}

/// What is worth telling of a task's new state.
fn change(task: &Task) -> Option<String> {
    let attempt = task.current();
    let again = match attempt {
        Some(attempt) if attempt.number > 1 => format!(" (attempt {})", attempt.number),
        _ => String::new(),
    };
    match task.state {
        TaskState::Waiting => None,
        TaskState::Ready => {
            if let Some(held) = &task.held {
                return Some(format!("waiting: {}", held.reason));
            }
            let attempt = attempt?;
            let why = match (&attempt.failure, attempt.state) {
                (Some(failure), _) => format!("[{}] {}", failure.code, failure.message),
                (None, AttemptState::Lost) => "its process ended".to_owned(),
                (None, _) => return None,
            };
            Some(format!(
                "attempt {} failed, another follows: {why}",
                attempt.number
            ))
        }
        TaskState::Active => Some(format!("{} {}{again}", task.class, "running")),
        TaskState::Committing => Some("committing".to_owned()),
        TaskState::Succeeded => {
            if let Some(answered) = &task.answered {
                return Some(format!("unchanged; answered by run {}", answered.run));
            }
            Some(done(attempt))
        }
        TaskState::Failed => {
            let failure = attempt.and_then(|attempt| attempt.failure.as_ref());
            let why = failure.map_or(String::new(), |failure| {
                format!(": [{}] {}", failure.code, failure.message)
            });
            Some(format!("failed{why}"))
        }
        TaskState::Cancelled => Some("cancelled".to_owned()),
        TaskState::Skipped => Some("skipped: something it needs did not succeed".to_owned()),
    }
}

/// What a task that has succeeded came to.
fn done(attempt: Option<&Attempt>) -> String {
    let staged = attempt.and_then(|attempt| attempt.staged.as_ref());
    let rows: u64 = staged.map_or(0, |staged| {
        staged.datasets.iter().map(|output| output.rows).sum()
    });
    let letters = match staged.map_or(0, |staged| staged.dead_letters) {
        0 => String::new(),
        1 => ", 1 dead letter".to_owned(),
        count => format!(", {count} dead letters"),
    };
    let seconds = attempt.and_then(view::seconds).unwrap_or_default();
    let staging = attempt
        .and_then(|attempt| Some((attempt.work_ended_at?, attempt.staged_at?)))
        .map_or(0.0, |(from, to)| seconds_since(from, to));
    let staging = if staging >= LONG_STAGING_SECONDS {
        format!(", staged in {staging:.2} s")
    } else {
        String::new()
    };
    let undeclared = staged.filter(|staged| !staged.undeclared.is_empty());
    let undeclared = undeclared.map_or(String::new(), |staged| {
        format!("; not taken: {}", view::undeclared(staged))
    });
    let rows = counted(Some(rows), "row");
    format!("done in {seconds:.2} s, {rows} committed{letters}{staging}{undeclared}")
}
