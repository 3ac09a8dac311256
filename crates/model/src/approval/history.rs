//! The history of approvals, from entries of the ledger alone: what a stranger can hold a log
//! against, who has nothing but the log.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{Act, Approval, ApprovalState, Asked, NotDone, Signed, Term, USED};
use crate::{
    digest::Digest,
    evidence::EvidenceKind,
    id::{ApprovalId, RunId},
    untrusted::Message,
};

/// What cannot have happened as an entry says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Irregular {
    /// An entry is not as this program writes them.
    #[error("the entry cannot be understood, nor which approval it is about: {0}")]
    Unreadable(String),
    /// An act is on an approval that nobody has asked for.
    #[error("nobody has asked for approval {0}")]
    NeverAsked(ApprovalId),
    /// One is asked for twice.
    #[error("approval {0} is asked for a second time")]
    AskedTwice(ApprovalId),
    /// Something was done that policies had not permitted.
    #[error("what was done to approval {0} was not permitted")]
    NotPermitted(ApprovalId),
    /// A run was taken up again, which policies had not permitted.
    #[error("run {0} was taken up again, which was not permitted")]
    RunNotPermitted(RunId),
    /// An act could not be done.
    #[error(transparent)]
    NotDone(#[from] NotDone),
    /// A run was permitted by an approval of another question.
    #[error(
        "stage `{stage}` of run {run} was permitted by approval {approval} of another question"
    )]
    OtherQuestion {
        /// The run.
        run: RunId,
        /// The stage.
        stage: String,
        /// The approval.
        approval: ApprovalId,
    },
}

/// The approvals of a log, as they follow from its entries in their order.
#[derive(Debug, Clone, Default)]
pub struct History {
    approvals: BTreeMap<ApprovalId, Approval>,
}

#[derive(Deserialize)]
struct ActPredicate {
    act: String,
    approval: ApprovalId,
    asked: Asked,
    at: Timestamp,
    by: String,
    decision: Decision,
    reason: Message,
    run: Option<RunId>,
    term: Option<Term>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Decision {
    Made {
        decisions: Vec<StageDecision>,
    },
    // It made way for its digest.
    Omitted {
        #[serde(rename = "omitted")]
        _stand_in: Value,
    },
}

#[derive(Deserialize)]
struct StageDecision {
    allowed: bool,
    stage: Option<StageSummary>,
    question: Option<Digest>,
    #[serde(default)]
    approvals: Vec<ApprovalDecision>,
}

#[derive(Deserialize)]
struct StageSummary {
    name: String,
}

#[derive(Deserialize)]
struct ApprovalDecision {
    // None of those that are older than approvals as acts.
    id: Option<ApprovalId>,
    #[serde(default)]
    relied_on: bool,
}

#[derive(Deserialize)]
struct RunPredicate {
    at: Timestamp,
    decision: Decision,
    run: RunFacts,
}

#[derive(Deserialize)]
struct RunFacts {
    id: RunId,
}

impl History {
    /// Takes the next entry of a log. What is not about approvals is passed over.
    ///
    /// # Errors
    /// [`Irregular`]; what the entry says is not taken over then.
    pub fn take(&mut self, index: u64, statement: &Value) -> Result<(), Irregular> {
        let kind = &statement["predicateType"];
        let is = |wanted: EvidenceKind| *kind == wanted.predicate_type();
        if is(EvidenceKind::Approval) {
            return self.act(index, &statement["predicate"]);
        }
        if is(EvidenceKind::Submission) {
            return self.begun(&statement["predicate"]);
        }
        if is(EvidenceKind::Resumption) {
            return self.resumed(&statement["predicate"]);
        }
        Ok(())
    }

    /// What has become of one, if anybody has asked for it.
    pub fn find(&self, id: &ApprovalId) -> Option<&Approval> {
        self.approvals.get(id)
    }

    /// What has become of each.
    pub fn approvals(&self) -> impl Iterator<Item = &Approval> {
        self.approvals.values()
    }

