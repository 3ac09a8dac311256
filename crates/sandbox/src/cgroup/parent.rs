//! Choosing the version 2 group that ours are made in.
//!
//! The kernel lets a group give controllers to groups below only while it holds no process itself
//! (the root alone may do both), and systemd expects of whoever runs in a unit to leave the unit's
//! group alone unless it was delegated. So the places are, in this order:
//!
//! 1. the root of all groups, where we are in that;
//! 2. the agent's own group, if it is ours to divide: no unit of systemd, or one that was delegated,
//!    and with nobody in it but us, who move to a leaf of it for as long as launchers are there;
//! 3. the nearest group above that belongs to us, holds no process and is no unit that could: a
//!    slice, or what a host without systemd has. What it limits holds for ours too; the limits of
//!    the groups that are left on the way are taken along.
//!
//! Decision 36 says why.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::discover::{Place, name, v2_name};
use super::tree::Tree;
use crate::report::{Availability, Controller, Placement};

/// Where the agent and the launcher are while their own group is divided.
const LEAF: &str = "barecount-agent";
/// Where systemd puts control processes (`ExecReload=`) of a unit whose group is delegated.
const SYSTEMD_CONTROL: &str = ".control";
/// Units of systemd that hold processes.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
const SLICE: &str = ".slice";
/// Begins the unit of systemd that manages the units of a user.
const USER_MANAGER: &str = "user@";

/// Who looks for a place.
#[derive(Clone, Copy)]
pub(super) struct Seeker<'a> {
    /// The agent and the launcher.
    pub(super) processes: &'a [i32],
    /// Their user.
    pub(super) uid: u32,
}

/// A place for the groups of a launcher.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) directory: PathBuf,
    /// Which controllers it can give.
    pub(super) controllers: Vec<Controller>,
    pub(super) placement: Placement,
    /// Files and values by which the limits of the groups that were left are taken along.
    pub(super) limits: Vec<(&'static str, String)>,
    /// Whether agent and launcher were moved into a leaf of it.
    pub(super) divided: bool,
}

/// The group that an agent in `group` is of: the one above, where it is in the leaf that another
/// agent, which started it, has moved to.
pub(super) fn whole(group: PathBuf) -> PathBuf {
    match group.parent() {
        Some(above) if group.ends_with(LEAF) => above.to_owned(),
        _ => group,
    }
}

/// Chooses, and has the controllers given to whatever is made there.
pub(super) fn choose(
    tree: &dyn Tree,
    place: &Place,
    seeker: Seeker<'_>,
) -> Result<Parent, Availability> {
    let own = place.own.as_path();
    let unit = unit_of(own, &place.mount);
    let refusal = match try_own(tree, place, unit, seeker) {
        Ok(parent) => return Ok(parent),
        Err(refusal) => refusal,
    };
    // A unit's group is not for us, nor is anything in it.
    let left = unit.unwrap_or(own);
    let above = left
        .ancestors()
        .skip(1)
        .take_while(|group| group.starts_with(&place.mount))
        .find(|group| takes_ours(tree, group, seeker.uid));
    let Some(above) = above else {
        return Err(refusal.explain(place, unit, seeker.uid));
    };
    give_from_above(tree, place, above);
    let between: Vec<&Path> = own
        .ancestors()
        .take_while(|group| *group != above)
        .collect();
    Ok(Parent {
        directory: above.to_owned(),
        controllers: given(tree, place, above),
        placement: Placement::Above {
            group: shown(above, &place.mount),
            left: shown(own, &place.mount),
        },
        limits: limits_of(tree, &between),
        divided: false,
    })
}

/// Has a launcher's directory in the chosen group give the controllers to its sandboxes, and puts it
/// under the limits that come along. Answers with the controllers that it gives.
pub(super) fn divide(
    tree: &dyn Tree,
    parent: &Parent,
    place: &Place,
    directory: &Path,
) -> Result<Vec<Controller>, Availability> {
    give(tree, &parent.directory, &parent.controllers);
    let gives = |controller: &Controller| {
        let word = format!("+{}", v2_name(*controller));
        let written = tree.write(directory, "cgroup.subtree_control", &word);
        written.is_ok()
    };
    let all = parent.controllers.iter().copied();
    let controllers: Vec<Controller> = all.filter(gives).collect();
    if !is_domain(tree, directory) {
        return Err(Refusal::Threaded.explain(place, None, 0));
    }
    for (file, value) in &parent.limits {
        match tree.write(directory, file, value) {
            // Without its controller nothing of it is given to anybody here.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Refusal::Refused(error).explain(place, None, 0)),
            Ok(()) => {}
        }
    }
    Ok(controllers)
}

