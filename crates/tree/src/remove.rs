//! Removing what is in a folder, and the folder.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, OsStr},
    fmt::Write as _,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, RawDir, SeekFrom},
    io::Errno,
};

use crate::open::{self, Identity};

/// Asked again and again while something is removed; `true` ends it.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// Never ends it.
pub fn to_the_end() -> bool {
    false
}

/// So many subfolders of one folder are known at a time; the others are found by looking again.
const BATCH: usize = 1024;
/// How many entries a look at a folder reads at once, in bytes.
const BUFFER: usize = 32 << 10;
/// How often a tree may change under the hands of who removes it.
const CHANGES: u32 = 1_000;
/// Whether to stop is asked once for so many entries.
const ASKED_EACH: u32 = 256;
/// So many names of a place are told, from its beginning.
const TOLD: usize = 4;

/// Why a tree is not removed. What could be is.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The system refused.
    #[error("`{place}` stays{}", and_more(*others))]
    Stuck {
        /// Where the first that stays is, below what was to be removed.
        place: String,
        /// How many others stay, folders that hold them not counted.
        others: u64,
        /// Why the first stays.
        source: io::Error,
    },
    /// It was told to stop.
    #[error("there is more than could be removed in the time there was")]
    Stopped,
    /// Something changes it all the time.
    #[error("something changes it while it is removed")]
    Changing,
}

fn and_more(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(", and {count} more"),
    }
}

impl From<RemoveError> for io::Error {
    fn from(error: RemoveError) -> Self {
        let kind = match &error {
            RemoveError::Stuck { source, .. } => source.kind(),
            RemoveError::Stopped => io::ErrorKind::TimedOut,
            RemoveError::Changing => io::ErrorKind::ResourceBusy,
        };
        Self::new(kind, error)
    }
}

/// Removes whatever is at a path, with all below it; nothing there is fine. Only the folder above is
/// found by its path, which is the caller's own.
///
/// # Errors
/// [`RemoveError`], after everything else was removed.
pub fn remove(path: &Path, stop: Stop<'_>) -> Result<(), RemoveError> {
    let name = path
        .file_name()
        .ok_or_else(|| refused(path, Errno::INVAL))?;
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    // The way to it is the caller's own; it may lead through links.
    let flags = open::NAMED.difference(rustix::fs::OFlags::NOFOLLOW);
    match rustix::fs::open(above, flags, Mode::empty()) {
        Ok(above) => remove_at(above.as_fd(), name, stop),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(refused(above, errno)),
    }
}

/// Removes what is called `name` in a folder, with all below it; nothing there is fine.
///
/// # Errors
/// [`RemoveError`], after everything else was removed.
pub fn remove_at(folder: BorrowedFd<'_>, name: &OsStr, stop: Stop<'_>) -> Result<(), RemoveError> {
    let stuck = |errno| refused(Path::new(name), errno);
    if matches!(name.as_bytes(), b"" | b"." | b"..") || name.as_bytes().contains(&b'/') {
        return Err(stuck(Errno::INVAL));
    }
    let c_name = CString::new(name.as_bytes()).map_err(|_| stuck(Errno::INVAL))?;
    let mut removal = Removal::new(stop);
    loop {
        match unlink(folder, &c_name, false).map_err(stuck)? {
            Unlinked::Gone => return Ok(()),
            Unlinked::Filled => {}
        }
        match open::to_be_emptied(folder, &c_name) {
            Ok(filled) => removal.empty(filled.as_fd(), &|_| false)?,
            // Gone, or something else meanwhile.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(stuck(errno)),
        }
        removal.told()?;
        removal.changed()?;
    }
}

/// Removes what is in an open folder, with all below it, but for the entries of the folder itself
/// whose names `keep` takes.
///
/// # Errors
/// [`RemoveError`], after everything else was removed.
pub fn empty_but(
    folder: BorrowedFd<'_>,
    keep: &dyn Fn(&OsStr) -> bool,
    stop: Stop<'_>,
) -> Result<(), RemoveError> {
    let mut removal = Removal::new(stop);
    open::allow(folder).map_err(|errno| refused(Path::new("."), errno))?;
    removal.empty(folder, keep)?;
    removal.told()
}

fn refused(path: &Path, errno: Errno) -> RemoveError {
    RemoveError::Stuck {
        place: path.display().to_string().escape_debug().to_string(),
        others: 0,
        source: errno.into(),
    }
}

/// What removing one entry came to.
enum Unlinked {
    /// It is not there any more.
    Gone,
    /// It is a folder with something in it.
    Filled,
}

