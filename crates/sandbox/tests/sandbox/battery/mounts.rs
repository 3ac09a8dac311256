//! Changing what is mounted, and what the root is.

use std::{ffi::CString, os::unix::ffi::OsStrExt, path::Path};

use super::{
    Attempt, Environment, Probe,
    call::{call, done, system_call},
    probe,
};

/// The path as the kernel takes it.
pub(super) fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no path of ours has a NUL")
}

fn mount(source: &Path, target: &Path, kind: &str, flags: libc::c_ulong) -> Attempt {
    let (source, target) = (path(source), path(target));
    let kind = path(Path::new(kind));
    done(call!(
        SYS_mount,
        source.as_c_str(),
        target.as_c_str(),
        kind.as_c_str(),
        flags as i64,
        0
    ))
}

fn remount(target: &Path) -> Attempt {
    mount(target, target, "", libc::MS_REMOUNT | libc::MS_BIND)
}

fn unmount(target: &Path) -> Attempt {
    let target = path(target);
    done(call!(SYS_umount2, target.as_c_str(), libc::MNT_DETACH))
}

pub(super) fn probes() -> Vec<Probe> {
    [mounting(), remounting(), taking_apart()]
        .into_iter()
        .flatten()
        .collect()
}

fn mounting() -> Vec<Probe> {
    let new = |kind: &'static str| {
        probe(
            format!("mount a new {kind}"),
            move |around: &Environment| mount(Path::new("x"), &around.output, kind, 0),
        )
    };
    let mut probes: Vec<Probe> = ["tmpfs", "proc", "sysfs", "cgroup2", "overlay", "debugfs"]
        .map(new)
        .into();
    probes.extend([probe("bind a directory elsewhere", |around| {
        mount(Path::new("/proc"), &around.output, "", libc::MS_BIND)
    })]);
    probes
}

/// Lifting what mounts forbid or hide.
fn remounting() -> Vec<Probe> {
    vec![
        probe("make the root writable by remounting", |_| {
            remount(Path::new("/"))
        }),
        probe("make the input writable by remounting", |around| {
            mount(&around.input, &around.input, "", libc::MS_BIND)
                .or_else(|_| remount(&around.input))
        }),
        probe("make /proc/sys writable by remounting", |_| {
            remount(Path::new("/proc/sys")).or_else(|refusal| match refusal {
                // On the host it is no mount of its own.
                libc::EINVAL => remount(Path::new("/proc")),
                other => Err(other),
            })
        }),
        probe("unmount /proc", |_| unmount(Path::new("/proc"))),
        probe("unmount what hides /proc/kcore", |_| {
            unmount(Path::new("/proc/kcore")).or_else(|refusal| match refusal {
                libc::EINVAL => unmount(Path::new("/proc")),
                other => Err(other),
            })
        }),
    ]
}

/// The calls that mounts are made of, and other roots.
fn taking_apart() -> Vec<Probe> {
    vec![
        probe("change the propagation of mounts", |_| {
            let flags = libc::MS_REC | libc::MS_SHARED;
            mount(Path::new("x"), Path::new("/"), "", flags)
        }),
        probe("move a mount", |around| {
            mount(Path::new("/dev/shm"), &around.output, "", libc::MS_MOVE)
        }),
        probe("open a tree of mounts as a copy", |_| {
            done(call!(SYS_open_tree, libc::AT_FDCWD, c"/", 1))
        }),
        probe("open a new file system", |_| {
            done(call!(SYS_fsopen, c"tmpfs", 0))
        }),
        probe("open a mounted file system to change it", |_| {
            done(call!(SYS_fspick, libc::AT_FDCWD, c"/proc", 0))
        }),
        probe("change the attributes of a mount", |_| {
            let mut attributes = [0, 1, 0, 0];
            done(call!(
                SYS_mount_setattr,
                libc::AT_FDCWD,
                c"/proc",
                0,
                &mut attributes,
                32
            ))
        }),
        probe("attach a mount", |_| {
            let copy = call!(SYS_open_tree, libc::AT_FDCWD, c"/proc", 1)?;
            done(call!(SYS_move_mount, copy, c"", libc::AT_FDCWD, c"/tmp", 4))
        }),
        probe("pivot the root", |around| {
            mount(Path::new("x"), &around.output, "tmpfs", 0)?;
            let output = path(&around.output);
            call!(SYS_chdir, output.as_c_str())?;
            done(call!(SYS_pivot_root, c".", c"."))
        }),
        probe("change the root", |around| {
            let output = path(&around.output);
            done(call!(SYS_chroot, output.as_c_str()))
        }),
        probe("list mounts by listmount", |_| {
            let mut request = [24, u64::MAX, 0];
            let mut ids = [0; 64];
            done(system_call(
                458,
                &mut [
                    (&mut request).into(),
                    (&mut ids).into(),
                    64_i32.into(),
                    0_i32.into(),
                ],
            ))
        }),
    ]
}
