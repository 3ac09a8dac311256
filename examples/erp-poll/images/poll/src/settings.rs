//! What the program is told: variables when it starts, and with each event the attempt's own places.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Deserialize;

use crate::status::{Failure, Status};

/// The secret's name in the manifest.
const SECRET: &str = "erp-client";

/// What the program is told once, for all tasks that it is given.
pub(crate) struct Settings {
    /// `ERP_URL`: where the API is, without a slash at the end.
    pub(crate) url: String,
    /// `ERP_CLIENT_ID`: who asks.
    pub(crate) client_id: String,
    /// What may vanish at any time; none where the platform keeps none.
    pub(crate) cache: Option<PathBuf>,
}

/// What the program is invoked with.
#[derive(Deserialize)]
pub(crate) struct Invocation {
    /// The attempt to be carried out.
    pub(crate) barecount: Attempt,
}

/// An attempt, as far as this program looks at it. Places are its own: they are gone once it is
/// answered.
#[derive(Deserialize)]
pub(crate) struct Attempt {
    /// The task that this is an attempt at.
    pub(crate) task_id: String,
    /// The year whose orders are polled; those of all years if absent.
    pub(crate) partition: Option<String>,
    /// One folder per output dataset, and `_dead_letters`.
    pub(crate) output_dir: PathBuf,
    /// What an earlier attempt or run left for this one.
    pub(crate) checkpoint_dir: PathBuf,
    /// One file for each secret.
    secrets_dir: PathBuf,
    /// When the platform will end the attempt, in milliseconds since 1970.
    deadline_ms: u64,
}

/// An OAuth client. Its secret is shown nowhere.
pub(crate) struct Client {
    /// Its public name.
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
    /// Reads the environment of this process.
    pub(crate) fn read() -> Result<Self, SettingsError> {
        Ok(Self {
            url: variable("ERP_URL")?.trim_end_matches('/').to_owned(),
            client_id: variable("ERP_CLIENT_ID")?,
            cache: env::var_os("BARECOUNT_CACHE_DIR").map(PathBuf::from),
        })
    }
}

impl Attempt {
    /// The client's secret.
    pub(crate) fn secret(&self) -> Result<String, SettingsError> {
        secret(&self.secrets_dir)
    }

    /// When the platform will end the attempt.
    pub(crate) fn deadline(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.deadline_ms)
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
    fn an_attempt_whose_deadline_cannot_be_read_is_not_one_without_a_deadline() {
        let told = |deadline: &str| {
            let event = format!(
                r#"{{"barecount": {{"task_id": "task_1", "output_dir": "/o", "checkpoint_dir": "/c",
                    "secrets_dir": "/s"{deadline}}}, "event": null}}"#
            );
            serde_json::from_str(&event).map(|told: Invocation| told.barecount.deadline())
        };
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        assert_eq!(told(r#", "deadline_ms": 1500"#).ok(), Some(deadline));
        // As far away as can be told, and still a time.
        assert!(told(&format!(r#", "deadline_ms": {}"#, u64::MAX)).is_ok());
        for wrong in ["", r#", "deadline_ms": null"#, r#", "deadline_ms": "soon""#] {
            assert!(told(wrong).is_err(), "{wrong}");
        }
    }

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
