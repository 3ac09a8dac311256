//! Files of the host, and files that are given to be read only.

use std::{
    fs::{self, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use super::{
    Attempt, Environment, Probe,
    call::{call, done, holds, numbered},
    mounts::path,
    probe,
};

/// What the canary holds.
pub(super) const CANARY: &str = "outside";

fn finds_canary(at: &Path) -> Attempt {
    let text = numbered(fs::read_to_string(at))?;
    holds(text == CANARY)
}

/// Up, further than anything is deep, and down to the canary.
fn climbing(from: &Path, around: &Environment) -> PathBuf {
    let mut path = from.to_owned();
    path.extend(["..", "..", "..", ".."].repeat(16));
    path.join(around.canary.strip_prefix("/").unwrap_or(&around.canary))
}

/// Makes a file where it must not be, and takes it away again.
fn makes_file_in(folder: &Path) -> Attempt {
    let place = folder.join(format!("battery-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&place);
    numbered(made)?;
    done(numbered(fs::remove_file(&place)))
}

fn writes_to(file: &Path) -> Attempt {
    done(numbered(OpenOptions::new().write(true).open(file)))
}

/// A name in the output that no other probe has.
fn own(around: &Environment, what: &str) -> PathBuf {
    around.output.join(format!("{what}-{}", std::process::id()))
}

pub(super) fn probes() -> Vec<Probe> {
    [reaching(), reaching_by_processes(), writing(), leaving()]
        .into_iter()
        .flatten()
        .collect()
}

/// Ways to a file of the host.
fn reaching() -> Vec<Probe> {
    vec![
        probe("reach a file of the host by its path", |around| {
            finds_canary(&around.canary)
        }),
        probe("reach it by climbing from the root", |around| {
            finds_canary(&climbing(Path::new("/"), around))
        }),
        probe("reach it by climbing from a mount", |around| {
            finds_canary(&climbing(&around.output, around))
        }),
        probe("reach it by a link in a mount", |around| {
            let link = own(around, "link");
            numbered(symlink(&around.canary, &link))?;
            let found = finds_canary(&link);
            numbered(fs::remove_file(&link))?;
            found
        }),
        probe("reach it by a climbing link in a mount", |around| {
            let link = own(around, "climbing");
            numbered(symlink(climbing(Path::new("."), around), &link))?;
            let found = finds_canary(&link);
            numbered(fs::remove_file(&link))?;
            found
        }),
    ]
}

/// Ways by what the kernel tells of processes.
fn reaching_by_processes() -> Vec<Probe> {
    vec![
        probe("reach it by the root of process 1", |around| {
            finds_canary(&climbing(Path::new("/proc/1/root"), around))
        }),
        probe("reach it by the working directory of process 1", |around| {
            finds_canary(&climbing(Path::new("/proc/1/cwd"), around))
        }),
        probe("reach it by its own root", |around| {
            finds_canary(&climbing(Path::new("/proc/self/root"), around))
        }),
        probe("reach it by the root of a process outside", |around| {
            let root = PathBuf::from(format!("/proc/{}/root", around.pid));
            finds_canary(&climbing(&root, around))
        }),
        probe("reach it by a descriptor that was left open", |around| {
            for number in 0..1024 {
                if finds_canary(&climbing(
                    Path::new(&format!("/proc/self/fd/{number}")),
                    around,
                ))
                .is_ok()
                {
                    return Ok(());
                }
            }
            Err(0)
        }),
        probe("reach it from a changed root", |around| {
            // The working directory stays outside of the new root.
            let folder = path(&around.output);
            let above = numbered(fs::File::open("/"))?;
            call!(SYS_chroot, folder.as_c_str())?;
            call!(SYS_fchdir, above.as_raw_fd())?;
            finds_canary(&climbing(Path::new("."), around))
        }),
        probe(
            "find an open descriptor beyond the standard streams",
            |_| {
                // The pipe of the answer, and of the others the one that lists.
                let entries = numbered(fs::read_dir("/proc/self/fd"))?;
                holds(entries.count() > 6)
            },
        ),
        probe("read a file in the host's /dev/shm", |around| {
            finds_canary(&Path::new("/dev/shm").join(&around.shared_file))
        }),
        probe("reach the program that runs outside", |_| {
            // By which a runtime was once overwritten.
            let program = OpenOptions::new().write(true).open("/proc/1/exe");
            super::call::beyond(numbered(program), &[libc::ETXTBSY])
        }),
    ]
}

/// Writing where nothing may be written.
fn writing() -> Vec<Probe> {
    let mut probes: Vec<Probe> = ["/", "/bin", "/etc", "/usr", "/dev", "/proc", "/sys"]
        .map(|folder| {
            probe(format!("make a file in {folder}"), move |_| {
                makes_file_in(Path::new(folder))
            })
        })
        .into();
    probes.extend([
        probe("make a file in a read-only mount", |around| {
            makes_file_in(&around.input)
        }),
        probe("write a file in a read-only mount", |around| {
            writes_to(&around.input.join("given"))
        }),
        probe("change the mode of a file in a read-only mount", |around| {
            let file = around.input.join("given");
            let mode = fs::Permissions::from_mode(0o644);
            done(numbered(fs::set_permissions(file, mode)))
        }),
        probe(
            "write a read-only file by a link in a writable mount",
            |around| {
                let link = own(around, "to-input");
                numbered(symlink(around.input.join("given"), &link))?;
                let written = writes_to(&link);
                numbered(fs::remove_file(&link))?;
                written
            },
        ),
        probe("write a read-only file by its descriptor", |around| {
            let file = numbered(fs::File::open(around.input.join("given")))?;
            writes_to(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
        }),
        probe("link a file out of a read-only mount", |around| {
            let link = own(around, "hard");
            numbered(fs::hard_link(around.input.join("given"), &link))?;
            done(numbered(fs::remove_file(&link)))
        }),
        probe("write the program that runs", |around| {
            let written = numbered(
                OpenOptions::new()
                    .write(true)
                    .open(around.programs.join("battery")),
            );
            super::call::beyond(written, &[libc::ETXTBSY])
        }),
    ]);
    probes
}

/// Leaving things behind for somebody with more rights.
fn leaving() -> Vec<Probe> {
    vec![
        probe("leave a set-user-id file", |around| {
            leave(around, |file| {
                let mode = fs::Permissions::from_mode(0o4755);
                numbered(fs::set_permissions(file, mode))?;
                let found = numbered(fs::metadata(file))?.permissions().mode();
                holds(found & 0o4000 != 0)
            })
        }),
        probe("leave a file that is another user's", |around| {
            leave(around, |file| {
                done(numbered(std::os::unix::fs::chown(file, Some(12_345), None)))
            })
        }),
        probe("leave a file with capabilities", |around| {
            leave(around, |file| {
                let file = path(file);
                let mut capabilities = [0x0200_0001 | (0xff << 32), 0, 0];
                done(call!(
                    SYS_setxattr,
                    file.as_c_str(),
                    c"security.capability",
                    &mut capabilities,
                    20,
                    0
                ))
            })
        }),
        probe("leave a trusted attribute", |around| {
            leave(around, |file| {
                let file = path(file);
                done(call!(
                    SYS_setxattr,
                    file.as_c_str(),
                    c"trusted.battery",
                    c"x",
                    1,
                    0
                ))
            })
        }),
        probe("make a file immutable", |around| {
            leave(around, |file| {
                let file = numbered(fs::File::open(file))?;
                let mut flags = [0x10];
                // FS_IOC_SETFLAGS; only the right to set is of interest, so it is taken back.
                let set = call!(SYS_ioctl, file.as_raw_fd(), 0x4008_6602_i64, &mut flags);
                let mut none = [0];
                _ = call!(SYS_ioctl, file.as_raw_fd(), 0x4008_6602_i64, &mut none);
                done(set)
            })
        }),
    ]
}

fn leave(around: &Environment, what: impl FnOnce(&Path) -> Attempt) -> Attempt {
    let file = own(around, "left");
    numbered(fs::write(&file, ""))?;
    let left = what(&file);
    numbered(fs::remove_file(&file))?;
    left
}
