//! The places of the task contract: how they are mounted, and the variables that tell of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use barecount_sandbox::Mount;

use crate::launch::{Isolation, Launch, Secrets, inside};

/// The size of the memory file system in place of secrets, for work that has none.
const NO_SECRETS_BYTES: u64 = 1 << 20;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the work sees its places.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) checkpoint: PathBuf,
    pub(crate) secrets: Option<PathBuf>,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) drivers: Option<PathBuf>,
    pub(crate) scratch: PathBuf,
}

impl Seen {
    /// What a launch's work sees under its isolation. Without namespaces the places are where they
    /// are on the host, and secrets have none unless there are some.
    pub(crate) fn by(launch: &Launch) -> Self {
        let places = &launch.places;
        match launch.isolation {
            Isolation::Sandbox => Self {
                input: inside::INPUT.into(),
                output: inside::OUTPUT.into(),
                checkpoint: inside::CHECKPOINT.into(),
                secrets: Some(inside::SECRETS.into()),
                cache: places.cache.as_ref().map(|_| inside::CACHE.into()),
                drivers: (!places.drivers.is_empty()).then(|| inside::DRIVERS.into()),
                scratch: inside::SCRATCH.into(),
            },
            Isolation::Process => Self {
                input: places.input.clone(),
                output: places.output.clone(),
                checkpoint: places.checkpoint.clone(),
                secrets: launch
                    .secrets
                    .as_ref()
                    .map(|secrets| secrets.folder.clone()),
                cache: places.cache.clone(),
                drivers: None,
                scratch: inside::SCRATCH.into(),
            },
        }
    }

    /// The variables for places that are the same for everything that one process serves.
    pub(crate) fn lasting_variables(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            variable("TMPDIR", &self.scratch),
            variable("HOME", &self.scratch),
        ];
        let optional = [
            ("BARECOUNT_SECRETS_DIR", &self.secrets),
            ("BARECOUNT_CACHE_DIR", &self.cache),
            ("BARECOUNT_DRIVERS_DIR", &self.drivers),
        ];
        for (name, place) in optional {
            variables.extend(place.as_ref().map(|place| variable(name, place)));
        }
        variables
    }

    /// The variables for all places.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let mut variables = self.lasting_variables();
        variables.extend([
            variable("BARECOUNT_INPUT_DIR", &self.input),
            variable("BARECOUNT_OUTPUT_DIR", &self.output),
            variable("BARECOUNT_CHECKPOINT_DIR", &self.checkpoint),
        ]);
        variables
    }
}

fn variable(name: &str, place: &Path) -> (String, String) {
    (name.to_owned(), place.to_string_lossy().into_owned())
}

/// A whole environment: the given variables of a launch, a `PATH` unless they have one, its secrets'
/// variables, and, above all, those of the backend.
pub(crate) fn environment<'a>(
    launch: &Launch,
    given: impl IntoIterator<Item = (&'a String, &'a String)>,
    of_backend: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut all = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    all.extend(
        given
            .into_iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    all.extend(launch.secrets.iter().flat_map(Secrets::exposed));
    all.extend(of_backend);
    all.into_iter().collect()
}

/// The mounts of all places of an attempt that has a sandbox to itself.
pub(crate) fn mounts(launch: &Launch) -> Vec<Mount> {
    let places = &launch.places;
    let mut mounts = vec![
        bind(&places.input, inside::INPUT, Access::Read),
        bind(&places.output, inside::OUTPUT, Access::Write),
        bind(&places.checkpoint, inside::CHECKPOINT, Access::Write),
    ];
    let secrets = launch.secrets.as_ref();
    let folder = secrets.map(|secrets| secrets.folder.as_path());
    mounts.extend(lasting_mounts(launch, folder));
    mounts
}

/// The mounts of the places that stay while one process serves several attempts; secrets are seen
/// in this folder, if there are some.
pub(crate) fn lasting_mounts(launch: &Launch, secrets: Option<&Path>) -> Vec<Mount> {
    let places = &launch.places;
    let mut mounts = vec![match secrets {
        Some(secrets) => bind(secrets, inside::SECRETS, Access::ReadChanging),
        None => Mount::Tmpfs {
            target: inside::SECRETS.into(),
            size_bytes: NO_SECRETS_BYTES,
        },
    }];
    if let Some(cache) = &places.cache {
        mounts.push(bind(cache, inside::CACHE, Access::Write));
    }
    for (name, bundle) in &places.drivers {
        let target = Path::new(inside::DRIVERS).join(name);
        mounts.push(bind(bundle, target, Access::Run));
    }
    mounts
}

/// What may be done with a mounted folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read only. Nothing changes in it while it is mounted.
    Read,
    /// Read only, and seen as it changes: a folder that nobody else has mounted.
    ReadChanging,
    /// Read, and run programs in it.
    Run,
    /// Read and write.
    Write,
}

pub(crate) fn bind(source: &Path, target: impl Into<PathBuf>, access: Access) -> Mount {
    Mount::Bind {
        source: source.to_owned(),
        target: target.into(),
        read_only: access != Access::Write,
        executable: access == Access::Run,
        changes: access == Access::ReadChanging,
    }
}
