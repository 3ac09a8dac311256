//! The domain name system (RFC 1035, 6891), both sides of it: the sandbox's name server, and the
//! question to a given one.

pub mod client;
pub mod responder;
pub(crate) mod server;
