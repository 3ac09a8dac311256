//! Writes unpacked archives beneath one folder, and nowhere else.
//!
//! Every path is resolved by the kernel relative to the folder's descriptor (`openat2`, Linux
//! 5.6), so a symbolic link that an archive planted earlier leads nowhere outside, whatever
//! happens meanwhile. Owners, set-id bits and extended attributes of archives are never applied;
//! of a mode only *executable* is kept. [`Tree::freeze`] makes the result read-only, and answers with
//! what was written.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use barecount_tree::to_the_end;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::digest::HashingWriter;
use crate::entry::EntryPath;

/// What to do when a path leads through a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Refuse: for archives that know no links.
    Refused,
    /// Follow, with the folder as `/`, as inside the running image.
    WithinRoot,
}

/// An entry that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The path leads through a link that is refused, or round in circles.
    #[error("`{path}` leads through a symbolic link")]
    ThroughLink {
        /// The entry.
        path: String,
    },
    /// Something already stands where a file was to be created.
    #[error("`{path}` exists already")]
    Exists {
        /// The entry.
        path: String,
    },
    /// A component of the path is a file.
    #[error("`{path}` leads through a file")]
    ThroughFile {
        /// The entry.
        path: String,
    },
    /// A hard link to something that is not there, or not a file.
    #[error("`{path}` is a hard link to `{target}`, which is no file of this archive")]
    NoLinkTarget {
        /// The entry.
        path: String,
        /// What it links to.
        target: String,
    },
    /// The system refused.
    #[error("cannot write `{path}`")]
    Io {
        /// The entry.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A file that could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Its content could not be read from the archive.
    #[error("cannot read the content")]
    Content(#[source] io::Error),
    /// It could not be written.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// What was written into a folder, by the numbers of the inodes: an archive's own links may give one
/// file many paths.
#[derive(Debug, Default)]
pub struct Written(HashMap<u64, Content>);

/// What an inode of a tree is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// A folder.
    Folder,
    /// A file, and what it was when it was complete.
    File {
        /// Of its content.
        digest: Digest,
        /// When and where.
        seen: Seen,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: String,
    },
}

/// What tells a file that nobody touched: the kernel sets the time of its last change, and lets nobody
/// else set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Its inode.
    pub(crate) inode: u64,
    /// When it was written last, in nanoseconds since 1970.
    pub(crate) written_ns: i64,
    /// When it, or what there is of it beside its content, was changed last, in nanoseconds since 1970.
    pub(crate) changed_ns: i64,
}

impl Written {
    /// What an inode was written as.
    pub(crate) fn get(&self, inode: u64) -> Option<&Content> {
        self.0.get(&inode)
    }
}

impl Seen {
    /// What a file is like now.
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            size: whole(stat.st_size),
            inode: stat.st_ino,
            written_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// A moment of the kernel's, whose numbers are of other types on other machines.
fn nanoseconds(seconds: impl TryInto<i64>, part: impl TryInto<i64>) -> i64 {
    let part = part.try_into().unwrap_or_default();
    let seconds = seconds.try_into().unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(part)
}

fn whole(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or_default()
}

/// A folder being filled from an archive.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    links: Links,
    written: RefCell<Written>,
}

/// The mode of a folder that is complete.
pub(crate) const FROZEN: u32 = 0o555;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

