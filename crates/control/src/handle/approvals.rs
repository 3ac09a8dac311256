//! Asking for approvals, and deciding about them.

use barecount_model::{
    approval::{Act, Approval},
    id::ApprovalId,
    untrusted::Message,
};

use super::Control;
use crate::error::CommandError;
use crate::{governance::Permit, shard::Command};

impl Control {
    /// Keeps an approval that is asked for, by a permit to
    /// [`Action::RequestApproval`](crate::governance::Action::RequestApproval): whoever asks is who
    /// that names. `rules` is what it was decided by, for evidence.
    ///
    /// # Errors
    /// [`CommandError::ActNotPermitted`] if the permit is for something else;
    /// [`CommandError::Store`] if it could not be made durable.
    pub async fn request_approval(
        &self,
        approval: Approval,
        permit: &Permit,
        rules: serde_json::Value,
    ) -> Result<(), CommandError> {
        let (approval, by) = (Box::new(approval), permit.shared());
        let command = Command::Request {
            approval,
            by,
            rules,
        };
        self.send(command).await.map(drop)
    }

    /// Grants, denies or revokes an approval, by a permit to do that: whoever acts is who that
    /// names. `rules` is what it was decided by, for evidence.
    ///
    /// # Errors
    /// [`CommandError::ActNotPermitted`] if the permit is for something else;
    /// [`CommandError::NoSuchApproval`] and [`CommandError::Approval`] if it cannot be done;
    /// [`CommandError::Store`] if it could not be made durable.
    pub async fn approve(
        &self,
        id: &ApprovalId,
        act: Act,
        reason: Message,
        permit: &Permit,
        rules: serde_json::Value,
    ) -> Result<(), CommandError> {
        let command = Command::Approve {
            id: id.clone(),
            act,
            reason,
            by: permit.shared(),
            rules,
        };
        self.send(command).await.map(drop)
    }
}
