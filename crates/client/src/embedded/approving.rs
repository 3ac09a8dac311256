//! Asking for approvals, and answering those who ask: acts on record, that start nothing.

use std::{collections::BTreeSet, path::Path};

use barecount_api::page::{Cursor, Page, PageRequest};
use barecount_control::{
    CommandError,
    governance::{Action, Explanation, Governance, StageDecision},
};
use barecount_model::{
    approval::{Act, Approval, ApprovalState, Asked, NotDone, Scope, Signed, Term},
    codes,
    lock::Lock,
    pipeline::{Loaded, Stage},
    version,
};
use jiff::Timestamp;
use serde_json::json;

use super::{
    Embedded, failures::command_failure, hold::Purpose, imports, lock, policy, recorder::Recorder,
};
use crate::{
    approvals,
    client::{Answering, ApprovalRequest, Approvals, AskedFor, End},
    environment::{self, Found},
    failure::{Failure, Status},
    manifest, preparation,
    reporter::Reporter,
    requester,
    runtime::runtime,
    state,
};

impl Answering {
    fn act(self, now: Timestamp) -> Act {
        match self {
            Self::Grant { end, runs } => {
                let until = match end {
                    End::At(moment) => moment,
                    End::After(span) => now.saturating_add(span).unwrap_or(Timestamp::MAX),
                };
                Act::Grant(Term { until, runs })
            }
            Self::Deny => Act::Deny,
            Self::Revoke => Act::Revoke,
        }
    }
}

/// What approvals are asked of.
struct Asking<'a> {
    request: &'a ApprovalRequest,
    loaded: &'a Loaded,
    found: &'a Found,
    version: &'a str,
    state: &'a Path,
    reporter: &'a dyn Reporter,
}

impl Approvals for Embedded {
    fn request_approvals(
        &self,
        request: &ApprovalRequest,
        reporter: &dyn Reporter,
    ) -> Result<AskedFor, Failure> {
        let mut loaded = manifest::load(&request.manifest, reporter)?;
        imports::hold_of(&mut loaded, &self.state, request.stage.as_deref())?;
        let folder = manifest::folder(&request.manifest)?;
        let found = environment::held(&folder, self.environment.as_deref(), &self.state)?;
        let lock = lock::read(&folder)?
            .unwrap_or_else(|| Lock::new(loaded.pipeline.name.clone(), Vec::new()));
        let version = version::of(&loaded.manifest, &lock).to_string();
        let asking = |state| Asking {
            request,
            loaded: &loaded,
            found: &found,
            version: &version,
            state,
            reporter,
        };
        // What would change nothing makes nothing.
        asking(&self.state).wanted(&preparation::governance()?)?;
        let state = super::state_folder(&self.state)?;
        let purpose = Purpose {
            verb: "approvals request",
            pipeline: Some(loaded.pipeline.name.as_str()),
        };
        let held = self.hold(&state, purpose, reporter)?;
        let approvals = runtime()?.block_on(async {
            let recorder = Recorder::open(held, &found).await?;
            let asked = asking(&state).ask(&recorder).await;
            let closed = recorder.close().await;
            let asked = asked?;
            closed.map(|_| asked)
        })?;
        let tenant = loaded.pipeline.tenant.to_string();
        Ok(AskedFor {
            approvals,
            environment: found.environment.name.to_string(),
            answerable: !found.environment.approvers(&tenant).is_empty(),
            tenant,
        })
    }

