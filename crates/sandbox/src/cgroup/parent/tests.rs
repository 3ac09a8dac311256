//! The choice on every kind of host that was tried, on a hierarchy in memory. `cargo xtask vm` holds
//! the same on real ones.

mod launchers;

use super::super::Version;
use super::super::discover::ALL_CONTROLLERS;
use super::kernel::Kernel;
use super::*;

type TestResult = Result<(), String>;

const USER: u32 = 1000;
const AGENT: i32 = 10;
const LAUNCHER: i32 = 11;
const SHELL: i32 = 9;
const US: [i32; 2] = [AGENT, LAUNCHER];
const SYSTEMD: &str = "cpu io memory pids";

fn place(own: &str) -> Place {
    let mount = PathBuf::from("/cg");
    let own = mount.join(own.trim_start_matches('/'));
    Place {
        version: Version::V2,
        controllers: ALL_CONTROLLERS.to_vec(),
        mount,
        own,
    }
}

/// A host with systemd on which one of our processes runs in `own`, beside `others`.
fn systemd(uid: u32, own: &str, owner: u32, others: &[i32]) -> Kernel {
    let processes = [&US, others].concat();
    Kernel::host(uid, true)
        .group("/", 0, &[1], SYSTEMD)
        .group("/system.slice", 0, &[], "memory pids")
        .group("/user.slice", 0, &[], SYSTEMD)
        .group("/user.slice/user-1000.slice", 0, &[], "cpu memory pids")
        .group("/user.slice/user-0.slice", 0, &[], "memory pids")
        .group(MANAGER, USER, &[], "memory pids")
        .delegated(MANAGER)
        .group(&format!("{MANAGER}/app.slice"), USER, &[], "memory pids")
        .group(own, owner, &processes, "")
}

const MANAGER: &str = "/user.slice/user-1000.slice/user@1000.service";

/// Takes a place as a launcher does, and says where it is, what its sandboxes get, and where the
/// agent is.
fn launched(kernel: &Kernel, own: &str, uid: u32) -> Result<(Parent, Vec<Controller>), String> {
    let seeker = Seeker {
        processes: &US,
        uid,
    };
    let place = place(own);
    let why = |why: Availability| format!("{why:?}");
    let parent = choose(kernel, &place, seeker).map_err(why)?;
    let directory = parent.directory.join("barecount-x.0123abcd");
    let made = kernel.make(&directory);
    made.map_err(|error| error.to_string())?;
    kernel.set_alive(&directory, true);
    let controllers = divide(kernel, &parent, &place, &directory).map_err(why)?;
    assert!(!kernel.any_threaded(), "{:#?}", kernel.shown());
    Ok((parent, controllers))
}

fn refused(kernel: &Kernel, own: &str, uid: u32) -> Result<(String, String), String> {
    let before = kernel.shown();
    let seeker = Seeker {
        processes: &US,
        uid,
    };
    match choose(kernel, &place(own), seeker) {
        Err(Availability::Unavailable { reason, remedy }) => {
            assert_eq!(kernel.shown(), before, "what gave no place is as it was");
            Ok((reason, remedy))
        }
        other => Err(format!("{other:?}")),
    }
}

fn above(group: &str, left: &str) -> Placement {
    Placement::Above {
        group: group.to_owned(),
        left: left.to_owned(),
    }
}

fn own(group: &str) -> Placement {
    Placement::Own {
        group: group.to_owned(),
    }
}

#[test]
fn the_root_of_all_groups_is_taken_as_it_is() -> TestResult {
    let kernel = Kernel::host(0, true).group("/", 0, &[1, AGENT, LAUNCHER], "");
    let (parent, controllers) = launched(&kernel, "/", 0)?;
    assert_eq!(parent.placement, own("/"));
    assert_eq!(controllers, ALL_CONTROLLERS);
    assert!(!parent.divided, "it may hold processes");
    Ok(())
}

