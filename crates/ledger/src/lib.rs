//! A tamper-evident log over bytes: append, tiles, checkpoints, proofs, offline verification.
//!
//! Knows nothing of pipelines, runs or policies: entries are bytes. It follows C2SP's
//! `signed-note`, `tlog-checkpoint` and `tlog-tiles`, so that anyone's implementation can check
//! what this one wrote.
//!
//! The way in: [`integrate::Integrator`] turns a durable sequence of entries into tiles and a
//! signed checkpoint; [`export`] copies them out; [`verify`] checks a copy without trusting
//! anything but the keys that it is given. Everything blocks; nothing here knows an async runtime,
//! a clock or a database.
//!
//! Start reading at [`tree`] (hashes), [`tile`] (files), [`checkpoint`] over [`note`] (what is
//! signed); then [`storage`], [`integrate`], [`proof`], [`export`] and [`verify`].

pub mod checkpoint;
pub mod export;
pub mod integrate;
pub mod note;
pub mod proof;
pub mod storage;
pub mod tile;
pub mod tree;
pub mod verify;

pub use tile::MAX_ENTRY_BYTES;
pub use tree::{Hash, leaf_hash};
