//! `barecount state`.

use barecount_client::{
    embedded::layout,
    failure::{Failure, Status},
};
use barecount_model::text::{DatasetName, Name};
use clap::Subcommand;
use serde_json::json;

use crate::{global::Global, printer::Printer};

/// Look after the state folder.
#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Say whose a dataset of an older state folder is, in which datasets had no tenant.
    Give {
        /// Its name, as `layer.name`.
        #[arg(value_name = "DATASET")]
        name: String,
        /// The tenant whose it is from now on.
        #[arg(long, value_name = "TENANT")]
        tenant: Name,
    },
}

impl State {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Give { name, tenant: of } => {
                let table: DatasetName = name.parse().map_err(|error| {
                    let what = format!("`{name}` does not name a dataset");
                    Failure::new(Status::Usage, what).because(&error)
                })?;
                layout::give(&global.state, &table, &of.clone().into())?;
                let value =
                    json!({ "schema": "barecount/given/v1", "dataset": name, "tenant": of });
                printer.data(&value, || format!("{name} is tenant `{of}`'s now\n"))
            }
        }
    }
}
