//! What people are told of a control plane that could not do what was asked of it.

use barecount_control::CommandError;
use barecount_model::{
    codes,
    run::{Run, Task, TaskState},
};

use crate::failure::{Failure, Status};

/// Why nothing goes on, and what helps.
pub(super) fn broken(run: &Run, code: &'static str, reason: String) -> Failure {
    let failure = Failure::new(Status::Unavailable, reason).with_code(code);
    let committing = |task: &Task| task.state == TaskState::Committing;
    if run.tasks.iter().any(committing) {
        return failure.with_help(format!(
            "Nothing is lost: once that is mended, running again goes on from here. What cannot be \
             mended, `barecount runs abandon {} --reason TEXT` gives up, on record; then the \
             pipeline runs again.",
            run.id
        ));
    }
    failure.with_help("Nothing is lost: once that is mended, running again goes on from here.")
}

/// What a command of the control plane failed with.
pub(super) fn command_failure(error: &CommandError) -> Failure {
    match error {
        CommandError::TokenConflict { .. } => Failure::from_error(Status::Conflict, error)
            .with_code("BC0806")
            .with_help("Choose another token: one names the same work for ever."),
        CommandError::Approval(_) => Failure::from_error(Status::Refused, error)
            .with_code(codes::APPROVAL_UNCOUNTED.id)
            .with_help(
                "Nothing has changed. Do it again: policy is asked anew, and says what is missing.",
            ),
        CommandError::Rejected(_)
        | CommandError::UnknownRun(_)
        | CommandError::NoSuchApproval(_)
        | CommandError::ActNotPermitted(..) => Failure::from_error(Status::Bug, error),
        _ => Failure::from_error(Status::Unavailable, error)
            .with_code("BC0804")
            .with_help("Nothing is lost: running again goes on from here."),
    }
}
