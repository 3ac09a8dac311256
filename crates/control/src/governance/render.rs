//! An explanation as plain text, for the person who answers for the rules.

use std::fmt::{self, Write};

use super::question::Action;
use super::template::excerpt;
use super::verdict::{
    ApprovalDecision, Attribute, Change, CrossingBasis, CrossingDecision, Explanation,
    FailedCondition, PolicyRef, StageDecision,
};

/// Where the second column of a stage's block starts.
const LABEL_WIDTH: usize = 16;

/// The answer as text: the verdict, then each stage with the policies that decided it, what was not
/// met, and what would change that. Foreign text is escaped and cut, so it cannot steer a terminal.
pub fn explain(explanation: &Explanation) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _infallible = write_page(&mut page, explanation);
    page
}

fn write_page(page: &mut String, explanation: &Explanation) -> fmt::Result {
    let (stages, refused) = counts(explanation);
    let outcome = if explanation.is_permitted() {
        "PERMITTED"
    } else {
        "REFUSED"
    };
    write!(page, "{outcome}: {}", action(explanation.action))?;
    if stages > 0 && refused > 0 {
        write!(
            page,
            ", because of {refused} of {stages} stage{}",
            plural(stages)
        )?;
    }
    writeln!(page)?;
    writeln!(page)?;
    let environment = &explanation.environment;
    fact(
        page,
        "pipeline",
        &format!("{}, version {}", explanation.pipeline, explanation.version),
    )?;
    fact(page, "tenant", &explanation.tenant)?;
    fact(
        page,
        "environment",
        &format!("{} ({})", environment.name, environment.kind.as_str()),
    )?;
    fact(page, "asked by", &explanation.requester)?;
    fact(page, "asked at", &explanation.decided_at.to_string())?;
    if let Some(approval) = &explanation.approval {
        fact(page, "approval", &approval.printed())?;
    }
    fact(page, "policies", &explanation.policies_digest)?;
    // What was refused comes first: it is what the reader has come for.
    let (allowed, refused): (Vec<_>, Vec<_>) =
        explanation.decisions.iter().partition(|d| d.allowed);
    for decision in refused.into_iter().chain(allowed) {
        let whole = match explanation.approval {
            Some(_) => "the approval",
            None => "the pipeline as a whole",
        };
        write_decision(page, whole, decision)?;
    }
    Ok(())
}

