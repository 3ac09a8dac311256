//! What a plan did, read from its operators after it ran.

use std::collections::BTreeMap;

use datafusion::physical_plan::metrics::MetricValue;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _, Partitioning};
use serde::{Deserialize, Serialize};

/// Figures of a job, summed over its statements.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// The most partitions that any operator worked in.
    pub partitions: u64,
    /// Rows read from inputs.
    pub rows_read: u64,
    /// Rows that changed their partition by a key.
    pub rows_shuffled: u64,
    /// The most rows that one partition got in a shuffle: skew, beside `rows_shuffled`.
    pub largest_shuffle_partition_rows: u64,
    /// Bytes that were spilled to disk.
    pub spilled_bytes: u64,
    /// How often an operator spilled.
    pub spills: u64,
    /// Wall-clock milliseconds.
    pub elapsed_ms: u64,
}

impl Metrics {
    /// Adds the figures of a plan that ran.
    pub(crate) fn add_plan(&mut self, plan: &dyn ExecutionPlan) {
        let partitions = plan.output_partitioning().partition_count() as u64;
        self.partitions = self.partitions.max(partitions);
        self.add_spilled(plan);
        if let Some(metrics) = plan.metrics() {
            let rows = metrics.output_rows().unwrap_or(0) as u64;
            if plan.children().is_empty() {
                self.rows_read += rows;
            }
            if is_shuffle(plan) {
                self.rows_shuffled += rows;
                let mut by_partition: BTreeMap<Option<usize>, u64> = BTreeMap::new();
                for metric in metrics.iter() {
                    if let MetricValue::OutputRows(count) = metric.value() {
                        *by_partition.entry(metric.partition()).or_default() +=
                            count.value() as u64;
                    }
                }
                let largest = by_partition.into_values().max().unwrap_or(0);
                self.largest_shuffle_partition_rows =
                    self.largest_shuffle_partition_rows.max(largest);
            }
        }
        for child in plan.children() {
            self.add_plan(child.as_ref());
        }
    }

    /// Adds what one operator spilled.
    pub(crate) fn add_spilled(&mut self, operator: &dyn ExecutionPlan) {
        if let Some(metrics) = operator.metrics() {
            self.spilled_bytes += metrics.spilled_bytes().unwrap_or(0) as u64;
            self.spills += metrics.spill_count().unwrap_or(0) as u64;
        }
    }
}

fn is_shuffle(plan: &dyn ExecutionPlan) -> bool {
    plan.downcast_ref::<RepartitionExec>()
        .is_some_and(|repartition| matches!(repartition.partitioning(), Partitioning::Hash(..)))
}
