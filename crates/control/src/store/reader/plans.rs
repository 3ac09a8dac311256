//! What pipelines carry out, as their latest runs have it.

use barecount_model::plan::Plan;
use rusqlite::params;

use super::Reader;
use crate::store::{StoreError, damaged};

/// Runs of a pipeline that are looked back at: those of one stage alone tell of no other stage.
const MAX_RUNS: u32 = 16;

impl Reader {
    /// Plans of the latest version of each pipeline of a tenant that a run was accepted of, by
    /// pipeline, the latest first. A run of one stage has a plan of that stage alone, so there may be
    /// several. Costs the same however many runs there are.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn latest_plans(&self, tenant: &str) -> Result<Vec<Plan>, StoreError> {
        // From one name to the next by the index, past all runs of each.
        let pipelines = self.texts(
            "WITH RECURSIVE names (name) AS (
                 SELECT min(pipeline) FROM runs WHERE tenant = ?1
                 UNION ALL
                 SELECT (SELECT min(pipeline) FROM runs WHERE tenant = ?1 AND pipeline > name)
                 FROM names WHERE name IS NOT NULL
             )
             SELECT name FROM names WHERE name IS NOT NULL",
            params![tenant],
        )?;
        let mut found = Vec::new();
        for pipeline in pipelines {
            let plans = self.plans_of(tenant, &pipeline)?;
            let latest = plans.first().map(|plan| plan.version.clone());
            let same = plans
                .into_iter()
                .filter(|plan| Some(&plan.version) == latest.as_ref());
            found.extend(same);
        }
        Ok(found)
    }

    /// What the latest accepted runs of a pipeline carry out, the latest first.
    fn plans_of(&self, tenant: &str, pipeline: &str) -> Result<Vec<Plan>, StoreError> {
        let bodies = self.texts(
            "SELECT plans.body FROM runs JOIN plans ON plans.digest = runs.plan
             WHERE runs.tenant = ?1 AND runs.pipeline = ?2 AND runs.state <> 'refused'
             ORDER BY runs.seq DESC LIMIT ?3",
            params![tenant, pipeline, MAX_RUNS],
        )?;
        let plans = bodies.iter();
        plans
            .map(|body| serde_json::from_str(body).map_err(damaged("plan")))
            .collect()
    }
}