/// Undoes what dividing a group changed, once nobody else lives in it: whoever put the agent there
/// can put the next process there too. The directory of this launcher is gone already.
pub(super) fn give_back(tree: &dyn Tree, group: &Path) -> std::io::Result<()> {
    for child in tree.children(group)? {
        if child == LEAF || child == SYSTEMD_CONTROL {
            continue;
        }
        // What is not a launcher's is another's, who needs the controllers.
        if !is_launchers(&child) || tree.is_alive(&group.join(&child)) {
            return Ok(());
        }
    }
    // The kernel refuses what is still needed further down; processes do not come back then.
    let enabled = tree.read(group, "cgroup.subtree_control")?;
    for word in enabled.split_ascii_whitespace() {
        tree.write(group, "cgroup.subtree_control", &format!("-{word}"))?;
    }
    let leaf = group.join(LEAF);
    for process in tree.read(&leaf, "cgroup.procs")?.lines() {
        match tree.write(group, "cgroup.procs", process) {
            // It has ended.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            moved => moved?,
        }
    }
    tree.remove(&leaf)
}

/// Every group that [`choose`] could have taken for a launcher that the same user had started
/// elsewhere on this host: what it left when it was killed is there.
pub(super) fn elsewhere(tree: &dyn Tree, mount: &Path, uid: u32) -> Vec<PathBuf> {
    let mut found = vec![mount.to_owned()];
    let mut next = 0;
    while let Some(group) = found.get(next).cloned() {
        next += 1;
        // What cannot be read holds nothing of ours.
        for child in tree.children(&group).unwrap_or_default() {
            let is_manager =
                child.starts_with(USER_MANAGER) && has_ending(Path::new(&child), &UNITS);
            if is_manager || child.ends_with(SLICE) {
                found.push(group.join(child));
            }
        }
    }
    found.retain(|group| tree.owner(group).ok() == Some(uid));
    found
}

/// Why the own group is not the place.
enum Refusal {
    /// It is a unit's, and was not delegated.
    NotDelegated,
    /// Others are in it.
    Others,
    /// It is another user's.
    NotOurs,
    /// It belongs to a threaded tree.
    Threaded,
    /// The kernel refused.
    Refused(std::io::Error),
}

fn try_own(
    tree: &dyn Tree,
    place: &Place,
    unit: Option<&Path>,
    seeker: Seeker<'_>,
) -> Result<Parent, Refusal> {
    let own = place.own.as_path();
    let parent = |divided| Parent {
        directory: own.to_owned(),
        controllers: given(tree, place, own),
        placement: Placement::Own {
            group: shown(own, &place.mount),
        },
        limits: Vec::new(),
        divided,
    };
    if is_true_root(tree, own) {
        if tree.owner(own).map_err(Refusal::Refused)? != seeker.uid {
            return Err(Refusal::NotOurs);
        }
        return Ok(parent(false));
    }
    if unit.is_some_and(|unit| !tree.is_delegated(unit)) {
        return Err(Refusal::NotDelegated);
    }
    if has_ending(own, &[SLICE]) {
        return Err(Refusal::NotDelegated);
    }
    if tree.owner(own).map_err(Refusal::Refused)? != seeker.uid {
        return Err(Refusal::NotOurs);
    }
    if !is_domain(tree, own) {
        return Err(Refusal::Threaded);
    }
    let members = tree.read(own, "cgroup.procs").map_err(Refusal::Refused)?;
    let is_us = |line: &str| {
        line.parse()
            .is_ok_and(|process: i32| seeker.processes.contains(&process))
    };
    if !members.lines().all(is_us) {
        return Err(Refusal::Others);
    }
    move_to_leaf(tree, own, seeker.processes).map_err(Refusal::Refused)?;
    if unit.is_none() {
        // Nobody else gives controllers here.
        give_from_above(tree, place, own);
    }
    Ok(parent(true))
}

