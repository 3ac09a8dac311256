//! Two sandboxes that see the same files and devices, and try to meet there.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use barecount_sandbox::{LauncherConfig, Mount, Root, Spec};
use tempfile::TempDir;

use crate::launched::{Held, bind, hold, own_program, probing, spec};
use crate::meeting::KINDS;
use crate::roots::system_binds;
use crate::{TestResult, launcher};

tests!(
    two_sandboxes_meet_by_no_lock_lease_or_watch,
    two_sandboxes_of_one_image_meet_by_no_lock_lease_or_watch,
);

type Error = Box<dyn std::error::Error>;

/// Devices, with one that hides a kernel path.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/proc/keys",
];
/// What is there in every sandbox, and is not a device.
const PLACES: [&str; 9] = [
    "/",
    "/dev",
    "/dev/pts",
    "/dev/shm",
    "/etc",
    "/proc",
    "/proc/sys",
    "/proc/version",
    "/tmp",
];
/// What the host's system gives.
const SYSTEM: [&str; 5] = [
    "/usr",
    "/usr/bin",
    "/usr/bin/env",
    "/etc/ld.so.cache",
    "/etc/ssl/certs",
];
/// What is mounted for an attempt.
const MOUNTED: [&str; 7] = [
    "/barecount/input",
    "/barecount/input/given",
    "/app",
    "/app/main",
    "/barecount/drivers/one",
    "/barecount/drivers/one/library",
    "/engine",
];

/// Inputs, a package, a driver and a program, which belong to the payload's user.
struct Shared(TempDir);

impl Shared {
    fn make() -> std::io::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        for (place, file) in [
            ("input", "given"),
            ("package", "main"),
            ("driver", "library"),
            ("programs", "engine"),
            ("image/var", "file"),
        ] {
            fs::create_dir_all(folder.path().join(place))?;
            let file = folder.path().join(place).join(file);
            fs::write(&file, "more than eight bytes")?;
            if launcher().host().root {
                let payload = LauncherConfig::new("x").payload_identity;
                chown(&file, Some(payload.uid), Some(payload.gid))?;
            }
        }
        Ok(Self(folder))
    }

    fn at(&self, place: &str) -> PathBuf {
        self.0.path().join(place)
    }

    /// As a runner mounts them.
    fn mounts(&self) -> Vec<Mount> {
        let run = |source: &str, target: &str| Mount::Bind {
            source: self.at(source),
            target: target.into(),
            read_only: true,
            executable: true,
            changes: false,
        };
        vec![
            bind(&self.at("input"), "/barecount/input", true),
            run("package", "/app"),
            run("driver", "/barecount/drivers/one"),
            run("programs/engine", "/engine"),
        ]
    }
}

/// One that is told what to try, and says what it noticed.
struct Neighbour(Held);

impl Neighbour {
    fn start(spec: &Spec) -> Result<Self, Error> {
        let mut spec = spec.clone();
        spec.name = crate::launched::fresh_name();
        hold(&spec).map(Self)
    }

    fn ask(&mut self, order: &str) -> Result<String, Error> {
        writeln!(self.0.stdin, "{order}")?;
        match self.0.line()? {
            answer if answer.is_empty() => Err(format!("it ended at {order}").into()),
            answer => Ok(answer),
        }
    }
}

/// Every way by which two sandboxes of a specification meet, each with its path.
fn meetings(spec: &Spec, paths: &[&str]) -> Result<BTreeSet<String>, Error> {
    let mut one = Neighbour::start(spec)?;
    let mut other = Neighbour::start(spec)?;
    let mut found = BTreeSet::new();
    for path in paths {
        for kind in KINDS {
            let prepared = one.ask(&format!("prepare {kind} {path}"))?;
            let acted = other.ask(&format!("act {kind} {path}"))?;
            let told = one.ask("tell")?;
            if [&acted, &told].contains(&&"met".to_owned()) {
                found.insert(format!("{kind} {path}"));
            }
            // What cannot even be tried would prove nothing of what can.
            let always = ["flock", "record", "open-description", "watch"].contains(&kind);
            let terminal = *path == "/dev/tty";
            if always && !terminal && (prepared != "alone" || acted.starts_with("refused")) {
                return Err(format!("{kind} {path}: {prepared}, {acted}").into());
            }
        }
    }
    one.0.finish()?;
    other.0.finish()?;
    Ok(found)
}

/// What two sandboxes meet by all the same: pages of a file are those of the file below, and a futex
/// is known by its page. An ordinary user makes no devices.
fn expected(paths: &[&str]) -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    for path in paths {
        let own = PLACES.contains(path);
        let file = Path::new(path).file_name().is_some_and(|name| {
            [
                "env",
                "ld.so.cache",
                "given",
                "main",
                "library",
                "engine",
                "file",
            ]
            .contains(&name.to_str().unwrap_or_default())
        });
        if file && !own {
            expected.insert(format!("futex {path}"));
        }
        if DEVICES.contains(path) && *path != "/dev/tty" && !launcher().host().root {
            for kind in ["flock", "record", "open-description", "watch"] {
                expected.insert(format!("{kind} {path}"));
            }
        }
    }
    expected
}

fn present(paths: &[&[&'static str]]) -> Vec<&'static str> {
    let here = |path: &&str| !SYSTEM.contains(path) || Path::new(path).exists();
    paths.concat().into_iter().filter(here).collect()
}

fn two_sandboxes_meet_by_no_lock_lease_or_watch() -> TestResult {
    let shared = Shared::make()?;
    let mut spec = probing(&["meet"]);
    spec.mounts.extend(shared.mounts());
    let paths = present(&[&DEVICES, &PLACES, &SYSTEM, &MOUNTED]);
    assert_eq!(meetings(&spec, &paths)?, expected(&paths));
    Ok(())
}

fn two_sandboxes_of_one_image_meet_by_no_lock_lease_or_watch() -> TestResult {
    let shared = Shared::make()?;
    for place in ["bin", "lib", "lib64", "usr", "etc"] {
        fs::create_dir_all(shared.at("image").join(place))?;
    }
    // With every place that something is mounted on, and without.
    for whole in [false, true] {
        if whole {
            for place in ["proc", "dev", "tmp", "app", "barecount/input"] {
                fs::create_dir_all(shared.at("image").join(place))?;
            }
            fs::create_dir_all(shared.at("image/barecount/drivers/one"))?;
            fs::write(shared.at("image/engine"), "")?;
            fs::write(shared.at("image/probe"), "")?;
        }
        let mut spec = spec(&["/probe", "--probe", "meet"]);
        spec.root = Root::Directory(shared.at("image"));
        spec.mounts = system_binds();
        spec.mounts.extend(shared.mounts());
        spec.mounts.push(Mount::Bind {
            source: own_program(),
            target: "/probe".into(),
            read_only: true,
            executable: true,
            changes: false,
        });
        let image = ["/var", "/var/file", "/usr/bin/env"];
        let paths = present(&[&DEVICES, &PLACES, &image, &MOUNTED]);
        assert_eq!(meetings(&spec, &paths)?, expected(&paths));
    }
    Ok(())
}
