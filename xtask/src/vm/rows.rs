//! The table: each way in which people start a run on a host, and what that run is held to there.

/// What a machine is booted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum World {
    /// Debian's systemd, with a login and a manager for each user.
    Systemd,
    /// No systemd: the first process starts everything, in the root of all control groups.
    Plain,
    /// As that, with a kernel that leaves Landlock out, and no module loaded before the first row.
    Bare,
}

/// How far a limit holds by evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// For all processes together.
    Enforced,
    /// For each process, or as far as a user's processes are counted.
    Degraded,
    /// Not.
    Absent,
}

/// Where control groups are by evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the agent's own group.
    Own,
    /// In this group above.
    Above(&'static str),
    /// Nowhere.
    None,
}

/// What is found of a run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// It ran, so many times, held to limits of memory, processor time and processes.
    Held {
        memory: Held,
        cpu: Held,
        pids: Held,
        place: Place,
        /// What the line says that a person sees when the run begins; none where nothing is lacking.
        hint: Option<&'static str>,
        attempts: usize,
    },
    /// It was refused, with these words and this remedy.
    Refused {
        reason: &'static str,
        remedy: &'static str,
    },
}

/// One host and way.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// As people would say it.
    pub(super) title: &'static str,
    pub(super) world: World,
    /// Who runs it: `root` or `eve`.
    pub(super) user: &'static str,
    pub(super) pipeline: &'static str,
    /// The way, in the words of `guest/rows.sh`.
    pub(super) way: &'static str,
    pub(super) outcome: Outcome,
    /// Whether it is tried on each kernel where none is named, and not only on the oldest.
    pub(super) on_each_kernel: bool,
    /// A control beside the limits that is weaker here, and how far it holds.
    pub(super) weaker: Option<(&'static str, Held)>,
}

use Held::{Absent, Degraded, Enforced};

const APP_SLICE: &str = "/user.slice/user-1000.slice/user@1000.service/app.slice";
const DELEGATED_SCOPE: &str = "systemd-run --user --scope -p Delegate=yes barecount run";
const MODULES_OFF: &str = "with_setting kernel/modprobe /bin/false";

const fn all(place: Place) -> Outcome {
    Outcome::Held {
        memory: Enforced,
        cpu: Enforced,
        pids: Enforced,
        place,
        hint: None,
        attempts: 1,
    }
}

/// Both commands of a unit ran.
const fn both(place: Place) -> Outcome {
    Outcome::Held {
        memory: Enforced,
        cpu: Enforced,
        pids: Enforced,
        place,
        hint: None,
        attempts: 2,
    }
}

const fn rlimits(hint: &'static str) -> Outcome {
    Outcome::Held {
        memory: Degraded,
        cpu: Absent,
        pids: Degraded,
        place: Place::None,
        hint: Some(hint),
        attempts: 1,
    }
}

