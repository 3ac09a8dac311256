//! Records that were set aside.

use barecount_api::{
    letter::{Letter, StoredDeadLetter},
    page::{Page, PageRequest},
};

use crate::failure::Failure;

/// Records that were set aside.
pub trait DeadLetters {
    /// Groups, newest first; of one run, if one is named.
    ///
    /// # Errors
    /// If there is no such run.
    fn letters(
        &self,
        run: Option<&str>,
        tenant: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<StoredDeadLetter>, Failure>;

    /// A group.
    ///
    /// # Errors
    /// If there is none of this number.
    fn letter(&self, id: u64) -> Result<StoredDeadLetter, Failure>;

    /// Hands every record of a group to `each`, held against the digest that was kept.
    ///
    /// # Errors
    /// If they are not those that were kept, and whatever `each` fails with.
    fn records(
        &self,
        group: &StoredDeadLetter,
        each: &mut dyn FnMut(&Letter) -> Result<(), Failure>,
    ) -> Result<(), Failure>;
}
