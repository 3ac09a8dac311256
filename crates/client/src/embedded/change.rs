//! Changing a dataset by hand: to an earlier version, away, or into other hands. Each is a version of
//! its own, asked of governance, and evidence before it happens.

use barecount_control::governance::{Action, Permit};
use barecount_dataset::{
    table::Snapshot,
    versions::{ChangeError, Restoration},
};
use barecount_model::{
    codes,
    evidence::{EvidenceKind, Subject, statement},
    plan::Plan,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Embedded, Platform,
    datasets::{Dataset, rows, unreadable},
    hold::Purpose,
    imports, policy,
};
use crate::{
    client::DatasetChange,
    environment,
    failure::{Failure, Status},
    preparation,
    reporter::Reporter,
    requester,
    rules::Rules,
    state,
    words::{amount, counted},
};

impl DatasetChange {
    fn verb(&self) -> &'static str {
        match self {
            Self::Restore(_) => "datasets restore",
            Self::Drop => "datasets drop",
            Self::Give(_) => "datasets give",
        }
    }
}

/// What would become of it, held against what it is.
enum Intended {
    Restore(Box<Restoration>),
    Drop(Snapshot),
    Give(Snapshot, String),
}

impl Embedded {
    /// Changes a dataset, if `agreed` agrees to what would become of it.
    pub(super) fn change_found(
        &self,
        found: &Dataset,
        asked: &DatasetChange,
        agreed: &dyn Fn(&str) -> Result<(), Failure>,
        reporter: &dyn Reporter,
    ) -> Result<Value, Failure> {
        let purpose = Purpose {
            verb: asked.verb(),
            pipeline: None,
        };
        preparation::on_platform(
            self,
            purpose,
            reporter,
            async |platform, folder, environment| {
                let intended = Intended::of(found, asked).await?;
                if intended.is_nothing() {
                    return Ok(intended.told(found, None));
                }
                let tenant = found.tables.tenant().as_str();
                let readers = imports::readers(&found.reader, tenant, &[&found.table])?;
                let mut question = intended.question(found);
                if !readers.is_empty() {
                    question.push_str(&format!("; it is read by {}", imports::read_by(&readers)));
                }
                agreed(&question)?;
                let changing = Changing {
                    found,
                    folder,
                    environment,
                    reporter,
                };
                let mut changed = changing.carry_out(platform, &intended).await?;
                changed["read_by"] = json!(readers);
                Ok(changed)
            },
        )
    }
}

impl Intended {
    async fn of(found: &Dataset, asked: &DatasetChange) -> Result<Self, Failure> {
        let Dataset { table, tables, .. } = found;
        let now = async || {
            let now = tables.snapshot(table, None).await;
            now.map_err(|error| unreadable(&error))
        };
        Ok(match asked {
            DatasetChange::Restore(version) => {
                let restoration = tables.foresee_restore(table, *version).await;
                Self::Restore(Box::new(restoration.map_err(|error| failure(&error))?))
            }
            DatasetChange::Drop => Self::Drop(now().await?),
            DatasetChange::Give(to) => Self::Give(now().await?, to.clone()),
        })
    }

    /// Whether it is that already.
    fn is_nothing(&self) -> bool {
        match self {
            Self::Restore(to) => !to.now.dropped && to.difference.is_none(),
            Self::Drop(_) => false,
            Self::Give(now, to) => now.given_to.as_ref() == Some(to),
        }
    }

    fn now(&self) -> &Snapshot {
        match self {
            Self::Restore(to) => &to.now,
            Self::Drop(now) | Self::Give(now, _) => now,
        }
    }

    fn act(&self) -> &'static str {
        match self {
            Self::Restore(_) => "restored",
            Self::Drop(_) => "dropped",
            Self::Give(..) => "given",
        }
    }

    fn question(&self, found: &Dataset) -> String {
        let (table, tenant) = (&found.table, found.tables.tenant());
        let now = self.now().version;
        match self {
            Self::Restore(to) => {
                let mut text = format!(
                    "{table} of tenant `{tenant}` goes from version {now} back to {}; added: {}; removed: {}",
                    to.then.version,
                    amount(&to.difference.added),
                    amount(&to.difference.removed)
                );
                for change in &to.difference.columns {
                    text.push_str(&format!("; {change}"));
                }
                text
            }
            Self::Drop(now) => format!(
                "{table} of tenant `{tenant}` is dropped, with {}; `barecount datasets \
                 restore {table} --version {}` brings it back while its files are kept",
                counted(rows(now), "row"),
                now.version
            ),
            Self::Give(_, to) => format!(
                "{table} of tenant `{tenant}` is given to pipeline `{to}`, which alone writes it \
                 from then on"
            ),
        }
    }

    /// Rows of what it comes to.
    fn rows(&self) -> Option<u64> {
        match self {
            Self::Restore(to) => rows(&to.then),
            Self::Drop(_) => Some(0),
            Self::Give(now, _) => rows(now),
        }
    }

    /// `barecount/change/v1`.
    fn told(&self, found: &Dataset, version: Option<u64>) -> Value {
        json!({
            "schema": "barecount/change/v1", "dataset": found.table.to_string(),
            "tenant": found.tables.tenant().as_str(), "act": self.act(),
            "from_version": self.now().version, "version": version, "rows": self.rows(),
            "restored": match self { Self::Restore(to) => Some(to.then.version), _ => None },
            "pipeline": match self { Self::Give(_, to) => Some(to), _ => None },
        })
    }
}

