//! Finding out, by trying, what this host can enforce.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::Pid;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::LauncherConfig;
use super::birth::{IdentityMap, NAMESPACES};
use super::identities::{Identities, Mapped};
use super::readable;
use crate::cgroup::Cgroups;
use crate::error::{Failure, InStep, Step};
use crate::init::{self, Lacking};
use crate::refused;
use crate::report::{Availability, HostReport};
use crate::spec::HostIdentity;
use crate::sys::{self, Forked};

/// Exit codes of the child that tries.
const FINE: i32 = 0;
const NO_POWER: i32 = 10;

/// Who payloads are, where this process may do for a sandbox what root does: mount, give files away,
/// and make each another user. Else what it lacks for that.
pub(super) fn identities(config: &LauncherConfig) -> Result<Identities, Availability> {
    const BY_OWN: &str = "Sandboxes are all the agent's own user on the host";
    let needed = CapabilitySet::SYS_ADMIN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE;
    if !rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed)) {
        return Err(unavailable(
            &format!("{BY_OWN}, who is not root or lacks its capabilities."),
            "Run the agent as root with CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_CHOWN and \
             CAP_DAC_OVERRIDE.",
        ));
    }
    let mapped = Mapped::here();
    let may_set_groups = std::fs::read_to_string("/proc/self/setgroups")
        .is_ok_and(|setting| setting.trim() == "allow");
    let lack = match Identities::new(config, &mapped) {
        Some(identities) if may_set_groups && may_mount() => return Ok(identities),
        Some(_) if may_set_groups => "whose mounts belong to another user namespace".to_owned(),
        Some(_) => "which may not set groups".to_owned(),
        None => format!("which has {} ids, too few to give them any", mapped.count()),
    };
    Err(unavailable(
        &format!("{BY_OWN}: the agent is root of a user namespace {lack}."),
        "Give the namespace 65536 ids and mounts of its own: ranges of subordinate ids in \
         /etc/subuid and /etc/subgid for a rootless container or unshare --map-auto --mount.",
    ))
}

/// This process, as it is known in its user namespace.
pub(super) fn own_identity() -> HostIdentity {
    HostIdentity {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    }
}

/// Whether this process has a say in the mounts that it sees: they may belong to another user
/// namespace than the one that its capabilities are for.
fn may_mount() -> bool {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    !matches!(
        rustix::mount::open_tree(CWD, "/", flags),
        Err(rustix::io::Errno::PERM)
    )
}

/// Release of the kernel.
pub(super) fn kernel() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

pub(super) fn report(
    cgroups: &Cgroups,
    users: Availability,
    map: &IdentityMap,
    filter: &[sys::Instruction],
    config: &LauncherConfig,
) -> HostReport {
    let abi = sys::landlock_abi();
    let (user_namespaces, lacking) = try_namespaces(map);
    let (mut redirection, mut packet_log) = interception(lacking);
    if !config.use_nf_tables {
        redirection = switched_off("nf_tables");
    }
    if !config.use_nf_tables || !config.use_packet_log {
        packet_log = switched_off("the packet log");
    }
    HostReport {
        kernel: kernel(),
        root: users.is_available(),
        users,
        user_namespaces,
        cgroup_layout: cgroups.layout,
        controllers: cgroups.availability.clone(),
        placement: cgroups.placement.clone(),
        landlock_abi: (abi > 0).then_some(abi),
        seccomp: try_seccomp(filter),
        redirection,
        packet_log,
        container: container(),
    }
}

