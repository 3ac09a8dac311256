//! The end of an attempt: what its work left is staged, or what it failed by is told.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use barecount_api::{
    activity::Phase,
    assignment::{Assignment, SetAside},
    attempt::AttemptRef,
};
use barecount_model::{
    codes,
    pipeline::Output,
    plan::WorkPlan,
    run::outcome::{AttemptResult, Failure, FailureKind, Outcome, Staged},
    untrusted::Label,
};
use barecount_network::record::{FlowLog, Verdict};
use barecount_runner::launch::End;
use barecount_secrets::Redactor;
use serde_json::{Value, json};

use super::{Course, Worked};
use crate::{
    access::Gate, chain::warn, classify, config::Agent, data::DataError, letters::Letters, places,
    words,
};

/// So many flows of an attempt are in its ledger entry; all of them are in the record beside it.
const SHOWN_FLOWS: usize = 32;
/// So many names in an attempt's output folder that no output has are told; all are counted.
const SHOWN_UNDECLARED: usize = 20;

impl Agent {
    /// What an attempt came to whose work has ended: what it wrote is staged, or it has failed.
    pub(super) async fn conclude(
        &self,
        mut course: Course<'_>,
        worked: Worked,
        letters: &Letters,
    ) -> Outcome {
        let Worked { mut ended, overdue } = worked;
        let (assignment, gate) = (course.assignment, course.gate);
        let log = self.inner.folders.log(&assignment.attempt.token());
        let told = words::told(&assignment.stage, &log, &ended.end, &mut ended.log);
        let detail = &mut course.detail;
        detail["enforcement"] = ended.enforcement.clone();
        detail["log"] = json!(ended.log);
        detail["warm"] = json!(ended.warm);
        if let Some(path) = &assignment.path {
            detail["path"] = json!(path);
        }
        if let Some(flows) = &ended.flows {
            detail["network"] = self.keep_flows(&assignment.attempt, flows).await;
        }
        let kind = match assignment.stage.work {
            WorkPlan::Job { .. } => classify::Kind::Job,
            _ => classify::Kind::Program,
        };
        let (failure, exit_code) =
            classify::failure(&told, kind, assignment.stage.resources.memory_bytes);
        // Whatever it did when it was told to stop: what ended it is that it was late.
        let failure = overdue.or(failure);
        let result = match failure {
            Some(mut failure) => {
                let has_log = matches!(ended.end, End::Exited { .. } | End::Signalled { .. });
                if has_log && !words::are_kept(&assignment.stage) {
                    failure.message =
                        format!("{}{}", failure.message.raw(), words::last(&log)).into();
                }
                if failure.code == codes::TRY_AGAIN.id || ended.saved {
                    failure = self.handed_on(assignment, gate, failure).await;
                }
                AttemptResult::Failed(failure)
            }
            None if ended.end == End::Stopped => {
                if ended.saved {
                    self.keep_for_resuming(assignment, gate).await;
                }
                AttemptResult::Stopped
            }
            None => self.staged(&mut course, letters).await,
        };
        Outcome {
            result,
            exit_code,
            metrics: classify::metrics(&ended),
            timeline: course.timeline,
            detail: course.detail,
        }
    }

    /// What takes the records that an attempt sets aside.
    pub(super) fn letters(&self, assignment: &Assignment, redactor: Option<Redactor>) -> Letters {
        let path = self.inner.folders.open_letters(&assignment.attempt.token());
        Letters::new(path, assignment.stage.resources.scratch_bytes, redactor)
    }

    /// Makes the records that an attempt set aside durable, and answers with what they are grouped
    /// by. An attempt of which they cannot be kept has failed by it; one that was stopped keeps none.
    pub(super) async fn keep_letters(
        &self,
        assignment: &Assignment,
        letters: Letters,
        outcome: &mut Outcome,
    ) -> Vec<SetAside> {
        if matches!(outcome.result, AttemptResult::Stopped) {
            return Vec::new();
        }
        let record = self.inner.folders.letters(&assignment.attempt.token());
        let finish = move || letters.finish(&record);
        let kept = match self.inner.disk.run(finish).await {
            Ok(kept) => kept,
            Err(error) => {
                outcome.result = AttemptResult::Failed(Failure {
                    kind: FailureKind::Infrastructure,
                    code: codes::STAGING_FAILED.id.to_owned(),
                    message: format!("records that do not fit cannot be kept: {error}").into(),
                });
                return Vec::new();
            }
        };
        if let AttemptResult::Done(staged) = &mut outcome.result {
            staged.dead_letters = kept.count;
        }
        if let Some(digest) = kept.digest {
            outcome.detail["dead_letters"] =
                json!({ "count": kept.count, "bytes": kept.bytes, "digest": digest });
        }
        kept.groups
    }

