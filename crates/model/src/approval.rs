//! Approvals: exceptions that somebody asks for and somebody else answers for (four eyes).
//!
//! An approval is what was done to it, one act after another: it is asked for, and then granted or
//! denied, and what was granted may be revoked. Each act is an entry of evidence. It is of one
//! [`Asked`] question, and counts for no other. Who may act is for policies to say; what is said
//! here holds whatever they say.

mod history;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::history::{History, Irregular};
use crate::{
    class::{NetworkProfile, RunnerClass, Size},
    digest::Digest,
    id::{ApprovalId, RunId},
    untrusted::Message,
};

/// Most runs that an approval may be granted for, where it is granted for a number of them.
pub const MAX_RUNS: u32 = 1_000;

/// A name of an account as names are compared: `Ada` and ` ada` are one person.
pub fn account(name: &str) -> String {
    name.trim().to_lowercase()
}

/// What an approval excepts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The tenant's matrix: a combination that it does not list.
    Matrix,
    /// That size `xlarge` is for nobody.
    #[serde(rename = "xlarge")]
    XLarge,
    /// That size `custom` is for nobody.
    CustomSize,
    /// That nothing is logged at level debug in production.
    DebugLogging,
    /// That data does not cross a boundary: for the datasets that it names.
    Crossing,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [
        Self::Matrix,
        Self::XLarge,
        Self::CustomSize,
        Self::DebugLogging,
        Self::Crossing,
    ];

    /// The scope as policies and evidence spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Matrix => "matrix",
            Self::XLarge => "xlarge",
            Self::CustomSize => "custom_size",
            Self::DebugLogging => "debug_logging",
            Self::Crossing => "crossing",
        }
    }
}

/// What exactly an approval is asked of: one stage as its manifest and its environment have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// For whose work.
    pub tenant: String,
    /// In which environment, by name.
    pub environment: String,
    /// For which pipeline, by name.
    pub pipeline: String,
    /// The version of it that was asked about. It may change: what counts is in `question`.
    pub version: String,
    /// For which stage, by name.
    pub stage: String,
    /// How that is executed.
    pub class: RunnerClass,
    /// Its size.
    pub size: Size,
    /// What it may reach, and by which path.
    pub network_profile: NetworkProfile,
    /// The exceptions that are to be made.
    pub scopes: BTreeSet<Scope>,
    /// For [`Scope::Crossing`]: the datasets that are to cross.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub datasets: BTreeSet<String>,
    /// The digest of all that governance is asked about the stage, and of the policies in force.
    /// Where it is another one, another question is asked.
    pub question: Digest,
}

/// How long, and how often, an approval counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// From when on it counts no longer.
    pub until: Timestamp,
    /// How many runs it is for; any number, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u32>,
}

/// What is done to an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It is given.
    Grant(Term),
    /// It is not given.
    Deny,
    /// It was given, or asked for, and is taken back.
    Revoke,
}

impl Act {
    /// The act as evidence spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grant(_) => "granted",
            Self::Deny => "denied",
            Self::Revoke => "revoked",
        }
    }
}

/// Who did something to an approval, when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The account.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Message,
    /// The entry of the ledger that has the act.
    pub entry: u64,
}

/// What has become of an approval, whatever the time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has answered.
    Requested,
    /// It was given.
    Granted,
    /// It was not given.
    Denied,
    /// It was taken back.
    Revoked,
}

/// The act, in evidence, by which a run that was taken up goes on: it counts as one of those that
/// the approval was granted for.
pub const USED: &str = "used";

impl ApprovalState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Requested, Self::Granted, Self::Denied, Self::Revoked];

    /// The state as policies and JSON spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
        }
    }

    /// Whether anything can still be done to it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Requested | Self::Granted)
    }
}

/// An exception that somebody asked for, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Its identifier.
    pub id: ApprovalId,
    /// What it is asked of.
    pub asked: Asked,
    /// Who asked for it.
    pub requested: Signed,
    /// What has become of it.
    pub state: ApprovalState,
    /// Who granted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Signed>,
    /// How long it counts, once it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// Who denied or revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Signed>,
    /// How many runs were permitted by it.
    #[serde(default)]
    pub used: u64,
    /// Which, where it is for a number of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunId>,
}

