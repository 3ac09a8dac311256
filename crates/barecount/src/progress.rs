//! Progress of a run on standard error: a line for each change of a task.

use std::collections::HashMap;

use barecount_model::run::{AttemptState, Run, Task, TaskState, WaitingReason};
use jiff::Timestamp;

use crate::{printer::Printer, view};

/// What of a task is told when it changes.
type Shown = (TaskState, usize, Option<WaitingReason>);

/// Shows a run as it goes on.
pub(crate) struct Progress<'a> {
    printer: &'a Printer,
    began: Timestamp,
    shown: HashMap<usize, Shown>,
    width: usize,
}

impl<'a> Progress<'a> {
    /// Shows from here on; what the run has behind it is not told again.
    pub(crate) fn new(printer: &'a Printer, run: &Run) -> Self {
        let width = run
            .tasks
            .iter()
            .map(|task| view::task_name(task).len())
            .max()
            .unwrap_or(0);
        let mut progress = Self {
            printer,
            began: Timestamp::now(),
            shown: HashMap::new(),
            width,
        };
        for (index, task) in run.tasks.iter().enumerate() {
            progress.shown.insert(index, shown(task));
        }
        progress
    }

    /// Tells what has changed since the last time.
    pub(crate) fn show(&mut self, run: &Run) {
        for (index, task) in run.tasks.iter().enumerate() {
            let now = shown(task);
            if self.shown.insert(index, now.clone()) == Some(now) {
                continue;
            }
            if let Some(text) = change(task) {
                let name = view::task_name(task);
                let text = format!("{name:width$}  {text}", width = self.width);
                self.line(&text);
            }
        }
    }

    /// A line with the time since the beginning.
    pub(crate) fn line(&self, text: &str) {
        let elapsed = Timestamp::now().duration_since(self.began).as_secs_f64();
        self.printer.note(&format!("{elapsed:7.2}s  {text}"));
    }
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
            Some(format!(
                "done in {seconds:.2} s, {rows} rows committed{letters}"
            ))
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