impl Tree {
    /// Opens the existing folder `root` to be filled.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn open(root: &Path, links: Links) -> Result<Self, TreeError> {
        let root = rustix::fs::open(root, FOLDER, Mode::empty())
            .map_err(|errno| fault(&root.display().to_string(), errno))?;
        let written = RefCell::default();
        Ok(Self {
            root,
            links,
            written,
        })
    }

    /// Makes a folder; one that is there already is fine, anything else there is replaced.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn folder(&self, path: &EntryPath) -> Result<(), TreeError> {
        let Some((parent, name)) = path.split() else {
            return Ok(());
        };
        let parent = self.parent(&parent)?;
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Err(Errno::EXIST) if is_folder(parent.as_fd(), name) => Ok(()),
            Err(Errno::EXIST) => rustix::fs::unlinkat(&parent, name, AtFlags::empty())
                .and_then(|()| rustix::fs::mkdirat(&parent, name, Mode::RWXU))
                .map_err(|errno| fault(path.as_str(), errno)),
            other => other.map_err(|errno| fault(path.as_str(), errno)),
        }
    }

    /// Writes a file that is not there yet; answers with its size in bytes.
    ///
    /// # Errors
    /// [`FileError::Content`] when `content` fails, else [`FileError::Tree`].
    pub fn file(
        &self,
        path: &EntryPath,
        executable: bool,
        content: &mut dyn Read,
    ) -> Result<u64, FileError> {
        let (parent, name) = self.place(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| fault(path.as_str(), errno))?;
        let mut file = File::from(file);
        let (digest, size) = copy(path, content, &mut file)?;
        let mode = Mode::from_raw_mode(if executable { 0o555 } else { 0o444 });
        let stat = rustix::fs::fchmod(&file, mode).and_then(|()| rustix::fs::fstat(&file));
        let seen = Seen::of(&stat.map_err(|errno| fault(path.as_str(), errno))?);
        self.note(seen.inode, Content::File { digest, seen });
        Ok(size)
    }

    /// Makes a symbolic link. Its target is text: it is resolved, if ever, inside the folder.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn symlink(&self, path: &EntryPath, target: &str) -> Result<(), TreeError> {
        let (parent, name) = self.place(path)?;
        let made = rustix::fs::symlinkat(target, &parent, name)
            .and_then(|()| rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW));
        let stat = made.map_err(|errno| fault(path.as_str(), errno))?;
        let target = target.to_owned();
        self.note(stat.st_ino, Content::Link { target });
        Ok(())
    }

    /// Makes a hard link to a file that is there already.
    ///
    /// # Errors
    /// [`TreeError::NoLinkTarget`] when `target` is missing, or neither a file nor a link.
    pub fn hard_link(&self, path: &EntryPath, target: &EntryPath) -> Result<(), TreeError> {
        let missing = || TreeError::NoLinkTarget {
            path: path.to_string(),
            target: target.to_string(),
        };
        let (folder, name) = target.split().ok_or_else(missing)?;
        let folder = self.parent(&folder)?;
        let stat =
            rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Symlink) {
            return Err(missing());
        }
        let before = Seen::of(&stat);
        let (parent, link) = self.place(path)?;
        let stat = rustix::fs::linkat(&folder, name, &parent, link, AtFlags::empty())
            .and_then(|()| rustix::fs::statat(&parent, link, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| fault(path.as_str(), errno))?;
        // One more name is a change of it, and this one is known.
        if let Some(Content::File { seen, .. }) = self.written.borrow_mut().0.get_mut(&stat.st_ino)
            && *seen == before
        {
            *seen = Seen::of(&stat);
        }
        Ok(())
    }

    /// Removes whatever stands at `path`, with all below it; nothing there is fine.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn remove(&self, path: &EntryPath) -> Result<(), TreeError> {
        let Some((parent, name)) = path.split() else {
            return self.clear(path);
        };
        match self.resolve(&parent) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            parent => {
                let parent = parent.map_err(|errno| fault(path.as_str(), errno))?;
                let removed = barecount_tree::remove_at(parent.as_fd(), name.as_ref(), &to_the_end);
                removed.map_err(|error| stays(path, error))
            }
        }
    }

    /// Empties the folder at `path`; nothing there is fine.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn clear(&self, path: &EntryPath) -> Result<(), TreeError> {
        match self.resolve(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            folder => {
                let folder = folder.map_err(|errno| fault(path.as_str(), errno))?;
                let cleared = barecount_tree::empty_but(folder.as_fd(), &|_| false, &to_the_end);
                cleared.map_err(|error| stays(path, error))
            }
        }
    }

    /// Whether anything, a link included, stands at `path`.
    pub fn contains(&self, path: &EntryPath) -> bool {
        let Some((parent, name)) = path.split() else {
            return true;
        };
        self.resolve(&parent).is_ok_and(|parent| {
            rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
        })
    }

    /// Makes every folder read-only (files are so from the start), and answers with what was written.
    /// By links of its own an archive nests folders far deeper than any of its paths says.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn freeze(self) -> Result<Written, TreeError> {
        let frozen = Mode::from_raw_mode(FROZEN);
        barecount_tree::each_folder(self.root.as_fd(), |folder| {
            rustix::fs::fchmod(folder, frozen)
        })
        .map_err(|errno| fault(".", errno))?;
        Ok(self.written.into_inner())
    }

    fn note(&self, inode: u64, content: Content) {
        self.written.borrow_mut().0.insert(inode, content);
    }

    /// The folder in which `path` is to be created, and its name there.
    fn place<'p>(&self, path: &'p EntryPath) -> Result<(OwnedFd, &'p str), TreeError> {
        let (parent, name) = path.split().ok_or_else(|| TreeError::Exists {
            path: path.to_string(),
        })?;
        Ok((self.parent(&parent)?, name))
    }

    /// Opens the folder `path`, making what is missing of it.
    fn parent(&self, path: &EntryPath) -> Result<OwnedFd, TreeError> {
        match self.resolve(path) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|errno| fault(path.as_str(), errno)),
        }
        if let Some((above, name)) = path.split() {
            match rustix::fs::mkdirat(self.parent(&above)?, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(fault(path.as_str(), errno)),
            }
        }
        self.resolve(path)
            .map_err(|errno| fault(path.as_str(), errno))
    }

    fn resolve(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        if path.is_root() {
            return rustix::fs::openat(&self.root, ".", FOLDER, Mode::empty());
        }
        let how = match self.links {
            Links::Refused => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            Links::WithinRoot => ResolveFlags::IN_ROOT,
        };
        let how = how | ResolveFlags::NO_MAGICLINKS;
        // Links are `how`'s business: with NOFOLLOW too, a link would be told as "no folder".
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        // EAGAIN tells that a rename raced with `..` handling and that the walk was given up.
        loop {
            match rustix::fs::openat2(&self.root, path.as_str(), flags, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }
}

fn copy(
    path: &EntryPath,
    content: &mut dyn Read,
    file: &mut File,
) -> Result<(Digest, u64), FileError> {
    let mut file = HashingWriter::new(file);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(FileError::Content(error)),
        };
        file.write_all(&buffer[..count])
            .map_err(|source| TreeError::Io {
                path: path.to_string(),
                source,
            })?;
    }
    let (digest, size, _) = file.finish();
    Ok((digest, size))
}

