//! Approvals in the shard: each act is applied and entered in the ledger in one step, and a run uses
//! up what it was permitted by in the step that accepts it.

use barecount_model::{
    approval::{Act, Approval, NotDone, Signed, USED},
    evidence,
    id::{ApprovalId, RunId},
    untrusted::Message,
};
use jiff::Timestamp;
use serde_json::Value;

use super::Shard;
use crate::{
    authority::NotCovered,
    error::CommandError,
    governance::{Action, Explanation},
    journal::{Batch, Entry},
};

impl Shard {
    /// Who does something by a decision, with the entry that it will have.
    pub(super) fn signed(
        &self,
        by: &Explanation,
        reason: Message,
        at: Timestamp,
        batch: &Batch,
    ) -> Signed {
        Signed {
            by: by.requester.clone(),
            at,
            reason,
            entry: batch.first_entry + batch.entries.len() as u64,
        }
    }

    /// Keeps an approval that somebody asks for.
    pub(super) fn request(
        &mut self,
        approval: Approval,
        by: &Explanation,
        rules: &Value,
        now: Timestamp,
        batch: &mut Batch,
    ) -> Result<(), CommandError> {
        permitted(by, Action::RequestApproval, &approval)?;
        let reason = approval.requested.reason;
        let signed = self.signed(by, reason, now, batch);
        let approval = Approval::requested(approval.id, approval.asked, signed.clone());
        if self.approvals.contains_key(&approval.id) {
            let (id, state) = (approval.id, approval.state);
            return Err(NotDone::Over { id, state }.into());
        }
        let act = approval.state.as_str();
        enter(&approval, act, &signed, (by, rules), batch);
        self.keep_approval(approval, batch);
        Ok(())
    }

    /// Does something to an approval.
    pub(super) fn approve(
        &mut self,
        id: &ApprovalId,
        act: Act,
        signed: Signed,
        decided: (&Explanation, &Value),
        batch: &mut Batch,
    ) -> Result<(), CommandError> {
        let found = self.approvals.get(id).cloned();
        let mut approval = found.ok_or_else(|| CommandError::NoSuchApproval(id.clone()))?;
        let action = match act {
            Act::Grant(_) => Action::GrantApproval,
            Act::Deny => Action::DenyApproval,
            Act::Revoke => Action::RevokeApproval,
        };
        permitted(decided.0, action, &approval)?;
        approval.act(act, signed.clone())?;
        enter(&approval, act.as_str(), &signed, decided, batch);
        self.keep_approval(approval, batch);
        Ok(())
    }

    /// The approvals that a run's permit relies on, each with the run counted.
    ///
    /// # Errors
    /// If one of them does not count for it any more: then the permit permits nothing.
    pub(super) fn used(
        &self,
        permit: &Explanation,
        run: &RunId,
        now: Timestamp,
    ) -> Result<Vec<Approval>, CommandError> {
        let relied_on = permit.relied_on().into_iter();
        let used = relied_on.map(|id| {
            let found = self.approvals.get(id).cloned();
            let mut approval = found.ok_or_else(|| NotDone::Uncounted {
                id: id.clone(),
                why: "it is over",
            })?;
            approval.used_by(run, now)?;
            Ok(approval)
        });
        used.collect()
    }

    /// Counts a run that is taken up among those of the approvals that its permit relies on, where
    /// they were granted for a number of runs and it is not one of them yet.
    pub(super) fn go_on_by(
        &mut self,
        used: Vec<Approval>,
        by: (&Explanation, &Value),
        run: &RunId,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        for approval in used {
            let before = self.approvals.get(&approval.id);
            if !before.is_some_and(|approval| approval.lacks(run)) {
                continue;
            }
            let signed = self.signed(by.0, Message::default(), now, batch);
            let statement = evidence::of_approval(&approval, USED, &signed, by, Some(run));
            batch.entries.push(Entry {
                kind: statement.kind,
                run: None,
                bytes: statement.bytes,
            });
            self.keep_approval(approval, batch);
        }
    }

    /// Keeps an approval as it is after a step.
    pub(super) fn keep_approval(&mut self, approval: Approval, batch: &mut Batch) {
        let id = approval.id.clone();
        if approval.state.is_open() {
            self.approvals.insert(id.clone(), approval.clone());
        } else {
            self.approvals.remove(&id);
        }
        batch.approvals.insert(id, approval);
    }
}

fn enter(
    approval: &Approval,
    act: &str,
    signed: &Signed,
    decided: (&Explanation, &Value),
    batch: &mut Batch,
) {
    let statement = evidence::of_approval(approval, act, signed, decided, None);
    batch.entries.push(Entry {
        kind: statement.kind,
        run: None,
        bytes: statement.bytes,
    });
}

/// Whether a decision permits that something is done to this very approval.
fn permitted(by: &Explanation, action: Action, approval: &Approval) -> Result<(), CommandError> {
    let asked = &approval.asked;
    let same = by.action == action
        && by.approval.as_ref() == Some(&approval.id)
        && by.tenant == asked.tenant
        && by.environment.name == asked.environment
        && by.pipeline == asked.pipeline
        && !by.decisions.is_empty()
        && by.decisions.iter().all(|decision| decision.allowed);
    match same {
        true => Ok(()),
        false => Err(CommandError::ActNotPermitted(
            approval.id.clone(),
            NotCovered::OtherWork,
        )),
    }
}

#[cfg(test)]
mod tests;
