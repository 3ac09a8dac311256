//! How the places of one attempt after the other appear inside a sandbox that already runs.
//!
//! Mounts of a running sandbox do not change. So a sandbox has three folders of its own mounted,
//! for inputs (read-only), outputs and checkpoints, and an attempt's places are below them for the
//! time of its invocation: `/barecount/input/<n>` and so on. A place with something in it is
//! *renamed* there, which costs nothing per byte, keeps inputs read-only by the mount whoever owns
//! them, and shows no attempt another's places. For a place that is empty there is a folder already,
//! made when nobody waited for it, and it is renamed out only if something was written to it: most
//! invocations have no input and no checkpoint, and change few names or none.
//!
//! A number is used once, so that what still runs in the background of a function finds its places
//! gone rather than somebody else's.

use std::{
    io,
    mem::MaybeUninit,
    os::unix::fs::{MetadataExt, lchown},
    path::{Path, PathBuf},
};

use barecount_sandbox::Mount;
use rustix::fs::{CWD, Mode, OFlags, RawDir};

use crate::{
    launch::{Places, inside},
    local::places::{Access, bind},
};

/// What an attempt has there. The mount of the first is read-only.
const PLACES: [&str; 3] = ["input", "output", "checkpoint"];
/// What a function writes to.
const WRITABLE: [&str; 2] = ["output", "checkpoint"];

/// The three folders of one sandbox. Removed when dropped.
#[derive(Debug)]
pub(super) struct Slots {
    folder: PathBuf,
    /// Who writes inside, as this host counts; known once the sandbox runs.
    writer: Option<(u32, u32)>,
    next: u64,
    ready: Option<Ready>,
}

/// Empty folders for an attempt to come.
#[derive(Debug)]
struct Ready {
    number: u64,
    folders: [Identity; 3],
}

/// The places of an attempt while they are inside.
#[derive(Debug)]
pub(super) struct Placed {
    number: u64,
    places: [Place; 3],
}

impl Placed {
    /// Where the places are.
    pub(super) fn slots(&self) -> Vec<PathBuf> {
        self.places.iter().map(|place| place.slot.clone()).collect()
    }
}

