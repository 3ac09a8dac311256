//! Finding out how control groups are mounted and where we are in them.

use std::path::{Path, PathBuf};

use super::{Version, parent};
use crate::report::{CgroupLayout, Controller};

/// Every controller that we have a use for.
pub(super) const ALL_CONTROLLERS: [Controller; 6] = [
    Controller::Memory,
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Pids,
    Controller::Io,
    Controller::Cpuset,
];

/// What was found.
pub(super) struct Found {
    pub(super) layout: CgroupLayout,
    pub(super) places: Vec<Place>,
}

/// A hierarchy with controllers that we have a use for.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) version: Version,
    pub(super) controllers: Vec<Controller>,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// The directory of the group that we are in.
    pub(super) own: PathBuf,
}

/// Name of a controller in version 1, by which people know it too.
pub(super) fn name(controller: Controller) -> &'static str {
    match controller {
        Controller::Memory => "memory",
        Controller::Cpu => "cpu",
        Controller::Cpuacct => "cpuacct",
        Controller::Pids => "pids",
        Controller::Io => "blkio",
        Controller::Cpuset => "cpuset",
    }
}

/// Name of a controller in version 2, where time used is always counted with `cpu`.
pub(super) fn v2_name(controller: Controller) -> &'static str {
    match controller {
        Controller::Io => "io",
        Controller::Cpuacct => "cpu",
        other => name(other),
    }
}

pub(super) fn discover() -> Found {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let there = |mount: &Path| {
        std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
    };
    parse(&mounts, &groups, there)
}

/// Puts the mount table and our membership together; `there` reads the controllers of a version 2
/// hierarchy: those at its top, of which each group below has some.
fn parse(mounts: &str, groups: &str, there: impl Fn(&Path) -> String) -> Found {
    let mut places: Vec<Place> = Vec::new();
    let (mut v1, mut v2) = (false, false);
    for mount in mounts.lines().filter_map(parse_mount) {
        let place = match mount.kind {
            "cgroup" => {
                v1 = true;
                let words: Vec<&str> = mount.options.split(',').collect();
                let controllers = chosen(|controller| words.contains(&name(controller)));
                place(&mount, Version::V1, controllers, groups)
            }
            "cgroup2" => {
                v2 = true;
                let text = there(&unescape(mount.point));
                let words: Vec<&str> = text.split_ascii_whitespace().collect();
                let controllers = chosen(|controller| words.contains(&v2_name(controller)));
                place(&mount, Version::V2, controllers, groups)
            }
            _ => continue,
        };
        let known = places.iter().any(|other| {
            place
                .controllers
                .iter()
                .any(|controller| other.controllers.contains(controller))
        });
        if !place.controllers.is_empty() && !known {
            places.push(place);
        }
    }
    let layout = match (v1, v2) {
        (true, true) => CgroupLayout::Hybrid,
        (true, false) => CgroupLayout::V1,
        (false, true) => CgroupLayout::V2,
        (false, false) => CgroupLayout::Absent,
    };
    Found { layout, places }
}

fn chosen(is_there: impl Fn(Controller) -> bool) -> Vec<Controller> {
    ALL_CONTROLLERS
        .into_iter()
        .filter(|controller| is_there(*controller))
        .collect()
}

fn place(
    mount: &MountLine<'_>,
    version: Version,
    controllers: Vec<Controller>,
    groups: &str,
) -> Place {
    let group = match version {
        Version::V1 => own_group(groups, controllers.first().map(|first| name(*first))),
        Version::V2 => own_group(groups, None),
    };
    Place {
        version,
        controllers,
        mount: unescape(mount.point),
        own: match version {
            Version::V1 => directory(mount, group),
            Version::V2 => parent::whole(directory(mount, group)),
        },
    }
}

struct MountLine<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

/// One line of `/proc/self/mountinfo`, see proc(5).
fn parse_mount(line: &str) -> Option<MountLine<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let mut after = after.split(' ');
    Some(MountLine {
        root: before.next()?,
        point: before.next()?,
        kind: after.next()?,
        options: after.nth(1)?,
    })
}

/// The path of our group by controller, or in version 2.
fn own_group<'a>(groups: &'a str, controller: Option<&str>) -> &'a str {
    let line = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match controller {
            Some(controller) => controllers.split(',').any(|name| name == controller),
            None => controllers.is_empty(),
        };
        ours.then_some(path)
    });
    line.unwrap_or("/")
}

/// Where a group is in the file system. A container may see only a part of the tree, and a group
/// outside of that part as `/..`; then what it sees is all that there is.
fn directory(mount: &MountLine<'_>, group: &str) -> PathBuf {
    let point = unescape(mount.point);
    let inside = Path::new(group).strip_prefix(mount.root);
    match inside {
        Ok(inside) if !group.contains("..") && !inside.as_os_str().is_empty() => point.join(inside),
        _ => point,
    }
}

/// Undoes the octal escapes of the mount table (blank, tab, newline, backslash).
fn unescape(text: &str) -> PathBuf {
    let codes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let plain = codes.iter().fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    });
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_host_gives_each_controller_where_it_is_mounted() {
        let groups = "3:memory:/agent\n2:cpu,cpuacct:/\n0::/user\n";
        let found = parse(HYBRID, groups, |_| "hugetlb pids".to_owned());
        assert_eq!(found.layout, CgroupLayout::Hybrid);
        let paths: Vec<_> = found
            .places
            .iter()
            .map(|place| place.own.display().to_string())
            .collect();
        assert_eq!(
            paths,
            [
                "/sys/fs/cgroup/cpu,cpuacct",
                "/sys/fs/cgroup/memory/agent",
                "/sys/fs/cgroup/unified/user"
            ]
        );
        assert_eq!(
            found.places[0].controllers,
            [Controller::Cpu, Controller::Cpuacct]
        );
        assert_eq!(found.places[2].controllers, [Controller::Pids]);
    }

    #[test]
    fn a_container_that_sees_a_part_of_the_tree_uses_what_it_sees() {
        let mounts = "33 30 0:29 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let found = parse(mounts, "0::/docker/1/agent\n", |_| "memory".to_owned());
        assert_eq!(found.places[0].own, Path::new("/sys/fs/cgroup/agent"));
        let above = parse(mounts, "0::/../other\n", |_| "memory".to_owned());
        assert_eq!(above.places[0].own, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn a_host_without_control_groups_is_told_as_such() {
        let found = parse("", "", |_| String::new());
        assert_eq!(found.layout, CgroupLayout::Absent);
        assert!(found.places.is_empty());
    }
}
