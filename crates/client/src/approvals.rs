//! Approvals on record: found in the state folder, and believed only as far as the signed ledger has
//! their acts.

use std::path::Path;

use barecount_control::{
    governance::{self, Attribute, Explanation, MAX_APPROVALS, StageDecision},
    store::reader::Reader,
};
use barecount_model::{
    approval::{Approval, History, Scope},
    codes,
    id::{ApprovalId, RunId},
    pipeline::Pipeline,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    embedded::policy,
    environment::Found,
    failure::{Failure, Status},
    log::Log,
    state,
};

/// Approvals of a pipeline that are looked through at most, newest first.
const LOOKED_THROUGH: u32 = 1_000;

/// The approvals of a pipeline's stages that may bear on a question about them now: those that are
/// asked for or granted and not over, each as it was signed; of those that are over, the latest.
/// `run` is the run that is asked about, where it has begun.
///
/// # Errors
/// If the state cannot be read, or has something else than was signed.
pub(crate) fn on_record(
    state: &Path,
    found: &Found,
    pipeline: &Pipeline,
    run: Option<&RunId>,
) -> Result<Vec<governance::Approval>, Failure> {
    // Where nothing has ever run nothing is on record.
    let Ok(folder) = state.canonicalize() else {
        return Ok(Vec::new());
    };
    let Some(reader) = state::reader(&folder)? else {
        return Ok(Vec::new());
    };
    let (tenant, name) = (pipeline.tenant.as_str(), pipeline.name.as_str());
    let approvals = reader.approvals(Some(tenant), Some(name), None, LOOKED_THROUGH);
    let mut approvals = approvals.map_err(state::store_failure)?;
    let environment = found.environment.name.as_str();
    approvals.retain(|approval| approval.asked.environment == environment);
    if approvals.is_empty() {
        return Ok(Vec::new());
    }
    hold(&folder, found, &reader, &approvals)?;
    let now = Timestamp::now();
    // In their order otherwise: newest first.
    approvals.sort_by_key(|approval| match approval.uncounted(run, now) {
        None => 0,
        Some("requested") => 1,
        Some(_) => 2,
    });
    let of_scopes = approvals
        .iter()
        .flat_map(|approval| policy::of_scopes(approval, run));
    Ok(of_scopes.take(MAX_APPROVALS).collect())
}

/// Holds approvals against their acts in the signed ledger.
///
/// # Errors
/// If one of them is not what its acts make it.
pub(crate) fn hold(
    folder: &Path,
    found: &Found,
    reader: &Reader,
    approvals: &[Approval],
) -> Result<(), Failure> {
    let log = Log::of(folder, found)?;
    let mut history = History::default();
    let entries = reader.approval_entries().map_err(state::store_failure)?;
    for index in entries {
        let Some(entry) = log.entry(index)? else {
            let what = format!("entry {index} is of an approval, and is not signed yet");
            return Err(Failure::new(Status::Unverified, what)
                .with_code(codes::APPROVAL_INVALID.id)
                .with_help("Any `barecount run` here signs what waits."));
        };
        let odd = || {
            invalid(format!(
                "entry {index} of the ledger is not as approvals are"
            ))
        };
        let statement: Value =
            serde_json::from_slice(&entry).map_err(|error| odd().because(&error))?;
        history
            .take(index, &statement)
            .map_err(|error| odd().because(&error))?;
    }
    for approval in approvals {
        agrees(&history, approval)
            .map_err(|what| invalid(format!("approval {}: {what}", approval.id)))?;
    }
    Ok(())
}

fn invalid(what: String) -> Failure {
    Failure::new(Status::Unverified, what)
        .with_code(codes::APPROVAL_INVALID.id)
        .with_help("`barecount evidence verify` says what else does not fit.")
}

/// Whether what the state has of an approval is what its acts make it. How often it was used is no
/// act, and not looked at.
///
/// # Errors
/// What differs.
pub(crate) fn agrees(history: &History, approval: &Approval) -> Result<(), &'static str> {
    let signed = history.find(&approval.id);
    let signed = signed.ok_or("the signed ledger has nobody who asked for it")?;
    let same = signed.asked == approval.asked
        && signed.requested == approval.requested
        && signed.state == approval.state
        && signed.granted == approval.granted
        && signed.term == approval.term
        && signed.ended == approval.ended;
    match same {
        true => Ok(()),
        false => Err("it is not what its acts in the signed ledger make it"),
    }
}

