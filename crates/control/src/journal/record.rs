//! A batch as the journal has it: bytes that everything which can be asked follows from.
//!
//! A record holds the rows that a batch makes, ready to be written, so that whoever applies it needs
//! neither the state machine nor what was in memory when it was made. Lengths and numbers are
//! little-endian base-128; text and bytes stand as they are, and are borrowed when they are read.

use barecount_model::{
    evidence,
    id::RunId,
    run::{Run, TaskState},
    untrusted::Label,
};
use serde::Serialize;

use super::{Batch, Entry, Position, Published, RunChange, SetAside};
use crate::store::StoreError;

/// What a record begins with. Another layout has another number.
const LAYOUT: u64 = 1;

/// The rows of one batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'r> {
    pub position: Position,
    pub at: &'r str,
    pub first_entry: u64,
    pub plans: Vec<PlanRow<'r>>,
    pub runs: Vec<RunRow<'r>>,
    pub answers: Vec<AnswerRow<'r>>,
    pub outputs: Vec<OutputRow<'r>>,
    pub dead_letters: Vec<LetterRow<'r>>,
    pub approvals: Vec<ApprovalRow<'r>>,
    pub entries: Vec<EntryRow<'r>>,
}

/// A plan that may not be known yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PlanRow<'r> {
    pub digest: &'r str,
    pub body: &'r str,
}

/// What changed of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunRow<'r> {
    pub id: &'r str,
    pub tenant: &'r str,
    pub pipeline: &'r str,
    /// Of one that was not there before.
    pub new: Option<NewRun<'r>>,
    pub header: Option<Header<'r>>,
    /// Indices and bodies.
    pub tasks: Vec<(u64, &'r str)>,
}

/// What of a run never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewRun<'r> {
    pub token: &'r str,
    pub submitted: &'r str,
    pub plan: &'r str,
}

/// A run but for its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header<'r> {
    pub state: &'r str,
    pub body: &'r str,
    pub permit: Option<&'r str>,
}

/// A task that has come to something by its own work, which answers that work from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerRow<'r> {
    pub key: &'r str,
    pub tenant: &'r str,
    pub pipeline: &'r str,
    pub stage: &'r str,
    pub partition: &'r str,
    pub run: &'r str,
    pub task: u64,
}

/// A dataset that becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutputRow<'r> {
    pub run: &'r str,
    pub tenant: &'r str,
    pub task: &'r str,
    pub partition: Option<&'r str>,
    pub dataset: &'r str,
    pub version: u64,
    pub uri: &'r str,
    pub rows: u64,
    pub bytes: u64,
    pub digest: &'r str,
}

/// Records that were set aside for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LetterRow<'r> {
    pub run: &'r str,
    pub tenant: &'r str,
    pub task: &'r str,
    pub attempt: u64,
    pub stage: &'r str,
    pub dataset: Option<&'r str>,
    pub reason: &'r str,
    pub count: u64,
    pub record: &'r str,
    pub error: &'r str,
    pub schema_hash: Option<&'r str>,
    pub digest: Option<&'r str>,
}

/// What has become of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ApprovalRow<'r> {
    pub id: &'r str,
    pub tenant: &'r str,
    pub pipeline: &'r str,
    pub state: &'r str,
    pub body: &'r str,
}

/// A fact for the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryRow<'r> {
    pub kind: &'r str,
    /// Where it is about a run, which is among those that changed: its place there.
    pub run: Option<u64>,
    pub bytes: &'r [u8],
}

/// Why bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("the record ends too early")]
    Short,
    #[error("the record has something that is no text")]
    NoText,
    #[error("the record is of layout {0}, which this program does not know")]
    Layout(u64),
    #[error("the record goes on where it should end")]
    Long,
    #[error("the record cannot be unpacked")]
    Packed,
}

/// Writes the record of a batch. `knows` says of which plans the body is durable already.
pub(crate) fn encode(batch: &Batch, knows: impl Fn(&str) -> bool) -> Result<Vec<u8>, StoreError> {
    let entries: usize = batch
        .entries
        .iter()
        .map(|entry| entry.bytes.len() + 16)
        .sum();
    let mut sink = Sink(Vec::with_capacity(256 + 2048 * batch.runs.len() + entries));
    sink.number(LAYOUT);
    sink.number(batch.position.epoch);
    sink.number(batch.position.seq);
    sink.text(&batch.at.to_string());
    sink.number(batch.first_entry);
    let mut plans: Vec<_> = batch.runs.values().filter(|change| change.is_new).collect();
    plans.retain(|change| !knows(&change.plan.digest));
    plans.sort_by(|a, b| a.plan.digest.cmp(&b.plan.digest));
    plans.dedup_by(|a, b| a.plan.digest == b.plan.digest);
    sink.list(&plans, |sink, change| {
        sink.text(&change.plan.digest);
        sink.text(&change.plan.body);
    });
    sink.number(batch.runs.len() as u64);
    for change in batch.runs.values() {
        sink.run(change)?;
    }
    sink.answers(batch);
    let run_of = |id: &RunId| batch.runs.get(id).map(|change| &*change.run);
    let published = batch
        .outputs
        .iter()
        .filter_map(|of| Some((run_of(&of.run)?, of)));
    let published: Vec<_> = published.collect();
    sink.outputs(&published);
    let aside = batch.dead_letters.iter();
    let aside: Vec<_> = aside
        .filter_map(|of| Some((run_of(&of.run)?, of)))
        .collect();
    sink.letters(&aside);
    sink.approvals(batch)?;
    sink.entries(batch);
    Ok(sink.0)
}