fn fault(path: &str, errno: Errno) -> TreeError {
    let path = path.to_owned();
    match errno {
        Errno::LOOP | Errno::XDEV => TreeError::ThroughLink { path },
        Errno::EXIST => TreeError::Exists { path },
        Errno::NOTDIR => TreeError::ThroughFile { path },
        errno => TreeError::Io {
            path,
            source: errno.into(),
        },
    }
}

fn stays(path: &EntryPath, error: barecount_tree::RemoveError) -> TreeError {
    TreeError::Io {
        path: path.to_string(),
        source: error.into(),
    }
}

fn is_folder(parent: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// A folder that vanishes with its owner, whatever became of it meanwhile.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a new folder called `.new-…` in `parent`.
    pub(crate) fn new_in(parent: &Path) -> io::Result<Self> {
        let path = tempfile::Builder::new()
            .prefix(STAGING_PREFIX)
            .tempdir_in(parent)?
            .keep();
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// How folders and files that are not finished are called.
pub(crate) const STAGING_PREFIX: &str = ".new-";

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed here is swept by the next garbage collection.
        let _ = barecount_tree::remove(&self.path, &to_the_end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn path(text: &str) -> EntryPath {
        EntryPath::parse(text.as_bytes(), &Limits::default()).expect("a good path")
    }

    #[test]
    fn an_absolute_link_leads_back_into_the_folder() -> Outcome {
        let around = tempfile::tempdir()?;
        let inside = around.path().join("inside");
        std::fs::create_dir(&inside)?;
        let tree = Tree::open(&inside, Links::WithinRoot)?;
        tree.folder(&path("usr/lib"))?;
        tree.symlink(&path("lib"), "/usr/lib")?;
        tree.symlink(&path("up"), "../../..")?;
        tree.file(&path("lib/a"), false, &mut &b"a"[..])?;
        tree.file(&path("up/b"), false, &mut &b"b"[..])?;
        assert_eq!(std::fs::read(inside.join("usr/lib/a"))?, b"a");
        assert_eq!(std::fs::read(inside.join("b"))?, b"b");
        assert_eq!(std::fs::read_dir(around.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_link_is_refused_where_the_archive_knows_none() -> Outcome {
        let around = tempfile::tempdir()?;
        let tree = Tree::open(around.path(), Links::Refused)?;
        tree.symlink(&path("out"), "/tmp")?;
        let refused = tree.file(&path("out/a"), false, &mut &b"a"[..]);
        assert!(matches!(
            refused,
            Err(FileError::Tree(TreeError::ThroughLink { .. }))
        ));
        Ok(())
    }

    #[test]
    fn a_frozen_tree_can_be_removed_again() -> Outcome {
        let around = tempfile::tempdir()?;
        let inside = around.path().join("inside");
        std::fs::create_dir(&inside)?;
        let tree = Tree::open(&inside, Links::Refused)?;
        tree.file(&path("a/b/c"), true, &mut &b"c"[..])?;
        tree.freeze()?;
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(inside.join("a/b/c"))?.permissions(),
        );
        assert_eq!(mode & 0o7777, 0o555);
        barecount_tree::remove(&inside, &to_the_end)?;
        assert!(!inside.exists());
        Ok(())
    }
}