/// The approval that an identifier, or the beginning of one, names.
///
/// # Errors
/// If there is none, or there are several.
pub(crate) fn find(reader: &Reader, text: &str) -> Result<Approval, Failure> {
    let prefix = match text.starts_with("apr_") {
        true => text.to_owned(),
        false => format!("apr_{text}"),
    };
    let found = reader.approvals_by_prefix(&prefix);
    let mut found = found.map_err(state::store_failure)?;
    if found.len() > 1 {
        let what = format!("several approvals begin with `{text}`");
        return Err(Failure::new(Status::Usage, what).with_help("Give more of the identifier."));
    }
    found.pop().ok_or_else(|| none(text))
}

/// The failure of who names an approval that there is not.
pub(crate) fn none(text: &str) -> Failure {
    Failure::new(Status::NotFound, format!("there is no approval `{text}`"))
        .with_help("`barecount approvals ls` lists them.")
}

/// An identifier that nobody has guessed.
///
/// # Errors
/// If the system has no random bytes.
pub(crate) fn new_id() -> Result<ApprovalId, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(Status::Unavailable, "the system has no random bytes")
            .because(&std::io::Error::from(error))
    })?;
    Ok(ApprovalId::from_bytes(bytes))
}

/// The exceptions after which a refused stage would be permitted, if approvals can do that.
pub(crate) fn needed(decision: &StageDecision) -> Option<Vec<Scope>> {
    let mut scopes = Vec::new();
    for failed in &decision.failed {
        let mut changes = failed.changes.iter();
        let change = changes.find(|change| change.attribute == Attribute::Approval)?;
        let named = |scope: &Scope| change.to.iter().any(|to| to == scope.as_str());
        scopes.push(Scope::ALL.into_iter().find(named)?);
    }
    scopes.dedup();
    (!scopes.is_empty()).then_some(scopes)
}

/// What to ask for, stage by stage, so that a refused pipeline would be permitted.
#[derive(Debug)]
pub struct Advice {
    stage: String,
    scopes: Vec<Scope>,
    /// One that nobody has answered yet.
    pending: Option<ApprovalId>,
    file: String,
}

impl Advice {
    /// For each stage that approvals would have permitted.
    pub fn of(explanation: &Explanation, file: &Path) -> Vec<Self> {
        let decisions = explanation.decisions.iter();
        let refused = decisions.filter(|decision| !decision.allowed);
        let advice = refused.filter_map(|decision| {
            let stage = decision.stage.as_ref()?.name.clone();
            let waits = |found: &&governance::ApprovalDecision| {
                found.state == governance::ApprovalState::Requested
                    && found.failed.len() == 1
                    && found.failed[0].policy.id == "approval-is-granted"
            };
            let pending = decision.approvals.iter().find(waits);
            Some(Self {
                stage,
                scopes: needed(decision)?,
                pending: pending.and_then(|approval| approval.id.clone()),
                file: file.display().to_string(),
            })
        });
        advice.collect()
    }

    /// The command that does it.
    pub fn command(&self) -> String {
        let Self { stage, file, .. } = self;
        match &self.pending {
            Some(id) => format!("barecount approvals grant {id} --reason TEXT"),
            None => {
                format!("barecount approvals request {file} --stage {stage} --reason TEXT")
            }
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "stage": self.stage, "scopes": self.scopes, "pending": self.pending,
            "command": self.command(),
        })
    }

    /// For people: a line for each stage; nothing where no approval would help.
    pub fn text(advice: &[Self]) -> String {
        let line = |one: &Self| {
            let scopes: Vec<_> = one.scopes.iter().map(|scope| scope.as_str()).collect();
            let (stage, scopes, command) = (&one.stage, scopes.join(", "), one.command());
            match &one.pending {
                Some(id) => format!(
                    "approval of `{scopes}` for stage {stage} is asked for as {id}; an approver \
                     grants it with:\n  {command}\n"
                ),
                None => format!(
                    "an approval of `{scopes}` would permit stage {stage}; ask for it with:\n  \
                     {command}\n"
                ),
            }
        };
        advice.iter().map(line).collect()
    }
}
