//! Unpacked trees: made, held against their lists, and made anew where they are not what those say.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use barecount_model::seal::SealKey;
use rustix::fs::{FlockOperation, OFlags};

use super::listing::{Altered, Listing};
use super::{Store, StoreError, io_at, lock, sync_folder};
use crate::Digest;
use crate::tree::{STAGING_PREFIX, Scratch, Written};

/// Larger than the list of any tree within the bounds of archives, whose names are no longer than a
/// path.
const MAX_LIST_BYTES: u64 = 1 << 30;

/// What the trees of a store are held against.
#[derive(Debug)]
pub(super) struct Trees {
    key: SealKey,
    /// Whether a tree was held against its list by this process. Locked while that is done.
    held: Mutex<HashMap<Digest, Arc<Mutex<bool>>>>,
}

impl Trees {
    pub(super) fn new(key: SealKey) -> Self {
        Self {
            key,
            held: Mutex::default(),
        }
    }

    fn of(&self, digest: &Digest) -> Arc<Mutex<bool>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.entry(*digest).or_default())
    }
}

impl Store {
    /// Answers with the read-only tree of `digest`, which `fill` writes into an empty folder if it is
    /// not there yet. Of two processes that fill at once, one wins, and both get its tree.
    ///
    /// A tree that is there already is held against its list once by each store with a key; where it
    /// is not what that says it is filled anew. What is changed after that is not noticed before
    /// another process begins.
    ///
    /// # Errors
    /// Those of `fill`, after which nothing is left behind, [`StoreError::ChangedMeanwhile`] and
    /// [`StoreError::Io`].
    pub fn unpack<E: From<StoreError>>(
        &self,
        digest: &Digest,
        fill: impl FnOnce(&Path) -> Result<Written, E>,
    ) -> Result<PathBuf, E> {
        let path = self.tree_path(digest);
        let Some(trees) = &self.trees else {
            if !path.is_dir() {
                self.fill(digest, fill)?;
            }
            return Ok(path);
        };
        let held = trees.of(digest);
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = path.is_dir();
        if *held && is_there {
            return Ok(path);
        }
        if is_there {
            match self.hold(digest, &trees.key) {
                Ok(()) => {
                    *held = true;
                    return Ok(path);
                }
                // As of a version that made no lists.
                Err(Altered::Unlisted) => {}
                // Nobody has failed, and somebody was in the state folder.
                Err(altered) => tracing::error!(
                    tree = %path.display(),
                    altered = &altered as &dyn std::error::Error,
                    "what was unpacked from an artifact has been altered since; it is unpacked anew"
                ),
            }
        }
        self.fill(digest, fill)?;
        *held = true;
        Ok(path)
    }

    /// Fills a tree, and puts it in the place of one that is not what its list says.
    fn fill<E: From<StoreError>>(
        &self,
        digest: &Digest,
        fill: impl FnOnce(&Path) -> Result<Written, E>,
    ) -> Result<(), E> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let folder = self.root.join("unpacked");
        let staging = Scratch::new_in(&folder).map_err(io_at("write to", &folder))?;
        // Died from here to the rename: an unfinished tree that `collect` sweeps.
        let written = fill(staging.path())?;
        // One sync of the file system is cheaper than one per file, and the tree's name must
        // not outlive its content.
        let descriptor = File::open(&folder).map_err(io_at("open", &folder))?;
        rustix::fs::syncfs(&descriptor).map_err(|errno| io_at("sync", &folder)(errno.into()))?;
        match &self.trees {
            None => self.put_tree(digest, &staging)?,
            Some(trees) => {
                let listing = Listing::of(staging.path(), &written).map_err(changed_meanwhile)?;
                self.put_listed(digest, &staging, &listing, &trees.key)?;
            }
        }
        Ok(())
    }

    /// Gives a tree its name, unless there is one of this name.
    fn put_tree(&self, digest: &Digest, staging: &Scratch) -> Result<(), StoreError> {
        let path = self.tree_path(digest);
        match std::fs::rename(staging.path(), &path) {
            Ok(()) => {}
            Err(_) if path.is_dir() => return Ok(()),
            Err(source) => return Err(io_at("write", &path)(source)),
        }
        // Died before this sync: at worst the tree is gone, and is unpacked again.
        sync_folder(&self.root.join("unpacked"))
    }

    /// Gives a tree its name, and its list with it, unless there is one of this name with its list.
    fn put_listed(
        &self,
        digest: &Digest,
        staging: &Scratch,
        listing: &Listing,
        key: &SealKey,
    ) -> Result<(), StoreError> {
        let lists = self.root.join("lists");
        let one = File::open(&lists).map_err(io_at("open", &lists))?;
        lock(&one, &lists, FlockOperation::LockExclusive)?;
        let (path, folder) = (self.tree_path(digest), self.root.join("unpacked"));
        let replaced = match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {
                if self.hold(digest, key).is_ok() {
                    return Ok(());
                }
                // Renamed over an empty folder beside it: its owner may not move it elsewhere.
                let aside = Scratch::new_in(&folder).map_err(io_at("write to", &folder))?;
                std::fs::rename(&path, aside.path()).map_err(io_at("replace", &path))?;
                Some(aside)
            }
            Ok(_) => {
                std::fs::remove_file(&path).map_err(io_at("replace", &path))?;
                None
            }
            Err(_) => None,
        };
        // Died from here on: there is no tree of this name, or one whose list is missing or of
        // another, and it is unpacked again.
        self.put_tree(digest, staging)?;
        self.put_list(digest, listing, key)?;
        drop(replaced);
        Ok(())
    }

    fn put_list(
        &self,
        digest: &Digest,
        listing: &Listing,
        key: &SealKey,
    ) -> Result<(), StoreError> {
        let (path, lists) = (self.list_path(digest), self.root.join("lists"));
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix(STAGING_PREFIX)
                .tempfile_in(&lists)?;
            file.write_all(&listing.sealed(key, digest)?)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(io_at("write", &path))?;
        sync_folder(&lists)
    }

    /// Holds the tree of this name against its list.
    fn hold(&self, digest: &Digest, key: &SealKey) -> Result<(), Altered> {
        let path = self.list_path(digest);
        // Whatever lies there: neither a link nor a pipe is a list.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Altered::Unlisted,
                _ => Altered::Unreadable(error),
            })?;
        if !file.metadata()?.is_file() {
            return Err(Altered::Unsealed);
        }
        let mut sealed = Vec::new();
        file.take(MAX_LIST_BYTES).read_to_end(&mut sealed)?;
        let mut listing = Listing::unsealed(&sealed, key, digest)?;
        if listing.hold(&self.tree_path(digest))?
            && let Err(error) = self.put_list(digest, &listing, key)
        {
            // The same files are read again next time.
            tracing::debug!(%error, "a list of what was unpacked could not be brought up to date");
        }
        Ok(())
    }

    /// Where the tree unpacked from `digest` is, if it is there.
    pub fn unpacked(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.tree_path(digest);
        path.is_dir().then_some(path)
    }

    fn tree_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("unpacked").join(digest.hex())
    }

    fn list_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("lists").join(digest.hex())
    }
}

fn changed_meanwhile(altered: Altered) -> StoreError {
    let reason = match &altered {
        Altered::Unreadable(error) => format!("{altered}: {error}"),
        _ => altered.to_string(),
    };
    StoreError::ChangedMeanwhile { reason }
}

#[cfg(test)]
mod tests;