/// Reads a record.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record<'_>, Unreadable> {
    let mut source = Source(bytes);
    let layout = source.number()?;
    if layout != LAYOUT {
        return Err(Unreadable::Layout(layout));
    }
    let position = Position {
        epoch: source.number()?,
        seq: source.number()?,
    };
    let record = Record {
        position,
        at: source.text()?,
        first_entry: source.number()?,
        plans: source.list(Source::plan)?,
        runs: source.list(Source::run)?,
        answers: source.list(Source::answer)?,
        outputs: source.list(Source::output)?,
        dead_letters: source.list(Source::letter)?,
        approvals: source.list(Source::approval)?,
        entries: source.list(Source::entry)?,
    };
    if source.0.is_empty() {
        Ok(record)
    } else {
        Err(Unreadable::Long)
    }
}

struct Sink(Vec<u8>);

impl Sink {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn perhaps(&mut self, text: Option<&str>) {
        self.number(u64::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.number(items.len() as u64);
        for item in items {
            each(self, item);
        }
    }

    /// JSON, written in its place: its length stands before it in as many bytes as a long text has.
    fn json(&mut self, what: &'static str, value: &impl Serialize) -> Result<(), StoreError> {
        let place = self.0.len();
        self.0.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0]);
        let start = self.0.len();
        evidence::append_json(&mut self.0, value)
            .map_err(|source| StoreError::Damaged { row: what, source })?;
        let length = self.0.len() - start;
        for (at, byte) in self.0[place..start].iter_mut().enumerate() {
            *byte |= (length >> (7 * at)) as u8 & 0x7f;
        }
        Ok(())
    }

    fn run(&mut self, change: &RunChange) -> Result<(), StoreError> {
        let run = &change.run;
        self.text(&run.id.printed());
        self.text(&run.tenant);
        self.text(&run.pipeline);
        self.number(u64::from(change.is_new));
        if change.is_new {
            self.text(&run.token);
            self.text(&run.submitted_at.to_string());
            self.text(&change.plan.digest);
        }
        let header = change.is_new || change.header;
        self.number(u64::from(header));
        if header {
            self.text(run.state.as_str());
            self.json("run", &run.header())?;
            self.number(u64::from(change.authority.is_some()));
            if let Some(authority) = &change.authority {
                self.json("permit", &**authority)?;
            }
        }
        let tasks = change.tasks();
        self.number(tasks.len() as u64);
        for index in tasks {
            self.number(index as u64);
            self.json("task", &run.tasks[index])?;
        }
        Ok(())
    }

    fn approvals(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.number(batch.approvals.len() as u64);
        for approval in batch.approvals.values() {
            self.text(&approval.id.printed());
            self.text(&approval.asked.tenant);
            self.text(&approval.asked.pipeline);
            self.text(approval.state.as_str());
            self.json("approval", approval)?;
        }
        Ok(())
    }

    fn answers(&mut self, batch: &Batch) {
        let changed = batch.runs.values().flat_map(|change| {
            let run = &change.run;
            change.tasks().into_iter().map(move |index| (run, index))
        });
        let answers = changed.filter_map(|(run, index)| {
            let task = &run.tasks[index];
            match (task.state, &task.work, &task.answered) {
                (TaskState::Succeeded, Some(work), None) => Some((run, index, task, work)),
                _ => None,
            }
        });
        let answers: Vec<_> = answers.collect();
        self.list(&answers, |sink, (run, index, task, work)| {
            sink.text(&work.key.to_string());
            sink.text(&run.tenant);
            sink.text(&run.pipeline);
            sink.text(&task.stage);
            sink.text(task.partition.as_deref().unwrap_or_default());
            sink.text(&run.id.printed());
            sink.number(*index as u64);
        });
    }

    fn outputs(&mut self, published: &[(&Run, &Published)]) {
        let outputs = published.iter().flat_map(|(run, of)| {
            let outputs = of.outputs.iter();
            outputs.map(move |output| (*run, &run.tasks[of.task], output))
        });
        let outputs: Vec<_> = outputs.collect();
        self.list(&outputs, |sink, (run, task, output)| {
            sink.text(&run.id.printed());
            sink.text(&run.tenant);
            sink.text(&task.id.printed());
            sink.perhaps(task.partition.as_deref());
            sink.text(&output.dataset);
            sink.number(output.version);
            sink.text(&output.uri);
            sink.number(output.rows);
            sink.number(output.bytes);
            sink.text(&output.digest);
        });
    }

    fn letters(&mut self, aside: &[(&Run, &SetAside)]) {
        let letters = aside
            .iter()
            .flat_map(|(run, of)| of.letters.iter().map(move |letter| (*run, *of, letter)));
        let letters: Vec<_> = letters.collect();
        self.list(&letters, |sink, (run, of, letter)| {
            let task = &run.tasks[of.task];
            sink.text(&run.id.printed());
            sink.text(&run.tenant);
            sink.text(&task.id.printed());
            sink.number(of.number.into());
            sink.text(&task.stage);
            sink.perhaps(letter.dataset.as_ref().map(Label::raw));
            sink.text(letter.reason.raw());
            sink.number(letter.count);
            sink.text(letter.record.raw());
            sink.text(letter.error.raw());
            sink.perhaps(letter.schema_hash.as_ref().map(Label::raw));
            sink.perhaps(letter.digest.as_deref());
        });
    }

    fn entries(&mut self, batch: &Batch) {
        let runs: Vec<&RunId> = batch.runs.keys().collect();
        self.list(&batch.entries, |sink, entry: &Entry| {
            sink.text(entry.kind.as_str());
            // Whatever a batch enters of a run changes it.
            let place = entry
                .run
                .as_ref()
                .and_then(|run| runs.binary_search(&run).ok());
            sink.number(u64::from(place.is_some()));
            if let Some(place) = place {
                sink.number(place as u64);
            }
            sink.bytes(&entry.bytes);
        });
    }
}

