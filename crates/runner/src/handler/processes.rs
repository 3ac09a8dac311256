//! What a function's process looks like at rest: the processes of its sandbox, and its scratch.

use std::{
    collections::BTreeSet,
    ffi::{CStr, OsString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStringExt,
};

use rustix::fs::{Dir, Mode, OFlags};

/// More processes than this are not looked at; the sandbox has a limit of its own.
const PROCESSES: usize = 1024;

/// What was there when the function first waited for an event. A launcher script, or what a client
/// unpacks when it starts, belongs to it; everything else belongs to an attempt.
#[derive(Debug)]
pub(super) struct Rest {
    processes: BTreeSet<i32>,
    scratch: Option<Scratch>,
}

/// The scratch folder, open since then: whatever becomes of the sandbox and of the numbers of its
/// processes, it is this folder that is emptied, and no other.
#[derive(Debug)]
struct Scratch {
    folder: OwnedFd,
    names: BTreeSet<OsString>,
}

impl Rest {
    /// Looks at the sandbox whose first process is `init`. Blocking.
    pub(super) fn of(init: i32) -> io::Result<Self> {
        let processes = below(init)?;
        let scratch = match processes.first() {
            Some(process) => Some(Scratch::of(*process, init)?),
            None => None,
        };
        Ok(Self { processes, scratch })
    }

    /// Removes what an attempt left in the scratch folder. `false`: processes have come or gone, so
    /// that the sandbox is not what it was. Blocking.
    pub(super) fn restore(&self, init: i32) -> io::Result<bool> {
        if below(init)? != self.processes {
            return Ok(false);
        }
        let Some(scratch) = &self.scratch else {
            return Ok(false);
        };
        let keep = |name: &std::ffi::OsStr| scratch.names.contains(name);
        let stop = barecount_tree::to_the_end;
        barecount_tree::empty_but(scratch.folder.as_fd(), &keep, &stop)?;
        Ok(true)
    }
}

impl Scratch {
    /// Opens that of a process below `init`. It is a mount of the sandbox on its read-only root, so
    /// that its name cannot be made to lead elsewhere.
    fn of(process: i32, init: i32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Means this process and no other, even once another one has its number.
        let found = rustix::fs::open(format!("/proc/{process}"), flags, Mode::empty())?;
        if !below(init)?.contains(&process) || is_of_this_host(found.as_fd())? {
            return Err(io::Error::other("its process has gone"));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&found, "root/tmp", flags, Mode::empty())?;
        let names = names(folder.as_fd())?;
        Ok(Self { folder, names })
    }
}

/// Whether a process sees the mounts that this one does, as none in a sandbox does.
fn is_of_this_host(process: BorrowedFd<'_>) -> io::Result<bool> {
    let theirs = rustix::fs::readlinkat(process, "ns/mnt", Vec::new())?;
    let ours = rustix::fs::readlink("/proc/self/ns/mnt", Vec::new())?;
    Ok(theirs == ours)
}

fn names(folder: BorrowedFd<'_>) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name != c"." && name != c".." {
            names.insert(OsString::from_vec(name.to_bytes().to_owned()));
        }
    }
    Ok(names)
}

/// All processes below one, itself left out.
fn below(init: i32) -> io::Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    let mut open = vec![init];
    while let Some(process) = open.pop() {
        for thread in fs_err::read_dir(format!("/proc/{process}/task"))? {
            let children = fs_err::read_to_string(thread?.path().join("children"))?;
            for child in children.split_ascii_whitespace() {
                let child = child.parse().map_err(io::Error::other)?;
                if found.insert(child) {
                    open.push(child);
                }
            }
        }
        if found.len() > PROCESSES {
            return Err(io::Error::other("too many processes"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        path::PathBuf,
        process::{Child, Command, Stdio},
    };

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    /// A process with one below it, which ends with this.
    struct Init(Child);

    impl Init {
        fn start(wrapped: &[&str], before: &str) -> Result<Self, Box<dyn std::error::Error>> {
            let script = format!("{before} sleep 1000 & echo ready; wait");
            let mut words = wrapped.iter().copied().chain(["sh", "-ec", &script]);
            let mut command = Command::new(words.next().unwrap_or("sh"));
            let mut child = command.args(words).stdout(Stdio::piped()).spawn()?;
            let told = child.stdout.take().ok_or("it is piped")?;
            let init = Self(child);
            let mut line = String::new();
            BufReader::new(told).read_line(&mut line)?;
            assert_eq!(line, "ready\n");
            Ok(init)
        }

        fn number(&self) -> i32 {
            i32::try_from(self.0.id()).expect("a process number")
        }
    }

    impl Drop for Init {
        fn drop(&mut self) {
            for process in below(self.number()).unwrap_or_default() {
                if let Some(process) = rustix::process::Pid::from_raw(process) {
                    // It may have ended by itself.
                    let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
                }
            }
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    #[test]
    fn the_scratch_folder_of_a_process_that_sees_this_host_is_nobodys_to_empty() -> TestResult {
        let init = Init::start(&[], "")?;
        // As when the number of a process that has gone is another one's now.
        assert!(Rest::of(init.number()).is_err());
        Ok(())
    }

    #[test]
    fn what_is_emptied_is_the_folder_that_was_opened_whatever_its_processes_have_become()
    -> TestResult {
        let sandboxed = ["unshare", "--user", "--map-root-user", "--mount"];
        let init = Init::start(&sandboxed, "mount -t tmpfs none /tmp; echo > /tmp/kept;")?;
        let rest = Rest::of(init.number())?;
        let process = rest.processes.first().ok_or("there is one")?;
        let seen = PathBuf::from(format!("/proc/{process}/root/tmp"));
        fs_err::create_dir_all(seen.join("left/closed"))?;
        fs_err::write(seen.join("left/closed/row"), "")?;
        assert!(rest.restore(init.number())?);
        let scratch = rest.scratch.as_ref().ok_or("it has one")?;
        assert_eq!(names(scratch.folder.as_fd())?, scratch.names);
        assert_eq!(scratch.names.len(), 1);
        fs_err::write(seen.join("later"), "")?;
        let number = init.number();
        drop(init);
        assert!(rest.restore(number).is_err(), "its processes have gone");
        // The folder is there still, and nothing else was touched.
        assert_eq!(names(scratch.folder.as_fd())?.len(), 2);
        Ok(())
    }
}
