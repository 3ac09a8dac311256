//! What a verb asks of the platform, whoever answers: see [`Client`].
//!
//! [`embedded`] answers in this process, over a state folder. Nothing here knows a command line, a
//! terminal or how anything is shown: what comes of a verb is returned, and what happens on the way
//! is told to a [`reporter::Reporter`].

pub mod details;
pub mod embedded;
pub mod environment;
pub mod failure;
pub mod harmless;
pub mod log;
pub mod manifest;
pub mod preparation;
pub mod reporter;
pub mod requester;
pub mod rules;
pub mod runtime;
pub mod state;
pub mod words;
