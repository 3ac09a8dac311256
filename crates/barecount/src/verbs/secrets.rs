//! `barecount secrets`.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use barecount_client::{
    client::{KeyPlace, Secrets as _},
    failure::{Failure, Status},
    manifest,
};
use barecount_model::text::{Name, SecretName};
use barecount_secrets::{Listed, Rotation};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    global::Global,
    printer::{Printer, Table},
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
                let name = secret(&name)?;
                // Nobody types a value that nobody keeps.
                global.client().keeps_secrets()?;
                set(global, &name, &tenant_or_manifests(tenant)?, printer)
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
                let rotations = global.client().rotate_secrets(to.as_ref(), printer)?;
                report(&rotations, to.as_ref(), printer)
            }
        }
    }
}

fn ls(global: &Global, tenant: &Name, printer: &Printer) -> Result<(), Failure> {
    let listed = global.client().secrets(tenant)?;
    list(tenant, &listed, printer)
}

fn rm(global: &Global, name: &SecretName, tenant: &Name, printer: &Printer) -> Result<(), Failure> {
    global.client().remove_secret(name, tenant)?;
    let value = json!({
        "schema": "barecount/secret_removal/v1", "tenant": tenant, "name": name,
    });
    printer.data(&value, || format!("secret `{name}` is removed\n"))
}

fn set(
    global: &Global,
    name: &SecretName,
    tenant: &Name,
    printer: &Printer,
) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        printer.note("type the value, which is shown, and end it with Ctrl-D on a new line");
    }
    let mut input = std::io::stdin().lock();
    let reference = global
        .client()
        .set_secret(name, tenant, &mut input, printer)?;
    let value = json!({
        "schema": "barecount/secret/v1", "tenant": tenant, "name": name,
        "reference": reference,
    });
    printer.data(&value, || {
        format!("{reference} is set for tenant `{tenant}`\n")
    })
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
