//! What an attempt left in its output folder, read without trusting any of it.
//!
//! Folders and files are opened relative to an open folder, never following a symbolic link;
//! whatever is not a regular file or a folder is an error, and nothing is opened that could block
//! or have an effect. The attempt may still be changing things: what counts is what was opened.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use barecount_model::untrusted::Label;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::stage::Limits;

/// The deepest nesting of folders in an output.
const MAX_DEPTH: usize = 8;

/// Why an output folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The attempt wrote no file for this output.
    #[error("nothing was written for this output")]
    Nothing,
    /// Something in the folder is neither a regular file nor a folder.
    #[error("`{path}` is {kind}, only regular files and folders are read")]
    NotRegular {
        /// Where, relative to the output's folder.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A name that is not UTF-8 or holds control characters.
    #[error("the file name `{name}` {why}; rename it")]
    Name {
        /// Its path relative to the output's folder, as far as that is text.
        name: Label,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Too deep, too many or too large.
    #[error("{what} exceed the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// The system refused.
    #[error("cannot read `{path}`")]
    Io {
        /// Where, relative to the output's folder.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// One regular file of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Its path relative to the output's folder, parts separated by `/`.
    pub path: String,
    /// Its size in bytes when it was listed.
    pub bytes: u64,
}

/// An open output folder.
#[derive(Debug)]
pub struct InputFolder {
    root: OwnedFd,
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl InputFolder {
    /// Opens a folder that is not itself a symbolic link.
    ///
    /// # Errors
    /// [`InputError::Nothing`] if it does not exist; otherwise why it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, InputError> {
        match rustix::fs::open(path, FOLDER, Mode::empty()) {
            Ok(root) => Ok(Self { root }),
            Err(Errno::NOENT) => Err(InputError::Nothing),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(InputError::NotRegular {
                path: ".".to_owned(),
                kind: "not a folder",
            }),
            Err(errno) => Err(io(".", errno)),
        }
    }

    /// All files below the folder, in byte order of their paths.
    ///
    /// # Errors
    /// Anything that is not a regular file or folder, and whatever exceeds the limits.
    pub fn files(&self, limits: &Limits) -> Result<Vec<InputFile>, InputError> {
        let mut files = Vec::new();
        let mut entries = 0_u64;
        // By name, and not open: there may be more of them than a process may have files open.
        let mut pending = vec![(String::new(), 0)];
        while let Some((path, depth)) = pending.pop() {
            if depth > MAX_DEPTH {
                return Err(InputError::Limit {
                    what: "nested folders",
                    limit: MAX_DEPTH as u64,
                });
            }
            let folder = self.folder(&path)?;
            for name in names(&folder, &path, limits.max_files, &mut entries)? {
                let child = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}/{name}")
                };
                let stat = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| io(&child, errno))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => {
                        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
                        files.push(InputFile { path: child, bytes });
                    }
                    FileType::Directory => pending.push((child, depth + 1)),
                    other => {
                        return Err(InputError::NotRegular {
                            path: child,
                            kind: kind_of(other),
                        });
                    }
                }
            }
        }
        let total = files
            .iter()
            .map(|file| file.bytes)
            .fold(0, u64::saturating_add);
        if total > limits.max_bytes {
            return Err(InputError::Limit {
                what: "bytes written",
                limit: limits.max_bytes,
            });
        }
        files.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        Ok(files)
    }

    /// Opens a folder below the root, one name after the other.
    fn folder(&self, path: &str) -> Result<OwnedFd, InputError> {
        let open = |at: BorrowedFd<'_>, name: &str| {
            rustix::fs::openat(at, name, FOLDER, Mode::empty()).map_err(|errno| io(path, errno))
        };
        let mut folder = open(self.root.as_fd(), ".")?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            folder = open(folder.as_fd(), name)?;
        }
        Ok(folder)
    }

    /// Opens one of the listed files for reading.
    ///
    /// # Errors
    /// If it is no longer a regular file reached through folders alone.
    pub fn open_file(&self, file: &InputFile) -> Result<File, InputError> {
        let mut folder: Option<OwnedFd> = None;
        let mut parts = file.path.split('/').peekable();
        while let Some(part) = parts.next() {
            let at = folder.as_ref().unwrap_or(&self.root);
            let is_last = parts.peek().is_none();
            // NONBLOCK: a pipe put in the file's place since it was listed must not hang us.
            let flags = if is_last {
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK
            } else {
                FOLDER
            };
            let opened = rustix::fs::openat(at, part, flags, Mode::empty())
                .map_err(|errno| io(&file.path, errno))?;
            folder = Some(opened);
        }
        let opened = folder.ok_or(InputError::Nothing)?;
        let stat = rustix::fs::fstat(&opened).map_err(|errno| io(&file.path, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(File::from(opened)),
            other => Err(InputError::NotRegular {
                path: file.path.clone(),
                kind: kind_of(other),
            }),
        }
    }
}

