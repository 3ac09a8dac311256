//! What the host has that sandboxes are made of, found once by the launcher.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType};

/// Below `/proc`, hidden: the same as runc and Docker hide.
const MASKED: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
/// Below `/proc`, read-only: the same as runc and Docker make so.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
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
    /// What is bound at the same place.
    pub(super) binds: Vec<SystemBind>,
    pub(super) masked: Vec<(&'static str, FileType)>,
    pub(super) read_only: Vec<&'static str>,
}

/// A path of the host that is bound at the same place inside.
#[derive(Debug)]
pub(super) struct SystemBind {
    /// On the host, absolute.
    pub(super) path: PathBuf,
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
            place,
            parents,
            directory,
        }
    }
}

impl HostSystem {
    pub(crate) fn find() -> Self {
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
        let file_type = |name: &&str| {
            let path = Path::new("/proc").join(name);
            let found = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some(FileType::from_raw_mode(found.st_mode))
        };
        Self {
            links,
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
        }
    }
}