/// A change that is about to be made.
struct Changing<'a> {
    found: &'a Dataset,
    folder: &'a std::path::Path,
    environment: &'a environment::Found,
    reporter: &'a dyn Reporter,
}

impl Changing<'_> {
    async fn carry_out(&self, platform: &Platform, intended: &Intended) -> Result<Value, Failure> {
        let by = requester::name();
        let (permit, rules) = self.permit(platform, &by).await?;
        // Before the table changes: nothing happens to it that is not on record. Dying in between
        // leaves a record of what did not happen, which the table's own history tells.
        self.record(platform, intended, &by, &permit, &rules)
            .await?;
        let Dataset { table, tables, .. } = self.found;
        let version = intended.now().version;
        let at_ms = Timestamp::now().as_millisecond();
        let changed = match intended {
            Intended::Restore(to) => tables.restore(to, &by, at_ms).await,
            Intended::Drop(_) => tables.drop_table(table, version, &by, at_ms).await,
            Intended::Give(_, to) => tables.give(table, version, to, &by).await,
        };
        let changed = changed.map_err(|error| failure(&error))?;
        Ok(intended.told(self.found, Some(changed)))
    }

    async fn permit(&self, platform: &Platform, by: &str) -> Result<(Permit, Rules), Failure> {
        let plan = self.plan()?;
        let question = policy::question_of_run(
            Action::ChangeDataset,
            &plan,
            &self.environment.environment,
            by,
            Timestamp::now(),
        );
        let rules = self.environment.text.as_deref();
        preparation::ask(
            &platform.control,
            self.folder,
            rules,
            &question,
            self.reporter,
        )
        .await
    }

    /// The plan of the run that wrote it last, for whose pipeline governance is asked.
    fn plan(&self) -> Result<Plan, Failure> {
        let unwritten = || {
            let what = format!("no run on record has written {}", self.found.table);
            Failure::new(Status::Conflict, what)
                .with_code(codes::DATASET_UNWRITTEN.id)
                .with_help("Have a pipeline write it first; then it belongs to that one.")
        };
        let writer = self.found.writers()?.pop().ok_or_else(unwritten)?;
        let runs = self.found.reader.runs_by_prefix(&writer.run);
        let mut runs = runs.map_err(state::store_failure)?;
        let (_, plan) = runs.pop().ok_or_else(unwritten)?;
        Ok(plan)
    }

    async fn record(
        &self,
        platform: &Platform,
        intended: &Intended,
        by: &str,
        permit: &Permit,
        rules: &Rules,
    ) -> Result<(), Failure> {
        let now = intended.now();
        let digest = |of: &Snapshot| {
            let digest = of.digest().map(|(_, digest)| digest);
            digest.map_err(|error| Failure::from_error(Status::Failed, &error).with_code("BC0701"))
        };
        let before = json!({
            "version": now.version, "rows": rows(now), "digest": digest(now)?,
        });
        let after = match intended {
            Intended::Restore(to) => Some(digest(&to.then)?),
            Intended::Give(now, _) => Some(digest(now)?),
            Intended::Drop(_) => None,
        };
        let mut told = intended.told(self.found, Some(now.version + 1));
        told["digest"] = json!(after);
        let name = self.found.table.to_string();
        let subject = after.map_or_else(|| digest(now), Ok)?;
        let predicate = json!({
            "dataset": name, "tenant": self.found.tables.tenant().as_str(),
            "act": intended.act(), "at": Timestamp::now(), "by": by,
            "decision": permit.explanation(), "rules": rules, "before": before, "after": told,
        });
        let subjects = [Subject::new(name, &subject)];
        let statement = statement(EvidenceKind::Dataset, &subjects, predicate);
        preparation::enter(&platform.control, statement).await
    }
}

fn failure(error: &ChangeError) -> Failure {
    match error {
        ChangeError::Table(error) => unreadable(error),
        ChangeError::FileGone { .. } => Failure::from_error(Status::Conflict, error)
            .with_code(codes::VERSION_GONE.id)
            .with_help("A later version may be whole; `datasets history` lists them."),
        ChangeError::Changed { .. } => Failure::from_error(Status::Conflict, error)
            .with_code(codes::DATASET_UNAVAILABLE.id)
            .with_help("Another program writes to it; look at it, and do it again."),
        _ => Failure::from_error(Status::Unavailable, error)
            .with_code(codes::STATE_UNWRITABLE.id)
            .with_help("Nothing was changed. Make the state folder writable, and do it again."),
    }
}