/// Ours all go to the leaf or none does.
fn move_to_leaf(tree: &dyn Tree, own: &Path, processes: &[i32]) -> std::io::Result<()> {
    let leaf = own.join(LEAF);
    tree.make(&leaf)?;
    let moved = processes
        .iter()
        .try_for_each(|process| tree.write(&leaf, "cgroup.procs", &process.to_string()));
    if moved.is_err() {
        for process in processes {
            // What did not come here has not left.
            drop(tree.write(own, "cgroup.procs", &process.to_string()));
        }
        // Another launcher's agent may be in it.
        drop(tree.remove(&leaf));
    }
    moved
}

/// Whether a group above the own one is a place for ours.
fn takes_ours(tree: &dyn Tree, group: &Path, uid: u32) -> bool {
    if tree.owner(group).ok() != Some(uid) {
        return false;
    }
    if is_true_root(tree, group) {
        return true;
    }
    let empty = tree
        .read(group, "cgroup.procs")
        .is_ok_and(|members| members.trim().is_empty());
    empty && !has_ending(group, &UNITS) && is_domain(tree, group)
}

/// Has every group from the mount down to this one give the controllers that it has. Not those that
/// hold processes: the kernel would refuse some, and make the group threaded by others.
fn give_from_above(tree: &dyn Tree, place: &Place, group: &Path) {
    let mut path: Vec<&Path> = group
        .ancestors()
        .take_while(|above| above.starts_with(&place.mount))
        .collect();
    path.reverse();
    for above in path {
        if is_true_root(tree, above) || is_empty(tree, above) {
            give(tree, above, &place.controllers);
        }
    }
}

/// Has a group give controllers to those in it. What it does not have, or may not give, shows in
/// those.
fn give(tree: &dyn Tree, group: &Path, controllers: &[Controller]) {
    for controller in controllers {
        let word = format!("+{}", v2_name(*controller));
        drop(tree.write(group, "cgroup.subtree_control", &word));
    }
}

/// The controllers that a group can give.
fn given(tree: &dyn Tree, place: &Place, group: &Path) -> Vec<Controller> {
    // Nothing can be said of a group that cannot be read; it gives nothing.
    let text = tree.read(group, "cgroup.controllers").unwrap_or_default();
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let all = place.controllers.iter().copied();
    all.filter(|controller| words.contains(&v2_name(*controller)))
        .collect()
}

/// The root of all groups alone has no type. That of a namespace has.
pub(super) fn is_true_root(tree: &dyn Tree, group: &Path) -> bool {
    let kind = tree.read(group, "cgroup.type");
    kind.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn is_domain(tree: &dyn Tree, group: &Path) -> bool {
    tree.read(group, "cgroup.type")
        .is_ok_and(|kind| kind.trim() == "domain")
}

fn is_empty(tree: &dyn Tree, group: &Path) -> bool {
    tree.read(group, "cgroup.procs")
        .is_ok_and(|members| members.trim().is_empty())
}

/// The unit of systemd that a group belongs to.
fn unit_of<'a>(group: &'a Path, mount: &Path) -> Option<&'a Path> {
    group
        .ancestors()
        .take_while(|above| above.starts_with(mount) && *above != mount)
        .find(|above| has_ending(above, &UNITS))
}

fn has_ending(group: &Path, endings: &[&str]) -> bool {
    let name = group.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| endings.iter().any(|ending| name.ends_with(ending)))
}

