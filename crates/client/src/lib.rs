//! What a verb asks of the platform, whoever answers: see [`client::Client`].
//!
//! [`embedded`] answers in this process, over a state folder. Nothing here knows a command line, a
//! terminal or how anything is shown: what comes of a verb is returned, and what happens on the way
//! is told to a [`reporter::Reporter`].

pub mod approvals;
pub mod client;
pub mod details;
pub mod embedded;
mod environment;
pub mod failure;
mod log;
pub mod manifest;
mod preparation;
pub mod reporter;
mod requester;
mod reserve;
mod rules;
pub mod runtime;
mod state;
pub mod words;