/// Removes a file, a link or an empty folder; `folder_first` says what it seems to be.
fn unlink(folder: BorrowedFd<'_>, name: &CStr, folder_first: bool) -> Result<Unlinked, Errno> {
    let mut is_folder = folder_first;
    for _ in 0..2 {
        let flags = match is_folder {
            true => AtFlags::REMOVEDIR,
            false => AtFlags::empty(),
        };
        match rustix::fs::unlinkat(folder, name, flags) {
            Ok(()) | Err(Errno::NOENT) => return Ok(Unlinked::Gone),
            Err(Errno::NOTEMPTY | Errno::EXIST) if is_folder => return Ok(Unlinked::Filled),
            Err(Errno::ISDIR) if !is_folder => is_folder = true,
            Err(Errno::NOTDIR) if is_folder => is_folder = false,
            Err(errno) => return Err(errno),
        }
    }
    // One thing at the first look and another at the second: it is looked at again.
    Ok(Unlinked::Filled)
}

/// A folder on the way from the root to where something is removed.
struct Level {
    identity: Identity,
    /// Its name in the folder above; nothing for the root.
    name: CString,
    /// Subfolders with something in them.
    pending: Vec<CString>,
    /// Those that cannot be removed.
    stuck: BTreeSet<CString>,
    /// Whether another entry cannot be.
    holds: bool,
}

impl Level {
    fn new(folder: BorrowedFd<'_>, name: CString) -> Result<Self, Errno> {
        Ok(Self {
            identity: Identity::of(folder)?,
            name,
            pending: Vec::new(),
            stuck: BTreeSet::new(),
            holds: false,
        })
    }
}

/// The way from the root to where something is removed. Only its two ends are open.
struct Way<'a> {
    root: BorrowedFd<'a>,
    /// The root itself, or one below it.
    end: Option<OwnedFd>,
    top: Level,
    below: Vec<Level>,
}

impl<'a> Way<'a> {
    fn new(root: BorrowedFd<'a>) -> Result<Self, Errno> {
        Ok(Self {
            root,
            end: None,
            top: Level::new(root, CString::default())?,
            below: Vec::new(),
        })
    }

    fn folder(&self) -> BorrowedFd<'_> {
        self.end.as_ref().map_or(self.root, AsFd::as_fd)
    }

    fn level(&mut self) -> &mut Level {
        self.below.last_mut().unwrap_or(&mut self.top)
    }

    fn down(&mut self, name: CString) -> Result<(), Errno> {
        let child = open::to_be_emptied(self.folder(), &name)?;
        self.below.push(Level::new(child.as_fd(), name)?);
        self.end = Some(child);
        Ok(())
    }

    /// Back to the folder above; the level that was left.
    fn up(&mut self) -> Result<Option<Level>, Errno> {
        let above = match self.below.len() {
            0 => return Ok(None),
            1 => &self.top,
            count => &self.below[count - 2],
        };
        let parent = open::above(self.folder(), above.identity)?;
        self.end = (self.below.len() > 1).then_some(parent);
        Ok(self.below.pop())
    }

    /// Where something is, as far as it is told.
    fn place(&self, name: &CStr) -> String {
        let mut place = String::new();
        let mut add = |name: &CStr| {
            let text = name.to_string_lossy();
            // Who made the name chose what is in it.
            let _ = write!(place, "{}", text.escape_debug());
        };
        for level in self.below.iter().take(TOLD) {
            add(&level.name);
            add(c"/");
        }
        if self.below.len() > TOLD {
            add(c"../");
        }
        add(name);
        place
    }
}

/// What a look at a folder came to.
#[derive(Default)]
struct Look {
    removed: u64,
    stuck: u64,
    first: Option<(CString, Errno)>,
}

struct Removal<'a> {
    stop: Stop<'a>,
    buffer: Vec<MaybeUninit<u8>>,
    asked: u32,
    changes: u32,
    stuck: u64,
    first: Option<(String, Errno)>,
}

impl<'a> Removal<'a> {
    fn new(stop: Stop<'a>) -> Self {
        Self {
            stop,
            buffer: vec![MaybeUninit::uninit(); BUFFER],
            asked: 0,
            changes: 0,
            stuck: 0,
            first: None,
        }
    }

    /// Fails if something stays.
    fn told(&mut self) -> Result<(), RemoveError> {
        match self.first.take() {
            None => Ok(()),
            Some((place, errno)) => Err(RemoveError::Stuck {
                place,
                others: self.stuck.saturating_sub(1),
                source: errno.into(),
            }),
        }
    }

    fn goes_on(&mut self) -> Result<(), RemoveError> {
        self.asked += 1;
        if self.asked.is_multiple_of(ASKED_EACH) && (self.stop)() {
            return Err(RemoveError::Stopped);
        }
        Ok(())
    }