/// What says that we are in a container, if anything does.
fn container() -> Option<String> {
    [
        "/.dockerenv",
        "/run/.containerenv",
        "/run/systemd/container",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
    .map(|path| format!("{path} exists"))
}

/// What the child that tries has found.
#[derive(Serialize, Deserialize)]
struct Tried {
    lacking: Lacking,
    /// What it was refused.
    failure: Option<Failure>,
}

/// Makes the namespaces of a sandbox, takes up an identity, uses a capability, mounts `/proc`, and
/// finds out how a network could be intercepted there.
fn try_namespaces(map: &IdentityMap) -> (Availability, Option<Lacking>) {
    let Ok((ours, theirs)) = crate::wire::socket_pair() else {
        let no_socket = unavailable(
            "No socket could be opened.",
            "Raise the limit of open files.",
        );
        return (no_socket, None);
    };
    let pid = match readable::fork(NAMESPACES, None) {
        Ok(Forked::Child) => {
            drop(ours);
            sys::exit_now(try_inside(&theirs))
        }
        Ok(Forked::Parent { pid, .. }) => pid,
        Err(errno) => return (no_namespaces(errno), None),
    };
    drop(theirs);
    let mapped = map.write(pid);
    _ = rustix::io::write(&ours, b"g");
    wait(pid);
    if let Err(error) = mapped {
        return (not_mapped(map, &error), None);
    }
    let told = crate::wire::receive::<Tried>(&ours, RecvFlags::DONTWAIT);
    let Some((tried, _)) = told.ok().flatten() else {
        return (no_power(), None);
    };
    let availability = tried
        .failure
        .as_ref()
        .map_or(Availability::Available, not_inside);
    (availability, Some(tried.lacking))
}

/// Why the ids of a sandbox could not be mapped.
fn not_mapped(map: &IdentityMap, error: &std::io::Error) -> Availability {
    let HostIdentity { uid, gid } = map.outside;
    let own = std::fs::read_link("/proc/self").ok();
    if own.is_none_or(|own| own.as_os_str() != std::process::id().to_string().as_str()) {
        return unavailable(
            "The /proc that is mounted here is that of another process namespace, so that no ids \
             can be mapped into a user namespace.",
            "Mount it anew (as root: mount -t proc proc /proc; unshare has --mount-proc).",
        );
    }
    let is_root = rustix::process::geteuid().is_root();
    unavailable(
        &format!(
            "The ids {uid} (user) and {gid} (group) cannot be mapped into a user namespace: {error}."
        ),
        if is_root {
            "Run the agent as an ordinary user, or as root with CAP_SETUID, CAP_SETGID and \
             CAP_SETFCAP in a user namespace that has these ids."
        } else {
            "Run the agent as a user who has these ids in /proc/self/uid_map and /proc/self/gid_map."
        },
    )
}

fn switched_off(what: &str) -> Availability {
    unavailable(
        &format!("The launcher is set up not to use {what}."),
        "Set it up to use what the kernel has.",
    )
}

/// What the trial inside has found; without one nothing is known to work.
fn interception(lacking: Option<Lacking>) -> (Availability, Availability) {
    let Some(lacking) = lacking else {
        let untried = unavailable(
            "It could not be tried without user namespaces.",
            "See what is said of those.",
        );
        return (untried.clone(), untried);
    };
    let availability = |errno: Option<i32>, what: &str, option: &str| match errno {
        None => Availability::Available,
        Some(errno) => unavailable(
            &format!(
                "The kernel refuses to {what}: {}.",
                std::io::Error::from_raw_os_error(errno)
            ),
            &format!("Load the modules of {option}, or use a kernel that has them."),
        ),
    };
    (
        availability(
            lacking.redirect,
            "redirect connections",
            "nf_tables (nf_tables, nft_ct, nft_nat, nft_redir, nft_reject)",
        ),
        availability(
            lacking.log,
            "log packets",
            "the packet log (nft_log, nfnetlink_log)",
        ),
    )
}

fn try_inside(socket: &OwnedFd) -> i32 {
    let mut go = [0];
    if rustix::io::read(socket, &mut go) != Ok(1) {
        return NO_POWER;
    }
    let tried = Tried {
        failure: try_steps().err(),
        lacking: init::probe_interception(),
    };
    _ = crate::wire::send(socket, &tried, &[], SendFlags::DONTWAIT);
    FINE
}

/// What takes a right each.
fn try_steps() -> Result<(), Failure> {
    rustix::system::sethostname(b"probe").step(Step::HostName)?;
    let flags = FsOpenFlags::FSOPEN_CLOEXEC;
    let context = rustix::mount::fsopen("proc", flags).step(Step::MakeRoot)?;
    rustix::mount::fsconfig_create(context.as_fd()).step(Step::MakeRoot)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    rustix::mount::fsmount(context.as_fd(), flags, MountAttrFlags::empty())
        .step(Step::MountProc)?;
    init::leave_last_namespaces().step(Step::CreateNamespaces)
}

/// Why a user namespace is of no use.
fn not_inside(failure: &Failure) -> Availability {
    let errno = rustix::io::Errno::from_raw_os_error(failure.errno);
    match (failure.step, errno) {
        (Step::CreateNamespaces, rustix::io::Errno::NOSPC) => limit_reached(&["cgroup", "time"]),
        (Step::HostName, rustix::io::Errno::PERM) if is_restricted() => no_power(),
        // A filter would have refused what comes before it.
        (Step::MountProc, rustix::io::Errno::PERM) => unavailable(
            "A private /proc cannot be mounted, as parts of this host's own are covered.",
            "In a container, run it with unmasked /proc (docker run --security-opt \
             systempaths=unconfined, podman run --security-opt unmask=ALL).",
        ),
        (step, errno) => refuses(step, errno),
    }
}

/// Whether AppArmor takes all rights from user namespaces of ordinary users; it is what is left to be
/// thought of where no filter is, too.
fn is_restricted() -> bool {
    let restricts = setting("kernel/apparmor_restrict_unprivileged_userns");
    restricts.as_deref() == Some("1") || !refused::is_filtered()
}

/// A step is refused for a reason that its number tells.
fn refuses(step: Step, errno: rustix::io::Errno) -> Availability {
    let remedy = refused::remedy(errno.raw_os_error());
    unavailable(
        &format!(
            "The kernel refuses to {step}: {}.",
            std::io::Error::from(errno)
        ),
        &remedy.unwrap_or_else(|| "Use a kernel with all kinds of namespaces.".to_owned()),
    )
}

fn wait(pid: Pid) -> Option<i32> {
    let options = rustix::process::WaitOptions::empty();
    let waited = crate::wire::retry(|| rustix::process::waitpid(Some(pid), options));
    waited
        .ok()
        .flatten()
        .and_then(|(_, status)| status.exit_status())
}

fn no_power() -> Availability {
    unavailable(
        "A user namespace can be made but gives no rights inside: AppArmor restricts them.",
        "Run sysctl kernel.apparmor_restrict_unprivileged_userns=0 as root, or give the agent's \
         program an AppArmor profile that allows userns.",
    )
}

fn no_namespaces(errno: rustix::io::Errno) -> Availability {
    if setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return unavailable(
            "kernel.unprivileged_userns_clone is 0.",
            "Run sysctl kernel.unprivileged_userns_clone=1 as root.",
        );
    }
    match errno {
        // Before Linux 4.9 the number of the nesting was another.
        rustix::io::Errno::NOSPC | rustix::io::Errno::USERS => limit_reached(&refused_kinds()),
        rustix::io::Errno::PERM if !Mapped::here().have(own_identity()) => unavailable(
            "The agent's user and group have no ids in the user namespace that it is in.",
            "Run the agent as a user who has them in /proc/self/uid_map and /proc/self/gid_map.",
        ),
        errno => refuses(Step::CreateNamespaces, errno),
    }
}