/// Where a place belongs, and where it is.
#[derive(Debug)]
struct Place {
    outside: PathBuf,
    slot: PathBuf,
    /// Which folder is inside.
    inside: Identity,
    /// Whether it is the attempt's own folder that is inside, so that outside there is none.
    own: bool,
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
            ready: None,
        };
        for name in PLACES {
            fs_err::create_dir_all(slots.folder.join(name))?;
        }
        Ok(slots)
    }

    pub(super) fn mounts(&self) -> Vec<Mount> {
        let bind = |name: &str, inside: &str, access| bind(&self.folder.join(name), inside, access);
        vec![
            bind("input", inside::INPUT, Access::ReadChanging),
            bind("output", inside::OUTPUT, Access::Write),
            bind("checkpoint", inside::CHECKPOINT, Access::Write),
        ]
    }

    /// To be called once the sandbox runs: its start gave the writable folders to the user inside.
    /// Where that user is not ours, they are taken back, so that only the places themselves, and
    /// not the names they have, are the function's to change.
    pub(super) fn opened(&mut self) -> io::Result<()> {
        let us = fs_err::metadata(&self.folder)?;
        for name in WRITABLE {
            let folder = self.folder.join(name);
            let given = fs_err::metadata(&folder)?;
            if given.uid() != us.uid() {
                self.writer = Some((given.uid(), given.gid()));
                lchown(&folder, Some(us.uid()), Some(us.gid()))?;
            }
        }
        Ok(())
    }

    /// Brings the places of an attempt into the sandbox. Should this process die before they are
    /// taken out again, the attempt is gone and its places with it.
    pub(super) fn place(&mut self, places: &Places) -> io::Result<Placed> {
        let ready = self.take_ready()?;
        let input = self.bring(0, &places.input, &ready)?;
        let placed = self.bring(1, &places.output, &ready).and_then(|output| {
            match self.bring(2, &places.checkpoint, &ready) {
                Ok(checkpoint) => Ok((output, checkpoint)),
                Err(error) => output.take_back().and(Err(error)),
            }
        });
        match placed {
            Ok((output, checkpoint)) => Ok(Placed {
                number: ready.number,
                places: [input, output, checkpoint],
            }),
            Err(error) => input.take_back().and(Err(error)),
        }
    }

    /// Brings the place of this index in [`PLACES`] in, unless it is empty.
    fn bring(&self, index: usize, outside: &Path, ready: &Ready) -> io::Result<Place> {
        let mut place = Place {
            outside: outside.to_owned(),
            slot: self.slot(PLACES[index], ready.number),
            inside: ready.folders[index],
            own: !is_empty(outside)?,
        };
        if place.own {
            place.inside = self.hand_over(PLACES[index], outside)?;
            // In the place of the empty folder that was ready.
            fs_err::rename(outside, &place.slot)?;
        }
        Ok(place)
    }

    /// Takes the places out again, and makes sure that they are the ones that were put in: a link
    /// in their stead would lead whoever reads them anywhere on the host.
    pub(super) fn take(&self, placed: &Placed) -> io::Result<Result<(), Replaced>> {
        let mut result = Ok(());
        for (place, name) in placed.places.iter().zip(PLACES) {
            if !place.take_back()? {
                result = Err(Replaced(name.to_owned()));
            }
        }
        Ok(result)
    }

    /// Makes the next attempt's folders ready: the ones that the last attempt had and did not need,
    /// under the next number. `false` if anything else is there. Nobody waits for it.
    pub(super) fn restore(&mut self) -> io::Result<bool> {
        let (last, next) = (self.next - 1, self.next);
        for name in PLACES {
            for entry in fs_err::read_dir(self.folder.join(name))?.take(2) {
                let entry = entry?;
                let unneeded = *entry.file_name() == *last.to_string();
                if !unneeded || !is_empty(&entry.path())? {
                    return Ok(false);
                }
                fs_err::rename(entry.path(), self.slot(name, next))?;
            }
        }
        self.ready = Some(self.make_ready()?);
        Ok(true)
    }

    /// What was made ready may have been found by what still runs in the background.
    fn take_ready(&mut self) -> io::Result<Ready> {
        if let Some(ready) = self.ready.take() {
            let mut untouched = true;
            for (name, expected) in PLACES.iter().zip(ready.folders) {
                let found = look(&self.slot(name, ready.number));
                untouched &= found.is_ok_and(|(found, empty)| empty && found == expected);
            }
            if untouched {
                return Ok(ready);
            }
        }
        self.make_ready()
    }

    fn make_ready(&mut self) -> io::Result<Ready> {
        let number = self.next;
        self.next += 1;
        let make = |name| {
            let slot = self.slot(name, number);
            match fs_err::create_dir(&slot) {
                Ok(()) => self.hand_over(name, &slot),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match look(&slot)? {
                    (found, true) => Ok(found),
                    (_, false) => Err(error),
                },
                Err(error) => Err(error),
            }
        };
        let [input, output, checkpoint] = PLACES;
        Ok(Ready {
            number,
            folders: [make(input)?, make(output)?, make(checkpoint)?],
        })
    }

    /// Gives a folder that is written to inside to whoever writes there.
    fn hand_over(&self, name: &str, folder: &Path) -> io::Result<Identity> {
        if let Some((user, group)) = self.writer.filter(|_| WRITABLE.contains(&name)) {
            lchown(folder, Some(user), Some(group))?;
        }
        identity(folder)
    }

    fn slot(&self, name: &str, number: u64) -> PathBuf {
        self.folder.join(name).join(number.to_string())
    }
}

