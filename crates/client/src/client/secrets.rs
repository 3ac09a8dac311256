//! Secrets: kept and never shown.

use std::{io::Read, path::PathBuf};

use barecount_model::text::{Name, SecretName};
use barecount_secrets::{Listed, Reference, Rotation};

use crate::{failure::Failure, reporter::Reporter};

/// What stores are encrypted under.
#[derive(Debug, Clone)]
pub enum KeyPlace {
    /// A file of keys.
    File(PathBuf),
    /// A file with a passphrase.
    Passphrase(PathBuf),
}

/// Secrets.
pub trait Secrets {
    /// A tenant's secrets with their versions, and never their values.
    ///
    /// # Errors
    /// If the environment has no secrets, or the tenant's store cannot be opened.
    fn secrets(&self, tenant: &Name) -> Result<Vec<Listed>, Failure>;

    /// Whether secrets can be kept here.
    ///
    /// # Errors
    /// If the environment has none, or the state cannot be written.
    fn keeps_secrets(&self) -> Result<(), Failure>;

    /// Keeps what is read as the newest version of a secret.
    ///
    /// # Errors
    /// If it cannot be read, is no secret, or cannot be kept.
    fn set_secret(
        &self,
        name: &SecretName,
        tenant: &Name,
        value: &mut dyn Read,
        reporter: &dyn Reporter,
    ) -> Result<Reference, Failure>;

    /// Removes all versions of a secret.
    ///
    /// # Errors
    /// If there is none.
    fn remove_secret(&self, name: &SecretName, tenant: &Name) -> Result<(), Failure>;

    /// Encrypts every tenant's store under a new key: the one in `to`, or one that is made.
    ///
    /// # Errors
    /// If there is no store, or one of them or a key cannot be used.
    fn rotate_secrets(
        &self,
        to: Option<&KeyPlace>,
        reporter: &dyn Reporter,
    ) -> Result<Vec<(Name, Rotation)>, Failure>;
}