/// Namespaces that are made with a process, as their limits are called.
const KINDS: [(i32, &str); 6] = [
    (0, "user"),
    (libc::CLONE_NEWNS, "mnt"),
    (libc::CLONE_NEWPID, "pid"),
    (libc::CLONE_NEWIPC, "ipc"),
    (libc::CLONE_NEWUTS, "uts"),
    (libc::CLONE_NEWNET, "net"),
];

/// Which of them cannot be made, found by making each in a user namespace.
fn refused_kinds() -> Vec<&'static str> {
    let refused = |flag: i32| match readable::fork((libc::CLONE_NEWUSER | flag) as u64, None) {
        Ok(Forked::Child) => sys::exit_now(FINE),
        Ok(Forked::Parent { pid, .. }) => {
            wait(pid);
            false
        }
        Err(_) => true,
    };
    if refused(0) {
        return vec!["user"];
    }
    let kinds: Vec<_> = KINDS.iter().filter(|(flag, _)| refused(*flag)).collect();
    // Where each can be made, it was all together that were too many.
    let kinds = if kinds.is_empty() {
        KINDS.iter().collect()
    } else {
        kinds
    };
    kinds.into_iter().map(|(_, kind)| *kind).collect()
}

/// The number of namespaces of these kinds is limited here or in a user namespace above
/// (namespaces(7)), or of user namespaces the depth.
fn limit_reached(kinds: &[&str]) -> Availability {
    let name = |kind: &&str| format!("user.max_{kind}_namespaces");
    let zero = kinds
        .iter()
        .find(|kind| setting(&name(kind).replace('.', "/")).as_deref() == Some("0"));
    match (zero, kinds) {
        (Some(kind), _) => unavailable(
            &format!("{} is 0.", name(kind)),
            &format!("Run sysctl {}=10000 as root.", name(kind)),
        ),
        (None, ["user"]) => unavailable(
            "As many user namespaces are there as user.max_user_namespaces allows, here or in a user \
             namespace above, or this one is as deep as they may be nested: 32.",
            "Raise user.max_user_namespaces as root, or start the agent less deep.",
        ),
        (None, _) => {
            let names: Vec<String> = kinds.iter().map(name).collect();
            unavailable(
                &format!(
                    "As many namespaces are there as {} allows, here or in a user namespace above.",
                    names.join(" or ")
                ),
                "Raise it as root.",
            )
        }
    }
}

/// A setting of the kernel; `None` where it has none of that name.
fn setting(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(name));
    text.ok().map(|text| text.trim().to_owned())
}

/// Installs the filter in a child.
fn try_seccomp(filter: &[sys::Instruction]) -> Availability {
    let code = match readable::fork(0, None) {
        Ok(Forked::Child) => {
            let installed =
                rustix::thread::set_no_new_privs(true).and_then(|()| sys::install_seccomp(filter));
            sys::exit_now(if installed.is_ok() { FINE } else { NO_POWER })
        }
        Ok(Forked::Parent { pid, .. }) => wait(pid),
        Err(_) => None,
    };
    if code == Some(FINE) {
        return Availability::Available;
    }
    unavailable(
        "The kernel takes no system call filter.",
        "Use a kernel with CONFIG_SECCOMP_FILTER.",
    )
}

fn unavailable(reason: &str, remedy: &str) -> Availability {
    Availability::Unavailable {
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}
