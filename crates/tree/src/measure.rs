//! How much lies in a tree that somebody may be changing.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode},
    io::Errno,
};

use crate::open::{self, FOLDER, Identity};

/// How often a tree may change on the way before what was found until then is all that is told: not so
/// often that who moves folders about keeps us from coming to an end.
const CHANGES: u32 = 8;

/// What there is of something on a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes of the disk, which holes take none of.
    pub bytes: u64,
    /// Files, folders and all else that has a name.
    pub files: u64,
}

impl Amount {
    /// No bound.
    pub const ENDLESS: Self = Self {
        bytes: u64::MAX,
        files: u64::MAX,
    };

    /// Whether it is more than another, in one or the other.
    pub fn exceeds(self, other: Self) -> bool {
        self.bytes > other.bytes || self.files > other.files
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }
}

/// What was found in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// What it takes, as far as it was looked at.
    pub amount: Amount,
    /// Whether all of it was: not where a folder is closed to us, or changes too much meanwhile.
    pub whole: bool,
}

/// How files count that have another name somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// As any other; by each of their names.
    Counted,
    /// Not at all: their other name is where they belong.
    LeftOut,
}

/// What lies below a path, which need not be there. Ends as soon as it is more than `most`. Blocks.
///
/// # Errors
/// If the path is no folder or cannot be opened.
pub fn measure(path: &Path, linked: Linked, most: Amount) -> io::Result<Measured> {
    let root = match rustix::fs::open(path, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => {
            return Ok(Measured {
                amount: Amount::default(),
                whole: true,
            });
        }
        // Whose folder it is may have closed it.
        Err(Errno::ACCESS) => {
            return Ok(Measured {
                amount: Amount::default(),
                whole: false,
            });
        }
        root => root?,
    };
    Ok(Measuring::new(linked, most).walk(root.as_fd())?)
}

struct Measuring {
    linked: Linked,
    most: Amount,
    found: Amount,
    closed: bool,
}

impl Measuring {
    fn new(linked: Linked, most: Amount) -> Self {
        Self {
            linked,
            most,
            found: Amount::default(),
            closed: false,
        }
    }

    /// Begins again where a folder went elsewhere while we were in it.
    fn walk(mut self, root: BorrowedFd<'_>) -> Result<Measured, Errno> {
        let mut largest = Amount::default();
        for _ in 0..CHANGES {
            (self.found, self.closed) = (Amount::default(), false);
            let arrived = self.try_walk(root)?;
            if arrived {
                return Ok(Measured {
                    amount: self.found,
                    whole: !self.closed,
                });
            }
            largest.bytes = largest.bytes.max(self.found.bytes);
            largest.files = largest.files.max(self.found.files);
        }
        Ok(Measured {
            amount: largest,
            whole: false,
        })
    }

    /// False if there was no way back from a folder.
    fn try_walk(&mut self, root: BorrowedFd<'_>) -> Result<bool, Errno> {
        let mut above: Vec<(Identity, Vec<CString>)> = Vec::new();
        let mut end: Option<OwnedFd> = None;
        let mut pending = self.look(root)?;
        loop {
            if self.found.exceeds(self.most) {
                return Ok(true);
            }
            let folder = end.as_ref().map_or(root, AsFd::as_fd);
            if let Some(name) = pending.pop() {
                let entered = open::beneath(folder, &name, FOLDER)
                    .and_then(|child| Ok((self.look(child.as_fd())?, child)));
                match entered {
                    Ok((below, child)) => {
                        let left = std::mem::replace(&mut pending, below);
                        above.push((Identity::of(folder)?, left));
                        end = Some(child);
                    }
                    // Gone, or no folder any more.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(_) => self.closed = true,
                }
                continue;
            }
            let Some((identity, left)) = above.pop() else {
                return Ok(true);
            };
            match open::above(folder, identity) {
                Ok(parent) => end = Some(parent),
                Err(_) => return Ok(false),
            }
            pending = left;
        }
    }

    /// Counts the entries of a folder, and answers with its subfolders.
    fn look(&mut self, folder: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
        let mut found = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if !is_folder && stat.st_nlink > 1 && self.linked == Linked::LeftOut {
                continue;
            }
            self.found = self.found.and(Amount {
                bytes: u64::try_from(stat.st_blocks)
                    .unwrap_or(0)
                    .saturating_mul(512),
                files: 1,
            });
            if self.found.exceeds(self.most) {
                return Ok(found);
            }
            if is_folder {
                found.push(name.to_owned());
            }
        }
        Ok(found)
    }
}
