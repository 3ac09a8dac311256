//! Who payloads are on the host: each sandbox another user.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::path::Path;

use rustix::fs::{AtFlags, CWD};
use rustix::rand::GetRandomFlags;

use super::LauncherConfig;
use crate::spec::{HostIdentity, Mount, Spec};

/// The identities of a launcher that is root.
pub(super) struct Identities {
    last: HostIdentity,
    users: RangeInclusive<u32>,
    next: Cell<u32>,
}

impl Identities {
    pub(super) fn new(config: &LauncherConfig) -> Self {
        let last = config.payload_identity;
        let more = config.payload_identities.saturating_sub(1);
        let first = last.uid - more.min(last.uid).min(last.gid);
        // Of several launchers on a host each begins somewhere else; that they never have the same is
        // not worth more.
        let mut start = [0; 4];
        _ = rustix::rand::getrandom(&mut start, GetRandomFlags::NONBLOCK);
        let offset = u32::from_ne_bytes(start) % (last.uid - first + 1);
        Self {
            last,
            users: first..=last.uid,
            next: Cell::new(first + offset),
        }
    }

    /// Who a sandbox's payload is: whose a writable source is that stays from one sandbox to the next,
    /// else the next of all.
    pub(super) fn choose(&self, spec: &Spec) -> HostIdentity {
        let kept = spec.mounts.iter().find_map(|mount| match mount {
            Mount::Bind {
                source,
                read_only: false,
                ..
            } => self.owner(source),
            _ => None,
        });
        let uid = kept.unwrap_or_else(|| {
            let uid = self.next.get();
            let after = if uid == *self.users.end() {
                *self.users.start()
            } else {
                uid + 1
            };
            self.next.set(after);
            uid
        });
        HostIdentity {
            uid,
            gid: self.last.gid - (self.last.uid - uid),
        }
    }

    fn owner(&self, source: &Path) -> Option<u32> {
        let found = rustix::fs::statat(CWD, source, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        self.users.contains(&found.st_uid).then_some(found.st_uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::SandboxName;

    fn chosen(identities: &Identities) -> HostIdentity {
        let name = SandboxName::new("test").expect("it is a name");
        identities.choose(&Spec::new(name, vec!["true".to_owned()]))
    }

    #[test]
    fn each_is_another_until_all_were_there() {
        let mut config = LauncherConfig::new("test");
        config.payload_identity = HostIdentity { uid: 70, gid: 80 };
        config.payload_identities = 3;
        let identities = Identities::new(&config);
        let mut found: Vec<(u32, u32)> = (0..3)
            .map(|_| chosen(&identities))
            .map(|it| (it.uid, it.gid))
            .collect();
        found.sort_unstable();
        assert_eq!(found, [(68, 78), (69, 79), (70, 80)]);
        let again = chosen(&identities).uid;
        assert!((68..=70).contains(&again));
    }

    #[test]
    fn one_alone_is_enough() {
        let mut config = LauncherConfig::new("test");
        config.payload_identity = HostIdentity { uid: 0, gid: 0 };
        let identities = Identities::new(&config);
        assert_eq!(chosen(&identities), config.payload_identity);
        assert_eq!(chosen(&identities), config.payload_identity);
    }
}
