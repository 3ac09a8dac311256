//! What the program is told: variables and places of the task contract, and a secret's file.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::status::{Failure, Status};

/// The secret's name in the manifest.
const SECRET: &str = "erp-client";

/// What the program is told.
pub(crate) struct Settings {
    /// `ERP_URL`: where the API is, without a slash at the end.
    pub(crate) url: String,
    /// Who asks.
    pub(crate) client: Client,
    /// One folder per output dataset, and `_dead_letters`.
    pub(crate) output: PathBuf,
    /// What an earlier attempt or run left for this one.
    pub(crate) checkpoint: PathBuf,
    /// What may vanish at any time; none where the platform keeps none.
    pub(crate) cache: Option<PathBuf>,
    /// When the platform will end the attempt.
    pub(crate) deadline: Option<SystemTime>,
}

/// An OAuth client. Its secret is shown nowhere.
pub(crate) struct Client {
    /// `ERP_CLIENT_ID`.
    pub(crate) id: String,
    /// The whole content of the secret's file.
    pub(crate) secret: String,
}

/// Why the program does not know what it has to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A variable is missing.
    #[error("the environment variable {name} is not set to readable text")]
    Variable {
        name: &'static str,
        source: env::VarError,
    },
    /// The secret is missing.
    #[error(
        "the client secret cannot be read from {}; the stage declares it as `secrets: {{ \
         {SECRET}: {{ from: erp/client-secret }} }}`, and `barecount secrets set` keeps it",
        path.display()
    )]
    Secret { path: PathBuf, source: io::Error },
    /// The secret is empty.
    #[error("{} is empty", path.display())]
    EmptySecret { path: PathBuf },
}

impl Failure for SettingsError {
    fn status(&self) -> Status {
        Status::Config
    }
}

impl Settings {
    /// Reads the environment of this process, and the secret.
    pub(crate) fn read() -> Result<Self, SettingsError> {
        Ok(Self {
            url: variable("ERP_URL")?.trim_end_matches('/').to_owned(),
            client: Client {
                id: variable("ERP_CLIENT_ID")?,
                secret: secret(Path::new(&variable("BARECOUNT_SECRETS_DIR")?))?,
            },
            output: variable("BARECOUNT_OUTPUT_DIR")?.into(),
            checkpoint: variable("BARECOUNT_CHECKPOINT_DIR")?.into(),
            cache: env::var_os("BARECOUNT_CACHE_DIR").map(PathBuf::from),
            deadline: env::var("BARECOUNT_DEADLINE_MS")
                .ok()
                .and_then(|text| text.parse().ok())
                .map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms)),
        })
    }
}

fn variable(name: &'static str) -> Result<String, SettingsError> {
    env::var(name).map_err(|source| SettingsError::Variable { name, source })
}

fn secret(folder: &Path) -> Result<String, SettingsError> {
    let path = folder.join(SECRET);
    match fs::read_to_string(&path) {
        Ok(secret) if secret.is_empty() => Err(SettingsError::EmptySecret { path }),
        Ok(secret) => Ok(secret),
        Err(source) => Err(SettingsError::Secret { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_secret_nothing_is_tried_and_the_way_to_set_it_is_told() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let error = secret(folder.path()).expect_err("there is none");
        assert_eq!(error.status().code(), 78);
        assert!(
            error.to_string().contains("barecount secrets set"),
            "{error}"
        );
        fs::write(folder.path().join(SECRET), "")?;
        let error = secret(folder.path()).expect_err("it is empty");
        assert_eq!(error.status().code(), 78);
        Ok(())
    }
}
