//! What an unpacked tree has to be: the list of all that is in it.
//!
//! A list is made of what was written, not of what lies there afterwards. It has everything in the
//! order of the names, each folder before what is in it, and of each how many folders it is below the
//! root: a tree may be deeper than any path is long.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use barecount_model::seal::{SEAL_BYTES, SealKey};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::tree::{Content, FROZEN, Seen, Written};

/// What a seal is over, before the rest.
const FORMAT: &[u8] = b"tree 1";
/// A file that was changed less long ago than this may be changed again without another time: the
/// kernel's clock has ticks.
const SETTLED_NS: i64 = 1_000_000_000;

/// All that is in a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Listing(Vec<Item>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Item {
    /// How many folders it is below the root.
    depth: usize,
    name: String,
    mode: u32,
    content: Content,
}

/// Why a tree is not what its list says.
#[derive(Debug, thiserror::Error)]
pub(super) enum Altered {
    /// There is none.
    #[error("there is no list of what is in it")]
    Unlisted,
    /// Somebody else wrote it, or it is of another tree.
    #[error("the list of what is in it is not the one that was made with it")]
    Unsealed,
    #[error("`{0}` is missing")]
    Missing(String),
    #[error("`{0}` was added")]
    Added(String),
    #[error("`{0}` was changed")]
    Changed(String),
    #[error("there is much more in it than there was")]
    Crowded,
    #[error("it cannot be read")]
    Unreadable(#[from] io::Error),
}

impl From<Errno> for Altered {
    fn from(errno: Errno) -> Self {
        Self::Unreadable(errno.into())
    }
}

/// What lies in a tree.
struct Found {
    depth: usize,
    name: Vec<u8>,
    mode: u32,
    kind: Kind,
}

enum Kind {
    Folder {
        inode: u64,
    },
    File(Seen),
    Link {
        inode: u64,
        target: Vec<u8>,
    },
    /// Something that no archive is unpacked to, or of another file system.
    Other,
}

impl Listing {
    /// The list of a tree that was just written.
    ///
    /// # Errors
    /// If something is in it that was not written, or is not any more what was.
    pub(super) fn of(root: &Path, written: &Written) -> Result<Self, Altered> {
        let root = open(root)?;
        let mut path = Trail::default();
        let found = found(root.as_fd(), usize::MAX)?;
        let items = found.into_iter().map(|found| {
            let name = path.enter(found.depth, &found.name);
            let content = match (&found.kind, found.kind.inode().and_then(|i| written.get(i))) {
                (Kind::Folder { .. }, _) if found.mode == FROZEN => Content::Folder,
                (Kind::Link { target, .. }, Some(Content::Link { target: wanted }))
                    if *target == wanted.as_bytes() =>
                {
                    Content::Link {
                        target: wanted.clone(),
                    }
                }
                (
                    Kind::File(seen),
                    Some(Content::File {
                        digest,
                        seen: noted,
                    }),
                ) => {
                    if seen != noted {
                        hold_content(root.as_fd(), &path, *digest)?;
                    }
                    Content::File {
                        digest: *digest,
                        seen: *noted,
                    }
                }
                _ => return Err(Altered::Added(path.text())),
            };
            Ok(Item {
                depth: found.depth,
                name,
                mode: found.mode,
                content,
            })
        });
        items.collect::<Result<_, _>>().map(Self)
    }

    /// Holds a tree against this list. Content is read only of files that may have been touched; of
    /// those that were, and are the same all the same, this takes note: true if there were any.
    ///
    /// # Errors
    /// The first thing that is not as it was.
    pub(super) fn hold(&mut self, root: &Path) -> Result<bool, Altered> {
        let root = open(root)?;
        let found = found(root.as_fd(), self.0.len())?;
        let settled = now_ns().saturating_sub(SETTLED_NS);
        let (mut path, mut noted) = (Trail::default(), false);
        let mut all = found.into_iter();
        for index in 0..self.0.len() {
            let item = &self.0[index];
            let Some(found) = all.next() else {
                return Err(Altered::Missing(self.path(index)));
            };
            path.enter(found.depth, &found.name);
            if (found.depth, &*found.name) != (item.depth, item.name.as_bytes()) {
                return Err(match found.is_before(item) {
                    true => Altered::Added(path.text()),
                    false => Altered::Missing(self.path(index)),
                });
            }
            let (seen, digest) = match (&found.kind, &item.content) {
                _ if found.mode != item.mode => return Err(Altered::Changed(path.text())),
                (Kind::Folder { .. }, Content::Folder) => continue,
                (Kind::Link { target, .. }, Content::Link { target: wanted })
                    if *target == wanted.as_bytes() =>
                {
                    continue;
                }
                (Kind::File(seen), Content::File { seen: wanted, .. }) if seen == wanted => {
                    continue;
                }
                (Kind::File(seen), Content::File { digest, .. }) => (*seen, *digest),
                _ => return Err(Altered::Changed(path.text())),
            };
            let read = hold_content(root.as_fd(), &path, digest)?;
            if read == seen && seen.changed_ns < settled {
                self.0[index].content = Content::File { digest, seen };
                noted = true;
            }
        }
        match all.next() {
            Some(more) => {
                path.enter(more.depth, &more.name);
                Err(Altered::Added(path.text()))
            }
            None => Ok(noted),
        }
    }

