//! `barecount secrets`.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
};

use barecount_model::text::{Name, SecretName};
use barecount_secrets::{
    GetError, KeyError, KeyFile, KeySource, KeySources, Limits, Listed, Rotation, SetError, Store,
    StoreError,
};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    cli::Global,
    embedded::{
        self,
        secrets::{KeyPlace, Location},
    },
    environment,
    failure::{Failure, Status},
    manifest,
    printer::{Printer, Table},
    state,
};

/// Keep secrets: encrypted at rest, given to stages that declare them.
///
/// A secret belongs to a tenant. Unless `--tenant` names it, it is that of `pipeline.yaml` in the
/// working folder.
#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// Keep the value on standard input as the newest version of a secret.
    ///
    /// Exactly the bytes that are read, a last line feed included: `printf %s "$VALUE" | barecount
    /// secrets set erp/token`.
    Set {
        /// The secret, such as `erp/token`.
        name: String,
        /// Nothing: the value comes from standard input. Taken only to be refused.
        #[arg(hide = true, num_args = 0..)]
        value: Vec<std::ffi::OsString>,
        /// Whose it is.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<Name>,
    },
    /// List secrets with their versions; never their values.
    Ls {
        /// Whose.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<Name>,
    },
    /// Remove all versions of a secret.
    Rm {
        /// The secret.
        name: String,
        /// Whose it is.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<Name>,
    },
    /// Encrypt the stores of all tenants under a new key, while they are in use.
    ///
    /// Values stay what they are: one that is known to others is replaced by `set`.
    Rotate {
        /// Take the key from this file from now on; made if it is not there.
        #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_file")]
        new_key_file: Option<PathBuf>,
        /// Take a passphrase from this file from now on.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
}

impl Secrets {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Set {
                name,
                value,
                tenant,
            } => {
                if !value.is_empty() || name.contains('=') {
                    return Err(on_the_command_line());
                }
                let (name, place) = (secret(&name)?, Place::of(global)?);
                place.set(&name, tenant_or_manifests(tenant)?, printer)
            }
            Self::Ls { tenant } => ls(global, &tenant_or_manifests(tenant)?, printer),
            Self::Rm { name, tenant } => {
                let (name, tenant) = (secret(&name)?, tenant_or_manifests(tenant)?);
                rm(global, &name, &tenant, printer)
            }
            Self::Rotate {
                new_key_file,
                new_passphrase_file,
            } => {
                let to = new_key_file.map(KeyPlace::File);
                let to = to.or(new_passphrase_file.map(KeyPlace::Passphrase));
                Place::of(global)?.rotate(to, printer)
            }
        }
    }
}

fn ls(global: &Global, tenant: &Name, printer: &Printer) -> Result<(), Failure> {
    let listed = match Place::existing(global)?.open(tenant) {
        Ok(store) => store.list().map_err(store_failure)?,
        Err(StoreError::Missing { .. }) => Vec::new(),
        Err(error) => return Err(store_failure(error)),
    };
    list(tenant, &listed, printer)
}

fn rm(global: &Global, name: &SecretName, tenant: &Name, printer: &Printer) -> Result<(), Failure> {
    let removed = match Place::existing(global)?.open(tenant) {
        Ok(store) => store.remove(name),
        Err(StoreError::Missing { .. }) => Err(GetError::NotFound { name: name.clone() }),
        Err(error) => Err(error.into()),
    };
    removed.map_err(|error| match error {
        GetError::Store(error) => store_failure(error),
        error => Failure::from_error(Status::NotFound, &error)
            .with_code("BC1002")
            .with_help(format!(
                "`barecount secrets ls --tenant {tenant}` shows what there is."
            )),
    })?;
    let value = json!({
        "schema": "barecount/secret_removal/v1", "tenant": tenant, "name": name,
    });
    printer.data(&value, || format!("secret `{name}` is removed\n"))
}

/// Said without the value, which is not shown once more.
fn on_the_command_line() -> Failure {
    Failure::new(Status::Usage, "a secret's value was given as an argument")
        .with_code("BC1005")
        .with_help(
            "It is in the shell's history now, and every user of this host could see it: change \
             it where it comes from. A value is read from standard input: `barecount secrets set \
             NAME < FILE`.",
        )
}

fn secret(text: &str) -> Result<SecretName, Failure> {
    text.parse().map_err(|error| {
        Failure::new(Status::Usage, "this cannot name a secret")
            .because(&error)
            .with_code("BC0207")
    })
}

fn tenant_or_manifests(tenant: Option<Name>) -> Result<Name, Failure> {
    if let Some(tenant) = tenant {
        return Ok(tenant);
    }
    let read = manifest::read(Path::new("pipeline.yaml"));
    match read.map(|read| read.result) {
        Ok(Ok(loaded)) => Ok(loaded.pipeline.tenant),
        _ => Err(
            Failure::new(Status::Usage, "nothing says whose secrets are meant").with_help(
                "Name the tenant with `--tenant`, or work in a folder with a valid \
                 `pipeline.yaml`.",
            ),
        ),
    }
}

/// The secrets of a state folder.
struct Place {
    location: Location,
}

impl Place {
    /// For those who only look: nothing is made.
    fn existing(global: &Global) -> Result<Self, Failure> {
        state::folder(&global.state)?;
        Self::of(global)
    }

    fn of(global: &Global) -> Result<Self, Failure> {
        let found =
            environment::held(Path::new("."), global.environment.as_deref(), &global.state)?;
        let state = embedded::state_folder(&global.state)?;
        let location = embedded::secrets::required(&found, &state)?;
        Ok(Self { location })
    }

