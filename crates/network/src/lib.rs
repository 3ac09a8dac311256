//! The connection broker: every connection that a sandbox makes is made by the agent on its
//! behalf, if it was declared. There is no other way out, so that enforcement and the record of
//! what was reached are one thing.
//!
//! A [`Broker`](broker::Broker) lives as long as its sandbox and serves the sockets that were
//! opened inside ([`capture::InsideSockets`]). A [`Policy`](policy::Policy) belongs to one
//! attempt, between [`begin`](broker::Broker::begin) and [`end`](broker::Attempt::end), and so
//! does the [`FlowLog`](record::FlowLog). How connections leave is a [`Path`](path::Path), one for
//! each network profile.
//!
//! A declared name has a synthetic address inside, and is resolved only when it is dialled: two
//! names on one address stay two. TLS passes through untouched.
//!
//! Out of reach: what is tunnelled inside a session with a declared host; UDP but for lookups
//! with the sandbox's own name server; who inside a sandbox made a connection. How the sockets got
//! inside, and that there is no other way out, is the sandbox's business.
//!
//! Where to start reading: [`broker`], then `flow`, the life of one connection.

pub mod address;
pub mod advice;
mod attempt;
pub mod broker;
mod buffer;
pub mod capture;
pub mod clock;
pub mod descriptors;
pub mod dns;
mod flow;
pub mod health;
pub mod inspect;
pub mod limit;
pub mod name;
pub mod path;
pub mod policy;
pub mod reason;
pub mod record;
mod relay;
pub mod resolver;
pub mod synthetic;
pub mod tunnel;

pub use dns::client::NameServer;
pub use inspect::Target;