/// Whether a name is that of a launcher's directory, whatever its prefix.
fn is_launchers(name: &str) -> bool {
    let id = name.rsplit_once('.').map(|(_, id)| id);
    id.is_some_and(|id| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A group as `/proc/self/cgroup` would name it.
fn shown(group: &Path, mount: &Path) -> String {
    let inside = group.strip_prefix(mount).unwrap_or(group);
    format!("/{}", inside.display())
}

/// The tightest limits of some groups, the innermost first.
fn limits_of(tree: &dyn Tree, groups: &[&Path]) -> Vec<(&'static str, String)> {
    let values = |file: &str| -> Vec<String> {
        let all = groups
            .iter()
            .filter_map(|group| tree.read(group, file).ok());
        all.map(|value| value.trim().to_owned()).collect()
    };
    let mut limits = Vec::new();
    for file in ["memory.max", "memory.swap.max", "pids.max"] {
        let numbers = values(file);
        let tightest = numbers.iter().filter_map(|text| text.parse::<u64>().ok());
        limits.extend(tightest.min().map(|least| (file, least.to_string())));
    }
    let quotas = values("cpu.max");
    let tightest = quotas
        .iter()
        .filter_map(|text| Some((share(text)?, text)))
        .min_by(|(one, _), (other, _)| one.total_cmp(other));
    limits.extend(tightest.map(|(_, text)| ("cpu.max", text.clone())));
    let cores = values("cpuset.cpus");
    let innermost = cores.into_iter().find(|cores| !cores.is_empty());
    limits.extend(innermost.map(|cores| ("cpuset.cpus", cores)));
    limits
}

/// How many processors a `cpu.max` allows.
fn share(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

impl Refusal {
    /// Says it, when no other place was found either.
    fn explain(self, place: &Place, unit: Option<&Path>, uid: u32) -> Availability {
        let own = shown(&place.own, &place.mount);
        let reason = match &self {
            Self::NotDelegated => {
                format!("The agent's control group {own} is not delegated to it.")
            }
            Self::Others => format!(
                "The control group {own} holds other processes than the agent's, and the kernel \
                 lets no such group limit groups in it."
            ),
            Self::NotOurs => format!("The control group {own} does not belong to this user."),
            Self::Threaded => format!("The control group {own} is threaded, and limits no group."),
            Self::Refused(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                "The control groups are mounted read-only here.".to_owned()
            }
            Self::Refused(error) => {
                format!("A control group cannot be made in {own}: {error}.")
            }
        };
        let remedy = match (self, unit.and_then(Path::file_name)) {
            (Self::Refused(error), _) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                "In a container, have them mounted writable (docker run --privileged), or run the \
                 agent on the host."
                    .to_owned()
            }
            (Self::NotDelegated | Self::NotOurs, Some(name))
                if has_ending(Path::new(name), &[".service"]) =>
            {
                let unit = name.to_string_lossy();
                format!(
                    "Write Delegate=yes, and the agent's user as User=, under [Service] in {unit}, \
                     and restart it."
                )
            }
            (_, Some(_)) => scope(uid).to_owned(),
            (Self::Others | Self::Threaded, None) if place.own == place.mount => {
                "Have the container run the agent as its first process, with no shell or other \
                 process beside it, or start the agent in a control group of its own."
                    .to_owned()
            }
            (_, None) => {
                "Start the agent in a control group of its own that belongs to its user.".to_owned()
            }
        };
        Availability::Unavailable { reason, remedy }
    }
}

/// How to have a group of one's own from systemd.
fn scope(uid: u32) -> &'static str {
    if uid == 0 {
        "Start it in a scope of its own: systemd-run --scope -p Delegate=yes barecount run …"
    } else {
        "Start it in a scope of its own: systemd-run --user --scope -p Delegate=yes barecount run …"
    }
}

/// Why a controller cannot be used though there is a place for groups.
pub(super) fn not_given(controller: Controller, place: &Place, parent: &Path) -> Availability {
    let (group, name) = (shown(parent, &place.mount), name(controller));
    let by_user_manager = group.contains(&format!("/{USER_MANAGER}"));
    Availability::Unavailable {
        reason: format!("The control group {group} is not given the {name} controller."),
        remedy: if by_user_manager {
            "Have it delegated to users: as root, run systemctl edit user@.service, write \
             Delegate=cpu cpuset io memory pids under [Service], and log in anew."
                .to_owned()
        } else {
            format!(
                "Have the groups above it give the controller: Delegate=yes in the agent's unit, \
                 or {} in their cgroup.subtree_control.",
                v2_name(controller)
            )
        },
    }
}

#[cfg(test)]
mod kernel;
#[cfg(test)]
mod tests;