#[test]
fn root_in_a_shell_or_service_has_every_controller_and_leaves_the_unit_alone() -> TestResult {
    let shell: (&str, &[i32]) = ("/user.slice/user-0.slice/session-1.scope", &[SHELL]);
    for (unit, others) in [shell, ("/system.slice/agent.service", &[])] {
        let kernel = systemd(0, unit, 0, others);
        let before = kernel.shown();
        let (parent, controllers) = launched(&kernel, unit, 0)?;
        let slice = unit.rsplit_once('/').map_or("", |(slice, _)| slice);
        assert_eq!(parent.placement, above(slice, unit));
        assert_eq!(controllers, ALL_CONTROLLERS, "{unit}");
        let line = |lines: &[String]| lines.iter().find(|line| line.contains(unit)).cloned();
        assert_eq!(
            line(&kernel.shown()),
            line(&before),
            "the unit is as it was"
        );
    }
    Ok(())
}

#[test]
fn what_is_delegated_and_ours_alone_is_divided() -> TestResult {
    let scope = format!("{MANAGER}/app.slice/run-1.scope");
    for (uid, unit) in [
        (0, "/system.slice/agent.service"),
        (0, "/system.slice/run-1.scope"),
        (USER, "/system.slice/agent.service"),
        (USER, scope.as_str()),
    ] {
        let kernel = systemd(uid, unit, uid, &[]).delegated(unit);
        let (parent, controllers) = launched(&kernel, unit, uid)?;
        assert_eq!(parent.placement, own(unit));
        assert!(controllers.contains(&Controller::Memory), "{unit}");
        assert!(controllers.contains(&Controller::Pids), "{unit}");
        assert!(
            parent.limits.is_empty(),
            "what holds for the unit holds for them"
        );
    }
    Ok(())
}

#[test]
fn a_group_in_a_unit_that_was_delegated_is_ours_too() -> TestResult {
    let (unit, inner) = (
        "/system.slice/agent.service",
        "/system.slice/agent.service/main",
    );
    let kernel = systemd(0, inner, 0, &[])
        .group(unit, 0, &[], "memory pids")
        .delegated(unit);
    let (parent, _) = launched(&kernel, inner, 0)?;
    assert_eq!(parent.placement, own(inner));
    Ok(())
}

#[test]
fn a_delegated_group_that_holds_a_shell_is_left_for_the_slice() -> TestResult {
    let unit = "/system.slice/agent.service";
    let kernel = systemd(0, unit, 0, &[SHELL]).delegated(unit);
    let (parent, controllers) = launched(&kernel, unit, 0)?;
    assert_eq!(parent.placement, above("/system.slice", unit));
    assert_eq!(controllers, ALL_CONTROLLERS);
    Ok(())
}

#[test]
fn the_limits_of_a_unit_that_is_left_come_along() -> TestResult {
    let (unit, inner) = (
        "/system.slice/agent.service",
        "/system.slice/agent.service/main",
    );
    let kernel = systemd(0, inner, 0, &[])
        .group(unit, 0, &[], "memory pids")
        .with(unit, "memory.max", "209715200\n")
        .with(unit, "pids.max", "4915\n")
        .with(unit, "cpu.max", "150000 100000\n")
        .with(unit, "cpuset.cpus", "\n")
        .with(inner, "memory.max", "max\n")
        .with(inner, "pids.max", "50\n")
        .with(inner, "cpu.max", "max 100000\n")
        .with(inner, "cpuset.cpus", "0-1\n");
    let (parent, _) = launched(&kernel, inner, 0)?;
    let directory = parent.directory.join("barecount-x.0123abcd");
    for (file, value) in [
        ("memory.max", "209715200"),
        ("pids.max", "50"),
        ("cpu.max", "150000 100000"),
        ("cpuset.cpus", "0-1"),
    ] {
        let found = kernel.read(&directory, file);
        assert_eq!(found.map_err(|error| error.to_string())?, value, "{file}");
    }
    Ok(())
}

#[test]
fn a_scope_of_a_user_that_is_not_delegated_is_left_for_his_own_slice() -> TestResult {
    let scope = format!("{MANAGER}/app.slice/terminal.scope");
    let kernel = systemd(USER, &scope, USER, &[SHELL]);
    let (parent, controllers) = launched(&kernel, &scope, USER)?;
    let slice = format!("{MANAGER}/app.slice");
    assert_eq!(parent.placement, above(&slice, &scope));
    let given = [
        Controller::Memory,
        Controller::Cpu,
        Controller::Cpuacct,
        Controller::Pids,
    ];
    assert_eq!(controllers, given, "as much as the user was given");
    let Availability::Unavailable { reason, remedy } =
        not_given(Controller::Cpuset, &place(&scope), &parent.directory)
    else {
        return Err("available".to_owned());
    };
    assert!(
        reason.contains("is not given the cpuset controller"),
        "{reason}"
    );
    assert!(remedy.contains("systemctl edit user@.service"), "{remedy}");
    Ok(())
}

