//! Behaviour of the default policies and of everything around them.

mod approvals;
mod defaults;
mod fixture;
mod hostile;
mod loading;
mod memory;
mod rendering;
