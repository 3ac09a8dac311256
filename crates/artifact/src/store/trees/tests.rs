use std::cell::Cell;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use barecount_model::seal::SEAL_BYTES;

use super::*;
use crate::Limits;
use crate::entry::EntryPath;
use crate::tree::{Links, Tree};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn key(byte: u8) -> SealKey {
    SealKey::new([byte; 32].into())
}

fn path(text: &str) -> EntryPath {
    EntryPath::parse(text.as_bytes(), &Limits::default()).expect("a good path")
}

/// An artifact that was unpacked in a state folder.
struct Unpacked {
    _state: tempfile::TempDir,
    root: PathBuf,
    digest: Digest,
    fills: Cell<u32>,
}

impl Unpacked {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let state = tempfile::tempdir()?;
        let unpacked = Self {
            root: state.path().join("artifacts"),
            _state: state,
            digest: Digest::of(b"tree"),
            fills: Cell::default(),
        };
        unpacked.starts()?;
        assert_eq!(unpacked.fills.get(), 1);
        Ok(unpacked)
    }

    /// What each process does that starts work from it.
    fn starts(&self) -> Result<PathBuf, StoreError> {
        Store::open(&self.root)?
            .sealed(key(1))
            .unpack(&self.digest, |folder| {
                self.fills.set(self.fills.get() + 1);
                Ok(fill(folder, "from app import x\n"))
            })
    }

    fn tree(&self) -> PathBuf {
        self.root.join("unpacked").join(self.digest.hex())
    }

    fn list(&self) -> PathBuf {
        self.root.join("lists").join(self.digest.hex())
    }
}

fn fill(folder: &Path, code: &str) -> Written {
    let tree = Tree::open(folder, Links::WithinRoot).expect("the folder is there");
    let all = || -> Result<(), Box<dyn std::error::Error>> {
        tree.file(&path("app/x.py"), false, &mut code.as_bytes())?;
        tree.file(&path("app/y.py"), false, &mut &b"y"[..])?;
        tree.file(&path("bin/run"), true, &mut &b"#!/bin/sh\n"[..])?;
        tree.hard_link(&path("bin/same"), &path("bin/run"))?;
        tree.symlink(&path("bin/sh"), "run")?;
        tree.folder(&path("empty"))?;
        Ok(())
    };
    all().expect("it can be written");
    tree.freeze().expect("it can be frozen")
}

/// Writes into a file, and leaves its size, its mode and the time when it was written as they were.
fn forge(file: &Path, content: &str) -> io::Result<()> {
    let before = fs::metadata(file)?;
    fs::set_permissions(file, Permissions::from_mode(0o644))?;
    fs::write(file, content)?;
    File::options()
        .write(true)
        .open(file)?
        .set_modified(before.modified()?)?;
    fs::set_permissions(file, before.permissions())
}

/// Does something in a folder that is read-only.
fn within(folder: &Path, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    act()?;
    fs::set_permissions(folder, Permissions::from_mode(0o555))
}

type Change = fn(&Path) -> io::Result<()>;

/// What is other or more in a tree.
const ADDED: [(&str, Change); 7] = [
    ("a file's content", |tree| {
        forge(&tree.join("app/x.py"), "from bad import x\n")
    }),
    ("a file is longer", |tree| {
        forge(&tree.join("app/x.py"), "from app import x\nevil()\n")
    }),
    ("a file of another name of it", |tree| {
        forge(&tree.join("bin/same"), "#!/bin/no\n")
    }),
    ("a file more", |tree| {
        within(&tree.join("app"), || fs::write(tree.join("app/z.py"), ""))
    }),
    ("a file more, at the end", |tree| {
        within(tree, || fs::write(tree.join("z"), ""))
    }),
    ("a file in a folder more", |tree| {
        within(tree, || {
            fs::create_dir(tree.join("lib"))?;
            fs::write(tree.join("lib/evil.so"), "")
        })
    }),
    ("a file that no text can name", |tree| {
        use std::os::unix::ffi::OsStrExt as _;
        let name = std::ffi::OsStr::from_bytes(b"\xff");
        within(tree, || fs::write(tree.join(name), ""))
    }),
];

/// What is missing in a tree, or of another kind.
const EXCHANGED: [(&str, Change); 8] = [
    ("a file less", |tree| {
        within(&tree.join("app"), || fs::remove_file(tree.join("app/y.py")))
    }),
    ("a folder less", |tree| {
        within(tree, || fs::remove_dir(tree.join("empty")))
    }),
    ("a file's mode", |tree| {
        fs::set_permissions(tree.join("app/x.py"), Permissions::from_mode(0o555))
    }),
    ("a folder's mode", |tree| {
        fs::set_permissions(tree.join("empty"), Permissions::from_mode(0o777))
    }),
    ("where a link leads", |tree| {
        within(&tree.join("bin"), || {
            fs::remove_file(tree.join("bin/sh"))?;
            symlink("../app/x.py", tree.join("bin/sh"))
        })
    }),
    ("a link for a file", |tree| {
        within(&tree.join("app"), || {
            fs::remove_file(tree.join("app/y.py"))?;
            symlink("x.py", tree.join("app/y.py"))
        })
    }),
    ("a pipe for a file", |tree| {
        within(&tree.join("app"), || {
            let file = tree.join("app/y.py");
            fs::remove_file(&file)?;
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
            Ok(rustix::fs::mknodat(rustix::fs::CWD, file, kind, mode, 0)?)
        })
    }),
    ("a link to a copy of the tree", |tree| {
        let copy = tree.with_file_name("copy");
        fs::rename(tree, &copy)?;
        symlink(copy, tree)
    }),
];

