//! What the host has that sandboxes are made of, found once by the launcher.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType};

/// Below `/proc`, hidden: the same as runc and Docker hide, and the locks of the whole host, of which
/// those of open file descriptions are told in every namespace.
const MASKED: [&str; 11] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "locks",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
/// Below `/proc`, read-only: the same as runc and Docker make so.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// What is counted for the user who made a user namespace, as well as for the one in it, with where the
/// namespace's own limit is set. Of what the host gives a user, a sandbox gets [a share](SHARE), so that
/// none takes it all from the others and from that user.
const SHARED: [(&str, &str); 2] = [
    (
        "fs/inotify/max_user_instances",
        "sys/user/max_inotify_instances",
    ),
    (
        "fs/inotify/max_user_watches",
        "sys/user/max_inotify_watches",
    ),
];
/// One part in so many.
pub(super) const SHARE: u64 = 8;
/// The most pseudo-terminals of a sandbox, where an eighth of the machine's is not fewer. They are counted
/// for the whole machine, and few programs open more than one.
const TERMINALS: u64 = 64;
/// Top directories that hold programs and libraries.
const SYSTEM_DIRECTORIES: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Parts of `/etc` that programs need and that say nothing of the host's people.
const SYSTEM_SETTINGS: [&str; 9] = [
    "etc/ld.so.cache",
    "etc/alternatives",
    "etc/ssl/certs",
    "etc/ssl/openssl.cnf",
    "etc/ca-certificates",
    "etc/pki/tls/certs",
    "etc/pki/ca-trust/extracted",
    "etc/mime.types",
    "etc/protocols",
];

