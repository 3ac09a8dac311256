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
    reason: String,
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
struct SubmissionPredicate {
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
            return self.submission(&statement["predicate"]);
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
        if let Decision::Made { decisions } = &decision
            && !decisions.iter().all(|decided| decided.allowed)
        {
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
    fn submission(&mut self, predicate: &Value) -> Result<(), Irregular> {
        // Decisions that are older than approvals as acts need not be as those are now.
        if !names_approvals(predicate) {
            return Ok(());
        }
        let SubmissionPredicate { at, decision, run } = read(predicate)?;
        let Decision::Made { decisions } = decision else {
            return Ok(());
        };
        for decided in &decisions {
            let relied_on = decided.approvals.iter().filter(|found| found.relied_on);
            for id in relied_on.filter_map(|found| found.id.as_ref()) {
                let approval = self.approvals.get_mut(id);
                let approval = approval.ok_or_else(|| Irregular::NeverAsked(id.clone()))?;
                let stage = decided.stage.as_ref().map(|stage| stage.name.as_str());
                let same = stage == Some(approval.asked.stage.as_str())
                    && decided.question == Some(approval.asked.question);
                if !same {
                    return Err(Irregular::OtherQuestion {
                        run: run.id,
                        stage: stage.unwrap_or_default().to_owned(),
                        approval: id.clone(),
                    });
                }
                approval.used_by(&run.id, at)?;
            }
        }
        Ok(())
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
