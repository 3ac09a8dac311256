//! Whose datasets they are, and where each lies.
//!
//! What a name may be is [`barecount_model::text`]'s to say, for datasets and tenants alike.

use std::path::{Path, PathBuf};

use barecount_model::text::{DatasetName, InvalidText, Name};

/// A text that is not the name of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of a tenant")]
pub struct InvalidTenant {
    text: String,
    source: InvalidText,
}

/// Whose tables they are. The name is a folder's name as it is: it has no upper case, so that two
/// of them are never one folder, and nothing that leads out of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(Name);

impl Tenant {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<Name> for Tenant {
    fn from(name: Name) -> Self {
        Self(name)
    }
}

impl std::fmt::Display for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Tenant {
    type Err = InvalidTenant;

    fn from_str(text: &str) -> Result<Self, InvalidTenant> {
        text.parse().map(Self).map_err(|source| InvalidTenant {
            text: text.chars().take(160).collect(),
            source,
        })
    }
}

/// A dataset's folder below the folder of its tenant's datasets: `<layer>/<name>`.
pub(crate) fn folder(dataset: &DatasetName) -> PathBuf {
    Path::new(dataset.layer()).join(dataset.name())
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tenant_that_could_leave_its_folder_or_be_in_anothers_is_refused() {
        let longer = "a".repeat(64);
        for text in [
            "", ".", "..", "a/b", "../a", "Acme", "a.b", "a b", "-a", "_a", "ä", &longer,
        ] {
            assert!(text.parse::<Tenant>().is_err(), "{text} was accepted");
        }
        for text in ["acme", "7", "a-b_c", &longer[1..]] {
            assert!(text.parse::<Tenant>().is_ok(), "{text} was refused");
        }
    }

    proptest! {
        #[test]
        fn a_dataset_of_a_manifest_has_a_folder_of_its_own_below_its_layer(
            text in "[a-z0-9./_-]{1,12}|[a-z0-9_-]{1,9}\\.[a-z0-9_-]{1,9}"
        ) {
            if let Ok(dataset) = text.parse::<DatasetName>() {
                let folder = folder(&dataset);
                let parts: Vec<_> = folder.components().collect();
                prop_assert_eq!(parts.len(), 2);
                for part in parts {
                    let is_plain = matches!(part, Component::Normal(name) if name.to_str()
                        .is_some_and(|name| !name.starts_with(['_', '.'])));
                    prop_assert!(is_plain, "{}", folder.display());
                }
            }
        }
    }
}
