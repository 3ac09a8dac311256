//! Keeping secrets: by whom they are set, listed, removed, and put under another key.

use std::{io::Read, path::Path, sync::Arc};

use barecount_model::text::{Name, SecretName};
use barecount_secrets::{
    GetError, KeyError, KeyFile, KeySource, KeySources, Limits, Listed, Reference, Rotation,
    SetError, Store, StoreError,
};
use jiff::Timestamp;

use super::{Embedded, secrets::Location};
use crate::{
    client::{KeyPlace, Secrets},
    environment,
    failure::{Failure, Status},
    reporter::Reporter,
    state,
};

impl Secrets for Embedded {
    fn secrets(&self, tenant: &Name) -> Result<Vec<Listed>, Failure> {
        Keeping::existing(self)?.list(tenant)
    }

    fn keeps_secrets(&self) -> Result<(), Failure> {
        Keeping::of(self).map(drop)
    }

    fn set_secret(
        &self,
        name: &SecretName,
        tenant: &Name,
        value: &mut dyn Read,
        reporter: &dyn Reporter,
    ) -> Result<Reference, Failure> {
        Keeping::of(self)?.set(name, tenant, value, reporter)
    }

    fn remove_secret(&self, name: &SecretName, tenant: &Name) -> Result<(), Failure> {
        Keeping::existing(self)?.remove(name, tenant)
    }

    fn rotate_secrets(
        &self,
        to: Option<&KeyPlace>,
        reporter: &dyn Reporter,
    ) -> Result<Vec<(Name, Rotation)>, Failure> {
        Keeping::of(self)?.rotate(to, reporter)
    }
}

/// The secrets of a state folder.
struct Keeping {
    location: Location,
}

impl Keeping {
    /// For those who only look: nothing is made.
    ///
    /// # Errors
    /// If there is no state folder, or its environment has no secrets.
    fn existing(client: &Embedded) -> Result<Self, Failure> {
        state::folder(&client.state)?;
        Self::of(client)
    }

    /// For those who keep one.
    ///
    /// # Errors
    /// If the environment has no secrets, or the state folder cannot be made.
    fn of(client: &Embedded) -> Result<Self, Failure> {
        let name = client.environment.as_deref();
        let found = environment::held(Path::new("."), name, &client.state)?;
        let state = super::state_folder(&client.state)?;
        let location = super::secrets::required(&found, &state)?;
        Ok(Self { location })
    }

    /// A tenant's secrets, by name and version; none if it has no store.
    ///
    /// # Errors
    /// If the store cannot be opened.
    fn list(&self, tenant: &Name) -> Result<Vec<Listed>, Failure> {
        match self.open(tenant) {
            Ok(store) => store.list().map_err(store_failure),
            Err(StoreError::Missing { .. }) => Ok(Vec::new()),
            Err(error) => Err(store_failure(error)),
        }
    }

    /// Removes all versions of a secret.
    ///
    /// # Errors
    /// If there is none, or the store cannot be opened or written.
    fn remove(&self, name: &SecretName, tenant: &Name) -> Result<(), Failure> {
        let removed = match self.open(tenant) {
            Ok(store) => store.remove(name),
            Err(StoreError::Missing { .. }) => Err(GetError::NotFound { name: name.clone() }),
            Err(error) => Err(error.into()),
        };
        removed.map(drop).map_err(|error| match error {
            GetError::Store(error) => store_failure(error),
            error => Failure::from_error(Status::NotFound, &error)
                .with_code("BC1002")
                .with_help(format!(
                    "`barecount secrets ls --tenant {tenant}` shows what there is."
                )),
        })
    }

    fn open(&self, tenant: &Name) -> Result<Store, StoreError> {
        let keys = Box::new(self.location.key.source());
        let place = self.location.store.clone();
        Store::open(place, tenant.clone(), keys, Limits::default())
    }

    /// Keeps what is read as the newest version of a secret.
    ///
    /// # Errors
    /// If it cannot be read, is no secret, or cannot be kept.
    fn set(
        &self,
        name: &SecretName,
        tenant: &Name,
        value: &mut dyn Read,
        reporter: &dyn Reporter,
    ) -> Result<Reference, Failure> {
        let store = match self.open(tenant) {
            Ok(store) => store,
            Err(StoreError::Missing { .. }) => self.create(tenant.clone(), reporter)?,
            Err(error) => return Err(store_failure(error)),
        };
        store
            .set(name, value, Timestamp::now())
            .map_err(set_failure)
    }

    /// Makes a tenant's store; and the key, if there is no store yet that it would not open.
    fn create(&self, tenant: Name, reporter: &dyn Reporter) -> Result<Store, Failure> {
        if let KeyPlace::File(path) = &self.location.key
            && !path.exists()
            && self.tenants()?.is_empty()
        {
            make_key(path, reporter)?;
        }
        let keys = Box::new(self.location.key.source());
        let (place, now) = (self.location.store.clone(), Timestamp::now());
        let made = Store::create(place, tenant.clone(), keys, Limits::default(), now);
        match made {
            // Somebody else was faster.
            Err(StoreError::Exists { .. }) => self.open(&tenant).map_err(store_failure),
            other => other.map_err(store_failure),
        }
    }

