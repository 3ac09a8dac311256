//! A host on which an agent lives: its disk, its clock, and its way to the control plane.

use std::{path::PathBuf, sync::Arc};

use barecount_agent::{IdentityVerifier, StagingFolders};
use barecount_secrets::MemoryFolder;

use crate::{
    agent::AgentLife,
    clock::{HostClock, WorldClock},
    cloud::Cloud,
    data::Tables,
    dice::Dice,
    disk::WorldDisk,
};

/// A host. Agents on it come and go; it goes once, for good.
pub(crate) struct Site {
    pub(crate) disk: WorldDisk,
    pub(crate) folders: StagingFolders,
    /// Has secrets of attempts, and nothing once those are over.
    pub(crate) memory: MemoryFolder,
    pub(crate) clock: HostClock,
    pub(crate) agent: Option<AgentLife>,
    /// The connection that it has to the control plane: what was sent over an older one is lost.
    pub(crate) session: u64,
    /// Nothing reaches it until then.
    pub(crate) deaf_until: u64,
    /// Nothing of it reaches anybody until then.
    pub(crate) dumb_until: u64,
    /// It does nothing until then.
    pub(crate) paused_until: u64,
    /// It will never come back.
    pub(crate) gone: bool,
}

impl Site {
    /// Whatever is on a real disk lies in `folder`: the records of accesses to secrets.
    pub(crate) fn new(dice: Dice, world: &WorldClock, ahead_ms: i64, folder: PathBuf) -> Self {
        let disk = WorldDisk::new(dice);
        disk.install(&folder);
        Self {
            folders: StagingFolders::on(Arc::new(disk.clone()), &folder),
            memory: MemoryFolder::new(&folder, "memory"),
            disk,
            clock: HostClock::new(world, ahead_ms),
            agent: None,
            session: 0,
            deaf_until: 0,
            dumb_until: 0,
            paused_until: 0,
            gone: false,
        }
    }

    pub(crate) fn begin(
        &mut self,
        cloud: &Cloud,
        tables: &Tables,
        identities: IdentityVerifier,
    ) -> Result<(), String> {
        self.agent = Some(AgentLife::begin(self, cloud, tables, identities)?);
        Ok(())
    }

    /// The names of attempts of which something is on it.
    pub(crate) fn left(&self) -> Result<Vec<String>, String> {
        if self.gone {
            return Ok(Vec::new());
        }
        let mut names = self.folders.names().map_err(|error| error.to_string())?;
        if let Ok(entries) = std::fs::read_dir(self.memory.path()) {
            let entries = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
            names.extend(entries.map(|name| format!("a secret of {}", name.display())));
        }
        Ok(names)
    }
}
