//! What attempts cost: exact arithmetic over public list prices.
//!
//! Each class has the cost shape of the service behind it: requests and memory-seconds, allocated
//! capacity and time, workers and time, a whole host and time. What is billed is what was
//! [metered](crate::meter), started increments and minimum included. Amounts are whole picodollars; one rounding, half up, happens
//! at the end of each attempt's cost, and sums are exact.

use std::iter::Sum;
use std::ops::{Add, Mul};

use serde::Serialize;
use serde::ser::SerializeStruct;

use crate::catalog::{Catalog, Profile};
use crate::class::{RunnerClass, Size};
use crate::meter::{self, Metered, Unit};
use crate::pipeline::Pipeline;
use crate::plan::Plan;
use crate::run::{Attempt, Run, Task};
use crate::text::Name;

/// An amount of United States dollars in whole picodollars (10⁻¹² dollars).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    picos: i128,
}

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self { picos: 0 };
    /// The currency of every amount (ISO 4217).
    pub const CURRENCY: &'static str = "USD";
    const DOLLAR: i128 = 1_000_000_000_000;

    /// An amount in picodollars.
    pub const fn from_picos(picos: i128) -> Self {
        Self { picos }
    }

    /// An amount in nanodollars (10⁻⁹ dollars).
    const fn from_nanos(nanos: i128) -> Self {
        Self {
            picos: nanos * 1_000,
        }
    }

    /// The amount in picodollars.
    pub const fn as_picos(self) -> i128 {
        self.picos
    }

    /// The sum of prices, each times its amount and divided by how much of that it is the price of;
    /// rounded half up, once.
    fn sum_of(terms: &[(Self, u128, u128)]) -> Self {
        let divisor = terms
            .iter()
            .fold(1, |all, (_, _, of)| common_multiple(all, *of));
        let sum = terms.iter().fold(0_i128, |sum, (price, amount, of)| {
            let factor = amount.saturating_mul(divisor / of);
            let factor = i128::try_from(factor).unwrap_or(i128::MAX);
            sum.saturating_add(price.picos.saturating_mul(factor))
        });
        let divisor = i128::try_from(divisor).unwrap_or(i128::MAX).max(1);
        Self {
            picos: sum.saturating_add(divisor / 2).div_euclid(divisor),
        }
    }
}

/// The least number that both divide; of two that are not 0.
fn common_multiple(one: u128, other: u128) -> u128 {
    let (mut divisor, mut rest) = (one, other);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    one / divisor * other
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            picos: self.picos.saturating_add(other.picos),
        }
    }
}

impl Mul<u64> for Money {
    type Output = Self;

    fn mul(self, times: u64) -> Self {
        Self {
            picos: self.picos.saturating_mul(i128::from(times)),
        }
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl std::fmt::Display for Money {
    /// Dollars with as many decimals as needed, at least two: `0.00012`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.picos < 0 { "-" } else { "" };
        let picos = self.picos.unsigned_abs();
        let dollar = Self::DOLLAR.unsigned_abs();
        let fraction = format!("{:012}", picos % dollar);
        let digits = fraction.trim_end_matches('0').len().max(2);
        f.pad(&format!("{sign}{}.{}", picos / dollar, &fraction[..digits]))
    }
}

impl Serialize for Money {
    /// `{"amount": "0.00012", "currency": "USD"}`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut money = serializer.serialize_struct("Money", 2)?;
        money.serialize_field("amount", &self.to_string())?;
        money.serialize_field("currency", Self::CURRENCY)?;
        money.end()
    }
}

/// What the services behind the classes cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// Serverless: one request.
    pub request: Money,
    /// Serverless: a gibibyte of memory for a second.
    pub function_gib_second: Money,
    /// Container: a processor for an hour.
    pub container_vcpu_hour: Money,
    /// Container: a gibibyte of memory for an hour.
    pub container_gib_hour: Money,
    /// Managed ETL: a worker for an hour.
    pub worker_hour: Money,
    /// Dedicated compute: a host of each tier, small to xlarge, for an hour.
    pub host_hours: [Money; 4],
    /// Dedicated compute, size `custom`: a processor for an hour.
    pub host_vcpu_hour: Money,
    /// Dedicated compute, size `custom`: a gibibyte of memory for an hour.
    pub host_gib_hour: Money,
}

