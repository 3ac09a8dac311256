//! How many connections an attempt may have open, of those that this process's descriptors allow.
//!
//! Every relayed connection takes two descriptors of the agent's. An attempt that took all would fail
//! its neighbours, and keep the agent from its own files.

use std::sync::{Arc, Mutex, OnceLock};

use rustix::process::{Resource, getrlimit, setrlimit};

/// Of all descriptors, those that connections may take, in parts of this: three quarters.
const PARTS: u64 = 4;
/// Where there is no limit, as many as anyone has.
const UNLIMITED: u64 = 1 << 20;

/// The descriptors of a process, as connections that its attempts share.
#[derive(Debug)]
pub struct Descriptors {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    attempts: usize,
    connections: usize,
}

impl Descriptors {
    /// For so many connections in all.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::default(),
        })
    }

    /// Those of this process, of which it has as many as it may from now on: what it may have at
    /// first is made for programs that wait for a few.
    pub fn of_process() -> Arc<Self> {
        static OF_PROCESS: OnceLock<Arc<Descriptors>> = OnceLock::new();
        let made = OF_PROCESS.get_or_init(|| {
            let mut limit = getrlimit(Resource::Nofile);
            let before = limit.current;
            limit.current = limit.maximum;
            let current = match setrlimit(Resource::Nofile, limit) {
                Ok(()) => limit.current,
                // Then it is as it was, and shared all the same.
                Err(error) => {
                    tracing::warn!(%error, "the limit of open files cannot be raised");
                    before
                }
            };
            let descriptors = current.unwrap_or(UNLIMITED);
            let connections = descriptors / PARTS * (PARTS - 1) / 2;
            Self::new(usize::try_from(connections).unwrap_or(usize::MAX))
        });
        made.clone()
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().expect("no holder panics")
    }
}

/// An attempt's share. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    of: Arc<Descriptors>,
}

impl Share {
    pub(crate) fn of(descriptors: Arc<Descriptors>) -> Self {
        descriptors.taken().attempts += 1;
        Self { of: descriptors }
    }

    /// For one more connection of an attempt that has so many. The share of one more attempt is
    /// always left.
    ///
    /// # Errors
    /// How many an attempt may have, where this one has as many or there are none left.
    pub(crate) fn take(&self, has: usize) -> Result<Taking, usize> {
        let mut taken = self.of.taken();
        let most = self.of.most / (taken.attempts + 1);
        if has >= most || taken.connections >= self.of.most {
            return Err(most);
        }
        taken.connections += 1;
        Ok(Taking(self.of.clone()))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.taken().attempts -= 1;
    }
}

/// The descriptors of one connection. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Taking(Arc<Descriptors>);

impl Drop for Taking {
    fn drop(&mut self) {
        self.0.taken().connections -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_leaves_the_share_of_one_more() {
        let descriptors = Descriptors::new(12);
        let first = Share::of(descriptors.clone());
        let fill = |share: &Share| {
            let mut taken = Vec::new();
            while let Ok(taking) = share.take(taken.len()) {
                taken.push(taking);
            }
            taken
        };
        let of_first = fill(&first);
        assert_eq!(of_first.len(), 6);
        let second = Share::of(descriptors.clone());
        let of_second = fill(&second);
        assert_eq!(of_second.len(), 4);
        // Nobody goes beyond what there is.
        let third = Share::of(descriptors);
        assert_eq!(fill(&third).len(), 2);
        drop((of_second, second));
        assert_eq!(fill(&third).len(), 4);
    }
}
