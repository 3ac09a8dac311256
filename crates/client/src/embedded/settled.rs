//! What is answered before anything is started: where a run of this work has succeeded, all of it
//! still stands, and no process has left anything to be done, there is nothing to start for.
//!
//! Nothing is answered here that [`super::again`] would not answer. What is not plain is left to it,
//! and so is what cannot be told, which it tells in its place.

use barecount_agent::StagingFolders;
use barecount_api::run::RunRequest;
use barecount_artifact::{Store, build::Cancel};
use barecount_control::{
    governance::{Action, Verdict},
    store::reader::Reader,
};
use barecount_dataset::table::StateTables;
use barecount_model::{
    lock::Lock,
    pipeline::Loaded,
    run::{Run, RunState},
};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    again, answers::Answers, artifacts, build::Workshop, feasible::checked, imports, layout,
    ledger, lock, run::request, secrets, unusable,
};
use crate::{
    failure::{Failure, Status},
    preparation::{self, Preparation},
    rules, state,
};

/// The run that answers what is asked for, if that can be told by looking alone. Whoever calls this
/// has the state folder to himself.
pub(super) async fn settled(
    asked: &RunRequest,
    loaded: &Loaded,
    preparation: &Preparation<'_>,
    tables: &StateTables,
) -> Option<Run> {
    if asked.token.is_some() || !asked.force.is_empty() {
        return None;
    }
    // What fails here fails on the long way, too, and is told there.
    let found = find(asked, loaded.clone(), preparation, tables);
    found.await.ok().flatten()
}

async fn find(
    asked: &RunRequest,
    mut loaded: Loaded,
    preparation: &Preparation<'_>,
    tables: &StateTables,
) -> Result<Option<Run>, Failure> {
    let Some(reader) = layout::present(preparation.state)? else {
        return Ok(None);
    };
    if !is_at_rest(preparation, &reader)? {
        return Ok(None);
    }
    let only = asked.stage.as_deref();
    imports::hold(&mut loaded, preparation.state, only).await?;
    let preparation = &Preparation {
        pipeline: &loaded.pipeline,
        manifest: &loaded.manifest,
        ..*preparation
    };
    let store = artifacts(preparation.state)?;
    let Some(lock) = pinned(preparation, &store)? else {
        return Ok(None);
    };
    // Loaded while logs are read: it takes as long, and needs nothing of them.
    let governance = tokio::task::spawn_blocking(preparation::governance);
    checked(tables, Some(&reader), &loaded.pipeline, only).await?;
    let answers = Answers::new(preparation.state.to_owned(), tables.clone());
    let request = request(asked, preparation, &lock);
    let plan = request.plan(&store, Value::Null)?;
    let run = request.run(&plan, Timestamp::now())?;
    let latest = reader.latest_of_token(&run.tenant, &run.token);
    let Some((latest, plan)) = latest.map_err(state::store_failure)? else {
        return Ok(None);
    };
    if latest.state != RunState::Succeeded {
        return Ok(None);
    }
    let untrue = answers.untrue(&latest, &plan).await;
    if !untrue
        .map_err(|error| again::unreadable(&error))?
        .is_empty()
    {
        return Ok(None);
    }
    let question = preparation.question(Action::Run, &lock, None)?;
    let governance = governance.await;
    let governance = governance.map_err(|error| Failure::from_error(Status::Bug, &error))??;
    // A refusal is kept, and told with its reasons.
    Ok(match governance.decide(&question) {
        Verdict::Permitted(_) => Some(latest),
        Verdict::Refused(_) => None,
    })
}

/// Whether the last process has left nothing to be done, and the folder is bound as it would be now.
fn is_at_rest(preparation: &Preparation<'_>, reader: &Reader) -> Result<bool, Failure> {
    let Preparation { state, found, .. } = *preparation;
    if let Some(location) = secrets::locate(found, state)? {
        // What a process that was killed left in memory is removed.
        drop(location.service(state));
    }
    let unreadable = |error| unusable("what is staged cannot be listed", &error);
    Ok(rules::is_bound(state, found)?
        && StagingFolders::new(state).is_empty().map_err(unreadable)?
        && is_signed(preparation, reader)?)
}

/// Whether all that is on record is under a signed checkpoint.
fn is_signed(preparation: &Preparation<'_>, reader: &Reader) -> Result<bool, Failure> {
    let Preparation { state, found, .. } = *preparation;
    let length = reader.ledger_length().map_err(state::store_failure)?;
    let key_file = ledger::key_file(state, found.signing_key().as_deref())?;
    ledger::refuse_open_key(&key_file)?;
    let signed = ledger::signed(state, &key_file);
    let signed = signed.map_err(|error| {
        let (code, help) = error.code_and_help();
        let failure = Failure::from_error(Status::Unavailable, &error).with_code(code);
        failure.with_help(help)
    })?;
    Ok(signed == Some(length))
}

/// The pins to run by, if nothing has to be built, taken in or written for them.
fn pinned(preparation: &Preparation<'_>, store: &Store) -> Result<Option<Lock>, Failure> {
    let Preparation {
        pipeline,
        folder,
        state,
        found,
        ..
    } = *preparation;
    if found.environment.refresh_lock {
        let workshop = Workshop::new(store, pipeline, folder, state, Cancel::default());
        let made = workshop.as_they_are();
        return Ok(made.filter(|made| lock::is(folder, made)));
    }
    let Some(found) = lock::read(folder)? else {
        return Ok(None);
    };
    lock::complete(&found, pipeline)?;
    Ok(Some(found))
}
