//! Which tenant a verb speaks of.

use barecount_api::dataset::DatasetRef;
use barecount_model::text::Name;
use clap::Args;

/// Whose datasets, runs and dead letters.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OfTenant {
    /// The tenant whose it is. Only needed where several tenants have what is named.
    #[arg(long, value_name = "TENANT", env = "BARECOUNT_TENANT")]
    tenant: Option<Name>,
}

impl OfTenant {
    /// The name that was given.
    pub(crate) fn name(&self) -> Option<&str> {
        self.tenant.as_ref().map(Name::as_str)
    }

    /// A dataset of that tenant.
    pub(crate) fn dataset(&self, name: &str) -> DatasetRef {
        DatasetRef {
            dataset: name.to_owned(),
            tenant: self.name().map(str::to_owned),
        }
    }
}

/// Whether people are to be told whose each thing is: where there is more than one tenant.
pub(crate) fn several<'a>(mut tenants: impl Iterator<Item = &'a str>) -> bool {
    let first = tenants.next();
    tenants.any(|tenant| Some(tenant) != first)
}
