//! The closed vocabularies of the seeds: runner classes, sizes, network profiles, phases.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value as manifests, evidence and JSON spell it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

vocabulary! {
    /// How a stage is executed, and what shape its cost has.
    RunnerClass {
        /// Event driven, short, scales from and to zero.
        Serverless = "serverless",
        /// An OCI image with predictable resources.
        Container = "container",
        /// Heavy batch on a data processing engine.
        ManagedEtl = "managed_etl",
        /// An exclusive host with pinned drivers.
        DedicatedCompute = "dedicated_compute",
    }
}

vocabulary! {
    /// A size tier; what it is worth is the catalog's business.
    Size {
        /// Single worker, limited memory.
        Small = "small",
        /// The common choice.
        Medium = "medium",
        /// More memory or CPU.
        Large = "large",
        /// Exceptional workloads; needs an approval.
        XLarge = "xlarge",
        /// Declared in full; for dedicated compute only.
        Custom = "custom",
    }
}

vocabulary! {
    /// What a stage may reach, and by which path.
    NetworkProfile {
        /// Allow-listed public names.
        PublicVpcEgress = "public_vpc_egress",
        /// Declared private ranges and names.
        PrivateVpc = "private_vpc",
        /// One declared private endpoint.
        PrivateLink = "privatelink",
        /// Through an encrypted tunnel only.
        Vpn = "vpn",
        /// Only on agents of the declared facility.
        OnPremAgent = "on_prem_agent",
    }
}

vocabulary! {
    /// The pipeline phase a stage belongs to.
    Phase {
        /// Bringing records in.
        Ingestion = "ingestion",
        /// Raw Stage to golden data points.
        Normalization = "normalization",
        /// Golden data points to indicators.
        Kpi = "kpi",
        /// Handing results out.
        Publish = "publish",
        /// Orchestration utilities.
        Utility = "utility",
    }
}