    /// Stages what the work left. An attempt that is stopped meanwhile is stopped, however far that
    /// came.
    async fn staged(&self, course: &mut Course<'_>, letters: &Letters) -> AttemptResult {
        course
            .live
            .enter(Phase::Staging, self.inner.clock.timestamp());
        let staged = self.stage(course, letters).await;
        if course.live.is_stopped() {
            return AttemptResult::Stopped;
        }
        course.timeline.staged_at = Some(self.inner.clock.timestamp());
        match staged {
            Ok(staged) => AttemptResult::Done(staged),
            Err(error) => AttemptResult::Failed(error.into()),
        }
    }

    async fn stage(&self, course: &mut Course<'_>, letters: &Letters) -> Result<Staged, DataError> {
        let (assignment, gate) = (course.assignment, course.gate);
        let watch = course.live.watch();
        let folders = &self.inner.folders;
        let token = assignment.attempt.token();
        let written = folders.of(&token).join("output");
        let staging = folders.staged(&token);
        let mut staged = Staged::default();
        let mut tests = Vec::new();
        gate.dead_letters(&written, letters).await?;
        for output in &assignment.stage.outputs {
            let done = gate
                .stage(output, &written, &staging, letters, watch)
                .await?;
            staged.datasets.push(done.dataset);
            tests.push(done.tests);
        }
        (staged.undeclared, staged.undeclared_left_out) =
            undeclared(&written, &assignment.stage.outputs);
        course.detail["tests"] = Value::Array(tests);
        let saved = folders.of(&token).join("checkpoint");
        staged.checkpoint = gate.stage_checkpoint(&saved, &staging).await?;
        Ok(staged)
    }

    /// Writes the record of an attempt's flows beside the ledger, if there were any, and answers with
    /// what evidence has of it: sums, the digest of the whole, and its beginning.
    async fn keep_flows(&self, attempt: &AttemptRef, flows: &FlowLog) -> Value {
        if !flows.records.is_empty() {
            let record = self.inner.folders.flows(&attempt.token());
            self.keep(record, flows.to_json_lines()).await;
        }
        // Refusals first, lest work that makes many connections push them out of sight.
        let (refused, others): (Vec<_>, Vec<_>) = flows
            .records
            .iter()
            .partition(|record| record.verdict == Verdict::Refused);
        let shown: Vec<_> = refused.iter().chain(&others).take(SHOWN_FLOWS).collect();
        json!({
            "totals": flows.totals,
            "digest": flows.digest(),
            "left_out": flows.records.len() - shown.len(),
            "records": shown,
        })
    }

    /// Writes a record beside the ledger, whose digest goes into evidence.
    pub(super) async fn keep(&self, record: PathBuf, lines: String) {
        let (path, files) = (record.clone(), Arc::clone(self.inner.folders.files()));
        let disk = self.inner.disk;
        let kept = disk.run(move || places::keep_record(&*files, &path, &lines));
        if let Err(error) = kept.await {
            // The digest in evidence then tells of a record that is missing.
            let record = record.display();
            tracing::error!(%error, %record, "a record of an attempt was not kept");
        }
    }

    /// Keeps the checkpoint of an attempt that asks to be tried again. Where that fails the attempt
    /// has failed by it: another try would begin where it should not.
    async fn handed_on(
        &self,
        assignment: &Assignment,
        gate: &Gate<'_>,
        failure: Failure,
    ) -> Failure {
        let folders = &self.inner.folders;
        let saved = folders.of(&assignment.attempt.token()).join("checkpoint");
        match gate.hand_on_checkpoint(&saved).await {
            Ok(()) => failure,
            Err(error) => error.into(),
        }
    }

    /// Keeps the checkpoint of an attempt that was stopped. Where that fails, a run that is resumed
    /// begins from the one before, which is as right.
    async fn keep_for_resuming(&self, assignment: &Assignment, gate: &Gate<'_>) {
        let attempt = &assignment.attempt;
        let saved = self.inner.folders.of(&attempt.token()).join("checkpoint");
        if let Err(error) = gate.hand_on_checkpoint(&saved).await {
            warn(
                attempt,
                "the checkpoint of a stopped attempt is lost",
                &error,
            );
        }
    }
}

/// What work wrote beside its outputs, by name, and how many more there are. What begins with `_` or
/// `.` is left out, as it is of an output's files. A folder that cannot be read has nothing: that its
/// outputs were read says that it can.
fn undeclared(written: &Path, outputs: &[Output]) -> (Vec<Label>, u64) {
    let Ok(entries) = std::fs::read_dir(written) else {
        return (Vec::new(), 0);
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| !name.starts_with(['_', '.']))
        .filter(|name| !outputs.iter().any(|output| output.dataset.as_str() == name))
        .collect();
    names.sort();
    let left_out = names.len().saturating_sub(SHOWN_UNDECLARED);
    names.truncate(SHOWN_UNDECLARED);
    (
        names.into_iter().map(Label::from).collect(),
        left_out as u64,
    )
}