#[test]
fn root_takes_no_place_in_the_tree_of_a_user() -> TestResult {
    let scope = format!("{MANAGER}/app.slice/terminal.scope");
    let kernel = systemd(0, &scope, USER, &[SHELL]);
    let (parent, _) = launched(&kernel, &scope, 0)?;
    assert_eq!(
        parent.placement,
        above("/user.slice/user-1000.slice", &scope)
    );
    Ok(())
}

#[test]
fn a_user_whose_session_is_not_delegated_is_told_how_to_have_one_that_is() -> TestResult {
    let session = "/user.slice/user-1000.slice/session-3.scope";
    let (reason, remedy) = refused(&systemd(USER, session, 0, &[SHELL]), session, USER)?;
    assert!(reason.contains("is not delegated"), "{reason}");
    assert!(
        remedy.contains("systemd-run --user --scope -p Delegate=yes barecount run"),
        "{remedy}"
    );
    let service = "/system.slice/agent.service";
    let (reason, remedy) = refused(&systemd(USER, service, 0, &[]), service, USER)?;
    assert!(reason.contains("is not delegated"), "{reason}");
    assert!(remedy.contains("Delegate=yes"), "{remedy}");
    assert!(remedy.contains("agent.service"), "{remedy}");
    Ok(())
}

#[test]
fn a_container_that_is_ours_alone_is_divided() -> TestResult {
    let kernel = Kernel::host(0, false).group("/", 0, &US, "");
    let (parent, controllers) = launched(&kernel, "/", 0)?;
    assert_eq!(parent.placement, own("/"));
    assert_eq!(controllers, ALL_CONTROLLERS);
    Ok(())
}

#[test]
fn a_container_with_a_shell_is_left_as_it_is_and_told_why() -> TestResult {
    let kernel = Kernel::host(0, false).group("/", 0, &[SHELL, AGENT, LAUNCHER], "");
    let (reason, remedy) = refused(&kernel, "/", 0)?;
    assert!(reason.contains("holds other processes"), "{reason}");
    assert!(remedy.contains("first process"), "{remedy}");
    // A process of another process namespace shows as 0.
    let kernel = Kernel::host(0, false).group("/", 0, &[0, AGENT, LAUNCHER], "");
    refused(&kernel, "/", 0)?;
    // A group of one's own in such a container is none that the container's can limit.
    let kernel = Kernel::host(0, false)
        .group("/", 0, &[SHELL], "")
        .group("/agent", 0, &US, "");
    let (parent, controllers) = launched(&kernel, "/agent", 0)?;
    assert_eq!(parent.placement, own("/agent"));
    assert_eq!(controllers, []);
    Ok(())
}

#[test]
fn groups_that_are_mounted_read_only_are_told_as_such() -> TestResult {
    let mut kernel = Kernel::host(0, false).group("/", 0, &US, "");
    kernel.read_only = true;
    let (reason, remedy) = refused(&kernel, "/", 0)?;
    assert!(reason.contains("read-only"), "{reason}");
    assert!(remedy.contains("writable"), "{remedy}");
    Ok(())
}

#[test]
fn a_group_that_was_made_for_a_user_by_hand_is_divided() -> TestResult {
    let kernel = Kernel::host(USER, true)
        .group("/", 0, &[1], "memory pids")
        .group("/eve", USER, &US, "");
    let (parent, controllers) = launched(&kernel, "/eve", USER)?;
    assert_eq!(parent.placement, own("/eve"));
    assert_eq!(controllers, [Controller::Memory, Controller::Pids]);
    let kernel = Kernel::host(USER, true).group("/", 0, &[1, AGENT, LAUNCHER], "");
    let (reason, remedy) = refused(&kernel, "/", USER)?;
    assert!(reason.contains("does not belong to this user"), "{reason}");
    assert!(remedy.contains("belongs to its user"), "{remedy}");
    Ok(())
}
