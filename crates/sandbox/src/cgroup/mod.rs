//! Control groups: where this host lets us make them, one group per sandbox, limits, figures,
//! removal.
//!
//! Every launcher has one directory in each hierarchy, `<group>/<prefix>.<id>`, and holds a lock
//! (`flock`) on it for as long as it lives; its sandboxes are numbered directories below. A
//! directory of our prefix whose lock can be had belongs to a launcher that died. The group is the
//! own one in version 1; `parent` chooses it in version 2.

mod discover;
mod group;
mod parent;
mod sweep;
mod tree;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::{Errno, Result};
use serde::{Deserialize, Serialize};

use self::parent::Seeker;
use self::tree::Mounted;
use crate::report::{Availability, CgroupLayout, Controller, Placement};
use crate::spec::Limits;
pub(crate) use group::{Directory, Group};

/// Version of a hierarchy's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A hierarchy in which we may make groups.
struct Hierarchy {
    version: Version,
    controllers: Vec<Controller>,
    /// Where it is mounted.
    mount: PathBuf,
    /// The group that our launcher's directory is in.
    parent: PathBuf,
    /// Our launcher's directory, locked.
    directory: OwnedFd,
    name: String,
    /// Whether agent and launcher were moved out of the parent, in version 2.
    divided: bool,
}

/// All that this host lets us do with control groups.
pub(crate) struct Cgroups {
    pub(crate) layout: CgroupLayout,
    pub(crate) availability: BTreeMap<Controller, Availability>,
    /// Where ours are in version 2, if they are.
    pub(crate) placement: Option<Placement>,
    prefix: String,
    hierarchies: Vec<Hierarchy>,
    next: u64,
    /// Made ahead of need, while nobody waits.
    prepared: Option<Group>,
    /// Still busy when they were to be removed.
    leaving: Vec<Group>,
}

impl Cgroups {
    /// Finds the hierarchies and makes this launcher's directories in them. What cannot be had is in
    /// `availability`; `processes` are the agent and the launcher, which may have to move into a
    /// leaf of a version 2 hierarchy.
    pub(crate) fn establish(prefix: &str, processes: &[i32]) -> Self {
        let found = discover::discover();
        let mut cgroups = Self {
            layout: found.layout,
            availability: BTreeMap::new(),
            placement: None,
            prefix: prefix.to_owned(),
            hierarchies: Vec::new(),
            next: 0,
            prepared: None,
            leaving: Vec::new(),
        };
        let name = format!("{prefix}.{:08x}", random());
        for place in found.places {
            let established = match place.version {
                Version::V1 => establish_v1(&place, &name),
                Version::V2 => establish_v2(&place, &name, processes).map(|(there, placement)| {
                    cgroups.placement = Some(placement);
                    there
                }),
            };
            cgroups.enter(&place, established);
        }
        for controller in discover::ALL_CONTROLLERS {
            let absent = || not_there(controller, found.layout);
            cgroups
                .availability
                .entry(controller)
                .or_insert_with(absent);
        }
        cgroups
    }

    /// Notes what came of a hierarchy.
    fn enter(
        &mut self,
        place: &discover::Place,
        established: std::result::Result<Hierarchy, Availability>,
    ) {
        for controller in &place.controllers {
            let availability = match &established {
                Ok(hierarchy) if hierarchy.controllers.contains(controller) => {
                    Availability::Available
                }
                Ok(hierarchy) => parent::not_given(*controller, place, &hierarchy.parent),
                Err(why) => why.clone(),
            };
            self.availability.entry(*controller).or_insert(availability);
        }
        self.hierarchies.extend(established.ok());
    }