fn counts(explanation: &Explanation) -> (usize, usize) {
    let stages = explanation
        .decisions
        .iter()
        .filter(|decision| decision.stage.is_some());
    let refused = stages.clone().filter(|decision| !decision.allowed).count();
    (stages.count(), refused)
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Run => "run",
        Action::Resume => "resume",
        Action::Cancel => "cancel",
        Action::Deploy => "deploy",
        Action::ChangeDataset => "change a dataset by hand",
        Action::RefreshLock => "refresh the lock",
        Action::Replay => "replay",
        Action::RequestApproval => "ask for an approval",
        Action::GrantApproval => "grant an approval",
        Action::DenyApproval => "deny an approval",
        Action::RevokeApproval => "revoke an approval",
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn fact(page: &mut String, label: &str, value: &str) -> fmt::Result {
    writeln!(page, "  {label:LABEL_WIDTH$}{}", excerpt(value))
}

fn write_decision(page: &mut String, whole: &str, decision: &StageDecision) -> fmt::Result {
    let outcome = if decision.allowed {
        "permitted"
    } else {
        "refused"
    };
    writeln!(page)?;
    match &decision.stage {
        Some(stage) => writeln!(
            page,
            "stage {}: {outcome} ({}, {}, {})",
            excerpt(&stage.name),
            stage.class,
            stage.size,
            stage.network_profile
        )?,
        None if decision.is_unanswerable() => writeln!(page, "the question as asked: {outcome}")?,
        None => writeln!(page, "{whole}: {outcome}")?,
    }
    if decision.allowed {
        for policy in &decision.determining {
            fact(page, "permitted by", &reference(policy))?;
        }
    }
    if !decision.matrix_rows.is_empty() {
        fact(page, "matrix rows", &decision.matrix_rows.join(", "))?;
    }
    for crossing in &decision.crossings {
        write_crossing(page, crossing)?;
    }
    for failed in &decision.failed {
        write_failed(page, failed)?;
    }
    write_alternatives(page, &decision.alternatives)?;
    let mut bearing = decision
        .approvals
        .iter()
        .filter(|approval| bears_on(decision, approval));
    bearing.try_for_each(|approval| write_approval(page, approval))
}

fn write_crossing(page: &mut String, decided: &CrossingDecision) -> fmt::Result {
    let crossing = &decided.crossing;
    let way = format!("{}: {} to {}", crossing.dataset, crossing.from, crossing.to);
    fact(page, "crossing", &way)?;
    fact(page, "  because", &crossing.reason)?;
    for basis in &decided.allowed_by {
        let basis = match basis {
            CrossingBasis::Development => "the environment is for development".to_owned(),
            CrossingBasis::Grant { tenant } => format!("a grant to tenant {tenant}"),
            CrossingBasis::Approval { approver, .. } => {
                let approver = approver.as_deref().unwrap_or("nobody");
                format!("the approval by {approver}")
            }
        };
        fact(page, "  allowed by", &basis)?;
    }
    Ok(())
}

/// Single changes that suffice, one a line.
fn write_alternatives(page: &mut String, alternatives: &[Change]) -> fmt::Result {
    for (position, alternative) in alternatives.iter().enumerate() {
        if position == 0 {
            writeln!(page)?;
        }
        let label = if position == 0 {
            "permitted with"
        } else {
            "  or with"
        };
        fact(page, label, &alternative.needed())?;
    }
    Ok(())
}

/// An approval is shown where it counts, or where one of its scope would have helped.
fn bears_on(decision: &StageDecision, approval: &ApprovalDecision) -> bool {
    let scope = approval.scope.as_str();
    let mut changes = decision.failed.iter().flat_map(|failed| &failed.changes);
    approval.usable
        || changes.any(|change| {
            change.attribute == Attribute::Approval && change.to.iter().any(|to| to == scope)
        })
}

fn reference(policy: &PolicyRef) -> String {
    format!("{} [{}]", policy.title, policy.id)
}

fn write_failed(page: &mut String, failed: &FailedCondition) -> fmt::Result {
    writeln!(page)?;
    // A condition may quote several names, each of which is cut on its own.
    writeln!(page, "  {:LABEL_WIDTH$}{}", "not met", failed.condition)?;
    fact(page, "policy", &reference(&failed.policy))?;
    for (label, text) in [("found", &failed.found), ("needed", &failed.needed)] {
        if !text.is_empty() {
            writeln!(page, "  {label:LABEL_WIDTH$}{text}")?;
        }
    }
    writeln!(page, "  {:LABEL_WIDTH$}{}", "to do", failed.remedy)
}

fn write_approval(page: &mut String, approval: &ApprovalDecision) -> fmt::Result {
    let outcome = if approval.usable {
        "counts"
    } else {
        "does not count"
    };
    writeln!(page)?;
    let id = approval.id.as_ref();
    let id = id.map_or_else(|| "(older)".to_owned(), ToString::to_string);
    let scope = approval.scope.as_str();
    writeln!(
        page,
        "  {:LABEL_WIDTH$}{id} of scope `{scope}`: {outcome}",
        "approval"
    )?;
    if let Some(requester) = &approval.requester {
        fact(page, "requested by", requester)?;
    }
    let state = approval.state.as_str();
    match &approval.approver {
        Some(approver) => fact(page, "granted by", approver)?,
        None => fact(page, "state", state)?,
    }
    if let Some(expires_at) = approval.expires_at {
        fact(page, "expires at", &expires_at.to_string())?;
    }
    fact(page, "justified by", &approval.justification)?;
    for failed in &approval.failed {
        writeln!(page, "  {:LABEL_WIDTH$}{}", "not met", failed.condition)?;
        fact(page, "policy", &reference(&failed.policy))?;
        writeln!(page, "  {:LABEL_WIDTH$}{}", "to do", failed.remedy)?;
    }
    Ok(())
}