    fn approvals(
        &self,
        tenant: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Approval>, Failure> {
        let Some(reader) = state::reader(&self.state)? else {
            return Ok(Page::empty());
        };
        let (after, limit) = (page.after.as_ref(), page.limit);
        let after = after.map(|Cursor(last)| last.as_str());
        let found = reader.approvals(tenant, None, after, limit.saturating_add(1));
        let found = found.map_err(state::store_failure)?;
        Ok(Page::cut(found, limit, |last| last.id.to_string()))
    }

    fn approval(&self, named: &str) -> Result<Approval, Failure> {
        let reader = state::reader(&self.state)?.ok_or_else(|| approvals::none(named))?;
        approvals::find(&reader, named)
    }

    fn answer_approval(
        &self,
        named: &str,
        verdict: Answering,
        reason: &str,
        reporter: &dyn Reporter,
    ) -> Result<Approval, Failure> {
        // Looking makes nothing: a folder that is not there has no approval.
        state::reader(&self.state)?.ok_or_else(|| approvals::none(named))?;
        let folder = super::state_folder(&self.state)?;
        let found = environment::of_run(self.environment.as_deref(), &folder)?;
        let purpose = Purpose {
            verb: match verdict {
                Answering::Grant { .. } => "approvals grant",
                Answering::Deny => "approvals deny",
                Answering::Revoke => "approvals revoke",
            },
            pipeline: None,
        };
        let held = self.hold(&folder, purpose, reporter)?;
        runtime()?.block_on(async {
            let recorder = Recorder::open(held, &found).await?;
            let answer = Answer {
                named,
                act: verdict.act(Timestamp::now()),
                reason,
                folder: &folder,
                found: &found,
                reporter,
            };
            let given = answer.put(&recorder).await;
            let closed = recorder.close().await;
            let given = given?;
            closed.map(|_| given)
        })
    }
}

impl Asking<'_> {
    /// What is to be asked for, by stage.
    fn wanted(&self, governance: &Governance) -> Result<Vec<Asked>, Failure> {
        let pipeline = &self.loaded.pipeline;
        let only = self.request.stage.as_deref();
        let question = policy::question(
            Action::Run,
            pipeline,
            self.version,
            &self.found.environment,
            &requester::name(),
            approvals::on_record(self.state, self.found, pipeline, None)?,
            Timestamp::now(),
        );
        let explanation = governance.decide(&question).into_explanation();
        let mut wanted = Vec::new();
        for (stage, facts) in pipeline.stages.iter().zip(&question.stages) {
            if only.is_some_and(|only| stage.name.as_str() != only) {
                continue;
            }
            let decision = decision_of(&explanation, stage.name.as_str());
            let Some(decision) = decision.filter(|decision| !decision.allowed) else {
                continue;
            };
            let Some(scopes) = approvals::needed(decision) else {
                if only.is_none() {
                    continue;
                }
                return Err(hopeless(stage, decision));
            };
            wanted.push(Asked {
                tenant: question.tenant.clone(),
                environment: question.environment.name.clone(),
                pipeline: question.pipeline.name.clone(),
                version: self.version.to_owned(),
                stage: facts.name.clone(),
                class: facts.class,
                size: facts.size,
                network_profile: facts.network_profile,
                datasets: match scopes.contains(&Scope::Crossing) {
                    true => crossing(stage),
                    false => BTreeSet::new(),
                },
                scopes: scopes.into_iter().collect(),
                question: governance.question_of(&question, facts),
            });
        }
        match wanted.is_empty() {
            true => Err(self.nothing()),
            false => Ok(wanted),
        }
    }

    fn nothing(&self) -> Failure {
        let mut stages = self.loaded.pipeline.stages.iter();
        let what = match &self.request.stage {
            Some(name) if !stages.any(|stage| stage.name.as_str() == name) => {
                let what = format!("the pipeline has no stage `{name}`");
                return Failure::new(Status::Usage, what).with_code(codes::UNKNOWN_STAGE.id);
            }
            Some(stage) => format!("stage `{stage}` needs no approval"),
            None => "no stage needs an approval that would permit it".to_owned(),
        };
        Failure::new(Status::Usage, what)
            .with_code(codes::APPROVAL_NOT_NEEDED.id)
            .with_help("`barecount policy explain` says what is permitted, and what is not.")
    }

    async fn ask(&self, recorder: &Recorder) -> Result<Vec<Approval>, Failure> {
        let wanted = self.wanted(&preparation::governance()?)?;
        let mut approvals = Vec::new();
        for asked in wanted {
            approvals.push(match already(self.state, &asked)? {
                Some(open) => {
                    let (id, by) = (&open.id, &open.requested.by);
                    self.reporter.note(&format!(
                        "approval {id} of this is asked for already, by {by}"
                    ));
                    open
                }
                None => self.ask_for(recorder, asked).await?,
            });
        }
        Ok(approvals)
    }

