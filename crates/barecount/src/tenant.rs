//! Which tenant a verb speaks of.

use barecount_client::failure::{Failure, Status};
use barecount_dataset::{
    name::{InvalidTenant, Tenant},
    table::{StateTables, Tables},
};
use barecount_model::{
    codes,
    text::{DatasetName, Name},
};
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

    /// Refuses what is another tenant's than the one that was named.
    ///
    /// # Errors
    /// If a tenant was named, and it is not its.
    pub(crate) fn hold(&self, tenant: &str, what: &str) -> Result<(), Failure> {
        match self.name() {
            Some(name) if name != tenant => Err(Failure::new(
                Status::NotFound,
                format!("tenant `{name}` has no {what}"),
            )),
            _ => Ok(()),
        }
    }

    /// The tables of the tenant that has a dataset: of the one that was named, or of the only one
    /// that has it.
    ///
    /// # Errors
    /// If nobody has it, and if several have it and none was named.
    pub(crate) fn tables_with(
        &self,
        tables: &StateTables,
        dataset: &DatasetName,
    ) -> Result<Tables, Failure> {
        if let Some(name) = &self.tenant {
            return Ok(tables.of(&name.clone().into()));
        }
        let tenants = tables.tenants().map_err(|error| {
            Failure::new(Status::Unavailable, "the datasets cannot be listed").because(&error)
        })?;
        let has = |tenant: &&Tenant| tables.of(tenant).root(dataset).is_dir();
        let found: Vec<_> = tenants.iter().filter(has).collect();
        match found.as_slice() {
            [only] => Ok(tables.of(only)),
            [] => Err(Failure::new(
                Status::NotFound,
                format!("there is no version of dataset {dataset}"),
            )
            .with_code(codes::DATASET_UNAVAILABLE.id)
            .with_help("`barecount outputs ls` lists what there is.")),
            several => Err(ambiguous(
                &format!("dataset {dataset}"),
                several.iter().map(|tenant| tenant.as_str()),
            )),
        }
    }
}

/// A tenant by name.
///
/// # Errors
/// If the text is none.
pub(crate) fn tenant(text: &str) -> Result<Tenant, Failure> {
    text.parse()
        .map_err(|error: InvalidTenant| Failure::from_error(Status::Usage, &error))
}

/// Several tenants have what was named.
pub(crate) fn ambiguous<'a>(what: &str, tenants: impl Iterator<Item = &'a str>) -> Failure {
    let tenants: Vec<_> = tenants.collect();
    let message = format!("several tenants have {what}: {}", tenants.join(", "));
    let first = tenants.first().copied().unwrap_or("TENANT");
    Failure::new(Status::Usage, message)
        .with_code(codes::TENANT_AMBIGUOUS.id)
        .with_help(format!(
            "Name one of them, as with `--tenant {first}`, or in `BARECOUNT_TENANT`."
        ))
}

/// Whether people are to be told whose each thing is: where there is more than one tenant.
pub(crate) fn several<'a>(mut tenants: impl Iterator<Item = &'a str>) -> bool {
    let first = tenants.next();
    tenants.any(|tenant| Some(tenant) != first)
}
