//! Tables of an older state folder come to the tenants that wrote them, before anything else is done
//! with the folder.
//!
//! What is moved is told by the store: who committed a dataset, or whose plan writes it. Where that
//! does not name one tenant, nothing is moved until somebody says whose the table is
//! (`barecount state give`).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use barecount_control::store::{self, OpenError, lock::FolderLock, reader::Reader};
use barecount_dataset::{
    disk::{Disk, LocalDisk},
    layout::OlderLayout,
    name::Tenant,
};
use barecount_model::{codes, text::DatasetName};

use super::{boundaries::Boundaries, open_failure, unusable};
use crate::{
    failure::{Failure, Status},
    state,
};

/// What somebody said of tables that the store does not tell the tenant of.
const GIVEN: &str = "layout.given.json";

/// Makes a state folder what this program works on. Where it is already, nothing is locked and
/// nothing is written.
///
/// # Errors
/// If another process works on the folder, if it cannot be written, and if nobody knows whose a
/// table is.
pub(crate) fn bring_up_to_date(state: &Path) -> Result<(), Failure> {
    if older(state)?.is_none() && is_of_this_format(state)? {
        return Ok(());
    }
    let lock = FolderLock::take(state).map_err(|error| open_failure(&error))?;
    bring_held_up_to_date(lock).map(drop)
}

/// The same for whoever holds the folder, and goes on holding it.
///
/// # Errors
/// As [`bring_up_to_date`].
pub(crate) fn bring_held_up_to_date(lock: FolderLock) -> Result<FolderLock, Failure> {
    let state = &lock.folder().to_owned();
    if older(state)?.is_none() && is_of_this_format(state)? {
        return Ok(lock);
    }
    // Held until all is moved. Dying before that is found by the next one who comes here.
    store::bring_up_to_date(&lock).map_err(|error| open_failure(&error))?;
    if let Some(older) = older(state)? {
        move_tables(state, older)?;
    }
    Ok(lock)
}

fn move_tables(state: &Path, older: OlderLayout) -> Result<(), Failure> {
    let owners = owners(state, &older)?;
    older.set_aside().map_err(|error| moving(&error))?;
    let boundaries = Boundaries::new(state.join("boundaries"));
    for (table, tenant) in &owners {
        // The record first: a table that has moved is not come back to.
        boundaries
            .give(table.as_str(), tenant)
            .and_then(|()| older.give(table, tenant))
            .map_err(|error| moving(&error))?;
    }
    older.finish().map_err(|error| moving(&error))
}

/// Notes whose a table is that the store does not tell of, and moves what can be moved then.
///
/// # Errors
/// As [`bring_up_to_date`]; and if there is no such table to give.
pub(crate) fn give(state: &Path, table: &DatasetName, tenant: &Tenant) -> Result<(), Failure> {
    let waiting = match older(state)? {
        Some(older) => older.tables().map_err(|error| moving(&error))?,
        None => Vec::new(),
    };
    if !waiting.contains(table) {
        let what = format!("dataset {table} is not waiting to be given to a tenant");
        return Err(Failure::new(Status::NotFound, what)
            .with_help("`barecount outputs ls` shows whose each dataset is."));
    }
    {
        let _lock = FolderLock::take(state).map_err(|error| open_failure(&error))?;
        let mut given = given(state)?;
        given.insert(table.to_string(), tenant.to_string());
        let bytes = serde_json::to_vec(&given).map_err(|error| moving(&error))?;
        LocalDisk::default()
            .replace(&state.join(GIVEN), &bytes)
            .map_err(|error| moving(&error))?;
    }
    bring_up_to_date(state)
}

/// The store of a state folder that is what this program works on; `None` where the folder is to be
/// brought up to date first, and where nothing has ever run.
///
/// # Errors
/// If it cannot be read, or is newer than this program.
pub(crate) fn present(state: &Path) -> Result<Option<Reader>, Failure> {
    if older(state)?.is_some() {
        return Ok(None);
    }
    match Reader::open(state) {
        Err(OpenError::Older { .. }) => Ok(None),
        opened => opened.map_err(|error| open_failure(&error)),
    }
}

