//! The supply chain: what runs is made from source by a recipe, kept by digest, and unpacked
//! read-only.
//!
//! | module | what it keeps |
//! |---|---|
//! | [`digest`] | digests of streams and of lists of fields |
//! | [`store`] | the artifacts of a state folder: durable, verified on every read |
//! | [`package`] | function packages: a zip with a `bootstrap` executable |
//! | [`image`] | OCI image layouts: written from files, read from anyone |
//! | [`driver`] | driver bundles: named, versioned files with digests |
//! | [`job`] | job files, digested as they are |
//! | [`build`] | recipes, and builds that give the same digest twice |
//!
//! All archives are hostile until proven otherwise: every reader here is bounded by [`Limits`],
//! and everything that unpacks writes through [`tree`], which the kernel keeps beneath one folder.
//! What this crate writes itself is stored without compression, so that a digest depends on the
//! content alone and never on the version or the CPU of a compressor.
//!
//! This crate knows no network: a registry is somebody else's business. It reads no environment
//! variables; what a build may see of them is passed in.

pub mod build;
pub mod digest;
pub mod driver;
pub mod entry;
pub mod image;
pub mod job;
pub mod limits;
pub mod package;
pub mod store;
mod tarball;
pub mod tree;
pub mod walk;

pub use digest::Digest;
pub use limits::Limits;
pub use store::Store;
