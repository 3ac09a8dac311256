//! Who payloads are on the host: each sandbox another user, where there are ids for that.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::path::Path;

use rustix::fs::{AtFlags, CWD};
use rustix::rand::GetRandomFlags;

use super::LauncherConfig;
use crate::spec::{HostIdentity, Mount, Spec};

/// Ids that a user namespace of a container has and that nobody in it should be: above those of its
/// services and few people, below those that systemd gives out (`UIDS-GIDS` in its documentation), and
/// whatever does not fit 16 bits.
const FREE: [RangeInclusive<u32>; 2] = [20_000..=59_999, 65_536..=u32::MAX - 2];

/// The ids of this process's user namespace that are ids outside of it, too.
pub(super) struct Mapped {
    users: Vec<RangeInclusive<u32>>,
    groups: Vec<RangeInclusive<u32>>,
}

impl Mapped {
    /// Those of this process. Where `/proc` does not tell, there are none.
    pub(super) fn here() -> Self {
        let read = |name| std::fs::read_to_string(Path::new("/proc/self").join(name));
        let ranges = |name| read(name).map_or_else(|_| Vec::new(), |table| ranges(&table));
        Self {
            users: ranges("uid_map"),
            groups: ranges("gid_map"),
        }
    }

    /// Whether this user and this group are among them.
    pub(super) fn have(&self, own: HostIdentity) -> bool {
        holds(&self.users, &(own.uid..=own.uid)) && holds(&self.groups, &(own.gid..=own.gid))
    }

    /// How many users there are.
    pub(super) fn count(&self) -> u64 {
        self.users.iter().map(length).sum()
    }
}

/// Reads a map of ids (user_namespaces(7)): where a range begins inside, where outside, its length.
fn ranges(table: &str) -> Vec<RangeInclusive<u32>> {
    let range = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let first: u32 = words.next()?.parse().ok()?;
        let length: u32 = words.nth(1)?.parse().ok()?;
        Some(first..=first.checked_add(length.checked_sub(1)?)?)
    };
    table.lines().filter_map(range).collect()
}

fn length(range: &RangeInclusive<u32>) -> u64 {
    u64::from(*range.end()) - u64::from(*range.start()) + 1
}

fn holds(mapped: &[RangeInclusive<u32>], wanted: &RangeInclusive<u32>) -> bool {
    let within = |range: &RangeInclusive<u32>| {
        range.contains(wanted.start()) && range.contains(wanted.end())
    };
    mapped.iter().any(within)
}

/// The longest range of ids that nobody should be.
fn longest(mapped: &[RangeInclusive<u32>]) -> Option<RangeInclusive<u32>> {
    let common = mapped.iter().flat_map(|range| {
        FREE.iter()
            .map(move |free| (*range.start()).max(*free.start())..=(*range.end()).min(*free.end()))
    });
    common.filter(|range| !range.is_empty()).max_by_key(length)
}

/// The identities of a launcher that is root.
pub(super) struct Identities {
    last: HostIdentity,
    users: RangeInclusive<u32>,
    next: Cell<u32>,
}

impl Identities {
    /// The configured ones, where the user namespace has them all; else others that it has, and `None`
    /// where it has none to give.
    pub(super) fn new(config: &LauncherConfig, mapped: &Mapped) -> Option<Self> {
        let mut last = config.payload_identity;
        let mut more = config.payload_identities.saturating_sub(1);
        more = more.min(last.uid).min(last.gid);
        if !holds(&mapped.users, &(last.uid - more..=last.uid))
            || !holds(&mapped.groups, &(last.gid - more..=last.gid))
        {
            let users = longest(&mapped.users)?;
            let groups = longest(&mapped.groups)?;
            more = more
                .min(users.end() - users.start())
                .min(groups.end() - groups.start());
            last = HostIdentity {
                uid: *users.end(),
                gid: *groups.end(),
            };
        }
        let first = last.uid - more;
        // Of several launchers on a host each begins somewhere else; that they never have the same is
        // not worth more.
        let mut start = [0; 4];
        _ = rustix::rand::getrandom(&mut start, GetRandomFlags::NONBLOCK);
        let offset = u32::from_ne_bytes(start) % (last.uid - first + 1);
        Some(Self {
            last,
            users: first..=last.uid,
            next: Cell::new(first + offset),
        })
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

    fn mapped(users: &str, groups: &str) -> Mapped {
        Mapped {
            users: ranges(users),
            groups: ranges(groups),
        }
    }

    /// As the user namespace that a host begins with has them.
    fn all() -> Mapped {
        mapped("0 0 4294967295", "0 0 4294967295")
    }

    fn chosen(identities: &Identities) -> HostIdentity {
        let name = SandboxName::new("test").expect("it is a name");
        identities.choose(&Spec::new(name, vec!["true".to_owned()]))
    }

    #[test]
    fn each_is_another_until_all_were_there() {
        let mut config = LauncherConfig::new("test");
        config.payload_identity = HostIdentity { uid: 70, gid: 80 };
        config.payload_identities = 3;
        let identities = Identities::new(&config, &all()).expect("there are all");
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
        let identities = Identities::new(&config, &all()).expect("there are all");
        assert_eq!(chosen(&identities), config.payload_identity);
        assert_eq!(chosen(&identities), config.payload_identity);
    }

    #[test]
    fn a_container_gives_those_that_it_has_and_nobody_is() {
        let config = LauncherConfig::new("test");
        // As rootless engines map them, and as an orchestrator does that gives pods users of their own.
        for users in ["0 1000 1\n1 100000 65536\n", "0 1879048192 65536\n"] {
            let identities = Identities::new(&config, &mapped(users, "0 300000 65536"));
            let identities = identities.expect("there are enough");
            assert_eq!(identities.users, 20_000..=59_999);
            let found = chosen(&identities);
            assert_eq!(found.uid, found.gid);
        }
        let wide = mapped("0 100000 1000000", "0 100000 70000");
        let identities = Identities::new(&config, &wide).expect("there are enough");
        // As many as there are groups.
        assert_eq!(identities.users, 960_000..=999_999);
        assert_eq!(identities.last.gid, 59_999);
    }

    #[test]
    fn a_namespace_of_few_ids_has_none_to_give() {
        let config = LauncherConfig::new("test");
        for (users, groups) in [
            ("0 1000 1", "0 1000 1"),
            ("0 0 4294967295", "0 1000 1"),
            ("0 1000 1\n1 100000 1000", "0 0 4294967295"),
            ("", ""),
        ] {
            assert!(Identities::new(&config, &mapped(users, groups)).is_none());
        }
    }
}