impl Place {
    /// Brings it to where it belongs, unless nothing was written to it. `false`: it is not the one
    /// that the function was given; what is outside is then a new, empty one.
    fn take_back(&self) -> io::Result<bool> {
        let Self { outside, slot, .. } = self;
        if !self.own && look(slot).is_ok_and(|(found, empty)| empty && found == self.inside) {
            return Ok(true);
        }
        let mut moved = fs_err::rename(slot, outside);
        if moved
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        {
            // The function took away from itself, and so from us, the right to change it.
            moved = barecount_tree::mend_at(slot).and_then(|()| fs_err::rename(slot, outside));
        }
        // Looked at once it is out of reach, so that it cannot be exchanged afterwards.
        if moved.is_ok() && identity(outside).is_ok_and(|found| found == self.inside) {
            return Ok(true);
        }
        self.put_away()?;
        fs_err::create_dir(outside)?;
        Ok(false)
    }

    /// Moves what is outside, whatever it is, to where it is removed with the sandbox's folders: an
    /// attempt waits for this, and there may be much in it.
    fn put_away(&self) -> io::Result<()> {
        let Self { outside, slot, .. } = self;
        let mut parts = slot.iter().rev();
        let (number, name) = (parts.next(), parts.next());
        let stray = match (slot.ancestors().nth(2), number, name) {
            (Some(folder), Some(number), Some(name)) => {
                let [number, name] = [number, name].map(|part| part.to_string_lossy());
                folder.join(format!("stray-{name}-{number}"))
            }
            _ => return remove(outside),
        };
        match fs_err::rename(outside, &stray) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => remove(outside),
            Ok(()) => Ok(()),
        }
    }
}

impl Placed {
    /// Where the function sees one of the places.
    pub(super) fn inside(&self, place: &str) -> String {
        format!("{place}/{}", self.number)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the runner is opened the next time.
        drop(remove(&self.folder));
    }
}

/// That it is a folder has to be seen, too: a link may have the number of one that is gone.
fn identity(folder: &Path) -> io::Result<Identity> {
    let metadata = fs_err::symlink_metadata(folder)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

/// Which folder is there, and whether it is empty; of one and the same, should names change
/// meanwhile. Fails on what is no folder.
fn look(folder: &Path) -> io::Result<(Identity, bool)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&opened)?;
    let identity = Identity {
        device: stat.st_dev,
        inode: stat.st_ino,
    };
    // Room for its own two names and one of any length.
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&opened, &mut buffer);
    while let Some(entry) = entries.next() {
        if ![&b"."[..], b".."].contains(&entry?.file_name().to_bytes()) {
            return Ok((identity, false));
        }
    }
    Ok((identity, true))
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    look(folder).map(|(_, empty)| empty)
}

