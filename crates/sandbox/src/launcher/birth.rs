//! Bringing an init into the world: namespaces, identity, what only the launcher can open for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::Pid;

use super::identities::Identities;
use super::{host, readable};
use crate::cgroup::Group;
use crate::error::{Failure, InStep, Step};
use crate::init::{self, HostSystem, Means, Plan, Sources};
use crate::spec::{HostIdentity, Isolation, Mount, Spec, Stdio};
use crate::sys::{self, Forked};

/// Every namespace of a sandbox but that of control groups, which is entered once the process is
/// in its group.
pub(super) const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET) as u64;

/// Who inside is who outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdentityMap {
    pub(super) inside: (u32, u32),
    pub(super) outside: HostIdentity,
    /// Whether supplementary groups can be given up afterwards; without privilege the kernel makes
    /// us forbid it.
    pub(super) may_set_groups: bool,
}

impl IdentityMap {
    /// Writes the maps of a process in a fresh user namespace.
    pub(super) fn write(&self, pid: Pid) -> io::Result<()> {
        let directory = format!("/proc/{}", pid.as_raw_nonzero());
        if !self.may_set_groups {
            std::fs::write(format!("{directory}/setgroups"), "deny")?;
        }
        let (uid, gid) = self.inside;
        std::fs::write(
            format!("{directory}/gid_map"),
            format!("{gid} {} 1", self.outside.gid),
        )?;
        std::fs::write(
            format!("{directory}/uid_map"),
            format!("{uid} {} 1", self.outside.uid),
        )
    }
}

/// What a birth draws on, the same for all.
pub(super) struct Nursery {
    pub(super) host: HostSystem,
    pub(super) filter: Vec<sys::Instruction>,
    /// Who payloads are where the launcher is root; else they are its own user.
    pub(super) identities: Option<Identities>,
    pub(super) landlock: bool,
    pub(super) interception: Means,
}

/// A process that has been told to go.
pub(super) struct Born {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// To the init.
    pub(super) socket: OwnedFd,
}

impl Nursery {
    pub(super) fn identity(&self, spec: &Spec) -> IdentityMap {
        let outside = match &self.identities {
            Some(identities) => spec
                .identity
                .host
                .unwrap_or_else(|| identities.choose(spec)),
            None => host::own_identity(),
        };
        IdentityMap {
            inside: (spec.identity.uid, spec.identity.gid),
            outside,
            may_set_groups: self.identities.is_some(),
        }
    }

    /// Forks the init and lets it go. In the child this does not return.
    pub(super) fn bear(
        &self,
        spec: &Spec,
        stdio: &Stdio,
        group: Option<&Group>,
        by_rlimit: (bool, bool),
    ) -> Result<Born, Failure> {
        let isolated = spec.isolation == Isolation::Sandbox;
        let map = self.identity(spec);
        let sources = self.sources(spec, &map)?;
        let (ours, theirs) = crate::wire::socket_pair().step(Step::CreateNamespaces)?;
        let flags = if isolated { NAMESPACES } else { 0 };
        let birth_place = group.and_then(Group::birth_place);
        match readable::fork(flags, birth_place).step(Step::CreateNamespaces)? {
            Forked::Child => init::run(&Plan {
                spec,
                host: &self.host,
                stdio,
                socket: &theirs,
                sources: sources.as_ref(),
                doors: group.into_iter().flat_map(Group::doors).collect(),
                landlock: self.landlock,
                interception: self.interception,
                filter: &self.filter,
                drop_groups: self.identities.is_some(),
                memory_by_rlimit: by_rlimit.0,
                pids_by_rlimit: by_rlimit.1 && isolated,
            }),
            Forked::Parent { pid, pidfd } => {
                let mapped = if isolated { map.write(pid) } else { Ok(()) };
                let born = Born {
                    pid,
                    pidfd,
                    socket: ours,
                };
                if let Err(error) = mapped {
                    // Its socket closes with `born`, which ends it; it has touched nothing yet.
                    abandon(&born);
                    return Err(Failure::io(Step::MapIdentity, &error));
                }
                let go = crate::wire::InitOrder::Go;
                let told =
                    crate::wire::send(&born.socket, &go, &[], rustix::net::SendFlags::DONTWAIT);
                // An init that died already is found by its handle.
                _ = told;
                Ok(born)
            }
        }
    }

    /// A privileged launcher opens what is bound, since the payload's identity may not pass the
    /// folders above.
    fn sources(&self, spec: &Spec, map: &IdentityMap) -> Result<Option<Sources>, Failure> {
        if self.identities.is_none() || spec.isolation == Isolation::Process {
            return Ok(None);
        }
        for mount in &spec.mounts {
            if let Mount::Bind {
                source,
                read_only: false,
                ..
            } = mount
            {
                give(source, map.outside).step_at(Step::GiveSource, source)?;
            }
        }
        init::open_sources(spec, &self.host, true).map(Some)
    }
}

/// Gives the top entry of a writable source to the payload's host identity.
fn give(source: &Path, to: HostIdentity) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entry = rustix::fs::open(source, flags, Mode::empty())?;
    let now = rustix::fs::fstat(&entry)?;
    if (now.st_uid, now.st_gid) == (to.uid, to.gid) {
        return Ok(());
    }
    let uid = rustix::fs::Uid::from_raw(to.uid);
    let gid = rustix::fs::Gid::from_raw(to.gid);
    rustix::fs::chownat(entry.as_fd(), "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

/// Ends and reaps a child that came to nothing.
fn abandon(born: &Born) {
    _ = rustix::process::pidfd_send_signal(&born.pidfd, rustix::process::Signal::KILL);
    let options = rustix::process::WaitOptions::empty();
    _ = crate::wire::retry(|| rustix::process::waitpid(Some(born.pid), options));
}