#[test]
fn a_tree_that_is_not_what_was_unpacked_is_unpacked_anew() -> Outcome {
    for (what, change) in ADDED.into_iter().chain(EXCHANGED) {
        let unpacked = Unpacked::new()?;
        change(&unpacked.tree())?;
        unpacked.starts()?;
        assert_eq!(unpacked.fills.get(), 2, "{what}");
        let code = fs::read_to_string(unpacked.tree().join("app/x.py"))?;
        assert_eq!(code, "from app import x\n", "{what}");
        assert!(!unpacked.tree().is_symlink(), "{what}");
        // What was replaced is gone, and what is there now is believed.
        unpacked.starts()?;
        assert_eq!(unpacked.fills.get(), 2, "{what}");
        let left = fs::read_dir(unpacked.root.join("unpacked"))?;
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        let ours = |name: &&std::ffi::OsString| **name != *"copy";
        assert_eq!(left.iter().filter(ours).count(), 1, "{what}: {left:?}");
    }
    Ok(())
}

#[test]
fn a_tree_whose_list_is_not_its_own_is_unpacked_anew() -> Outcome {
    let other = Digest::of(b"another tree");
    for what in [
        "changed",
        "cut",
        "of another tree",
        "of another key",
        "gone",
        "a link",
    ] {
        let unpacked = Unpacked::new()?;
        let list = unpacked.list();
        let mut bytes = fs::read(&list)?;
        match what {
            "changed" => {
                let last = bytes.len() - 3;
                bytes[last] ^= 1;
            }
            "cut" => bytes.truncate(SEAL_BYTES + 1),
            "of another tree" => {
                let store = Store::open(&unpacked.root)?.sealed(key(1));
                let evil = |folder: &Path| Ok::<_, StoreError>(fill(folder, "evil()\n"));
                let tree = store.unpack(&other, evil)?;
                forge(
                    &unpacked.tree().join("app/x.py"),
                    &fs::read_to_string(tree.join("app/x.py"))?,
                )?;
                bytes = fs::read(unpacked.root.join("lists").join(other.hex()))?;
            }
            "of another key" => {
                let store = Store::open(&unpacked.root)?.sealed(key(2));
                let again = |folder: &Path| Ok::<_, StoreError>(fill(folder, "evil()\n"));
                store.unpack(&unpacked.digest, again)?;
                bytes = fs::read(&list)?;
            }
            _ => {}
        }
        fs::remove_file(&list)?;
        match what {
            "gone" => {}
            "a link" => symlink("/dev/zero", &list)?,
            _ => fs::write(&list, bytes)?,
        }
        unpacked.starts()?;
        assert_eq!(unpacked.fills.get(), 2, "{what}");
        let code = fs::read_to_string(unpacked.tree().join("app/x.py"))?;
        assert_eq!(code, "from app import x\n", "{what}");
        unpacked.starts()?;
        assert_eq!(unpacked.fills.get(), 2, "{what}");
    }
    Ok(())
}

#[test]
fn what_was_touched_and_is_the_same_is_not_unpacked_again() -> Outcome {
    let unpacked = Unpacked::new()?;
    let file = File::open(unpacked.tree().join("app/x.py"))?;
    file.set_modified(SystemTime::now() - Duration::from_secs(3600))?;
    unpacked.starts()?;
    // As a state folder that was put back from a copy.
    let copy = unpacked.tree().with_file_name("copy");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([unpacked.tree(), copy.clone()])
        .status()?;
    assert!(copied.success());
    barecount_tree::remove(&unpacked.tree(), &barecount_tree::to_the_end)?;
    fs::rename(copy, unpacked.tree())?;
    unpacked.starts()?;
    assert_eq!(unpacked.fills.get(), 1);
    Ok(())
}

#[test]
fn what_is_put_there_while_a_tree_is_unpacked_is_in_no_list() -> Outcome {
    let state = tempfile::tempdir()?;
    let store = Store::open(&state.path().join("artifacts"))?.sealed(key(1));
    let changes: [(&str, Change); 3] = [
        ("app/z.py", |tree| {
            within(&tree.join("app"), || fs::write(tree.join("app/z.py"), ""))
        }),
        ("app/x.py", |tree| {
            forge(&tree.join("app/x.py"), "from bad import x\n")
        }),
        ("bin/sh", |tree| {
            within(&tree.join("bin"), || {
                fs::remove_file(tree.join("bin/sh"))?;
                symlink("same", tree.join("bin/sh"))
            })
        }),
    ];
    for (what, change) in changes {
        let refused = store.unpack(&Digest::of(b"tree"), |folder| {
            let written = fill(folder, "from app import x\n");
            change(folder).map_err(io_at("change", folder))?;
            Ok(written)
        });
        let told = match refused {
            Err(StoreError::ChangedMeanwhile { reason }) => reason,
            other => return Err(format!("{what}: {other:?}").into()),
        };
        assert!(told.contains(what), "{told}");
        let left = fs::read_dir(state.path().join("artifacts/unpacked"))?;
        assert_eq!(left.count(), 0, "{what}");
    }
    Ok(())
}