/// Whether the store, if there is one, is of the format that this program writes.
fn is_of_this_format(state: &Path) -> Result<bool, Failure> {
    match Reader::open(state) {
        Ok(_) => Ok(true),
        Err(OpenError::Older { .. }) => Ok(false),
        Err(error) => Err(open_failure(&error)),
    }
}

fn older(state: &Path) -> Result<Option<OlderLayout>, Failure> {
    OlderLayout::find(state, Arc::new(LocalDisk::default())).map_err(|error| moving(&error))
}

/// Whose each table is that is to be moved.
fn owners(state: &Path, older: &OlderLayout) -> Result<BTreeMap<DatasetName, Tenant>, Failure> {
    let mut owners = BTreeMap::new();
    let tables = older.tables().map_err(|error| moving(&error))?;
    if tables.is_empty() {
        return Ok(owners);
    }
    let reader = Reader::open(state).map_err(|error| open_failure(&error))?;
    let Some(reader) = reader else {
        return Ok(owners);
    };
    let given = given(state)?;
    let mut unknown = Vec::new();
    for table in tables {
        let candidates = match given.get(&table.to_string()) {
            Some(tenant) => vec![tenant.clone()],
            None => candidates(&reader, &table)?,
        };
        match candidates.as_slice() {
            [tenant] => {
                let tenant = tenant.parse().map_err(|error| moving(&error))?;
                owners.insert(table, tenant);
            }
            _ => unknown.push((table, candidates)),
        }
    }
    if unknown.is_empty() {
        return Ok(owners);
    }
    Err(unowned(&unknown))
}

/// The tenants that committed a table; where none did, those whose plans write it.
fn candidates(reader: &Reader, table: &DatasetName) -> Result<Vec<String>, Failure> {
    let table = table.to_string();
    let writers = reader.writers_of(&table).map_err(state::store_failure)?;
    if !writers.is_empty() {
        return Ok(writers);
    }
    let runs = reader.runs(u32::MAX).map_err(state::store_failure)?;
    let writes = |plan: &barecount_model::plan::Plan| {
        let mut outputs = plan.stages.iter().flat_map(|stage| &stage.outputs);
        outputs.any(|output| output.dataset.as_str() == table)
    };
    let tenants = runs.into_iter().filter(|(_, plan)| writes(plan));
    let tenants: BTreeSet<String> = tenants.map(|(run, _)| run.tenant).collect();
    Ok(tenants.into_iter().collect())
}

fn given(state: &Path) -> Result<BTreeMap<String, String>, Failure> {
    match crate::manifest::read_bounded(&state.join(GIVEN), 1 << 20) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| moving(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(moving(&error)),
    }
}

/// Nobody knows whose these tables are, so nothing was moved.
fn unowned(unknown: &[(DatasetName, Vec<String>)]) -> Failure {
    let says = |(table, tenants): &(DatasetName, Vec<String>)| match tenants.as_slice() {
        [] => format!("{table} (no run on record wrote it)"),
        tenants => format!("{table} (written by {})", tenants.join(" and ")),
    };
    let list: Vec<_> = unknown.iter().map(says).collect();
    let example = unknown
        .first()
        .map_or_else(String::new, |(table, tenants)| {
            let tenant = tenants.first().map_or("TENANT", String::as_str);
            format!("barecount state give {table} --tenant {tenant}")
        });
    let code = codes::TABLE_UNOWNED.id;
    Failure::new(
        Status::Conflict,
        format!(
            "each tenant has its own datasets now, and it is not known whose these are: {}",
            list.join(", ")
        ),
    )
    .with_code(code)
    .with_help(format!(
        "Look at each, decide whose it is, and say so: `{example}`. Nothing is moved or lost until \
         all of them are given; the other tenant's runs make a dataset of their own."
    ))
}

fn moving(error: &(dyn std::error::Error + 'static)) -> Failure {
    unusable(
        "the datasets cannot be moved to their tenants' folders",
        error,
    )
}
