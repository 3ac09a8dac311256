//! Linux isolation: namespaces, control groups, seccomp, mounts, capabilities, and the launcher process.
//!
//! The only crate with unsafe code. Knows nothing of pipelines or runners.
