//! Histories of the platform, made up from a seed: control plane, agent and what they decide are the
//! real ones; network, clock, backend, tables and storage are not, and fail.
//!
//! One thread and no time but the world's own, so that a seed gives the same history every time.
//! Nothing here starts a process or opens a socket. What must hold of every history is in
//! `invariants`; what may go wrong is in `world`.

mod agent;
mod clock;
mod cloud;
mod control;
mod data;
mod dice;
mod disk;
mod invariants;
mod plans;
mod site;
mod world;

pub use world::Tally;

/// So many of a failed history's last steps are told.
const TOLD: usize = 60;

/// A history in which something does not hold that must.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}: {what}\n{}\nreplay: cargo xtask sim --histories 1 --seed {seed}", steps.join("\n"))]
pub struct Violation {
    /// The seed that gives the same history again.
    pub seed: u64,
    /// What does not hold.
    pub what: String,
    /// The last steps before.
    pub steps: Vec<String>,
}

/// Plays the history of a seed.
///
/// # Errors
/// What does not hold that must, and the last steps that led there.
pub fn play(seed: u64) -> Result<Tally, Box<Violation>> {
    world::World::new(seed, None).play().or_else(|_| {
        // Once more, to tell the steps: that would slow every history down.
        let mut world = world::World::new(seed, Some(TOLD));
        world.play().map_err(|what| {
            let steps = world.steps();
            Box::new(Violation { seed, what, steps })
        })
    })
}