impl Prices {
    /// Public list prices of Amazon Web Services in us-east-1, Linux on x86-64, on demand, without
    /// free tiers; from the pricing pages of the services.
    ///
    /// - AWS Lambda: $0.20 per million requests, $0.0000166667 per GB-second.
    /// - AWS Fargate: $0.04048 per vCPU-hour, $0.004445 per GB-hour.
    /// - AWS Glue: $0.44 per DPU-hour; a G.1X worker is one DPU.
    /// - Amazon EC2: m6i.large $0.096, m6i.xlarge $0.192, m6i.2xlarge $0.384 and m6i.4xlarge
    ///   $0.768 per hour. The two rates for `custom` are those at which m6i.large (2 vCPU, 8 GiB)
    ///   and r6i.large (2 vCPU, 16 GiB, $0.126) come out: $0.033 per vCPU, $0.00375 per GiB.
    pub const fn public() -> Self {
        Self {
            request: Money::from_nanos(200),
            function_gib_second: Money::from_picos(16_666_700),
            container_vcpu_hour: Money::from_nanos(40_480_000),
            container_gib_hour: Money::from_nanos(4_445_000),
            worker_hour: Money::from_nanos(440_000_000),
            host_hours: [
                Money::from_nanos(96_000_000),
                Money::from_nanos(192_000_000),
                Money::from_nanos(384_000_000),
                Money::from_nanos(768_000_000),
            ],
            host_vcpu_hour: Money::from_nanos(33_000_000),
            host_gib_hour: Money::from_nanos(3_750_000),
        }
    }
}

impl Prices {
    /// What is billed for all of this together.
    pub fn of(&self, metered: &[Metered]) -> Money {
        let terms = metered.iter().map(|metered| {
            let (price, of) = self.price(metered.unit);
            (price, metered.amount(), of)
        });
        Money::sum_of(&terms.collect::<Vec<_>>())
    }

    /// A price, and how much of the unit times milliseconds it is the price of.
    fn price(&self, unit: Unit) -> (Money, u128) {
        let [small, medium, large, xlarge] = self.host_hours;
        match unit {
            Unit::FunctionRequests => (self.request, 1),
            Unit::FunctionMemoryBytes => (self.function_gib_second, GIB * MILLIS_PER_SECOND),
            Unit::ContainerCpuMillis => (self.container_vcpu_hour, 1_000 * MILLIS_PER_HOUR),
            Unit::ContainerMemoryBytes => (self.container_gib_hour, GIB * MILLIS_PER_HOUR),
            Unit::JobWorkers => (self.worker_hour, MILLIS_PER_HOUR),
            Unit::Hosts(Size::Small) => (small, MILLIS_PER_HOUR),
            Unit::Hosts(Size::Medium) => (medium, MILLIS_PER_HOUR),
            Unit::Hosts(Size::Large) => (large, MILLIS_PER_HOUR),
            // One that was made to measure is metered by its parts.
            Unit::Hosts(Size::XLarge | Size::Custom) => (xlarge, MILLIS_PER_HOUR),
            Unit::HostCpuMillis => (self.host_vcpu_hour, 1_000 * MILLIS_PER_HOUR),
            Unit::HostMemoryBytes => (self.host_gib_hour, GIB * MILLIS_PER_HOUR),
        }
    }
}

const GIB: u128 = 1 << 30;
const MILLIS_PER_HOUR: u128 = 3_600_000;
const MILLIS_PER_SECOND: u128 = 1_000;

/// What the work of a run's attempts that have ended would have cost on the services behind their
/// classes, at public list prices. The platform's own time has no price.
pub fn of_run(run: &Run, plan: &Plan) -> Money {
    run.tasks.iter().map(|task| of_task(task, plan)).sum()
}

/// As [`of_run`], of one task.
pub fn of_task(task: &Task, plan: &Plan) -> Money {
    let prices = Prices::public();
    let Some(stage) = plan.stage(&task.stage) else {
        return Money::ZERO;
    };
    let profile = stage.resources.profile();
    let of_one = |attempt: &Attempt| {
        // Whoever was billed knows better.
        if !attempt.metrics.metered.is_empty() {
            return Some(prices.of(&attempt.metrics.metered));
        }
        let length = u64::try_from(attempt.work_time()?.as_millis()).unwrap_or(u64::MAX);
        let (class, size) = (task.class, task.size);
        Some(of_attempt(&prices, class, size, &profile, length, 1))
    };
    task.attempts.iter().filter_map(of_one).sum()
}

/// What one attempt cost that ran for `duration_ms` on a runner of its own.
///
/// `requests` counts invocations, and matters for serverless alone.
pub fn of_attempt(
    prices: &Prices,
    class: RunnerClass,
    size: Size,
    profile: &Profile,
    duration_ms: u64,
    requests: u64,
) -> Money {
    prices.of(&meter::of_work(class, size, profile, duration_ms, requests))
}

/// What a run can cost before anything is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// One entry a stage, in the pipeline's order.
    pub stages: Vec<StageEstimate>,
    /// Every attempt succeeds at once, within the shortest time that is billed.
    pub at_least: Money,
    /// Every task takes one attempt of its full timeout. Repeated attempts come on top.
    pub at_most: Money,
}

/// What a stage can cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageEstimate {
    /// The stage.
    pub stage: Name,
    /// Its class.
    pub class: RunnerClass,
    /// Its size.
    pub size: Size,
    /// How many tasks it has.
    pub tasks: u64,
    /// The least, for all its tasks.
    pub at_least: Money,
    /// One attempt of the full timeout each, for all its tasks.
    pub at_most: Money,
}

