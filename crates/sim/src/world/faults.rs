//! What goes wrong: which kinds of it a history has is decided first, so that each is also seen
//! without the others.

use super::{HEALED_AT, Happening, World};
use crate::dice::Dice;

/// No clock is wrong by more than so many milliseconds.
const WRONG_BY: i64 = 60_000;
/// Until then something goes wrong, in milliseconds.
const TROUBLED: u64 = 40_000;

/// The kinds of trouble in a history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    pub(super) network: bool,
    pub(super) storage: bool,
    pub(super) agents: bool,
    pub(super) control: bool,
    pub(super) power: bool,
    pub(super) disks: bool,
    pub(super) clocks: bool,
    pub(super) cuts: bool,
    pub(super) pauses: bool,
    pub(super) process: bool,
}

impl Faults {
    pub(super) fn of(dice: &mut Dice) -> Self {
        let mut has = || dice.chance(550);
        Self {
            network: has(),
            storage: has(),
            agents: has(),
            control: has(),
            power: has(),
            disks: has(),
            clocks: has(),
            cuts: has(),
            pauses: has(),
            process: has(),
        }
    }

    /// By how much a clock is wrong, in milliseconds.
    pub(super) fn ahead(&self, dice: &mut Dice) -> i64 {
        if !self.clocks {
            return 0;
        }
        let wrong = dice.below(2 * WRONG_BY.unsigned_abs()).cast_signed();
        wrong - WRONG_BY
    }
}

impl World {
    /// Decides what is wanted, and what goes wrong when.
    pub(super) fn foresee(&mut self) {
        for client in 0..self.clients.len() {
            let at = self.dice.below(8_000);
            self.at(at, Happening::Submit { client });
            if self.dice.chance(250) {
                let again = at + self.dice.below(20_000);
                self.at(again, Happening::Submit { client });
            }
            if self.dice.chance(300) {
                let then = at + self.dice.below(25_000);
                self.at(then, Happening::Cancel { client });
            }
        }
        let faults = self.faults;
        for site in 0..self.sites.len() {
            self.some(faults.agents, 3, |_| Happening::AgentDies { site });
            self.some(faults.power, 2, |_| Happening::PowerFails { site });
            self.some(faults.cuts, 3, |_| Happening::Cut { site });
            self.some(faults.disks, 2, |_| Happening::DiskFills {
                site,
                full: true,
            });
            let site = Some(site);
            self.some(faults.clocks, 3, |_| Happening::ClockIsSet { site });
            self.some(faults.pauses, 2, |_| Happening::Pause { site });
        }
        // One of two at most: somebody has to be left.
        if self.sites.len() > 1 && faults.agents {
            let site = self.dice.below(self.sites.len() as u64) as usize;
            self.some(true, 1, |_| Happening::SiteVanishes { site });
        }
        let site = None;
        self.some(faults.clocks, 2, |_| Happening::ClockIsSet { site });
        self.some(faults.pauses, 2, |_| Happening::Pause { site });
        self.some(faults.storage, 2, |_| Happening::StorageFills);
        self.some(faults.control, 3, |dice| match dice.chance(600) {
            true => Happening::ControlDies,
            false => Happening::ControlBegins,
        });
        self.at(HEALED_AT, Happening::Heals);
    }

    /// So often at most, if at all.
    fn some(&mut self, has: bool, most: u64, of: impl Fn(&mut Dice) -> Happening) {
        if !has {
            return;
        }
        for _ in 0..self.dice.below(most + 1) {
            let at = self.dice.below(TROUBLED);
            let happening = of(&mut self.dice);
            self.at(at, happening);
        }
    }

    pub(super) fn go_wrong(&mut self, fault: Happening) {
        let until = self.now() + self.dice.below(15_000);
        match fault {
            Happening::AgentDies { site } => self.end_agent(site, "dies"),
            Happening::PowerFails { site } => self.lose_power(site),
            Happening::SiteVanishes { site } => self.vanish(site),
            Happening::SiteIsMissed { site } => self.miss(site),
            Happening::DiskFills { site, full } => {
                self.note(|| format!("the disk of site {site} is full: {full}"));
                self.sites[site].disk.fill(full && !self.healed);
                if full {
                    let full = false;
                    self.at(until, Happening::DiskFills { site, full });
                }
            }
            Happening::ClockIsSet { site } => {
                let ahead = self.faults.ahead(&mut self.dice);
                self.note(|| format!("the clock of {site:?} is wrong by {ahead} ms"));
                match site {
                    Some(site) => self.sites[site].clock.set(ahead),
                    None => {
                        if let Some(control) = &self.control {
                            control.clock.set(ahead);
                        }
                    }
                }
            }
            Happening::Cut { site } => {
                let ways = 1 + self.dice.below(3);
                self.note(|| format!("the way to site {site} is cut ({ways}) until {until}"));
                let site = &mut self.sites[site];
                if ways & 1 != 0 {
                    site.deaf_until = until;
                }
                if ways & 2 != 0 {
                    site.dumb_until = until;
                }
            }
            Happening::Pause { site } => {
                self.note(|| format!("{site:?} is paused until {until}"));
                match site {
                    Some(site) => self.sites[site].paused_until = until,
                    None => {
                        if let Some(control) = &mut self.control {
                            control.paused_until = until;
                        }
                    }
                }
            }
            Happening::StorageFills => {
                self.note(|| "the storage is full for a while".to_owned());
                for _ in 0..=self.dice.below(6) {
                    self.memory
                        .fail_next(barecount_control::desk::Fault::Failed, 0);
                }
            }
            _ => {}
        }
    }

    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.note(|| "everything heals".to_owned());
        self.healed = true;
        self.stirred = true;
        self.memory.heal();
        self.cloud.heal();
        self.tables.heal();
        let now = self.now();
        for site in &mut self.sites {
            site.disk.heal();
            site.deaf_until = now;
            site.dumb_until = now;
            site.paused_until = now;
        }
        for control in self.control.iter_mut().chain(&mut self.former) {
            control.paused_until = now;
        }
        if self.control.is_none() {
            self.begin_control()?;
        }
        for site in 0..self.sites.len() {
            match self.sites[site].gone {
                true => self.miss(site),
                false => self.begin_agent(site)?,
            }
        }
        for client in 0..self.clients.len() {
            if self.clients[client].run.is_none() {
                self.soon(1_000, Happening::Submit { client });
            }
        }
        Ok(())
    }

    fn lose_power(&mut self, site: usize) {
        if self.sites[site].gone {
            return;
        }
        self.tally.power_losses += 1;
        self.end_agent(site, "has no power");
        self.sites[site].disk.lose_power();
    }

    fn vanish(&mut self, site: usize) {
        self.end_agent(site, "is gone for good");
        self.sites[site].gone = true;
        for (token, at) in &self.carried {
            if *at == site {
                self.witness.forget(token);
            }
        }
        self.soon(5_000, Happening::SiteIsMissed { site });
    }

    /// What an agent had that is gone for good, the others have from now on.
    fn miss(&mut self, site: usize) {
        let living: Vec<usize> = (0..self.sites.len())
            .filter(|other| !self.sites[*other].gone)
            .collect();
        let mut moved = 0;
        for place in self.placed.values_mut().filter(|place| **place == site) {
            *place = living[self.dice.below(living.len() as u64) as usize];
            moved += 1;
        }
        if moved > 0 {
            self.note(|| format!("site {site} is missed, and {moved} runs are with others"));
            self.tell_that_an_agent_began();
        }
    }
}