/// Why something cannot be done to an approval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// It has been answered, or taken back.
    #[error("approval {id} is {} already", state.as_str())]
    Over {
        /// The approval.
        id: ApprovalId,
        /// What has become of it.
        state: ApprovalState,
    },
    /// Who asked for it would answer.
    #[error("approval {id} was asked for by `{by}`, who cannot grant it")]
    OwnRequest {
        /// The approval.
        id: ApprovalId,
        /// Who asked.
        by: String,
    },
    /// It would be granted for no time, or for no run, or for too many.
    #[error("approval {id} cannot be granted for a time that is over or for {runs:?} runs")]
    NoTerm {
        /// The approval.
        id: ApprovalId,
        /// The runs.
        runs: Option<u32>,
    },
    /// A run would use it that it does not count for any more.
    #[error("approval {id} does not count any more: {why}")]
    Uncounted {
        /// The approval.
        id: ApprovalId,
        /// Why.
        why: &'static str,
    },
}

impl Approval {
    /// One that is asked for.
    pub fn requested(id: ApprovalId, asked: Asked, requested: Signed) -> Self {
        Self {
            id,
            asked,
            requested,
            state: ApprovalState::Requested,
            granted: None,
            term: None,
            ended: None,
            used: 0,
            runs: Vec::new(),
        }
    }

    /// Does something to it.
    ///
    /// # Errors
    /// [`NotDone`]; nothing has changed then.
    pub fn act(&mut self, act: Act, signed: Signed) -> Result<(), NotDone> {
        let over = || NotDone::Over {
            id: self.id.clone(),
            state: self.state,
        };
        match (act, self.state) {
            (Act::Grant(term), ApprovalState::Requested) => self.grant(term, signed)?,
            (Act::Deny, ApprovalState::Requested) => {
                self.state = ApprovalState::Denied;
                self.ended = Some(signed);
            }
            (Act::Revoke, ApprovalState::Requested | ApprovalState::Granted) => {
                self.state = ApprovalState::Revoked;
                self.ended = Some(signed);
            }
            _ => return Err(over()),
        }
        Ok(())
    }

    fn grant(&mut self, term: Term, signed: Signed) -> Result<(), NotDone> {
        if account(&signed.by) == account(&self.requested.by) {
            return Err(NotDone::OwnRequest {
                id: self.id.clone(),
                by: self.requested.by.clone(),
            });
        }
        let some = term.runs.is_none_or(|runs| (1..=MAX_RUNS).contains(&runs));
        if term.until <= signed.at || !some {
            return Err(NotDone::NoTerm {
                id: self.id.clone(),
                runs: term.runs,
            });
        }
        self.state = ApprovalState::Granted;
        self.granted = Some(signed);
        self.term = Some(term);
        Ok(())
    }

    /// Whether it permits a run at this time.
    ///
    /// # Errors
    /// [`NotDone::Uncounted`] if it does not.
    pub fn counts_for(&self, run: &RunId, now: Timestamp) -> Result<(), NotDone> {
        match self.uncounted(Some(run), now) {
            None => Ok(()),
            Some(why) => Err(NotDone::Uncounted {
                id: self.id.clone(),
                why,
            }),
        }
    }

    /// Counts a run that was permitted by it. The same run counts once.
    ///
    /// # Errors
    /// [`NotDone::Uncounted`] if it does not count for a run at this time.
    pub fn used_by(&mut self, run: &RunId, now: Timestamp) -> Result<(), NotDone> {
        self.counts_for(run, now)?;
        if self.runs.contains(run) {
            return Ok(());
        }
        self.used += 1;
        if self.term.is_some_and(|term| term.runs.is_some()) {
            self.runs.push(run.clone());
        }
        Ok(())
    }

    /// Whether a run is yet to be counted among those that it was granted for.
    pub fn lacks(&self, run: &RunId) -> bool {
        self.term.is_some_and(|term| term.runs.is_some()) && !self.runs.contains(run)
    }

    /// How many more runs it counts for, `run` being one that is asked about; any number, if
    /// `None`.
    pub fn runs_left(&self, run: Option<&RunId>) -> Option<u32> {
        let runs = self.term?.runs?;
        let others = self.runs.iter().filter(|used| Some(*used) != run).count();
        Some(runs.saturating_sub(u32::try_from(others).unwrap_or(u32::MAX)))
    }

    /// Why it counts for no run at this time; nothing where it does.
    pub fn uncounted(&self, run: Option<&RunId>, now: Timestamp) -> Option<&'static str> {
        match self.state {
            ApprovalState::Granted => {}
            other => return Some(other.as_str()),
        }
        match self.term {
            Some(term) if now >= term.until => Some("expired"),
            _ if self.runs_left(run) == Some(0) => Some("used_up"),
            _ => None,
        }
    }

    /// What people call its state at this time: as [`ApprovalState`], or `expired`, or `used_up`.
    pub fn standing(&self, now: Timestamp) -> &'static str {
        self.uncounted(None, now).unwrap_or("granted")
    }
}

#[cfg(test)]
mod tests;
