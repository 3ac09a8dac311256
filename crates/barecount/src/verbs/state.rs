//! `barecount state`.

use barecount_client::{client::Datasets as _, failure::Failure};
use barecount_model::text::Name;
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
                global.client().give_to_tenant(&name, of.as_str())?;
                let value =
                    json!({ "schema": "barecount/given/v1", "dataset": name, "tenant": of });
                printer.data(&value, || format!("{name} is tenant `{of}`'s now\n"))
            }
        }
    }
}
