//! The supply chain: function packages, OCI image layouts, driver bundles, reproducible builds.
