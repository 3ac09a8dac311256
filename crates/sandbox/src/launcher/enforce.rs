//! What a sandbox is held to on this host, for evidence.

use std::collections::BTreeMap;

use crate::network::Network;
use crate::report::{Availability, Control, Controller, Enforcement, Exposed, HostReport, Level};
use crate::spec::{Isolation, Spec};

/// States the level of every control for a specification; `landlock` and `exposed` as the init found
/// them.
pub(super) fn enforcement(
    spec: &Spec,
    host: &HostReport,
    landlock: bool,
    exposed: &Exposed,
) -> Enforcement {
    let mut controls = BTreeMap::new();
    match spec.isolation {
        Isolation::Sandbox => {
            for control in [
                Control::Namespaces,
                Control::RootFileSystem,
                Control::Privileges,
                Control::Seccomp,
                Control::Network,
                Control::DiesWithAgent,
            ] {
                controls.insert(control, Level::Enforced);
            }
            controls.insert(Control::SupplementaryGroups, groups(host));
            controls.insert(Control::Users, users(host));
            controls.insert(Control::Landlock, landlocked(host, landlock));
            controls.insert(Control::Inodes, own_inodes(exposed));
            if spec.network != Network::Loopback {
                controls.insert(Control::NetworkCapture, captured(host));
            }
        }
        Isolation::Process => without_sandbox(&mut controls),
    }
    controls.insert(Control::Files, Level::Enforced);
    limits(spec, host, &mut controls);
    Enforcement {
        kernel: host.kernel.clone(),
        placement: host.placement.clone(),
        controls,
    }
}

fn without_sandbox(controls: &mut BTreeMap<Control, Level>) {
    let reason = "Isolation 'process' was asked for.";
    for control in [
        Control::Namespaces,
        Control::RootFileSystem,
        Control::Seccomp,
        Control::Network,
        Control::Landlock,
        Control::SupplementaryGroups,
        Control::Users,
        Control::Inodes,
    ] {
        controls.insert(control, Level::absent(reason, None));
    }
    let reason = "The payload runs as the agent's user and only gains no further rights.";
    controls.insert(Control::Privileges, Level::degraded(reason, None));
    let reason = "A process that leaves the tree on purpose is found only by its control group, if \
                  there is one.";
    controls.insert(Control::DiesWithAgent, Level::degraded(reason, None));
}

fn limits(spec: &Spec, host: &HostReport, controls: &mut BTreeMap<Control, Level>) {
    let limits = &spec.limits;
    if limits.memory_bytes.is_some() {
        let instead = "each process is held to it by RLIMIT_DATA, the tree is not";
        controls.insert(Control::Memory, by(host, Controller::Memory, Some(instead)));
    }
    if limits.cpu_millis.is_some() {
        controls.insert(Control::Cpu, by(host, Controller::Cpu, None));
    }
    if limits.cpus.is_some() {
        let instead = "the affinity is set, which a payload may change";
        controls.insert(
            Control::CpuPinning,
            by(host, Controller::Cpuset, Some(instead)),
        );
    }
    if limits.pids.is_some() {
        let instead = match spec.isolation {
            Isolation::Sandbox => Some("RLIMIT_NPROC holds within the user namespace"),
            Isolation::Process => None,
        };
        controls.insert(Control::Pids, by(host, Controller::Pids, instead));
    }
}

fn by(host: &HostReport, controller: Controller, instead: Option<&str>) -> Level {
    match host.controllers.get(&controller) {
        Some(Availability::Available) => Level::Enforced,
        Some(Availability::Unavailable { reason, remedy }) => match instead {
            Some(instead) => Level::degraded(format!("{reason} Instead, {instead}."), Some(remedy)),
            None => Level::absent(reason, Some(remedy)),
        },
        None => Level::absent("The controller is not known.", None),
    }
}

fn groups(host: &HostReport) -> Level {
    if host.root {
        return Level::Enforced;
    }
    let reason = "Where a payload is the agent's own user, supplementary groups cannot be given up; \
                  no file of the host outside the mounts is in sight.";
    Level::degraded(reason, None)
}

fn users(host: &HostReport) -> Level {
    match &host.users {
        Availability::Available => Level::Enforced,
        Availability::Unavailable { reason, remedy } => Level::degraded(reason, Some(remedy)),
    }
}

fn own_inodes(exposed: &Exposed) -> Level {
    let mut reasons = Vec::new();
    if exposed.devices {
        reasons.push(
            "The host's root alone makes device nodes: those in /dev are the host's, and who has \
             them open notices who else does, by locks and watches."
                .to_owned(),
        );
    }
    if !exposed.places.is_empty() {
        reasons.push(format!(
            "Locks and watches are shared with whoever has these open: {}.",
            exposed.places.join(", ")
        ));
    }
    match reasons.is_empty() {
        true => Level::Enforced,
        false => Level::degraded(reasons.join(" "), None),
    }
}

fn captured(host: &HostReport) -> Level {
    match (&host.redirection, &host.packet_log) {
        (Availability::Unavailable { reason, remedy }, _) => Level::degraded(
            format!(
                "{reason} Instead, declared ports alone are listened on; what else is tried is \
                 refused unrecorded."
            ),
            Some(remedy),
        ),
        (_, Availability::Unavailable { reason, remedy }) => Level::degraded(
            format!(
                "{reason} Connections are redirected; what is sent by other protocols is refused \
                 unrecorded."
            ),
            Some(remedy),
        ),
        (Availability::Available, Availability::Available) => Level::Enforced,
    }
}

fn landlocked(host: &HostReport, landlock: bool) -> Level {
    match host.landlock_abi {
        Some(abi) if landlock && abi >= 6 => Level::Enforced,
        Some(abi) if landlock => Level::degraded(
            format!("Landlock has version {abi} here, scopes came with version 6."),
            Some("Use Linux 6.12 or later."),
        ),
        Some(abi) => Level::absent(
            format!("Landlock has version {abi} here, which forbids renames; 2 is needed."),
            Some("Use Linux 5.19 or later."),
        ),
        None => Level::absent(
            "This kernel has no Landlock.",
            Some(
                "Use Linux 5.19 or later with CONFIG_SECURITY_LANDLOCK, and `landlock` among the \
                 modules of its `lsm=`.",
            ),
        ),
    }
}
