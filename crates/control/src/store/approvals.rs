//! Reading approvals.

use barecount_model::approval::Approval;
use rusqlite::{Connection, Params, params};

use super::{StoreError, damaged, failed, reader::Reader};

impl Reader {
    /// Approvals, newest first, at most `limit`: of one tenant and one of its pipelines, or of all.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn approvals(
        &self,
        tenant: Option<&str>,
        pipeline: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Approval>, StoreError> {
        approvals_where(
            self.now()?,
            "(?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR pipeline = ?2)
             AND (?3 IS NULL OR seq < (SELECT last.seq FROM approvals AS last WHERE last.id = ?3))
             ORDER BY seq DESC LIMIT ?4",
            params![tenant, pipeline, after, limit],
        )
    }

    /// Approvals whose identifier starts with `prefix`: at most two, so that an ambiguity shows.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn approvals_by_prefix(&self, prefix: &str) -> Result<Vec<Approval>, StoreError> {
        let condition = "substr(id, 1, length(?1)) = ?1 ORDER BY seq DESC LIMIT 2";
        approvals_where(self.now()?, condition, params![prefix])
    }

    /// Where in the ledger the acts of approvals are, oldest first. Each is to be read there: what
    /// the store says of an entry is only where to look.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn approval_entries(&self) -> Result<Vec<u64>, StoreError> {
        let mut query = self
            .now()?
            .prepare_cached("SELECT idx FROM ledger_entries WHERE kind = 'approval' ORDER BY idx")
            .map_err(failed("read the ledger's index"))?;
        query
            .query_map([], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(failed("read the ledger's index"))
    }
}

/// Approvals that satisfy a condition over the table `approvals`.
pub(super) fn approvals_where(
    connection: &Connection,
    condition: &str,
    parameters: impl Params,
) -> Result<Vec<Approval>, StoreError> {
    let sql = format!("SELECT body FROM approvals WHERE {condition}");
    let mut query = connection
        .prepare_cached(&sql)
        .map_err(failed("read approvals"))?;
    let rows: Vec<String> = query
        .query_map(parameters, |row| row.get(0))
        .and_then(Iterator::collect)
        .map_err(failed("read approvals"))?;
    let bodies = rows.iter();
    bodies
        .map(|body| serde_json::from_str(body).map_err(damaged("approval")))
        .collect()
}
