//! The layout of a state folder's tables, and how an older one becomes the present one.
//!
//! Tables were once at `datasets/<layer>/<name>`, whoever's they were. They are moved to the tenant
//! that wrote them, in steps of which each is durable and found done by a repeat:
//!
//! 1. `datasets` is set aside as `datasets.shared`, so that no tenant is taken for a layer;
//! 2. table by table is moved from there to its tenant;
//! 3. the file `layout` says that this is done, and is what a new folder begins with;
//! 4. the empty folders that are left are removed.
//!
//! Whose a table is, is not known here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barecount_model::text::DatasetName;

use crate::disk::Disk;
use crate::name::{Tenant, folder};
use crate::table::{DATASETS, folders};

/// The file that says which layout a state folder has.
const MARKER: &str = "layout";
/// What it says of the present one.
const PRESENT: &[u8] = b"2\n";
/// Where the tables of the older layout wait to be moved.
const SHARED: &str = "datasets.shared";

/// The tables of a state folder whose layout is older than tenants' folders.
#[derive(Debug)]
pub struct OlderLayout {
    state: PathBuf,
    disk: Arc<dyn Disk>,
}

impl OlderLayout {
    /// The older layout of a state folder; `None` if it has the present one. Blocks. Nothing is
    /// changed. A folder that has no table yet has the older layout with nothing to move.
    ///
    /// # Errors
    /// If the folder cannot be read, or has a layout that is newer than this program.
    pub fn find(state: &Path, disk: Arc<dyn Disk>) -> io::Result<Option<Self>> {
        match std::fs::read(state.join(MARKER)) {
            Ok(found) if found == PRESENT => Ok(None),
            Ok(found) => {
                let found = String::from_utf8_lossy(&found).trim().to_owned();
                let text = format!("its layout is `{found}`, which this program does not know");
                Err(io::Error::other(text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Self {
                state: state.to_owned(),
                disk,
            })),
            Err(error) => Err(error),
        }
    }

    /// The tables that are still to be moved, in order. Blocks.
    ///
    /// # Errors
    /// If the folders cannot be listed.
    pub fn tables(&self) -> io::Result<Vec<DatasetName>> {
        let shared = self.state.join(SHARED);
        let from = if shared.exists() {
            shared
        } else {
            self.state.join(DATASETS)
        };
        let mut tables = Vec::new();
        for layer in folders(&from)? {
            for name in folders(&from.join(&layer))? {
                tables.extend(format!("{layer}.{name}").parse::<DatasetName>().ok());
            }
        }
        tables.sort();
        Ok(tables)
    }

    /// Sets the tables aside. Blocks. Dying before it is durable finds all as it was; after it,
    /// [`OlderLayout::tables`] are those that were not moved yet.
    ///
    /// # Errors
    /// Any I/O error; a repeat goes on.
    pub fn set_aside(&self) -> io::Result<()> {
        let (from, to) = (self.state.join(DATASETS), self.state.join(SHARED));
        if to.exists() || !from.exists() {
            return Ok(());
        }
        self.disk.rename(&from, &to)
    }

    /// Gives a table that was set aside to a tenant. Blocks. Dying in it leaves the table at the one
    /// place or the other.
    ///
    /// # Errors
    /// Any I/O error; a repeat goes on.
    pub fn give(&self, table: &DatasetName, tenant: &Tenant) -> io::Result<()> {
        let from = self.state.join(SHARED).join(folder(table));
        let owner = self.state.join(DATASETS).join(tenant.as_str());
        let to = owner.join(folder(table));
        self.disk.create_dir_all(&owner.join(table.layer()))?;
        self.disk.rename(&from, &to)
    }

    /// Notes that every table has been moved. Blocks. What was no table stays where it was set
    /// aside.
    ///
    /// # Errors
    /// Any I/O error; a repeat goes on.
    pub fn finish(self) -> io::Result<()> {
        self.disk.replace(&self.state.join(MARKER), PRESENT)?;
        let shared = self.state.join(SHARED);
        for layer in folders(&shared)? {
            remove_empty(&shared.join(layer))?;
        }
        remove_empty(&shared)
    }
}

fn remove_empty(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir(folder) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::disk::LocalDisk;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    /// Fails its step of that number, before it or after it.
    #[derive(Debug)]
    struct Dying {
        disk: LocalDisk,
        steps: AtomicUsize,
        fail_at: usize,
        done: bool,
    }

    impl Dying {
        fn step(&self, step: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
            let is_last = self.steps.fetch_add(1, Ordering::SeqCst) == self.fail_at;
            if !is_last || self.done {
                step()?;
            }
            if is_last {
                return Err(io::Error::other("it died"));
            }
            Ok(())
        }
    }

    impl Disk for Dying {
        fn create(&self, path: &Path, content: &[u8]) -> io::Result<()> {
            self.step(|| self.disk.create(path, content))
        }
        fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
            self.step(|| self.disk.replace(path, content))
        }
        fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step(|| self.disk.link(from, to))
        }
        fn create_dir_all(&self, path: &Path) -> io::Result<()> {
            self.step(|| self.disk.create_dir_all(path))
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step(|| self.disk.rename(from, to))
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.step(|| self.disk.sync_dir(path))
        }
    }

    /// Layers and tenants of one name on purpose.
    const TABLES: [(&str, &str); 4] = [
        ("raw.raw", "raw"),
        ("raw.fx", "acme"),
        ("acme.raw", "raw"),
        ("kpi.fx", "kpi"),
    ];

    fn move_all(state: &Path, disk: Arc<dyn Disk>) -> io::Result<()> {
        let Some(older) = OlderLayout::find(state, disk)? else {
            return Ok(());
        };
        let owners: BTreeMap<_, _> = TABLES.into_iter().collect();
        older.set_aside()?;
        for table in older.tables()? {
            let owner = owners[table.to_string().as_str()];
            older.give(&table, &owner.parse().map_err(io::Error::other)?)?;
        }
        older.finish()
    }

    #[test]
    fn tables_come_to_their_tenants_whatever_step_the_process_dies_in() -> TestResult {
        for done in [false, true] {
            for fail_at in 0.. {
                let state = tempfile::tempdir()?;
                for (table, _) in TABLES {
                    let path = folder(&table.parse::<DatasetName>()?);
                    let folder = state.path().join(DATASETS).join(path).join("_delta_log");
                    fs::create_dir_all(&folder)?;
                    fs::write(folder.join("0.json"), table)?;
                }
                let dying = Arc::new(Dying {
                    disk: LocalDisk::default(),
                    steps: AtomicUsize::new(0),
                    fail_at,
                    done,
                });
                let died = move_all(state.path(), dying).is_err();
                move_all(state.path(), Arc::new(LocalDisk::default()))?;
                for (table, tenant) in TABLES {
                    let path = folder(&table.parse::<DatasetName>()?);
                    let folder = state.path().join(DATASETS).join(tenant).join(path);
                    let found = fs::read_to_string(folder.join("_delta_log/0.json"))?;
                    assert_eq!(found, table, "step {fail_at}");
                }
                assert!(!state.path().join(SHARED).exists() || died);
                if !died {
                    break;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_newer_layout_is_refused_and_what_is_no_table_stays() -> TestResult {
        let state = tempfile::tempdir()?;
        fs::create_dir_all(state.path().join("datasets/notes"))?;
        fs::write(state.path().join("datasets/notes/read.me"), "mine")?;
        move_all(state.path(), Arc::new(LocalDisk::default()))?;
        let kept = fs::read_to_string(state.path().join("datasets.shared/notes/read.me"))?;
        assert_eq!(kept, "mine");
        fs::write(state.path().join(MARKER), "3\n")?;
        let found = OlderLayout::find(state.path(), Arc::new(LocalDisk::default()));
        assert!(found.is_err());
        Ok(())
    }
}
