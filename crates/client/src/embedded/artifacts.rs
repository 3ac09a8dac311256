//! Artifacts of the state folder: found by digest, verified, unpacked.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use barecount_agent::{Artifacts, DataError, Located};
use barecount_artifact::{
    Digest, Limits, Store, driver,
    driver::Wanted,
    image::{self, spec::Platform},
    package,
};
use barecount_model::plan::{Pin, WorkPlan};

use crate::failure::chain;

/// The artifacts that attempts run.
pub(crate) struct StoredArtifacts {
    store: Store,
}

impl StoredArtifacts {
    /// Serves what is in a store.
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Artifacts for StoredArtifacts {
    async fn locate(&self, work: &WorkPlan, drivers: &[Pin]) -> Result<Located, DataError> {
        let (store, work, drivers) = (self.store.clone(), work.clone(), drivers.to_vec());
        tokio::task::spawn_blocking(move || locate(&store, &work, &drivers))
            .await
            .map_err(|error| unavailable(format!("artifacts could not be looked up: {error}")))?
    }
}

fn locate(store: &Store, work: &WorkPlan, drivers: &[Pin]) -> Result<Located, DataError> {
    let limits = Limits::default();
    let pin = work.artifact();
    let digest = digest(pin)?;
    let artifact = match work {
        WorkPlan::Image { .. } | WorkPlan::ImageHandler { .. } => {
            image::open(store, &digest, &Platform::of_this_program(), &limits)
                .map(|image| image.rootfs)
                .map_err(|error| missing(pin, &error))?
        }
        WorkPlan::Package { .. } | WorkPlan::Handler { .. } => {
            package::unpack(store, &digest, &entry_point(work), &limits)
                .map_err(|error| missing(pin, &error))?
        }
        WorkPlan::Job { .. } => store.blobs().path(&digest),
    };
    let drivers = drivers
        .iter()
        .map(|pin| {
            Ok((
                driver_name(&pin.name).0.to_owned(),
                open_driver(store, pin, &limits)?,
            ))
        })
        .collect::<Result<BTreeMap<_, _>, DataError>>()?;
    Ok(Located { artifact, drivers })
}

/// What a package must hold to be run.
pub(super) fn entry_point(work: &WorkPlan) -> String {
    let command = match work {
        WorkPlan::Package { command, .. } => command.first(),
        _ => None,
    };
    match command.and_then(|program| program.strip_prefix("/app/")) {
        Some(program) => program.to_owned(),
        None => package::BOOTSTRAP.to_owned(),
    }
}

/// A driver's name, and the version that is asked for.
pub(super) fn driver_name(text: &str) -> (&str, Option<&str>) {
    match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    }
}

fn open_driver(store: &Store, pin: &Pin, limits: &Limits) -> Result<PathBuf, DataError> {
    let (name, version) = driver_name(&pin.name);
    let wanted = Wanted {
        name: name.to_owned(),
        version: version.map(str::to_owned),
        digest: digest(pin)?,
    };
    driver::open(store, &wanted, limits)
        .map(|driver| driver.folder)
        .map_err(|error| missing(pin, &error))
}

fn digest(pin: &Pin) -> Result<Digest, DataError> {
    pin.digest
        .parse()
        .map_err(|error| unavailable(format!("`{}` is pinned to no digest: {error}", pin.name)))
}

fn missing(pin: &Pin, error: &(dyn std::error::Error + 'static)) -> DataError {
    unavailable(format!(
        "artifact `{}` cannot be used: {}",
        pin.name,
        chain(error)
    ))
}

fn unavailable(message: String) -> DataError {
    DataError::Host {
        code: "BC0504",
        message,
    }
}
