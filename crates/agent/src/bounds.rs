//! What an attempt may reach and use, as its plan says.

use barecount_api::assignment::Assignment;
use barecount_model::{manifest::EgressMode, plan::StagePlan};
use barecount_network::policy::{self as network, Destination, Mode, Policy};
use barecount_runner::launch::{Isolation, Limits};

/// What the attempt may reach, as it was declared.
pub(crate) fn policy(stage: &StagePlan) -> Policy {
    let usual = network::Limits::default();
    Policy {
        profile: stage.network_profile,
        mode: match stage.egress_mode {
            EgressMode::Enforce => Mode::Enforce,
            EgressMode::Audit => Mode::Audit,
        },
        destinations: stage.egress.iter().map(Destination::from).collect(),
        limits: network::Limits {
            new_flows_per_second: stage
                .egress_limits
                .connections_per_second
                .unwrap_or(usual.new_flows_per_second),
            bytes_per_second: stage.egress_limits.bytes_per_second,
            ..usual
        },
    }
}

/// What an attempt may use of its host.
pub(crate) fn limits(assignment: &Assignment) -> Limits {
    let resources = &assignment.stage.resources;
    Limits {
        memory_bytes: resources.memory_bytes,
        cpu_millis: resources.cpu_millis,
        pids: resources.pids,
        open_files: resources.open_files,
        scratch_bytes: resources.scratch_bytes,
        file_bytes: resources.disk_bytes,
        log_bytes: resources.log_bytes,
    }
}

/// How strong the boundary around an attempt is.
pub(crate) fn isolation(name: &str) -> Isolation {
    if name == "process" {
        Isolation::Process
    } else {
        Isolation::Sandbox
    }
}
