//! What a host can enforce, what a sandbox was held to, and how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Something that holds a payload back or measures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Control {
    /// User, mount, process, IPC, host name, network and control group namespaces.
    Namespaces,
    /// A read-only root file system of its own, with kernel paths masked.
    RootFileSystem,
    /// No capability in any set, and no way to gain one.
    Privileges,
    /// No membership in the agent's supplementary groups.
    SupplementaryGroups,
    /// A user of the host of each sandbox's own, so that none takes from others what the kernel counts
    /// for a user.
    Users,
    /// The system call filter.
    Seccomp,
    /// Landlock: no writing outside writable mounts.
    Landlock,
    /// No network but loopback, or what the agent relays.
    Network,
    /// Every connection of a brokered network reaches the agent, and every other packet is
    /// recorded. Without it they are refused all the same.
    NetworkCapture,
    /// The memory limit.
    Memory,
    /// The processor time limit.
    Cpu,
    /// Pinning to cores.
    CpuPinning,
    /// The limit of processes and threads.
    Pids,
    /// Open files, file size, no core files.
    Files,
    /// Nothing of the sandbox outlives the agent.
    DiesWithAgent,
    /// Devices, system directories, and what is mounted read-only or is the root have inodes of the
    /// sandbox's own: no lock, lease or watch in one sandbox is felt in another, or on the host. Pages
    /// of files, and futexes in them, are shared all the same.
    Inodes,
}

/// How far a control holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "level", rename_all = "snake_case")]
pub enum Level {
    /// Fully.
    Enforced,
    /// In part.
    Degraded {
        /// What is weaker, and why.
        reason: String,
        /// What to do about it, where something can be done; a whole sentence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
    /// Not at all.
    Absent {
        /// Why.
        reason: String,
        /// What to do about it, where something can be done; a whole sentence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
}

impl Level {
    pub(crate) fn degraded(reason: impl Into<String>, remedy: Option<&str>) -> Self {
        Self::Degraded {
            reason: reason.into(),
            remedy: remedy.map(str::to_owned),
        }
    }

    pub(crate) fn absent(reason: impl Into<String>, remedy: Option<&str>) -> Self {
        Self::Absent {
            reason: reason.into(),
            remedy: remedy.map(str::to_owned),
        }
    }
}

/// What a sandbox was held to. Limits that were not asked for are not listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// Release of the kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Where its control group of version 2 is, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Level by control.
    pub controls: BTreeMap<Control, Level>,
}

impl Enforcement {
    /// Whether a control holds fully.
    pub fn is_enforced(&self, control: Control) -> bool {
        self.controls.get(&control) == Some(&Level::Enforced)
    }
}

/// What a sandbox sees by the inodes of the host, and should not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exposed {
    /// The devices.
    pub(crate) devices: bool,
    /// Paths, each with the reason.
    pub(crate) places: Vec<String>,
}

/// Whether a facility is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It is.
    Available,
    /// It is not. Both are whole sentences.
    Unavailable {
        /// Why.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

impl Availability {
    /// Whether it is there.
    pub fn is_available(&self) -> bool {
        *self == Self::Available
    }
}

/// A resource controller of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// Memory limit, peak, out-of-memory kills.
    Memory,
    /// Processor time limit.
    Cpu,
    /// Processor time used (a part of `cpu` on version 2).
    Cpuacct,
    /// Limit of processes and threads.
    Pids,
    /// Bytes read and written (`blkio` on version 1).
    Io,
    /// Pinning to cores.
    Cpuset,
}

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupLayout {
    /// Version 2 alone.
    V2,
    /// Version 1 alone.
    V1,
    /// Controllers in version 1, a version 2 tree beside them.
    Hybrid,
    /// None mounted.
    Absent,
}

/// Where the control groups of sandboxes are, in version 2. Groups are named as in
/// `/proc/self/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "place", rename_all = "snake_case")]
pub enum Placement {
    /// In the agent's own group: whatever limits that one limits them.
    Own {
        /// The group.
        group: String,
    },
    /// In a group above the agent's own, which was not the agent's to divide. What the group above
    /// limits holds for them. The limits of memory, processor time, cores and processes of the
    /// groups that were left hold for the sandboxes of one agent together, apart from the agent;
    /// their other limits do not.
    Above {
        /// The group.
        group: String,
        /// The agent's own group, which they left.
        left: String,
    },
}