    async fn ask_for(&self, recorder: &Recorder, asked: Asked) -> Result<Approval, Failure> {
        let signed = Signed {
            by: requester::name(),
            at: Timestamp::now(),
            reason: self.request.reason.as_str().into(),
            entry: 0,
        };
        let approval = Approval::requested(approvals::new_id()?, asked, signed);
        let question = policy::question_of_approval(
            Action::RequestApproval,
            &approval,
            &self.found.environment,
            &requester::name(),
            Timestamp::now(),
        );
        let (control, rules) = (&recorder.control, self.found.text.as_deref());
        let asked = preparation::ask(control, self.state, rules, &question, self.reporter);
        let (permit, rules) = asked.await?;
        let id = approval.id.to_string();
        let kept = control
            .request_approval(approval, &permit, json!(rules))
            .await;
        kept.map_err(|error| command_failure(&error))?;
        let reader = state::reader(self.state)?.ok_or_else(|| approvals::none(&id))?;
        approvals::find(&reader, &id)
    }
}

/// An answer that is put on record.
struct Answer<'a> {
    named: &'a str,
    act: Act,
    reason: &'a str,
    folder: &'a Path,
    found: &'a Found,
    reporter: &'a dyn Reporter,
}

impl Answer<'_> {
    async fn put(&self, recorder: &Recorder) -> Result<Approval, Failure> {
        let reader = state::reader(self.folder)?.ok_or_else(|| approvals::none(self.named))?;
        let approval = approvals::find(&reader, self.named)?;
        // Nobody answers what was not asked as it was signed.
        let one = std::slice::from_ref(&approval);
        approvals::hold(self.folder, self.found, &reader, one)?;
        let action = match self.act {
            Act::Grant(_) => Action::GrantApproval,
            Act::Deny => Action::DenyApproval,
            Act::Revoke => Action::RevokeApproval,
        };
        let question = policy::question_of_approval(
            action,
            &approval,
            &self.found.environment,
            &requester::name(),
            Timestamp::now(),
        );
        let (control, text) = (&recorder.control, self.found.text.as_deref());
        let asked = preparation::ask(control, self.folder, text, &question, self.reporter);
        let (permit, rules) = asked.await?;
        let reason = self.reason.into();
        let put = control.approve(&approval.id, self.act, reason, &permit, json!(rules));
        put.await.map_err(|error| match error {
            CommandError::NoSuchApproval(_) | CommandError::Approval(NotDone::Over { .. }) => {
                over(&approval)
            }
            other => command_failure(&other),
        })?;
        approvals::find(&reader, &approval.id.printed())
    }
}

/// The failure of an act on an approval that has been answered.
fn over(approval: &Approval) -> Failure {
    let (id, state) = (&approval.id, approval.state.as_str());
    Failure::new(
        Status::Conflict,
        format!("approval {id} is {state} already"),
    )
    .with_code(codes::APPROVAL_OVER.id)
    .with_help("`barecount approvals show` says by whom; for another answer, ask anew.")
}

fn decision_of<'v>(explanation: &'v Explanation, stage: &str) -> Option<&'v StageDecision> {
    let mut decisions = explanation.decisions.iter();
    decisions.find(|decision| decision.stage.as_ref().is_some_and(|of| of.name == stage))
}

fn crossing(stage: &Stage) -> BTreeSet<String> {
    let crossings = stage.crossings.iter();
    crossings
        .map(|crossing| crossing.dataset.to_string())
        .collect()
}

/// No approval changes what stands in the way of a stage.
fn hopeless(stage: &Stage, decision: &StageDecision) -> Failure {
    let conditions: Vec<_> = decision
        .failed
        .iter()
        .map(|failed| failed.condition.as_str())
        .collect();
    let what = format!(
        "no approval would permit stage `{}`: {}",
        stage.name,
        conditions.join("; ")
    );
    Failure::new(Status::Refused, what)
        .with_code(codes::APPROVAL_NOT_NEEDED.id)
        .with_help("`barecount policy explain` says what would.")
}

/// One of the same question that nobody has answered.
fn already(state: &Path, asked: &Asked) -> Result<Option<Approval>, Failure> {
    let Some(reader) = state::reader(state)? else {
        return Ok(None);
    };
    let found = reader.approvals(Some(&asked.tenant), Some(&asked.pipeline), None, 1_000);
    let mut found = found.map_err(state::store_failure)?.into_iter();
    Ok(found.find(|approval| {
        approval.state == ApprovalState::Requested
            && approval.asked.question == asked.question
            && approval.asked.scopes == asked.scopes
    }))
}