/// Estimates a run. A stage that the catalog has no profile for is left out.
pub fn estimate(catalog: &Catalog, pipeline: &Pipeline) -> Estimate {
    let stages: Vec<StageEstimate> = pipeline
        .stages
        .iter()
        .filter_map(|stage| {
            let profile = catalog.profile_of(stage)?;
            let tasks = stage.partition_keys().len().max(1) as u64;
            let task = |duration_ms| {
                of_attempt(
                    &catalog.prices,
                    stage.class,
                    stage.size,
                    &profile,
                    duration_ms,
                    1,
                ) * tasks
            };
            Some(StageEstimate {
                stage: stage.name.clone(),
                class: stage.class,
                size: stage.size,
                tasks,
                at_least: task(0),
                at_most: task(stage.timeout.as_millis()),
            })
        })
        .collect();
    Estimate {
        at_least: stages.iter().map(|stage| stage.at_least).sum(),
        at_most: stages.iter().map(|stage| stage.at_most).sum(),
        stages,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::ByteSize;

    fn cost(class: RunnerClass, size: Size, memory_mib: u64, vcpu_millis: u32, ms: u64) -> String {
        let catalog = Catalog::builtin();
        let size_of_rest = if size == Size::Custom {
            Size::XLarge
        } else {
            size
        };
        let profile = Profile {
            memory: ByteSize::from_mib(memory_mib),
            vcpu_millis,
            ..*catalog.profile(class, size_of_rest).expect("a tier")
        };
        of_attempt(&catalog.prices, class, size, &profile, ms, 1).to_string()
    }

    // R-M1: worked by hand from the list prices
    #[test]
    fn each_class_costs_what_its_public_price_list_says() {
        // 0.5 GB × 0.1 s × 0.0000166667 + 0.0000002
        assert_eq!(
            cost(RunnerClass::Serverless, Size::Small, 512, 1_000, 100),
            "0.000001033335"
        );
        // (1 × 0.04048 + 2 × 0.004445) ÷ 6, ten minutes
        assert_eq!(
            cost(RunnerClass::Container, Size::Small, 2_048, 1_000, 600_000),
            "0.008228333333"
        );
        // 5 workers × 0.44 ÷ 12, five minutes
        assert_eq!(
            cost(RunnerClass::ManagedEtl, Size::Medium, 2_048, 4_000, 300_000),
            "0.183333333333"
        );
        // 0.096 × 2 h
        assert_eq!(
            cost(RunnerClass::DedicatedCompute, Size::Small, 1, 1, 7_200_000),
            "0.192"
        );
        // 8 × 0.033 + 128 × 0.00375, one hour
        assert_eq!(
            cost(
                RunnerClass::DedicatedCompute,
                Size::Custom,
                131_072,
                8_000,
                3_600_000
            ),
            "0.744"
        );
    }

    #[test]
    fn time_is_billed_in_started_increments_and_at_least_the_minimum() {
        let etl = |ms| cost(RunnerClass::ManagedEtl, Size::Small, 1, 1, ms);
        assert_eq!(etl(0), etl(60_000));
        assert_eq!(etl(60_001), etl(61_000));
        assert_ne!(etl(61_000), etl(61_001));
        let function = |ms| cost(RunnerClass::Serverless, Size::Small, 512, 1, ms);
        assert_eq!(function(0), function(1));
        assert_ne!(function(1), function(2));
    }

    #[test]
    fn what_a_backend_metered_is_priced_as_it_was_billed() {
        let catalog = Catalog::builtin();
        let billed = |unit, capacity, held_ms| Metered::over(unit, capacity, held_ms);
        // 2 GiB and a processor for 61.5 s, which is 62: (0.04048 + 2 × 0.004445) × 62 ÷ 3600
        let container = [
            billed(Unit::ContainerCpuMillis, 1_000, 61_500),
            billed(Unit::ContainerMemoryBytes, 2 << 30, 61_500),
        ];
        assert_eq!(catalog.prices.of(&container).to_string(), "0.000850261111");
        assert_eq!(catalog.prices.of(&[]), Money::ZERO);
        for metered in container {
            assert!(metered.is_billable());
            assert_eq!((metered.billed_ms, metered.minimum_ms), (62_000, 60_000));
        }
    }

    #[test]
    fn amounts_print_as_decimals_and_never_overflow() {
        assert_eq!(Money::ZERO.to_string(), "0.00");
        assert_eq!(Money::from_picos(-120_000_000).to_string(), "-0.00012");
        assert_eq!(Money::from_picos(3 * Money::DOLLAR / 2).to_string(), "1.50");
        let most = cost(
            RunnerClass::Serverless,
            Size::Small,
            u64::MAX >> 20,
            u32::MAX,
            u64::MAX,
        );
        assert!(!most.starts_with('-'), "{most}");
    }
}