    fn act(&mut self, index: u64, predicate: &Value) -> Result<(), Irregular> {
        let ActPredicate {
            act,
            approval: id,
            asked,
            at,
            by,
            decision,
            reason,
            run,
            term,
        } = read(predicate)?;
        if !decision.allows() {
            return Err(Irregular::NotPermitted(id));
        }
        let signed = Signed {
            by,
            at,
            reason,
            entry: index,
        };
        if act == ApprovalState::Requested.as_str() {
            let approval = Approval::requested(id.clone(), asked, signed);
            return match self.approvals.contains_key(&id) {
                true => Err(Irregular::AskedTwice(id)),
                false => {
                    self.approvals.insert(id, approval);
                    Ok(())
                }
            };
        }
        let found = self.approvals.get_mut(&id);
        let approval = found.filter(|approval| approval.asked == asked);
        let approval = approval.ok_or(Irregular::NeverAsked(id))?;
        if let (USED, Some(run)) = (act.as_str(), &run) {
            return Ok(approval.used_by(run, at)?);
        }
        let act = match (act.as_str(), term) {
            ("granted", Some(term)) => Act::Grant(term),
            ("denied", _) => Act::Deny,
            ("revoked", _) => Act::Revoke,
            (other, _) => return Err(Irregular::Unreadable(format!("no act is `{other}`"))),
        };
        Ok(approval.act(act, signed)?)
    }

    /// Holds what a run was permitted by against what had been granted until then.
    fn begun(&mut self, predicate: &Value) -> Result<(), Irregular> {
        // Decisions that are older than approvals as acts need not be as those are now.
        if !names_approvals(predicate) {
            return Ok(());
        }
        let RunPredicate { at, decision, run } = read(predicate)?;
        for (id, decided) in decision.relied_on() {
            self.relied_on(id, decided, &run)?.used_by(&run.id, at)?;
        }
        Ok(())
    }

    /// The same of a run that was taken up again. Whether it is one run more for an approval, an
    /// entry of its own says.
    fn resumed(&mut self, predicate: &Value) -> Result<(), Irregular> {
        // Older entries do not say by what.
        if predicate["decision"].is_null() {
            return Ok(());
        }
        let RunPredicate { at, decision, run } = read(predicate)?;
        if !decision.allows() {
            return Err(Irregular::RunNotPermitted(run.id));
        }
        for (id, decided) in decision.relied_on() {
            self.relied_on(id, decided, &run)?.counts_for(&run.id, at)?;
        }
        Ok(())
    }

    /// An approval that a decision about a run relies on, if it is of the question that was decided.
    fn relied_on(
        &mut self,
        id: &ApprovalId,
        decided: &StageDecision,
        run: &RunFacts,
    ) -> Result<&mut Approval, Irregular> {
        let approval = self.approvals.get_mut(id);
        let approval = approval.ok_or_else(|| Irregular::NeverAsked(id.clone()))?;
        let stage = decided.stage.as_ref().map(|stage| stage.name.as_str());
        let same = stage == Some(approval.asked.stage.as_str())
            && decided.question == Some(approval.asked.question);
        match same {
            true => Ok(approval),
            false => Err(Irregular::OtherQuestion {
                run: run.id.clone(),
                stage: stage.unwrap_or_default().to_owned(),
                approval: id.clone(),
            }),
        }
    }
}

impl Decision {
    /// The decisions about each stage; none where they made way for their digest.
    fn made(&self) -> &[StageDecision] {
        match self {
            Self::Made { decisions } => decisions,
            Self::Omitted { .. } => &[],
        }
    }

    fn allows(&self) -> bool {
        self.made().iter().all(|decided| decided.allowed)
    }

    /// The approvals that it relies on, each with the decision that does.
    fn relied_on(&self) -> impl Iterator<Item = (&ApprovalId, &StageDecision)> {
        self.made().iter().flat_map(|decided| {
            let relied_on = decided.approvals.iter().filter(|found| found.relied_on);
            relied_on.filter_map(move |found| Some((found.id.as_ref()?, decided)))
        })
    }
}

fn names_approvals(predicate: &Value) -> bool {
    let decisions = predicate["decision"]["decisions"].as_array();
    let mut approvals = decisions
        .into_iter()
        .flatten()
        .filter_map(|decided| decided["approvals"].as_array())
        .flatten();
    approvals.any(|approval| approval["relied_on"] == true)
}

fn read<'v, T: Deserialize<'v>>(predicate: &'v Value) -> Result<T, Irregular> {
    T::deserialize(predicate).map_err(|error| Irregular::Unreadable(error.to_string()))
}