fn names(
    folder: &OwnedFd,
    path: &str,
    max_entries: u64,
    entries: &mut u64,
) -> Result<Vec<String>, InputError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(|errno| io(path, errno))? {
        let entry = entry.map_err(|errno| io(path, errno))?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        *entries += 1;
        if *entries > max_entries {
            return Err(InputError::Limit {
                what: "files and folders",
                limit: max_entries,
            });
        }
        let refused = |why| InputError::Name {
            name: Label::of_bytes(&match path {
                "" => bytes.to_owned(),
                folder => [folder.as_bytes(), b"/", bytes].concat(),
            }),
            why,
        };
        let name = std::str::from_utf8(bytes).map_err(|_| refused("is not UTF-8"))?;
        if name.chars().any(char::is_control) {
            return Err(refused("has a control character"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn io(path: &str, errno: Errno) -> InputError {
    InputError::Io {
        path: path.to_owned(),
        source: errno.into(),
    }
}

fn kind_of(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of an unknown kind",
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::{ffi::OsStrExt as _, fs::symlink};

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn links_pipes_and_odd_names_are_refused() -> TestResult {
        let home = tempfile::tempdir()?;
        fs::write(home.path().join("secret"), "s")?;
        let output = home.path().join("out");
        fs::create_dir(&output)?;
        let listed = |output: &Path| InputFolder::open(output)?.files(&Limits::default());

        symlink(home.path().join("secret"), output.join("a.csv"))?;
        assert!(matches!(
            listed(&output),
            Err(InputError::NotRegular {
                kind: "a symbolic link",
                ..
            })
        ));
        fs::remove_file(output.join("a.csv"))?;

        let pipe = output.join("p.csv");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )?;
        assert!(matches!(
            listed(&output),
            Err(InputError::NotRegular { kind: "a pipe", .. })
        ));
        fs::remove_file(pipe)?;

        fs::create_dir(output.join("sub"))?;
        for (odd, told) in [
            (
                &b"\xff.csv"[..],
                "the file name `\u{fffd}.csv` is not UTF-8; rename it",
            ),
            (
                b"a\x1b[2J.csv",
                "the file name `a\\u{1b}[2J.csv` has a control character; rename it",
            ),
            (
                "sub/\u{85}".as_bytes(),
                "the file name `sub/\\u{85}` has a control character; rename it",
            ),
        ] {
            let odd = output.join(OsStr::from_bytes(odd));
            fs::write(&odd, "")?;
            let error = listed(&output).err().ok_or("it was taken")?;
            assert!(matches!(error, InputError::Name { .. }));
            assert_eq!(error.to_string(), told);
            fs::remove_file(odd)?;
        }

        let linked = home.path().join("linked");
        symlink(&output, &linked)?;
        assert!(matches!(
            InputFolder::open(&linked),
            Err(InputError::NotRegular { .. })
        ));
        assert!(matches!(
            InputFolder::open(&home.path().join("no")),
            Err(InputError::Nothing)
        ));
        Ok(())
    }

    #[test]
    fn a_file_swapped_for_a_link_after_listing_is_not_opened() -> TestResult {
        let home = tempfile::tempdir()?;
        fs::write(home.path().join("secret"), "s")?;
        let output = home.path().join("out");
        fs::create_dir_all(output.join("sub"))?;
        fs::write(output.join("sub/a.csv"), "x")?;
        let folder = InputFolder::open(&output)?;
        let files = folder.files(&Limits::default())?;
        assert_eq!(
            files,
            [InputFile {
                path: "sub/a.csv".to_owned(),
                bytes: 1
            }]
        );
        folder.open_file(&files[0])?;
        fs::remove_dir_all(output.join("sub"))?;
        symlink(home.path(), output.join("sub"))?;
        fs::write(home.path().join("a.csv"), "stolen")?;
        assert!(folder.open_file(&files[0]).is_err());
        Ok(())
    }

    #[test]
    fn depth_count_and_size_are_bounded() -> TestResult {
        let output = tempfile::tempdir()?;
        let limits = Limits {
            max_files: 3,
            max_bytes: 10,
            ..Limits::default()
        };
        let listed = || InputFolder::open(output.path())?.files(&limits);
        fs::write(output.path().join("a"), [0; 11])?;
        assert!(matches!(
            listed(),
            Err(InputError::Limit {
                what: "bytes written",
                ..
            })
        ));
        for name in ["b", "c", "d"] {
            fs::write(output.path().join(name), "")?;
        }
        assert!(matches!(
            listed(),
            Err(InputError::Limit {
                what: "files and folders",
                ..
            })
        ));
        let deep = tempfile::tempdir()?;
        fs::create_dir_all(deep.path().join("1/2/3/4/5/6/7/8/9"))?;
        let deep = InputFolder::open(deep.path())?.files(&Limits::default());
        assert!(matches!(
            deep,
            Err(InputError::Limit {
                what: "nested folders",
                ..
            })
        ));
        Ok(())
    }

    #[test]
    fn many_folders_beside_each_other_are_read_with_few_descriptors() -> TestResult {
        let few = rustix::process::Rlimit {
            current: Some(256),
            maximum: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, few)?;
        let home = tempfile::tempdir()?;
        for number in 0..1_000 {
            let folder = home.path().join(number.to_string());
            fs::create_dir(&folder)?;
            fs::write(folder.join("part.csv"), "1")?;
        }
        let opened = InputFolder::open(home.path())?;
        assert_eq!(opened.files(&Limits::default())?.len(), 1_000);
        Ok(())
    }
}