/// What the host has, found once by the launcher.
#[derive(Debug)]
pub(crate) struct HostSystem {
    /// Top directories that are links, with where they lead.
    pub(super) links: Vec<(&'static str, PathBuf)>,
    /// The folders that `binds` are in, each of which is laid under one overlay.
    pub(super) layers: Vec<PathBuf>,
    /// What appears at the same place.
    pub(super) binds: Vec<SystemBind>,
    pub(super) masked: Vec<(&'static str, FileType)>,
    pub(super) read_only: Vec<&'static str>,
    /// Settings below `/proc` of a user namespace, with what they are set to in a sandbox.
    pub(super) shares: Vec<(&'static str, u64)>,
    /// How many pseudo-terminals a sandbox may have open at once.
    pub(super) terminals: u64,
}

/// A path of the host that appears at the same place inside.
#[derive(Debug)]
pub(super) struct SystemBind {
    /// On the host, absolute.
    pub(super) path: PathBuf,
    /// Which of the layers it is in, and where there; `None` if it is bound itself, since file
    /// systems are mounted below it.
    pub(super) layer: Option<(usize, PathBuf)>,
    /// The same, relative to the root.
    pub(super) place: PathBuf,
    /// The directories above the place, the top one first.
    pub(super) parents: Vec<PathBuf>,
    pub(super) directory: bool,
}

impl SystemBind {
    fn new(place: &str, directory: bool) -> Self {
        let place = PathBuf::from(place);
        let above = place
            .ancestors()
            .skip(1)
            .filter(|path| !path.as_os_str().is_empty());
        let mut parents: Vec<PathBuf> = above.map(Path::to_owned).collect();
        parents.reverse();
        Self {
            path: Path::new("/").join(&place),
            layer: None,
            place,
            parents,
            directory,
        }
    }
}

impl HostSystem {
    /// `locked` is whether mounts are locked to each other in the namespace in which sources are
    /// opened: who did not mount them cannot lay a folder bare that has mounts in it.
    pub(crate) fn find(locked: bool) -> Self {
        let mut links = Vec::new();
        let mut binds = Vec::new();
        for name in SYSTEM_DIRECTORIES {
            let path = Path::new("/").join(name);
            match std::fs::symlink_metadata(&path) {
                Ok(found) if found.is_symlink() => {
                    links.extend(std::fs::read_link(&path).map(|target| (name, target)));
                }
                Ok(found) if found.is_dir() => binds.push(SystemBind::new(name, true)),
                _ => {}
            }
        }
        for name in SYSTEM_SETTINGS {
            match std::fs::symlink_metadata(Path::new("/").join(name)) {
                Ok(found) if found.is_dir() || found.is_file() => {
                    binds.push(SystemBind::new(name, found.is_dir()));
                }
                _ => {}
            }
        }
        let layers = lay(&mut binds, &mount_points(), locked);
        let file_type = |name: &&str| {
            let path = Path::new("/proc").join(name);
            let found = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some(FileType::from_raw_mode(found.st_mode))
        };
        Self {
            links,
            layers,
            binds,
            masked: MASKED
                .iter()
                .filter_map(|name| Some((*name, file_type(name)?)))
                .collect(),
            read_only: READ_ONLY
                .iter()
                .filter(|name| file_type(name).is_some())
                .copied()
                .collect(),
            shares: SHARED
                .iter()
                .filter_map(|(whole, place)| Some((*place, share(setting(whole)?))))
                .collect(),
            terminals: terminals(),
        }
    }
}

/// A setting of the host; `None` where the kernel does not have it.
fn setting(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    text.trim().parse().ok()
}

/// A sandbox's part of what there is for all.
fn share(whole: u64) -> u64 {
    (whole / SHARE).max(1)
}

/// A sandbox's part of the pseudo-terminals that other file systems of them than the host's first
/// have together (`Documentation/filesystems/devpts.rst`).
fn terminals() -> u64 {
    let max = setting("kernel/pty/max");
    let others = max.map(|max| max.saturating_sub(setting("kernel/pty/reserve").unwrap_or(0)));
    others.map_or(TERMINALS, |others| share(others).min(TERMINALS))
}

/// Finds the folder that each is laid from, the top one if that can be, and returns all of them.
fn lay(binds: &mut [SystemBind], mounted: &[PathBuf], locked: bool) -> Vec<PathBuf> {
    let mut layers: Vec<PathBuf> = Vec::new();
    for bind in binds {
        let top = bind.parents.first().unwrap_or(&bind.place);
        let top = Path::new("/").join(top);
        let own = bind.directory.then(|| bind.path.clone());
        let bare = |layer: &PathBuf| {
            let mut below = mounted
                .iter()
                .filter(|at| at.starts_with(layer) && *at != layer);
            !below.any(|at| locked || at.starts_with(&bind.path) || bind.path.starts_with(at))
        };
        let Some(layer) = [Some(top), own].into_iter().flatten().find(bare) else {
            continue;
        };
        let within = bind.path.strip_prefix(&layer).unwrap_or(Path::new(""));
        let index = layers.iter().position(|known| *known == layer);
        let index = index.unwrap_or_else(|| {
            layers.push(layer.clone());
            layers.len() - 1
        });
        bind.layer = Some((index, within.to_owned()));
    }
    layers
}

/// Where file systems are mounted (proc_pid_mountinfo(5)). Blanks in names are left as they are
/// written there: no system directory has one.
fn mount_points() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(mounted: &[&str], locked: bool) -> Vec<(&'static str, Option<PathBuf>)> {
        let mut binds = [
            SystemBind::new("usr", true),
            SystemBind::new("etc/ld.so.cache", false),
            SystemBind::new("etc/ssl/certs", true),
        ];
        let mounted: Vec<PathBuf> = mounted.iter().map(PathBuf::from).collect();
        let layers = lay(&mut binds, &mounted, locked);
        let names = ["usr", "ld.so.cache", "certs"];
        let layer = |bind: SystemBind| {
            let (index, within) = bind.layer?;
            assert_eq!(layers[index].join(within), bind.path);
            Some(layers[index].clone())
        };
        names.into_iter().zip(binds.map(layer)).collect()
    }

    #[test]
    fn what_has_no_mounts_in_it_is_laid_from_the_top() {
        let (usr, etc) = (Some("/usr".into()), Some(PathBuf::from("/etc")));
        let whole = [("usr", usr), ("ld.so.cache", etc.clone()), ("certs", etc)];
        for locked in [false, true] {
            assert_eq!(laid(&["/", "/proc", "/usr"], locked), whole);
        }
        // As a container's engine mounts it, which its root may look under.
        assert_eq!(laid(&["/", "/etc/hosts"], false), whole);
    }

    #[test]
    fn what_others_mounted_is_not_looked_under() {
        let (usr, certs) = (Some("/usr".into()), Some("/etc/ssl/certs".into()));
        let parts = [("usr", usr), ("ld.so.cache", None), ("certs", certs)];
        assert_eq!(laid(&["/", "/etc/hosts"], true), parts);
    }

    #[test]
    fn what_is_mounted_below_stays_in_sight() {
        let found = laid(&["/", "/usr/local", "/etc/ssl/certs"], false);
        assert_eq!(found[0], ("usr", None));
        assert_eq!(found[1], ("ld.so.cache", Some("/etc".into())));
        assert_eq!(found[2], ("certs", Some("/etc/ssl/certs".into())));
    }
}
