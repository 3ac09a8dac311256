//! The broker, with a service on one side and a program's connections on the other, all of them
//! real sockets on loopback addresses.
//!
//! In place of a sandbox's routes, the addresses of names are loopback addresses on which the
//! inside listeners wait.

mod attempts;
mod battery;
mod flows;
mod limits;
mod lookups;
mod namespace;
mod opening;
mod paths;
mod rig;
