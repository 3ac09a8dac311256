//! What is left of a divided group when launchers end.

use super::*;

const UNIT: &str = "/system.slice/agent.service";

fn delegated() -> Kernel {
    systemd(0, UNIT, 0, &[]).delegated(UNIT)
}

fn end(kernel: &Kernel, directory: &Path) -> TestResult {
    let told = |error: std::io::Error| error.to_string();
    kernel.remove(directory).map_err(told)?;
    give_back(kernel, &place(UNIT).own).map_err(told)
}

#[test]
fn a_divided_group_is_as_it_was_once_the_launcher_has_ended() -> TestResult {
    let kernel = delegated();
    let before = kernel.shown();
    let (parent, _) = launched(&kernel, UNIT, 0)?;
    assert_ne!(kernel.shown(), before);
    end(&kernel, &parent.directory.join("barecount-x.0123abcd"))?;
    assert_eq!(kernel.shown(), before);
    // The agent was killed, and its launcher ends after it.
    let (parent, _) = launched(&kernel, UNIT, 0)?;
    kernel.end(AGENT);
    end(&kernel, &parent.directory.join("barecount-x.0123abcd"))?;
    let expected = before.iter().map(|line| line.replace("{10, 11}", "{11}"));
    assert_eq!(kernel.shown(), expected.collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_group_stays_divided_while_another_launcher_lives_there() -> TestResult {
    let told = |error: std::io::Error| error.to_string();
    let kernel = delegated();
    let before = kernel.shown();
    let (parent, _) = launched(&kernel, UNIT, 0)?;
    let other = parent.directory.join("barecount-y.89abcdef");
    kernel.make(&other).map_err(told)?;
    kernel.set_alive(&other, true);
    let first = parent.directory.join("barecount-x.0123abcd");
    end(&kernel, &first)?;
    let gives = kernel.read(&parent.directory, "cgroup.subtree_control");
    assert_eq!(
        gives.map_err(told)?,
        "memory pids",
        "the other one needs it"
    );
    // It ends, and what it leaves has no controllers in use.
    end(&kernel, &other)?;
    assert_eq!(kernel.shown(), before);
    Ok(())
}

#[test]
fn what_others_have_made_in_a_divided_group_keeps_its_controllers() -> TestResult {
    let told = |error: std::io::Error| error.to_string();
    let kernel = delegated();
    let (parent, _) = launched(&kernel, UNIT, 0)?;
    kernel
        .make(&parent.directory.join("theirs"))
        .map_err(told)?;
    end(&kernel, &parent.directory.join("barecount-x.0123abcd"))?;
    let gives = kernel.read(&parent.directory, "cgroup.subtree_control");
    assert_eq!(gives.map_err(told)?, "memory pids");
    Ok(())
}

#[test]
fn an_agent_that_another_one_started_divides_the_same_group() -> TestResult {
    let told = |error: std::io::Error| error.to_string();
    let kernel = delegated();
    launched(&kernel, UNIT, 0)?;
    let leaf = place(UNIT).own.join(LEAF);
    kernel.start(&leaf, &[20, 21]);
    let seeker = Seeker {
        processes: &[20, 21],
        uid: 0,
    };
    let mut place = place(UNIT);
    place.own = whole(leaf.clone());
    let parent = choose(&kernel, &place, seeker).map_err(|why| format!("{why:?}"))?;
    assert_eq!(parent.placement, own(UNIT));
    let members = kernel.read(&leaf, "cgroup.procs").map_err(told)?;
    assert_eq!(members.lines().count(), 4, "{members}");
    Ok(())
}

#[test]
fn what_was_left_in_any_slice_of_the_same_user_is_looked_for() {
    let session = "/user.slice/user-1000.slice/session-3.scope";
    let groups = |uid| -> Vec<String> {
        let kernel = systemd(uid, session, 0, &[]);
        let found = elsewhere(&kernel, Path::new("/cg"), uid);
        found
            .iter()
            .map(|group| shown(group, Path::new("/cg")))
            .collect()
    };
    let of_user = [MANAGER.to_owned(), format!("{MANAGER}/app.slice")];
    assert_eq!(groups(USER), of_user);
    let of_root = groups(0);
    assert!(of_root.contains(&"/system.slice".to_owned()), "{of_root:?}");
    assert!(
        of_root.contains(&"/user.slice/user-0.slice".to_owned()),
        "{of_root:?}"
    );
    assert!(!of_root.contains(&session.to_owned()), "{of_root:?}");
    assert!(!of_root.contains(&MANAGER.to_owned()), "another user's");
}
