//! What attempts use, in the units in which services bill it.
//!
//! A backend that is billed says at the end of an attempt what was metered. Of one that is not, as
//! this host, what the service behind the class would have metered is worked out of the work's size
//! and time: that is what costs at list prices are made of.

use serde::{Deserialize, Serialize};

use crate::{
    catalog::Profile,
    class::{RunnerClass, Size},
};

/// The longest time that is billed: a century, beyond any timeout.
const LONGEST_MS: u64 = 100 * 366 * 86_400_000;

/// Something that is billed: so much of it at a time, for so long. The amount is the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metered {
    /// What is billed.
    pub unit: Unit,
    /// How much of it at a time.
    pub capacity: u64,
    /// For how long, in milliseconds, as it is billed; 1 for what takes no time.
    pub billed_ms: u64,
    /// The increments in which time is billed, in milliseconds.
    pub granularity_ms: u64,
    /// The shortest time that is billed, in milliseconds.
    pub minimum_ms: u64,
}

impl Metered {
    /// What is billed for a time that something was held.
    pub fn over(unit: Unit, capacity: u64, held_ms: u64) -> Self {
        let (granularity_ms, minimum_ms) = unit.billing();
        let held_ms = held_ms.clamp(minimum_ms, LONGEST_MS);
        Self {
            unit,
            capacity,
            billed_ms: held_ms.next_multiple_of(granularity_ms),
            granularity_ms,
            minimum_ms,
        }
    }

    /// Capacity times milliseconds.
    pub fn amount(&self) -> u128 {
        u128::from(self.capacity) * u128::from(self.billed_ms)
    }

    /// Whether the time is one that can be billed.
    pub fn is_billable(&self) -> bool {
        self.billed_ms >= self.minimum_ms && self.billed_ms.is_multiple_of(self.granularity_ms)
    }
}

/// What is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Requests of a function.
    FunctionRequests,
    /// Memory of a function, in bytes.
    FunctionMemoryBytes,
    /// Processors of a container, in thousandths.
    ContainerCpuMillis,
    /// Memory of a container, in bytes.
    ContainerMemoryBytes,
    /// Workers of a job.
    JobWorkers,
    /// Hosts of a tier.
    Hosts(Size),
    /// Processors of a host that was made to measure, in thousandths.
    HostCpuMillis,
    /// Memory of a host that was made to measure, in bytes.
    HostMemoryBytes,
}

impl Unit {
    /// The increment and the minimum in which time is billed, in milliseconds: AWS Lambda one
    /// millisecond; Fargate, Glue and EC2 one second, and at least a minute.
    const fn billing(self) -> (u64, u64) {
        match self {
            Self::FunctionRequests | Self::FunctionMemoryBytes => (1, 1),
            Self::ContainerCpuMillis
            | Self::ContainerMemoryBytes
            | Self::JobWorkers
            | Self::Hosts(_)
            | Self::HostCpuMillis
            | Self::HostMemoryBytes => (1_000, 60_000),
        }
    }
}

/// What the service behind a class would have metered of work that took so long.
///
/// `requests` counts invocations, and matters for serverless alone.
pub fn of_work(
    class: RunnerClass,
    size: Size,
    profile: &Profile,
    held_ms: u64,
    requests: u64,
) -> Vec<Metered> {
    let (cpu, memory) = (profile.vcpu_millis.into(), profile.memory.as_bytes());
    let over = |unit, capacity| Metered::over(unit, capacity, held_ms);
    match class {
        RunnerClass::Serverless => vec![
            over(Unit::FunctionMemoryBytes, memory),
            Metered::over(Unit::FunctionRequests, requests, 1),
        ],
        RunnerClass::Container => vec![
            over(Unit::ContainerCpuMillis, cpu),
            over(Unit::ContainerMemoryBytes, memory),
        ],
        RunnerClass::ManagedEtl => vec![over(Unit::JobWorkers, profile.workers.into())],
        RunnerClass::DedicatedCompute if size == Size::Custom => vec![
            over(Unit::HostCpuMillis, cpu),
            over(Unit::HostMemoryBytes, memory),
        ],
        RunnerClass::DedicatedCompute => vec![over(Unit::Hosts(size), 1)],
    }
}