const USUAL: Row = Row {
    name: "",
    title: "",
    world: World::Systemd,
    user: "root",
    pipeline: "sandboxed",
    way: "directly",
    outcome: all(Place::Own),
    on_each_kernel: false,
    weaker: None,
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "root-without-systemd",
        title: "root, no systemd",
        world: World::Plain,
        ..USUAL
    },
    Row {
        name: "root-shell",
        title: "root, in a login shell",
        way: "login root",
        outcome: all(Place::Above("/user.slice/user-0.slice")),
        ..USUAL
    },
    Row {
        name: "root-service",
        title: "root, a service",
        way: "service --",
        outcome: all(Place::Above("/system.slice")),
        ..USUAL
    },
    Row {
        name: "root-service-delegated",
        title: "root, a service with `Delegate=yes`",
        way: "service Delegate=yes --",
        on_each_kernel: true,
        ..USUAL
    },
    Row {
        name: "two-commands",
        title: "root, a service of two `ExecStart=`",
        way: "two_commands --",
        outcome: both(Place::Above("/system.slice")),
        ..USUAL
    },
    Row {
        name: "two-commands-delegated",
        title: "the same with `Delegate=yes`",
        way: "two_commands Delegate=yes --",
        outcome: both(Place::Own),
        ..USUAL
    },
    Row {
        name: "user-session",
        title: "a user, in a login shell",
        user: "eve",
        way: "login eve",
        outcome: rlimits(DELEGATED_SCOPE),
        on_each_kernel: true,
        ..USUAL
    },
    Row {
        name: "user-scope",
        title: "a user, in a unit of `systemd --user`, as a desktop's terminal is",
        user: "eve",
        way: "user_scope --",
        outcome: all(Place::Above(APP_SLICE)),
        on_each_kernel: true,
        ..USUAL
    },
    Row {
        name: "user-scope-delegated",
        title: "a user, `systemd-run --user --scope -p Delegate=yes`",
        user: "eve",
        way: "user_scope Delegate=yes --",
        // The manager of a user of systemd 252 marks nothing as delegated.
        outcome: all(Place::Above(APP_SLICE)),
        ..USUAL
    },
    Row {
        name: "user-service",
        title: "a user, by `User=` of a service",
        user: "eve",
        way: "service User=eve --",
        outcome: rlimits("Write Delegate=yes"),
        ..USUAL
    },
    Row {
        name: "user-service-delegated",
        title: "the same with `Delegate=yes`",
        user: "eve",
        way: "service User=eve Delegate=yes --",
        ..USUAL
    },
    Row {
        name: "container",
        title: "root, the first process of a privileged container",
        world: World::Plain,
        way: "container rw alone",
        ..USUAL
    },
    Row {
        name: "container-shell",
        title: "root, beside a shell in a privileged container",
        world: World::Plain,
        way: "container rw shell",
        outcome: rlimits("as its first process"),
        ..USUAL
    },
    Row {
        name: "container-read-only",
        title: "root, a container with read-only control groups",
        world: World::Plain,
        way: "container ro alone",
        outcome: rlimits("mounted read-only"),
        ..USUAL
    },
    Row {
        name: "no-user-namespaces",
        title: "a user, `user.max_user_namespaces=0`",
        user: "eve",
        world: World::Plain,
        way: "with_setting user/max_user_namespaces 0 as_user",
        outcome: Outcome::Refused {
            reason: "user.max_user_namespaces is 0",
            remedy: "sysctl user.max_user_namespaces",
        },
        ..USUAL
    },
    Row {
        name: "few-processes",
        title: "a user, a hard limit of 30 processes",
        user: "eve",
        world: World::Plain,
        way: "with_limit -u 30 as_user",
        outcome: Outcome::Refused {
            reason: "processes",
            remedy: "LimitNPROC=",
        },
        ..USUAL
    },
    Row {
        name: "few-files",
        title: "a hard limit of 512 open files",
        world: World::Plain,
        way: "with_limit -n 512",
        outcome: Outcome::Refused {
            reason: "1024 open files",
            remedy: "LimitNOFILE=",
        },
        ..USUAL
    },
    Row {
        name: "noexec",
        title: "a state folder on `noexec`, `isolation: process`",
        world: World::Plain,
        pipeline: "process",
        way: "on_noexec",
        outcome: Outcome::Refused {
            reason: "noexec",
            remedy: "--state",
        },
        ..USUAL
    },
    Row {
        name: "no-overlay",
        title: "no `overlay` module",
        world: World::Bare,
        way: MODULES_OFF,
        outcome: Outcome::Refused {
            reason: "no overlay file system",
            remedy: "modprobe overlay",
        },
        ..USUAL
    },
    Row {
        name: "no-nf-tables",
        title: "no `nf_tables` module",
        world: World::Bare,
        way: "without_nf_tables",
        weaker: Some(("network_capture", Degraded)),
        ..USUAL
    },
    Row {
        name: "no-landlock",
        title: "no Landlock",
        world: World::Bare,
        weaker: Some(("landlock", Absent)),
        ..USUAL
    },
];