    fn open(&self, tenant: &Name) -> Result<Store, StoreError> {
        let keys = Box::new(self.location.key.source());
        Store::open(
            &self.location.store,
            tenant.clone(),
            keys,
            Limits::default(),
        )
    }

    fn set(&self, name: &SecretName, tenant: Name, printer: &Printer) -> Result<(), Failure> {
        if std::io::stdin().is_terminal() {
            printer.note("type the value, which is shown, and end it with Ctrl-D on a new line");
        }
        let mut input = std::io::stdin().lock();
        let store = match self.open(&tenant) {
            Ok(store) => store,
            Err(StoreError::Missing { .. }) => self.create(tenant.clone(), printer)?,
            Err(error) => return Err(store_failure(error)),
        };
        let reference = store
            .set(name, &mut input, Timestamp::now())
            .map_err(set_failure)?;
        let value = json!({
            "schema": "barecount/secret/v1", "tenant": tenant, "name": name,
            "reference": reference,
        });
        printer.data(&value, || {
            format!("{reference} is set for tenant `{tenant}`\n")
        })
    }

    /// Makes a tenant's store; and the key, if there is no store yet that it would not open.
    fn create(&self, tenant: Name, printer: &Printer) -> Result<Store, Failure> {
        if let KeyPlace::File(path) = &self.location.key
            && !path.exists()
            && self.tenants()?.is_empty()
        {
            make_key(path, printer)?;
        }
        let keys = Box::new(self.location.key.source());
        let (folder, now) = (&self.location.store, Timestamp::now());
        let made = Store::create(folder, tenant.clone(), keys, Limits::default(), now);
        match made {
            // Somebody else was faster.
            Err(StoreError::Exists { .. }) => self.open(&tenant).map_err(store_failure),
            other => other.map_err(store_failure),
        }
    }

    /// The tenants that have a store.
    fn tenants(&self) -> Result<Vec<Name>, Failure> {
        let folder = &self.location.store;
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

    fn rotate(&self, to: Option<KeyPlace>, printer: &Printer) -> Result<(), Failure> {
        let tenants = self.tenants()?;
        if tenants.is_empty() {
            let what = format!("there is no store in {}", self.location.store.display());
            return Err(Failure::new(Status::NotFound, what)
                .with_code("BC1002")
                .with_help("`barecount secrets set` makes one."));
        }
        // Key files are changed by one process at a time.
        let _lock = self.lock()?;
        let (keys, former) = self.next_key(to.as_ref(), printer)?;
        let mut rotations = Vec::new();
        for tenant in tenants {
            let (folder, keys) = (&self.location.store, Box::new(keys.clone()));
            let store = Store::open(folder, tenant.clone(), keys, Limits::default());
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
        report(&rotations, to.as_ref(), printer)
    }

    /// A source that has the next key before those in use, and the file from which former ones are
    /// to be removed when nothing is wrapped under them any more.
    fn next_key(
        &self,
        to: Option<&KeyPlace>,
        printer: &Printer,
    ) -> Result<(Arc<dyn KeySource>, Option<KeyFile>), Failure> {
        match (to, &self.location.key) {
            (Some(new), old) => {
                if let KeyPlace::File(path) = new
                    && !path.exists()
                {
                    make_key(path, printer)?;
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
        let path = self.location.store.join("rotation.lock");
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
fn make_key(path: &Path, printer: &Printer) -> Result<(), Failure> {
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
            printer.warn(&format!(
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

fn list(tenant: &Name, listed: &[Listed], printer: &Printer) -> Result<(), Failure> {
    let items: Vec<Value> = listed
        .iter()
        .map(|secret| {
            let mut value = json!(secret);
            value["tenant"] = json!(tenant);
            value
        })
        .collect();
    printer.list("secrets", &items, || {
        let headings = ["secret", "newest", "versions", "set", "first set", "key"];
        let mut table = Table::new(&headings, "no secrets");
        for secret in listed {
            let newest = secret.versions.last();
            let numbers: Vec<String> = secret
                .versions
                .iter()
                .map(|version| version.number.to_string())
                .collect();
            table.row([
                secret.name.to_string(),
                newest.map_or("-".to_owned(), |version| version.number.to_string()),
                numbers.join(" "),
                secret.rotated.to_string(),
                secret.created.to_string(),
                newest.map_or("-".to_owned(), |version| version.key.to_string()),
            ]);
        }
        table
    })
}

fn report(
    rotations: &[(Name, Rotation)],
    to: Option<&KeyPlace>,
    printer: &Printer,
) -> Result<(), Failure> {
    let items: Vec<Value> = rotations
        .iter()
        .map(|(tenant, rotation)| {
            let mut value = json!(rotation);
            value["tenant"] = json!(tenant);
            value
        })
        .collect();
    match to {
        Some(KeyPlace::File(path)) => printer.warn(&format!(
            "name the new key in the environment file now: `secrets: {{ key_file: {} }}`",
            path.display()
        )),
        Some(KeyPlace::Passphrase(path)) => printer.warn(&format!(
            "name the passphrase in the environment file now: `secrets: {{ passphrase_file: {} }}`",
            path.display()
        )),
        None => printer.note("back the key file up again: the former key opens nothing any more"),
    }
    printer.list("secrets_rotations", &items, || {
        let headings = ["tenant", "key", "data keys wrapped anew"];
        let mut table = Table::new(&headings, "no stores");
        for (tenant, rotation) in rotations {
            table.row([
                tenant.to_string(),
                rotation.current.to_string(),
                rotation.rewrapped.to_string(),
            ]);
        }
        table
    })
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