    /// The tenants that have a store.
    fn tenants(&self) -> Result<Vec<Name>, Failure> {
        let folder = &self.location.store.folder;
        let unreadable = |error: std::io::Error| {
            let what = format!("the folder {} cannot be read", folder.display());
            Failure::new(Status::Unavailable, what)
                .because(&error)
                .with_code("BC1001")
        };
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(unreadable)?,
        };
        let mut tenants = Vec::new();
        for entry in entries {
            let name = entry.map_err(unreadable)?.file_name();
            let tenant = name.to_str().and_then(|name| name.strip_suffix(".secrets"));
            tenants.extend(tenant.and_then(|tenant| tenant.parse::<Name>().ok()));
        }
        tenants.sort();
        Ok(tenants)
    }

    /// Encrypts every store under a new key: the one in `to`, or one that is made.
    ///
    /// # Errors
    /// If there is no store, or one of them or a key cannot be used.
    fn rotate(
        &self,
        to: Option<&KeyPlace>,
        reporter: &dyn Reporter,
    ) -> Result<Vec<(Name, Rotation)>, Failure> {
        let tenants = self.tenants()?;
        if tenants.is_empty() {
            let what = format!(
                "there is no store in {}",
                self.location.store.folder.display()
            );
            return Err(Failure::new(Status::NotFound, what)
                .with_code("BC1002")
                .with_help("`barecount secrets set` makes one."));
        }
        // Key files are changed by one process at a time.
        let _lock = self.lock()?;
        let (keys, former) = self.next_key(to, reporter)?;
        let mut rotations = Vec::new();
        for tenant in tenants {
            let (place, keys) = (self.location.store.clone(), Box::new(keys.clone()));
            let store = Store::open(place, tenant.clone(), keys, Limits::default());
            let rotated = store.and_then(|store| store.rotate(Timestamp::now()));
            rotations.push((tenant, rotated.map_err(store_failure)?));
        }
        if let Some(file) = former {
            // Nothing is wrapped under them any more.
            for id in file
                .ids()
                .map_err(|error| key_failure(&error))?
                .into_iter()
                .skip(1)
            {
                file.remove(id).map_err(|error| key_failure(&error))?;
            }
        }
        Ok(rotations)
    }

    /// A source that has the next key before those in use, and the file from which former ones are
    /// to be removed when nothing is wrapped under them any more.
    fn next_key(
        &self,
        to: Option<&KeyPlace>,
        reporter: &dyn Reporter,
    ) -> Result<(Arc<dyn KeySource>, Option<KeyFile>), Failure> {
        match (to, &self.location.key) {
            (Some(new), old) => {
                if let KeyPlace::File(path) = new
                    && !path.exists()
                {
                    make_key(path, reporter)?;
                }
                let others: Vec<Box<dyn KeySource>> = vec![Box::new(old.source())];
                let keys = KeySources::new(Box::new(new.source()), others);
                Ok((Arc::new(keys), None))
            }
            (None, KeyPlace::File(path)) => {
                let file = KeyFile::open(path).map_err(|error| key_failure(&error))?;
                // Dying from here on leaves a key too many in the file; rotating again removes it.
                file.add().map_err(|error| key_failure(&error))?;
                Ok((Arc::new(file.clone()), Some(file)))
            }
            (None, KeyPlace::Passphrase(_)) => {
                let what = "a passphrase is not made up here";
                Err(Failure::new(Status::Usage, what).with_help(
                    "Write a new one to a file of your own, and name it with \
                     `--new-passphrase-file`.",
                ))
            }
        }
    }

    /// Held while keys are changed; given back by the system if the process dies.
    fn lock(&self) -> Result<std::fs::File, Failure> {
        let path = self.location.store.folder.join("rotation.lock");
        let locked = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| {
            let what = format!("{} cannot be locked", path.display());
            Failure::new(Status::Unavailable, what)
                .because(&error)
                .with_code("BC1001")
        })
    }
}

/// Makes a key file, and says what it means.
fn make_key(path: &Path, reporter: &dyn Reporter) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(folder) = path.parent() {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        made.map_err(|error| {
            let what = format!("the folder {} cannot be made", folder.display());
            Failure::new(Status::Unavailable, what)
                .because(&error)
                .with_code("BC1004")
        })?;
    }
    match KeyFile::create(path) {
        Ok(_) => {
            reporter.warn(&format!(
                "the key of the secrets is in {}: back it up, for without it they are lost, and \
                 apart from the store, for whoever has both has the secrets",
                path.display()
            ));
            Ok(())
        }
        // Somebody else was faster.
        Err(KeyError::Exists { .. }) => Ok(()),
        Err(error) => Err(key_failure(&error)),
    }
}

const PUT_BACK: &str =
    "Put the key file back from your backup, or name it in the environment file.";

fn helped(failure: Failure, help: Option<String>) -> Failure {
    match help {
        Some(help) => failure.with_help(help),
        None => failure,
    }
}

fn key_failure(error: &KeyError) -> Failure {
    let failure = Failure::from_error(Status::Unavailable, error).with_code("BC1004");
    helped(failure, error.help().or_else(|| Some(PUT_BACK.to_owned())))
}

fn store_failure(error: StoreError) -> Failure {
    let of_key = matches!(error, StoreError::Key(_) | StoreError::WrongKey { .. });
    let code = if of_key { "BC1004" } else { "BC1001" };
    let failure = Failure::from_error(Status::Unavailable, &error).with_code(code);
    let help = error.help();
    helped(
        failure,
        help.or_else(|| of_key.then(|| PUT_BACK.to_owned())),
    )
}

fn set_failure(error: SetError) -> Failure {
    match error {
        SetError::Store(error) => store_failure(error),
        error => {
            let failure = Failure::from_error(Status::Usage, &error).with_code("BC1005");
            helped(failure, error.help())
        }
    }
}
