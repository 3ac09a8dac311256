//! The control plane: durable store, commands, governance, reconcilers.

pub mod governance;
