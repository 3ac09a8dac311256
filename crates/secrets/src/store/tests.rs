//! What the store promises, tried on real files.

mod crash;
mod fixture;
mod hostile;
mod verbs;
