//! Specifications that are wrong or hostile.

use barecount_sandbox::{
    Brokered, HostIdentity, Isolation, LaunchError, Mount, Network, Root, SandboxName, Spec,
    SpecError, Stdio,
};

use crate::launched::{bind, hold, hold_by, run, shell, spec};
use crate::{TestResult, launcher, launchers};

tests!(
    names_are_short_and_plain,
    hostile_specifications_are_refused_before_anything_starts,
    a_missing_program_is_named,
    a_program_that_is_none_is_named,
    a_missing_interpreter_is_a_missing_program,
    a_missing_working_directory_is_named,
    a_large_specification_gets_through,
    as_many_sockets_as_may_be_asked_for_get_through,
    a_core_that_is_not_there_is_an_error,
    a_failed_launch_leaves_its_name_free,
);

fn names_are_short_and_plain() -> TestResult {
    for name in ["", "A", "a/b", "..", "a b", "a\0", "ä", &"a".repeat(65)] {
        assert!(SandboxName::new(name).is_err(), "{name:?} is taken");
    }
    SandboxName::new("a".repeat(64))?;
    Ok(())
}

fn refusal(change: impl FnOnce(&mut Spec)) -> Result<SpecError, Box<dyn std::error::Error>> {
    let mut spec = shell("true");
    change(&mut spec);
    match launcher().launch(&spec, Stdio::null()?) {
        Err(LaunchError::InvalidSpec(error)) => Ok(error),
        other => Err(format!("{other:?}").into()),
    }
}

fn hostile_specifications_are_refused_before_anything_starts() -> TestResult {
    let tmp = std::path::Path::new("/tmp");
    refusal(|spec| spec.argv.clear())?;
    refusal(|spec| spec.argv[0].clear())?;
    refusal(|spec| spec.argv.push("a\0b".to_owned()))?;
    refusal(|spec| spec.argv = vec!["x".repeat(200); 8000])?;
    refusal(|spec| spec.argv = vec![String::from("x"); 10_000])?;
    refusal(|spec| spec.env.push(("a=b".to_owned(), "c".to_owned())))?;
    refusal(|spec| spec.env.push((String::new(), "c".to_owned())))?;
    refusal(|spec| spec.env.push(("a".to_owned(), "\0".to_owned())))?;
    refusal(|spec| spec.cwd = "relative".into())?;
    refusal(|spec| spec.cwd = "/a/../..".into())?;
    refusal(|spec| spec.root = Root::Directory("image".into()))?;
    refusal(|spec| spec.root = Root::Directory("/image/../../etc".into()))?;
    for target in [
        "work",
        "/data/../etc",
        "/",
        "/proc",
        "/proc/sys",
        "/dev/null",
        "/wo\0rk",
        "",
    ] {
        refusal(|spec| spec.mounts.push(bind(tmp, target, true)))?;
    }
    refusal(|spec| spec.mounts.push(bind("tmp".as_ref(), "/data", true)))?;
    refusal(|spec| spec.mounts = vec![bind(tmp, "/data", true); 1000])?;
    refusal(|spec| spec.listeners = vec![([127, 0, 0, 1], 80).into(); 1000])?;
    refusal(|spec| spec.identity.uid = 0)?;
    refusal(|spec| spec.identity.gid = 0)?;
    refusal(|spec| spec.identity.host = Some(HostIdentity { uid: 0, gid: 5 }))?;
    refusal(|spec| spec.limits.memory_bytes = Some(0))?;
    refusal(|spec| spec.limits.pids = Some(0))?;
    refusal(|spec| spec.limits.cpu_millis = Some(0))?;
    refusal(|spec| spec.limits.cpus = Some(vec![]))?;
    refusal(|spec| spec.limits.cpus = Some(vec![100_000]))?;
    refusal(|spec| {
        spec.isolation = Isolation::Process;
        spec.mounts.push(Mount::Tmpfs {
            target: "/x".into(),
            size_bytes: 4096,
        });
    })?;
    refusal(|spec| {
        spec.isolation = Isolation::Process;
        spec.root = Root::Empty;
    })?;
    let brokered = |declared_ports| Network::Brokered(Brokered { declared_ports });
    refusal(|spec| spec.network = brokered(vec![443, 0]))?;
    refusal(|spec| spec.network = brokered(vec![443; 49]))?;
    refusal(|spec| {
        spec.isolation = Isolation::Process;
        spec.network = brokered(vec![]);
    })?;
    Ok(())
}

