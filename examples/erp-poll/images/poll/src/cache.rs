//! Files that make the next process quicker, and are missed by nobody.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::bounded;

/// Bytes of a file.
const MOST_BYTES: u64 = 1 << 20;

/// The cache folder of the task contract. Whatever is wrong with it, the work goes on without.
pub(crate) struct Cache(Option<PathBuf>);

impl Cache {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// What was kept under this name, if it can be read as what it should be.
    pub(crate) fn find<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.0.as_ref()?.join(name);
        let text = bounded::read(&path, MOST_BYTES).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Keeps something under this name, readable for nobody else.
    pub(crate) fn keep(&self, name: &str, value: &impl Serialize) {
        // Only time is lost.
        let _ = self.try_keep(name, value);
    }

    fn try_keep(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let Some(folder) = &self.0 else {
            return Ok(());
        };
        let new = folder.join(format!("{name}.new"));
        // Its mode is given when it is made: one that is there may have another.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        fs::rename(&new, folder.join(name))
    }

    /// Forgets what was kept under this name.
    pub(crate) fn forget(&self, name: &str) {
        if let Some(folder) = &self.0 {
            let _ = fs::remove_file(folder.join(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_is_for_the_owner_alone_and_what_is_broken_is_not_there() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let cache = Cache::new(Some(folder.path().to_owned()));
        fs::write(folder.path().join("token.json.new"), "left over")?;
        cache.keep("token.json", &"opaque");
        let path = folder.path().join("token.json");
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        assert_eq!(cache.find("token.json"), Some("opaque".to_owned()));
        fs::write(&path, "{")?;
        assert_eq!(cache.find::<String>("token.json"), None);
        cache.forget("token.json");
        assert!(!path.exists());
        Ok(())
    }
}