/// Removes whatever is there, if anything.
fn remove(path: &Path) -> io::Result<()> {
    Ok(barecount_tree::remove(path, &barecount_tree::to_the_end)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    struct Ground {
        folder: tempfile::TempDir,
        slots: Slots,
    }

    impl Ground {
        fn new() -> io::Result<Self> {
            let folder = tempfile::tempdir()?;
            let slots = Slots::create(folder.path().join("slots"))?;
            Ok(Self { folder, slots })
        }

        fn places(&self, attempt: &str) -> io::Result<Places> {
            let place = |name: &str| {
                let path = self.folder.path().join(attempt).join(name);
                fs_err::create_dir_all(&path).map(|()| path)
            };
            Ok(Places {
                input: place("input")?,
                output: place("output")?,
                checkpoint: place("checkpoint")?,
                cache: None,
                drivers: BTreeMap::new(),
            })
        }

        /// What the function sees below one of its folders.
        fn seen(&self, name: &str, placed: &Placed) -> PathBuf {
            self.slots.slot(name, placed.number)
        }
    }

    #[test]
    fn what_is_empty_and_stays_so_changes_no_name() -> TestResult {
        let mut ground = Ground::new()?;
        let places = ground.places("1")?;
        let before = identity(&places.output)?;
        let placed = ground.slots.place(&places)?;
        assert_eq!(placed.inside(inside::OUTPUT), "/barecount/output/1");
        ground.slots.take(&placed)??;
        assert_eq!(identity(&places.output)?, before);
        assert!(ground.slots.restore()?);
        assert_eq!(ground.slots.place(&ground.places("2")?)?.number, 2);
        Ok(())
    }

    #[test]
    fn what_was_there_comes_in_and_what_was_written_comes_out() -> TestResult {
        let mut ground = Ground::new()?;
        let places = ground.places("1")?;
        fs_err::write(places.input.join("given"), "a")?;
        fs_err::write(places.checkpoint.join("cursor"), "b")?;
        let placed = ground.slots.place(&places)?;
        let seen = |name: &str| ground.seen(name, &placed);
        assert_eq!(fs_err::read_to_string(seen("input").join("given"))?, "a");
        assert_eq!(
            fs_err::read_to_string(seen("checkpoint").join("cursor"))?,
            "b"
        );
        fs_err::write(seen("output").join("rows"), "c")?;
        ground.slots.take(&placed)??;
        assert_eq!(fs_err::read_to_string(places.input.join("given"))?, "a");
        assert_eq!(fs_err::read_to_string(places.output.join("rows"))?, "c");
        assert_eq!(
            fs_err::read_to_string(places.checkpoint.join("cursor"))?,
            "b"
        );
        assert!(ground.slots.restore()?);
        Ok(())
    }

    #[test]
    fn a_folder_that_was_replaced_is_noticed_and_nothing_of_it_comes_out() -> TestResult {
        for was_empty in [true, false] {
            let mut ground = Ground::new()?;
            let places = ground.places("1")?;
            if !was_empty {
                fs_err::write(places.checkpoint.join("cursor"), "b")?;
            }
            let placed = ground.slots.place(&places)?;
            let slot = ground.seen("checkpoint", &placed);
            fs_err::remove_dir_all(&slot)?;
            std::os::unix::fs::symlink("/etc", &slot)?;
            let replaced = ground.slots.take(&placed)?.err().ok_or("it is noticed")?;
            assert_eq!(replaced.0, "checkpoint");
            assert!(is_empty(&places.checkpoint)?);
            assert!(fs_err::symlink_metadata(&places.checkpoint)?.is_dir());
        }
        Ok(())
    }

    /// Numbers of files that are gone are given again, on some file systems at once.
    #[test]
    fn a_link_with_the_number_of_the_folder_is_noticed() -> TestResult {
        for own in [true, false] {
            let folder = tempfile::tempdir()?;
            let (outside, slot) = (folder.path().join("outside"), folder.path().join("slot"));
            std::os::unix::fs::symlink("/etc", &slot)?;
            let link = fs_err::symlink_metadata(&slot)?;
            let place = Place {
                inside: Identity {
                    device: link.dev(),
                    inode: link.ino(),
                },
                outside,
                slot,
                own,
            };
            assert!(!place.take_back()?);
            assert!(is_empty(&place.outside)?);
        }
        Ok(())
    }

    #[test]
    fn a_folder_that_was_put_away_is_noticed() -> TestResult {
        let mut ground = Ground::new()?;
        let places = ground.places("1")?;
        let placed = ground.slots.place(&places)?;
        fs_err::remove_dir(ground.seen("output", &placed))?;
        assert!(ground.slots.take(&placed)?.is_err());
        assert!(is_empty(&places.output)?);
        Ok(())
    }

    #[test]
    fn what_is_written_after_the_answer_ends_the_use_of_the_sandbox() -> TestResult {
        let mut ground = Ground::new()?;
        let places = ground.places("1")?;
        let placed = ground.slots.place(&places)?;
        ground.slots.take(&placed)??;
        fs_err::write(ground.seen("output", &placed).join("late"), "")?;
        assert!(is_empty(&places.output)?);
        assert!(!ground.slots.restore()?);
        Ok(())
    }

    #[test]
    fn what_was_written_before_the_attempt_is_not_of_the_attempt() -> TestResult {
        let mut ground = Ground::new()?;
        assert!(ground.slots.restore()?);
        fs_err::write(ground.slots.slot("output", 1).join("early"), "")?;
        let places = ground.places("1")?;
        let placed = ground.slots.place(&places)?;
        assert_eq!(placed.number, 2);
        ground.slots.take(&placed)??;
        assert!(is_empty(&places.output)?);
        Ok(())
    }
}