struct Source<'r>(&'r [u8]);

impl<'r> Source<'r> {
    fn number(&mut self) -> Result<u64, Unreadable> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Unreadable::Short)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Unreadable::Long)
    }

    fn flag(&mut self) -> Result<bool, Unreadable> {
        Ok(self.number()? != 0)
    }

    fn bytes(&mut self) -> Result<&'r [u8], Unreadable> {
        let length = usize::try_from(self.number()?).map_err(|_| Unreadable::Short)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Unreadable::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'r str, Unreadable> {
        str::from_utf8(self.bytes()?).map_err(|_| Unreadable::NoText)
    }

    fn perhaps(&mut self) -> Result<Option<&'r str>, Unreadable> {
        self.flag()?.then(|| self.text()).transpose()
    }

    fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        let count = self.number()?;
        // What says that it has more items than bytes makes nobody reserve memory for them.
        let mut items = Vec::with_capacity(self.0.len().min(count as usize));
        for _ in 0..count {
            items.push(each(self)?);
        }
        Ok(items)
    }

    fn approval(&mut self) -> Result<ApprovalRow<'r>, Unreadable> {
        Ok(ApprovalRow {
            id: self.text()?,
            tenant: self.text()?,
            pipeline: self.text()?,
            state: self.text()?,
            body: self.text()?,
        })
    }

    fn plan(&mut self) -> Result<PlanRow<'r>, Unreadable> {
        Ok(PlanRow {
            digest: self.text()?,
            body: self.text()?,
        })
    }

    fn run(&mut self) -> Result<RunRow<'r>, Unreadable> {
        let (id, tenant, pipeline) = (self.text()?, self.text()?, self.text()?);
        let new = if self.flag()? {
            Some(NewRun {
                token: self.text()?,
                submitted: self.text()?,
                plan: self.text()?,
            })
        } else {
            None
        };
        let header = if self.flag()? {
            Some(Header {
                state: self.text()?,
                body: self.text()?,
                permit: self.perhaps()?,
            })
        } else {
            None
        };
        Ok(RunRow {
            id,
            tenant,
            pipeline,
            new,
            header,
            tasks: self.list(|source| Ok((source.number()?, source.text()?)))?,
        })
    }

    fn answer(&mut self) -> Result<AnswerRow<'r>, Unreadable> {
        Ok(AnswerRow {
            key: self.text()?,
            tenant: self.text()?,
            pipeline: self.text()?,
            stage: self.text()?,
            partition: self.text()?,
            run: self.text()?,
            task: self.number()?,
        })
    }

    fn output(&mut self) -> Result<OutputRow<'r>, Unreadable> {
        Ok(OutputRow {
            run: self.text()?,
            tenant: self.text()?,
            task: self.text()?,
            partition: self.perhaps()?,
            dataset: self.text()?,
            version: self.number()?,
            uri: self.text()?,
            rows: self.number()?,
            bytes: self.number()?,
            digest: self.text()?,
        })
    }

    fn letter(&mut self) -> Result<LetterRow<'r>, Unreadable> {
        Ok(LetterRow {
            run: self.text()?,
            tenant: self.text()?,
            task: self.text()?,
            attempt: self.number()?,
            stage: self.text()?,
            dataset: self.perhaps()?,
            reason: self.text()?,
            count: self.number()?,
            record: self.text()?,
            error: self.text()?,
            schema_hash: self.perhaps()?,
            digest: self.perhaps()?,
        })
    }

    fn entry(&mut self) -> Result<EntryRow<'r>, Unreadable> {
        Ok(EntryRow {
            kind: self.text()?,
            run: self.flag()?.then(|| self.number()).transpose()?,
            bytes: self.bytes()?,
        })
    }
}

#[cfg(test)]
mod tests;