    /// Where the item at `index` is.
    fn path(&self, index: usize) -> String {
        let mut path = Trail::default();
        for item in &self.0[..=index] {
            path.enter(item.depth, item.name.as_bytes());
        }
        path.text()
    }

    /// The list as it is kept: the seal of the tree of this name, and JSON.
    pub(super) fn sealed(&self, key: &SealKey, tree: &Digest) -> Result<Vec<u8>, io::Error> {
        let text = serde_json::to_vec(self)?;
        let mut sealed = key.seal(&[FORMAT, tree.as_bytes(), &text]).to_vec();
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    /// The list of the tree of this name, if it has that seal.
    ///
    /// # Errors
    /// If it has another.
    pub(super) fn unsealed(sealed: &[u8], key: &SealKey, tree: &Digest) -> Result<Self, Altered> {
        let (seal, text) = sealed
            .split_at_checked(SEAL_BYTES)
            .ok_or(Altered::Unsealed)?;
        if !key.holds(&[FORMAT, tree.as_bytes(), text], seal) {
            return Err(Altered::Unsealed);
        }
        serde_json::from_slice(text).map_err(|error| Altered::Unreadable(error.into()))
    }
}

impl Found {
    /// Whether it is in its tree before the place where `item` has to be.
    fn is_before(&self, item: &Item) -> bool {
        match self.depth == item.depth {
            true => *self.name < *item.name.as_bytes(),
            false => self.depth > item.depth,
        }
    }
}

impl Kind {
    fn inode(&self) -> Option<u64> {
        match self {
            Self::Folder { inode } | Self::Link { inode, .. } => Some(*inode),
            Self::File(seen) => Some(seen.inode),
            Self::Other => None,
        }
    }
}

/// The names of the folders that lead to an item, and its own.
#[derive(Default)]
struct Trail(Vec<String>);

impl Trail {
    /// Goes on to the next item; the answer is its name.
    fn enter(&mut self, depth: usize, name: &[u8]) -> String {
        let name = String::from_utf8_lossy(name).into_owned();
        self.0.truncate(depth);
        self.0.push(name.clone());
        name
    }

    /// The path from the root.
    fn text(&self) -> String {
        match self.0.get(1..) {
            None | Some([]) => ".".to_owned(),
            Some(names) => names.join("/"),
        }
    }
}

fn open(root: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty())
}

/// Reads a file and holds it against its digest; the answer is what it was like then.
fn hold_content(root: BorrowedFd<'_>, path: &Trail, digest: Digest) -> Result<Seen, Altered> {
    // A pipe that somebody put there meanwhile would be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let path = path.text();
    let file = rustix::fs::openat2(root, &*path, flags, Mode::empty(), how)?;
    let seen = Seen::of(&rustix::fs::fstat(&file)?);
    // No more is read than it has now: whoever makes it longer changes it.
    let (found, size) = crate::digest::of_reader(io::Read::take(File::from(file), seen.size + 1))?;
    match found == digest && size == seen.size {
        true => Ok(seen),
        false => Err(Altered::Changed(path)),
    }
}

/// What lies in a tree, in the order of a list; not much more than `most` of it.
fn found(root: BorrowedFd<'_>, most: usize) -> Result<Vec<Found>, Altered> {
    let device = rustix::fs::fstat(root)?.st_dev;
    let (mut folders, mut count) = (HashMap::new(), 0);
    barecount_tree::each_folder(root, |folder| {
        let mut inside = list(folder, device)?;
        inside.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        count += inside.len();
        if count > most.saturating_add(MORE) {
            return Err(Errno::TOOBIG);
        }
        folders.insert(rustix::fs::fstat(folder)?.st_ino, inside);
        Ok(())
    })
    .map_err(|errno| match errno {
        Errno::TOOBIG => Altered::Crowded,
        errno => errno.into(),
    })?;
    let stat = rustix::fs::fstat(root)?;
    let mut found = vec![Found {
        depth: 0,
        name: Vec::new(),
        mode: stat.st_mode & MODE,
        kind: Kind::Folder { inode: stat.st_ino },
    }];
    let mut inside = |inode| folders.remove(&inode).unwrap_or_default().into_iter();
    let mut open = vec![inside(stat.st_ino)];
    while let Some(folder) = open.last_mut() {
        let Some(mut next) = folder.next() else {
            open.pop();
            continue;
        };
        next.depth = open.len();
        if let Kind::Folder { inode } = next.kind {
            open.push(inside(inode));
        }
        found.push(next);
    }
    Ok(found)
}

/// So much more than a list has is looked at, to name what was added.
const MORE: usize = 1_000;
/// What of a mode is permission.
const MODE: u32 = 0o7777;

/// What is in one folder.
fn list(folder: BorrowedFd<'_>, device: u64) -> Result<Vec<Found>, Errno> {
    let mut inside = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let inode = stat.st_ino;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            _ if stat.st_dev != device => Kind::Other,
            FileType::Directory => Kind::Folder { inode },
            FileType::RegularFile => Kind::File(Seen::of(&stat)),
            FileType::Symlink => Kind::Link {
                inode,
                target: rustix::fs::readlinkat(folder, name, Vec::new())?.into_bytes(),
            },
            _ => Kind::Other,
        };
        inside.push(Found {
            depth: 0,
            name: name.to_bytes().to_vec(),
            mode: stat.st_mode & MODE,
            kind,
        });
    }
    Ok(inside)
}

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos();
    i64::try_from(now).unwrap_or(i64::MAX)
}