    /// Something was not as it had been; that is allowed so often.
    fn changed(&mut self) -> Result<(), RemoveError> {
        self.changes += 1;
        match self.changes > CHANGES {
            true => Err(RemoveError::Changing),
            false => Ok(()),
        }
    }

    fn stays(&mut self, place: impl FnOnce() -> String, errno: Errno, count: u64) {
        self.stuck += count;
        self.first.get_or_insert_with(|| (place(), errno));
    }

    /// Empties a folder as far as that goes.
    fn empty(
        &mut self,
        root: BorrowedFd<'_>,
        keep: &dyn Fn(&OsStr) -> bool,
    ) -> Result<(), RemoveError> {
        let mut way = Way::new(root).map_err(|errno| refused(Path::new("."), errno))?;
        loop {
            self.goes_on()?;
            if let Some(name) = way.level().pending.pop() {
                self.down(&mut way, name)?;
                continue;
            }
            let look = self.look(&mut way, keep)?;
            if look.removed > 0 || !way.level().pending.is_empty() {
                continue;
            }
            if let Some((name, errno)) = look.first {
                self.stays(|| way.place(&name), errno, look.stuck);
                way.level().holds = true;
            }
            if way.below.is_empty() {
                return Ok(());
            }
            self.up(&mut way)?;
        }
    }

    fn down(&mut self, way: &mut Way<'_>, name: CString) -> Result<(), RemoveError> {
        match way.down(name.clone()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // No folder any more: the next look removes what it is now.
            Err(Errno::NOTDIR | Errno::LOOP) => self.changed(),
            Err(errno) => {
                self.stays(|| way.place(&name), errno, 1);
                way.level().stuck.insert(name);
                Ok(())
            }
        }
    }

    /// Leaves a folder in which nothing more can be removed, and removes it.
    fn up(&mut self, way: &mut Way<'_>) -> Result<(), RemoveError> {
        let left = match way.up() {
            Ok(Some(left)) => left,
            Ok(None) => return Ok(()),
            Err(errno) if !matches!(errno, Errno::STALE | Errno::NOENT) => {
                return Err(refused(Path::new(".."), errno));
            }
            Err(_) => {
                // It was moved. What is still where it was is found from the root.
                way.below.clear();
                way.end = None;
                return self.changed();
            }
        };
        let is_whole = left.stuck.is_empty() && !left.holds;
        match rustix::fs::unlinkat(way.folder(), &left.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // Something came into it, or into its place.
            Err(Errno::NOTEMPTY | Errno::EXIST) if is_whole => self.changed(),
            Err(Errno::NOTDIR) => self.changed(),
            Err(errno) => {
                if is_whole {
                    self.stays(|| way.place(&left.name), errno, 1);
                }
                way.level().stuck.insert(left.name);
                Ok(())
            }
        }
    }

    /// Removes what is directly in a folder, and notes the subfolders that something is in.
    fn look(
        &mut self,
        way: &mut Way<'_>,
        keep: &dyn Fn(&OsStr) -> bool,
    ) -> Result<Look, RemoveError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let looked = self.look_with(way, keep, &mut buffer);
        self.buffer = buffer;
        looked
    }

    fn look_with(
        &mut self,
        way: &mut Way<'_>,
        keep: &dyn Fn(&OsStr) -> bool,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Result<Look, RemoveError> {
        let mut look = Look::default();
        let mut pending = Vec::new();
        let (is_top, folder) = (way.below.is_empty(), way.folder());
        let known = &way.below.last().unwrap_or(&way.top).stuck;
        let begun = rustix::fs::seek(folder, SeekFrom::Start(0));
        let mut entries = RawDir::new(folder, buffer);
        let mut failed = begun.err();
        while let Some(entry) = entries.next() {
            self.goes_on()?;
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => {
                    failed = Some(errno);
                    break;
                }
            };
            let name = entry.file_name();
            let is_kept = || is_top && keep(OsStr::from_bytes(name.to_bytes()));
            if name == c"." || name == c".." || known.contains(name) || is_kept() {
                continue;
            }
            match unlink(folder, name, entry.file_type() == FileType::Directory) {
                Ok(Unlinked::Gone) => look.removed += 1,
                Ok(Unlinked::Filled) => pending.push(name.to_owned()),
                Err(errno) => look.stays(name, errno),
            }
            if pending.len() >= BATCH {
                break;
            }
        }
        // A folder that was removed meanwhile has nothing in it.
        if let Some(errno) = failed.filter(|errno| *errno != Errno::NOENT) {
            look.stays(c".", errno);
        }
        way.level().pending = pending;
        Ok(look)
    }
}

impl Look {
    fn stays(&mut self, name: &CStr, errno: Errno) {
        self.stuck += 1;
        self.first.get_or_insert_with(|| (name.to_owned(), errno));
    }
}