    /// Whether a controller can be used.
    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.availability
            .get(&controller)
            .is_some_and(Availability::is_available)
    }

    /// A new group with limits.
    pub(crate) fn create(&mut self, limits: &Limits) -> Result<Group> {
        let mut group = match self.prepared.take() {
            Some(group) => group,
            None => self.make()?,
        };
        let limited = self
            .add_cpuset(&mut group, limits)
            .and_then(|()| group.limit(limits));
        match limited {
            Ok(()) => Ok(group),
            Err(error) => {
                self.remove(group);
                Err(error)
            }
        }
    }

    /// Does what can be done ahead: makes a group for the next launch, and retries removals. True
    /// when some could not be removed yet.
    pub(crate) fn use_idle_time(&mut self) -> bool {
        if self.prepared.is_none() && !self.hierarchies.is_empty() {
            self.prepared = self.make().ok();
        }
        for group in std::mem::take(&mut self.leaving) {
            self.remove(group);
        }
        !self.leaving.is_empty()
    }

    /// Removes a group whose processes are gone; later, if they are not quite gone yet.
    pub(crate) fn remove(&mut self, group: Group) {
        let mut busy = false;
        for part in group.parts() {
            let hierarchy = &self.hierarchies[part];
            match rustix::fs::unlinkat(
                &hierarchy.directory,
                group.name(),
                rustix::fs::AtFlags::REMOVEDIR,
            ) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(_) => busy = true,
            }
        }
        if busy {
            self.leaving.push(group);
        }
    }

    /// Removes everything of this launcher, and of those that died.
    pub(crate) fn close(mut self) {
        if let Some(group) = self.prepared.take() {
            self.remove(group);
        }
        for group in std::mem::take(&mut self.leaving) {
            self.remove(group);
        }
        for hierarchy in &self.hierarchies {
            // A sweep after our death finds it by name and unlocked.
            drop(std::fs::remove_dir(hierarchy.parent.join(&hierarchy.name)));
        }
        // A launcher that was killed right before this one started may have been dying still, and
        // its processes had its lock. What is busy even now is left for a later sweep.
        _ = self.sweep();
        for hierarchy in self.hierarchies.iter().filter(|there| there.divided) {
            // A sandbox that is just about to be gone would keep all of it.
            sweep::remove_tree(
                &hierarchy.parent.join(&hierarchy.name),
                &mut 0,
                &mut Vec::new(),
            );
            let _changing = alone_in(&hierarchy.parent);
            // What is not undone is undone by the next launcher that ends there; until then nobody
            // else can be put into the group.
            _ = parent::give_back(&Mounted, &hierarchy.parent);
        }
    }

    /// Kills and removes what launchers of our prefix left behind that are dead. Returns how many
    /// groups went, and the paths of those that would not.
    pub(crate) fn sweep(&self) -> (u32, Vec<String>) {
        let mut removed = 0;
        let mut left = Vec::new();
        let uid = rustix::process::geteuid().as_raw();
        for hierarchy in &self.hierarchies {
            let mut places = vec![hierarchy.parent.clone()];
            if hierarchy.version == Version::V2 {
                places.extend(parent::elsewhere(&Mounted, &hierarchy.mount, uid));
                places.sort();
                places.dedup();
            }
            for place in places {
                sweep::sweep(&place, &self.prefix, &mut removed, &mut left);
            }
        }
        (removed, left)
    }

    fn make(&mut self) -> Result<Group> {
        self.next += 1;
        let mut group = Group::new(self.next.to_string());
        for (index, hierarchy) in self.hierarchies.iter().enumerate() {
            // Pinning is rare, and a version 1 cpuset must be filled before it takes a task.
            if hierarchy.version == Version::V1 && hierarchy.controllers == [Controller::Cpuset] {
                continue;
            }
            if let Err(error) = group.enter(index, hierarchy) {
                self.remove(group);
                return Err(error);
            }
        }
        Ok(group)
    }

    fn add_cpuset(&self, group: &mut Group, limits: &Limits) -> Result<()> {
        if limits.cpus.is_none() {
            return Ok(());
        }
        for (index, hierarchy) in self.hierarchies.iter().enumerate() {
            let alone = hierarchy.controllers == [Controller::Cpuset];
            if hierarchy.version == Version::V1 && alone {
                group.enter(index, hierarchy)?;
            }
        }
        Ok(())
    }
}

fn establish_v1(
    place: &discover::Place,
    name: &str,
) -> std::result::Result<Hierarchy, Availability> {
    let hierarchy = make_directory(place, &place.own, name)?;
    if place.controllers.contains(&Controller::Cpuset) {
        // A new cpuset is empty, and takes no task until it names cores and memory nodes.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let filled = std::fs::read_to_string(place.own.join(file))
                .map_err(|error| refused(&place.own, &error))
                .and_then(|value| {
                    write(&hierarchy.directory, file, value.trim())
                        .map_err(|error| refused(&place.own, &error.into()))
                });
            if let Err(why) = filled {
                drop(std::fs::remove_dir(place.own.join(name)));
                return Err(why);
            }
        }
    }
    Ok(hierarchy)
}

