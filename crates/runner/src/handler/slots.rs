//! How the places of one attempt after the other appear inside a sandbox that already runs.
//!
//! Mounts of a running sandbox do not change. So a sandbox has three folders of its own mounted,
//! for inputs (read-only), outputs and checkpoints, and an attempt's places are *renamed* into them
//! for the time of its invocation: `/barecount/input/<n>` and so on. That costs nothing per byte,
//! keeps inputs read-only by the mount whoever owns them, and shows no attempt another's places.
//! A number is used once, so that what still runs in the background of a function finds its places
//! gone rather than somebody else's.

use std::{
    io,
    os::unix::fs::{MetadataExt, lchown},
    path::{Path, PathBuf},
};

use barecount_sandbox::Mount;

use crate::{
    launch::{Places, inside},
    local::places::{Access, bind},
};

/// The three folders of one sandbox. Removed when dropped.
#[derive(Debug)]
pub(super) struct Slots {
    folder: PathBuf,
    /// Who writes inside, as this host counts; known once the sandbox runs.
    writer: Option<(u32, u32)>,
    next: u64,
}

/// The places of an attempt while they are inside.
#[derive(Debug)]
pub(super) struct Placed {
    number: u64,
    places: Places,
    output: Identity,
    checkpoint: Identity,
}

/// Which folder it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

/// A place that the function has put away or replaced. What it wrote there is lost.
#[derive(Debug, thiserror::Error)]
#[error("the function replaced its folder {0}")]
pub(super) struct Replaced(pub(super) String);

impl Slots {
    /// Makes the folders. Blocking, as all calls here.
    pub(super) fn create(folder: PathBuf) -> io::Result<Self> {
        let slots = Self {
            folder,
            writer: None,
            next: 1,
        };
        for name in ["input", "output", "checkpoint"] {
            fs_err::create_dir_all(slots.folder.join(name))?;
        }
        Ok(slots)
    }

    pub(super) fn mounts(&self) -> Vec<Mount> {
        let bind = |name: &str, inside: &str, access| bind(&self.folder.join(name), inside, access);
        vec![
            bind("input", inside::INPUT, Access::Read),
            bind("output", inside::OUTPUT, Access::Write),
            bind("checkpoint", inside::CHECKPOINT, Access::Write),
        ]
    }

    /// To be called once the sandbox runs: its start gave the writable folders to the user inside.
    /// Where that user is not ours, they are taken back, so that only the places themselves, and
    /// not the names they have, are the function's to change.
    pub(super) fn opened(&mut self) -> io::Result<()> {
        let us = fs_err::metadata(&self.folder)?;
        for name in ["output", "checkpoint"] {
            let folder = self.folder.join(name);
            let given = fs_err::metadata(&folder)?;
            if given.uid() != us.uid() {
                self.writer = Some((given.uid(), given.gid()));
                lchown(&folder, Some(us.uid()), Some(us.gid()))?;
            }
        }
        Ok(())
    }

    /// Renames the places of an attempt into the sandbox. Should this process die before they are
    /// taken out again, the attempt is gone and its places with it.
    pub(super) fn place(&mut self, places: &Places) -> io::Result<Placed> {
        let number = self.next;
        self.next += 1;
        let placed = Placed {
            number,
            places: places.clone(),
            output: self.hand_over(&places.output)?,
            checkpoint: self.hand_over(&places.checkpoint)?,
        };
        let moves = placed.moves(&self.folder);
        for (done, (outside, slot)) in moves.iter().enumerate() {
            if let Err(error) = fs_err::rename(outside, slot) {
                for (outside, slot) in &moves[..done] {
                    fs_err::rename(slot, outside)?;
                }
                return Err(error);
            }
        }
        Ok(placed)
    }

    fn hand_over(&self, folder: &Path) -> io::Result<Identity> {
        if let Some((user, group)) = self.writer {
            lchown(folder, Some(user), Some(group))?;
        }
        identity(folder)
    }

    /// Takes the places out again, and makes sure that they are the ones that were put in: a link
    /// in their stead would lead whoever reads them anywhere on the host.
    pub(super) fn take(&self, placed: &Placed) -> io::Result<Result<(), Replaced>> {
        let mut result = Ok(());
        let [input, output, checkpoint] = placed.moves(&self.folder);
        fs_err::rename(&input.1, &input.0)?;
        let writable = [
            (output, placed.output, "output"),
            (checkpoint, placed.checkpoint, "checkpoint"),
        ];
        for ((outside, slot), expected, name) in writable {
            // Looked at once it is out of reach, so that it cannot be exchanged afterwards.
            let moved = fs_err::rename(&slot, &outside);
            if moved.is_err() || identity(&outside)? != expected {
                remove(&outside)?;
                fs_err::create_dir(&outside)?;
                result = Err(Replaced(name.to_owned()));
            }
        }
        Ok(result)
    }

    /// Whether nothing but the folders themselves is left.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        for name in ["output", "checkpoint"] {
            if fs_err::read_dir(self.folder.join(name))?.next().is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Placed {
    /// From where to where: input, output, checkpoint.
    fn moves(&self, folder: &Path) -> [(PathBuf, PathBuf); 3] {
        let slot = |name: &str| folder.join(name).join(self.number.to_string());
        let Places {
            input,
            output,
            checkpoint,
            ..
        } = &self.places;
        [
            (input.clone(), slot("input")),
            (output.clone(), slot("output")),
            (checkpoint.clone(), slot("checkpoint")),
        ]
    }

    /// Where the function sees one of the places.
    pub(super) fn inside(&self, place: &str) -> String {
        format!("{place}/{}", self.number)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the runner is opened the next time.
        drop(fs_err::remove_dir_all(&self.folder));
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs_err::symlink_metadata(path)?;
    Ok(Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

/// Removes whatever is there, if anything.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs_err::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs_err::remove_dir_all(path),
        Ok(_) => fs_err::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