/// What this host can enforce, found by trying at start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Release of the kernel.
    pub kernel: String,
    /// Whether the launcher is root, and does for sandboxes what root alone can.
    pub root: bool,
    /// Whether each sandbox is another user of the host.
    pub users: Availability,
    /// User namespaces, with what a sandbox needs in them.
    pub user_namespaces: Availability,
    /// How control groups are mounted.
    pub cgroup_layout: CgroupLayout,
    /// Which controllers can be used.
    pub controllers: BTreeMap<Controller, Availability>,
    /// Where control groups of version 2 are made, `None` where none are.
    pub placement: Option<Placement>,
    /// Version of Landlock, `None` where the kernel has none.
    pub landlock_abi: Option<u32>,
    /// System call filters.
    pub seccomp: Availability,
    /// Redirecting all connections of a brokered network (nf_tables).
    pub redirection: Availability,
    /// Telling what else a payload of a brokered network tried to send (the packet log).
    pub packet_log: Availability,
    /// What says that we run in a container ourselves, if anything does.
    pub container: Option<String>,
}

impl HostReport {
    /// What somebody who runs work here is to know of limits that do not hold for all processes of
    /// a sandbox together, and what to do about it, in one line; `None` where they do.
    pub fn hint(&self) -> Option<String> {
        let limits = [
            (Controller::Memory, "memory"),
            (Controller::Cpu, "processor time"),
            (Controller::Pids, "processes"),
        ];
        let lacking = limits.iter().filter_map(|(controller, limit)| {
            match self.controllers.get(controller) {
                Some(Availability::Unavailable { reason, remedy }) => {
                    Some((*limit, reason, remedy))
                }
                Some(Availability::Available) | None => None,
            }
        });
        let lacking: Vec<_> = lacking.collect();
        let (_, reason, remedy) = lacking.first()?;
        let limits: Vec<&str> = lacking.iter().map(|(limit, ..)| *limit).collect();
        Some(format!(
            "hint: limits of {} do not hold for all processes of a stage together here. {reason} \
             {remedy}",
            limits.join(", ")
        ))
    }
}

/// How a payload ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// Whether the kernel killed something in it for want of memory within its limit.
    pub oom_killed: bool,
    /// What the whole tree used.
    pub usage: Usage,
}

/// Exit code or deadly signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It ended by itself.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// Whether it ended with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The control group: exact for the whole tree.
    ControlGroup,
    /// The resource usage of waited-for processes: memory is that of the largest one.
    WaitedFor,
}

/// What a tree used; `None` where it cannot be measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in microseconds.
    pub cpu_micros: Option<u64>,
    /// Where `cpu_micros` comes from.
    pub cpu_source: Option<Source>,
    /// Highest memory use in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Where `memory_peak_bytes` comes from.
    pub memory_source: Option<Source>,
    /// Bytes read from block devices.
    pub io_read_bytes: Option<u64>,
    /// Bytes written to block devices.
    pub io_write_bytes: Option<u64>,
    /// Where both come from.
    pub io_source: Option<Source>,
    /// Most processes and threads at one time.
    pub pids_peak: Option<u64>,
    /// Periods in which the tree was held back by its processor time limit.
    pub cpu_throttled_periods: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(lacking: &[Controller]) -> HostReport {
        let unavailable = || Availability::Unavailable {
            reason: "It is not delegated.".to_owned(),
            remedy: "Delegate it.".to_owned(),
        };
        let all = [
            Controller::Memory,
            Controller::Cpu,
            Controller::Pids,
            Controller::Cpuset,
        ];
        let controllers = all.map(|controller| {
            let is_there = !lacking.contains(&controller);
            let there = || Availability::Available;
            (controller, if is_there { there() } else { unavailable() })
        });
        HostReport {
            kernel: "6.1.0".to_owned(),
            root: false,
            users: unavailable(),
            user_namespaces: Availability::Available,
            cgroup_layout: CgroupLayout::V2,
            controllers: controllers.into(),
            placement: None,
            landlock_abi: None,
            seccomp: Availability::Available,
            redirection: Availability::Available,
            packet_log: Availability::Available,
            container: None,
        }
    }

    #[test]
    fn a_host_that_limits_in_part_is_told_in_one_line_with_the_remedy() {
        let all = [Controller::Memory, Controller::Cpu, Controller::Pids];
        let told = host(&all).hint().unwrap_or_default();
        assert_eq!(
            told,
            "hint: limits of memory, processor time, processes do not hold for all processes of a \
             stage together here. It is not delegated. Delegate it."
        );
        let told = host(&[Controller::Cpu]).hint().unwrap_or_default();
        assert!(
            told.starts_with("hint: limits of processor time do not"),
            "{told}"
        );
        // Few stages are pinned, and evidence says it of those.
        assert_eq!(host(&[Controller::Cpuset]).hint(), None);
    }
}