/// Makes our directory where [`parent::choose`] says, with the limits that go with the place.
fn establish_v2(
    place: &discover::Place,
    name: &str,
    processes: &[i32],
) -> std::result::Result<(Hierarchy, Placement), Availability> {
    let _changing = alone_in(&place.own);
    let uid = rustix::process::geteuid().as_raw();
    let chosen = parent::choose(&Mounted, place, Seeker { processes, uid })?;
    let made = make_directory(place, &chosen.directory, name).and_then(|mut hierarchy| {
        hierarchy.divided = chosen.divided;
        hierarchy.controllers =
            parent::divide(&Mounted, &chosen, place, &chosen.directory.join(name))?;
        Ok(hierarchy)
    });
    match made {
        Ok(hierarchy) => Ok((hierarchy, chosen.placement)),
        Err(why) => {
            drop(std::fs::remove_dir(chosen.directory.join(name)));
            if chosen.divided {
                // The reason why is the one to tell.
                drop(parent::give_back(&Mounted, &chosen.directory));
            }
            Err(why)
        }
    }
}

/// Keeps other launchers from dividing a group, or giving it back, at the same time. Whoever can
/// read the directory could hold the lock, so that it is not waited for without end.
fn alone_in(group: &Path) -> Option<OwnedFd> {
    let directory = open_directory(group).ok()?;
    for _ in 0..sweep::ROUNDS {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::AGAIN) => sweep::pause(),
            Err(_) => return None,
        }
    }
    None
}

/// Why a controller is in no hierarchy that is mounted.
fn not_there(controller: Controller, layout: CgroupLayout) -> Availability {
    let name = discover::name(controller);
    let (reason, remedy) = match layout {
        CgroupLayout::V2 => (
            format!("The control groups that are mounted here have no {name} controller."),
            "In a container, have the host give it to the container's control group; else use a \
             kernel that has it in version 2.",
        ),
        CgroupLayout::V1 | CgroupLayout::Hybrid | CgroupLayout::Absent => (
            format!("The {name} controller is not mounted."),
            "Mount control groups version 2 with this controller enabled.",
        ),
    };
    Availability::Unavailable {
        reason,
        remedy: remedy.to_owned(),
    }
}

fn make_directory(
    place: &discover::Place,
    parent: &Path,
    name: &str,
) -> std::result::Result<Hierarchy, Availability> {
    let directory =
        locked_directory(&parent.join(name)).map_err(|error| refused(parent, &error))?;
    Ok(Hierarchy {
        mount: place.mount.clone(),
        version: place.version,
        controllers: place.controllers.clone(),
        parent: parent.to_owned(),
        directory,
        name: name.to_owned(),
        divided: false,
    })
}

/// A new directory with our lock on it. Another launcher's sweep may find it before it is locked,
/// and takes it for one of the dead: then it is made once more.
fn locked_directory(path: &Path) -> std::io::Result<OwnedFd> {
    for _ in 0..sweep::ROUNDS {
        match std::fs::create_dir(path) {
            // Held by a sweep that is about to remove it.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        match open_directory(path).and_then(|directory| {
            rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
            let (held, there) = (rustix::fs::fstat(&directory)?, rustix::fs::stat(path)?);
            Ok((held.st_ino == there.st_ino).then_some(directory))
        }) {
            Ok(Some(directory)) => return Ok(directory),
            Ok(None) | Err(Errno::NOENT) => {}
            Err(Errno::AGAIN) => sweep::pause(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::AGAIN.into())
}

fn refused(path: &Path, error: &std::io::Error) -> Availability {
    let remedy = if rustix::process::geteuid().is_root() {
        "Let root of this host make them: in a container, have the control groups mounted writable, for \
         the container's own group to be in sight (docker run --privileged)."
    } else {
        "Run as root, or under control groups version 2 in a scope that is delegated to this user \
         (systemd-run --user --scope -p Delegate=yes barecount run …)."
    };
    Availability::Unavailable {
        reason: format!(
            "A control group cannot be made in {}: {error}.",
            path.display()
        ),
        remedy: remedy.to_owned(),
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Writes a file of a group in one call, as the kernel wants it.
fn write(directory: &OwnedFd, file: &str, value: &str) -> Result<()> {
    let fd = rustix::fs::openat(
        directory,
        file,
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::io::write(fd, value.as_bytes()).map(drop)
}

/// Reads a file of a group, up to a page.
fn read(directory: &OwnedFd, file: &str) -> Result<String> {
    let fd = rustix::fs::openat(
        directory,
        file,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut bytes = [0; 4096];
    let length = rustix::io::read(fd, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Four bytes are there at once, once the kernel has started; without them the process id and
    // the exclusive creation of the directory still keep launchers apart.
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => std::process::id(),
    }
}