fn error_of(spec: &Spec) -> Result<String, Box<dyn std::error::Error>> {
    let error = hold(spec).err().ok_or("it ran")?;
    let reason = error.source().map(ToString::to_string).unwrap_or_default();
    Ok(format!("{error}: {reason}"))
}

fn a_missing_program_is_named() -> TestResult {
    let missing = "No such file or directory (os error 2)";
    let told = error_of(&spec(&["/bin/no-such-program"]))?;
    assert_eq!(
        told,
        format!("cannot run /bin/no-such-program in the sandbox: {missing}")
    );
    let told = error_of(&spec(&["no-such-program"]))?;
    assert_eq!(
        told,
        format!("cannot run no-such-program in the sandbox: {missing}")
    );
    Ok(())
}

fn a_program_that_is_none_is_named() -> TestResult {
    let told = error_of(&spec(&["/etc/passwd"]))?;
    assert!(
        told.starts_with("cannot run /etc/passwd in the sandbox: Permission denied"),
        "{told}"
    );
    let told = error_of(&spec(&["/usr"]))?;
    assert!(
        told.starts_with("cannot run /usr in the sandbox: Permission denied"),
        "{told}"
    );
    Ok(())
}

fn a_missing_interpreter_is_a_missing_program() -> TestResult {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("script");
    std::fs::write(&program, "#!/no/such/interpreter\n")?;
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    let mut spec = spec(&["/script"]);
    spec.mounts = vec![Mount::Bind {
        source: program,
        target: "/script".into(),
        read_only: true,
        executable: true,
        changes: false,
    }];
    let told = error_of(&spec)?;
    assert!(
        told.starts_with("cannot run /script in the sandbox: No such file"),
        "{told}"
    );
    Ok(())
}

fn a_missing_working_directory_is_named() -> TestResult {
    let mut spec = shell("true");
    spec.cwd = "/no/such/folder".into();
    let told = error_of(&spec)?;
    assert!(
        told.starts_with("cannot enter the working directory /no/such/folder: "),
        "{told}"
    );
    Ok(())
}

fn a_large_specification_gets_through() -> TestResult {
    let mut spec = shell("echo ${#LARGE} $#");
    spec.env.push(("LARGE".to_owned(), "x".repeat(100_000)));
    spec.argv
        .extend(std::iter::repeat_n("argument".to_owned(), 5001));
    assert_eq!(run(&spec)?.stdout, "100000 5000\n");
    Ok(())
}

fn as_many_sockets_as_may_be_asked_for_get_through() -> TestResult {
    let mut spec = shell("true");
    spec.listeners = (0..128)
        .map(|port| ([127, 0, 0, 1], 2000 + port).into())
        .collect();
    let declared_ports = (1..=48).collect();
    spec.network = Network::Brokered(Brokered { declared_ports });
    let mut held = hold_by(&launchers().without_nf_tables, &spec)?;
    assert_eq!(held.sandbox.take_listeners().len(), 128);
    let intercepted = held.sandbox.take_intercepted().ok_or("not intercepted")?;
    assert_eq!(intercepted.tcp.len(), 96);
    assert!(held.sandbox.take_intercepted().is_none());
    assert!(held.finish()?.exit.status.success());
    Ok(())
}

fn a_core_that_is_not_there_is_an_error() -> TestResult {
    let mut spec = shell("true");
    spec.limits.cpus = Some(vec![1000]);
    let told = error_of(&spec)?;
    assert!(told.starts_with("cannot "), "{told}");
    Ok(())
}

fn a_failed_launch_leaves_its_name_free() -> TestResult {
    let mut spec = spec(&["/bin/no-such-program"]);
    error_of(&spec)?;
    spec.argv = vec!["/bin/true".to_owned()];
    assert!(run(&spec)?.exit.status.success());
    Ok(())
}
