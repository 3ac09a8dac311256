//! A storage under which the process ends at an append that was chosen: tests of whole programs go
//! through all of them, one after the other, and hold what is found afterwards.

use std::{fmt, str::FromStr};

use barecount_model::{approval::Approval, id::RunId};

use super::{Appended, Batch, Position, Storage, Stored};
use crate::{entries::Entries, store::StoreError};

/// An append at which the process ends: `before:N` or `after:N`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndAt {
    append: u64,
    moment: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Nothing of the batch has happened.
    Before,
    /// All of it has, and nobody was told.
    After,
}

/// A text that names no append.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither `before:N` nor `after:N`")]
pub struct NoAppend(String);

impl FromStr for EndAt {
    type Err = NoAppend;

    fn from_str(text: &str) -> Result<Self, NoAppend> {
        let of = |moment, number: &str| {
            let append = number.parse().ok().filter(|append| *append > 0)?;
            Some(Self { append, moment })
        };
        let found = match text.split_once(':') {
            Some(("before", number)) => of(Moment::Before, number),
            Some(("after", number)) => of(Moment::After, number),
            _ => None,
        };
        found.ok_or_else(|| NoAppend(text.to_owned()))
    }
}

impl fmt::Display for EndAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        write!(f, "{moment}:{}", self.append)
    }
}

/// Another storage, until then.
pub(crate) struct Ending {
    pub(crate) storage: Box<dyn Storage>,
    pub(crate) at: EndAt,
    pub(crate) appends: u64,
}

impl Ending {
    fn end_if(&self, moment: Moment) {
        if self.at.append == self.appends && self.at.moment == moment {
            tracing::warn!(at = %self.at, "the process ends, as it was told to");
            std::process::abort();
        }
    }
}

impl Storage for Ending {
    fn append(&mut self, batch: &Batch) -> Appended {
        self.appends += 1;
        self.end_if(Moment::Before);
        let appended = self.storage.append(batch);
        self.end_if(Moment::After);
        appended
    }

    fn position(&self) -> Result<Position, StoreError> {
        self.storage.position()
    }

    fn next_entry(&self) -> Result<u64, StoreError> {
        self.storage.next_entry()
    }

    fn seen(&self) -> u64 {
        self.storage.seen()
    }

    fn open_runs(&self) -> Result<Vec<Stored>, StoreError> {
        self.storage.open_runs()
    }

    fn run(&self, id: &RunId) -> Result<Option<Stored>, StoreError> {
        self.storage.run(id)
    }

    fn run_by_token(&self, tenant: &str, token: &str) -> Result<Option<Stored>, StoreError> {
        self.storage.run_by_token(tenant, token)
    }

    fn open_approvals(&self) -> Result<Vec<Approval>, StoreError> {
        self.storage.open_approvals()
    }

    fn queued_entries(&self) -> Result<Vec<Entries>, StoreError> {
        self.storage.queued_entries()
    }

    fn end(&mut self, integrated: Option<u64>) -> Result<(), StoreError> {
        self.storage.end(integrated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_is_named_by_its_moment_and_number() {
        for text in ["before:1", "after:37"] {
            assert_eq!(
                text.parse().map(|at: EndAt| at.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in ["", "before", "before:0", "during:1", "after:x", "after:-1"] {
            assert_eq!(text.parse::<EndAt>(), Err(NoAppend(text.to_owned())));
        }
    }
}
