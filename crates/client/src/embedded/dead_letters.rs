//! Records that were set aside, as they are shown.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use barecount_agent::StagingFolders;
use barecount_api::{
    letter::{Letter, StoredDeadLetter},
    page::{Page, PageRequest},
};
use barecount_model::digest::Digest;

use super::Embedded;
use crate::{
    client::DeadLetters,
    details,
    failure::{Failure, Status},
    state,
};

impl DeadLetters for Embedded {
    fn letters(
        &self,
        run: Option<&str>,
        tenant: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<StoredDeadLetter>, Failure> {
        let run = run.map(|text| state::find_run(&self.state, text));
        let run = run.transpose()?;
        let run = run.as_ref().map(|(_, run, _)| run.id.printed());
        let Some(reader) = state::reader(&self.state)? else {
            return Ok(Page::empty());
        };
        let after = page.after.as_ref().map(state::number).transpose()?;
        let found =
            reader.dead_letters(tenant, run.as_deref(), after, page.limit.saturating_add(1));
        let found = found.map_err(state::store_failure)?;
        Ok(Page::cut(found, page.limit, |last| last.id.to_string()))
    }

    fn letter(&self, id: u64) -> Result<StoredDeadLetter, Failure> {
        let found = match state::reader(&self.state)? {
            Some(reader) => reader.dead_letter(id).map_err(state::store_failure)?,
            None => None,
        };
        found.ok_or_else(|| {
            Failure::new(Status::NotFound, format!("there is no dead letter {id}"))
                .with_help("`barecount dlq ls` lists them.")
        })
    }

    fn records(
        &self,
        group: &StoredDeadLetter,
        each: &mut dyn FnMut(&Letter) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        records_of(&self.state, group, each)
    }
}

/// Hands every record of a group to `each`, from the file that has all of the attempt's, which is
/// believed with its digest alone.
fn records_of(
    state: &Path,
    stored: &StoredDeadLetter,
    each: &mut dyn FnMut(&Letter) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let letter = &stored.letter;
    let Some(digest) = &letter.digest else {
        return each(&Letter {
            dataset: letter.dataset.clone(),
            reason: stored.letter.told().clone(),
            error: letter.error.clone(),
            record: letter.record.clone(),
            schema_hash: letter.schema_hash.clone(),
        });
    };
    let unproved = |error: &(dyn std::error::Error + 'static)| {
        let what = format!("the records of dead letters {} cannot be shown", stored.id);
        Failure::new(Status::Unverified, what)
            .with_code("BC0904")
            .because(error)
            .with_help("Put the file back from a copy. `barecount dlq show` has the first record.")
    };
    let folder = state::folder(state)?;
    let token = details::letters_token(&stored.task, stored.attempt)
        .ok_or_else(|| Failure::new(Status::Failed, "its task has no valid name"))?;
    let path = StagingFolders::new(&folder).letters(&token);
    let digest: Digest = digest.parse().map_err(|error| unproved(&error))?;
    details::check_file(&path, digest).map_err(|error| unproved(&error))?;
    let file = File::open(&path).map_err(|error| unproved(&error))?;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| unproved(&error))?;
        let one: Letter = serde_json::from_str(&line).map_err(|error| unproved(&error))?;
        if one.dataset == letter.dataset && one.reason == letter.reason {
            each(&one)?;
        }
    }
    Ok(())
}
