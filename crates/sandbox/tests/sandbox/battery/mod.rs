//! The escape battery: what somebody inside could try, one thing after another.
//!
//! The same probes run on the host, where they show that they can succeed; in a sandbox of ours;
//! and in runc. Each runs in a process of its own and prints a line of JSON.

mod call;
mod compare;
mod devices;
mod environment;
mod files;
mod kernel;
mod kernel_paths;
mod mounts;
mod namespaces;
mod network;
mod places;
mod privileges;
mod processes;
mod run;
mod runc;
mod shared;
mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use compare::{AS_ROOT, TESTS};
pub(crate) use environment::Environment;
pub(crate) use places::agent;
pub(crate) use privileges::tell_identity;
pub(crate) use run::main;

/// Why a probe did not get what it tried: the number of an error, or 0 where nothing was refused
/// and nothing was to be had.
type Refusal = i32;

/// `Ok` when the probe got what it tried.
type Attempt = Result<(), Refusal>;

/// One thing to try.
struct Probe {
    name: String,
    attempt: Box<dyn Fn(&Environment) -> Attempt>,
    /// Whether trying it with all privileges would change the host.
    spares_host: bool,
    /// Whether, with all privileges, it needs a network to break.
    own_network: bool,
}

impl Probe {
    /// Kept from the host, where success would be felt.
    fn sparing_host(mut self) -> Self {
        self.spares_host = true;
        self
    }

    /// On the host, tried in a network namespace made for it.
    fn in_own_network(mut self) -> Self {
        self.own_network = true;
        self
    }
}

fn probe(name: impl Into<String>, attempt: impl Fn(&Environment) -> Attempt + 'static) -> Probe {
    Probe {
        name: name.into(),
        attempt: Box::new(attempt),
        spares_host: false,
        own_network: false,
    }
}

/// Every probe, in the order of the table.
fn probes() -> Vec<Probe> {
    [
        privileges::probes(),
        namespaces::probes(),
        mounts::probes(),
        kernel::probes(),
        devices::probes(),
        kernel_paths::probes(),
        files::probes(),
        shared::probes(),
        network::probes(),
        processes::probes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a probe came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Possible,
    Refused,
    /// It was not tried: success would have changed the host.
    Spared,
}

/// What a probe prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    probe: String,
    outcome: Outcome,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// The outcomes in one place, by probe.
type Outcomes = BTreeMap<String, Line>;
