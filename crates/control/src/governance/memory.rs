//! Permits that need not be decided again: equal questions under the same policies have equal
//! answers, as long as nothing in them depends on the time.
//!
//! Whatever a decision depends on is in its question or in the policies, which a memory belongs to
//! one set of. Of the time only two things can depend: whether an approval has expired, which is
//! looked at here, and what an added policy asks of `now`, with which nothing is remembered.

use std::{
    collections::VecDeque,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cedar_policy::{Policy, PolicySet};

use super::{Explanation, PolicySource, Question};

/// Questions remembered at most; the oldest is forgotten first.
const QUESTIONS: usize = 256;

/// What was permitted under one set of policies.
#[derive(Debug, Default)]
pub(super) struct Memory {
    permitted: Mutex<VecDeque<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    question: Question,
    explanation: Arc<Explanation>,
    /// The answer is the same before this, in milliseconds as policies see the time; always, if
    /// absent.
    until: Option<i64>,
}

impl Memory {
    /// A memory for the default policies and `additional` ones; none if one of those may ask for the
    /// time.
    pub(super) fn beside(additional: &[PolicySource]) -> Option<Self> {
        let timeless = additional.iter().all(|source| {
            PolicySet::from_str(&source.text)
                .is_ok_and(|set| !set.policies().any(may_ask_for_the_time))
        });
        timeless.then(Self::default)
    }

    /// The answer to an equal question that was put before, and still holds. It keeps the time at
    /// which it was decided.
    pub(super) fn recall(&self, question: &Question) -> Option<Arc<Explanation>> {
        let permitted = self.permitted();
        let found = permitted.iter().find(|remembered| {
            remembered.holds(question) && remembered.question.equals_but_for_time(question)
        });
        found.map(|remembered| Arc::clone(&remembered.explanation))
    }

    /// Keeps a permit until the first of the approvals that were looked at expires.
    pub(super) fn keep(&self, question: &Question, explanation: &Arc<Explanation>) {
        let now = question.now.as_millisecond();
        let expiries = question.approvals.iter();
        let expiries = expiries.filter_map(|approval| Some(approval.expires_at?.as_millisecond()));
        let remembered = Remembered {
            question: question.clone(),
            explanation: Arc::clone(explanation),
            until: expiries.filter(|expiry| *expiry > now).min(),
        };
        let mut permitted = self.permitted();
        permitted.retain(|older| !older.question.equals_but_for_time(question));
        if permitted.len() >= QUESTIONS {
            permitted.pop_front();
        }
        permitted.push_back(remembered);
    }

    fn permitted(&self) -> MutexGuard<'_, VecDeque<Remembered>> {
        // What is in it is whole at any time.
        self.permitted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    /// Whether nothing that depends on the time has changed since it was decided.
    fn holds(&self, question: &Question) -> bool {
        let now = question.now.as_millisecond();
        self.question.now <= question.now && self.until.is_none_or(|until| now < until)
    }
}

/// Whether a policy has the name of the attribute in it, however its text writes that.
fn may_ask_for_the_time(policy: &Policy) -> bool {
    policy
        .to_json()
        .map_or(true, |json| json.to_string().contains("\"now\""))
}
