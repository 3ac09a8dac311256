//! A tamper-evident log over bytes: append, tiles, checkpoints, proofs, offline verification.
//!
//! Knows nothing of pipelines, runs or policies: entries are bytes.
