//! The first example, built once; and how an example is built.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    binary,
    place::Place,
    process::{Finished, Invocation},
};

/// What each test gets of the example's folder; what builds leave there is not in it.
const LEFT_OUT: [&str; 3] = ["target", ".barecount", "tests"];

/// The example's own folder in the workspace.
pub fn source() -> PathBuf {
    source_of("fx-rates")
}

/// A place with the example in `fx-rates`, and its artifacts in the state folder, so that a run
/// builds nothing.
///
/// # Panics
/// If the example cannot be built.
pub fn place() -> Place {
    place_with("fx-rates", artifacts())
}

/// A place with an example in a folder of its name, and artifacts from this state folder.
pub(crate) fn place_with(name: &str, built: &Path) -> Place {
    let place = Place::new();
    copy(&source_of(name), &place.join(name), &LEFT_OUT);
    place.make_state();
    for part in ["artifacts", "build/built"] {
        copy(&built.join(part), &place.state().join(part), &[]);
    }
    place
}

fn source_of(name: &str) -> PathBuf {
    binary::workspace().join("examples").join(name)
}

/// The manifest in a place.
pub fn manifest(place: &Place) -> PathBuf {
    place.join("fx-rates/pipeline.yaml")
}

/// One run of the example that nothing disturbed, for tests that only look at what it left. Its
/// place stays until the test process ends.
pub fn undisturbed() -> &'static Undisturbed {
    static RUN: LazyLock<Undisturbed> = LazyLock::new(|| {
        let place = place();
        let began = std::time::Instant::now();
        let finished = place
            .barecount(["run", "fx-rates/pipeline.yaml", "-o", "json"])
            .finish()
            .exits_with(0);
        Undisturbed {
            seconds: began.elapsed().as_secs_f64(),
            place,
            finished,
        }
    });
    &RUN
}

/// A finished run, and where it is.
#[derive(Debug)]
pub struct Undisturbed {
    /// Where it ran.
    pub place: Place,
    /// What it printed.
    pub finished: Finished,
    /// How long it took.
    pub seconds: f64,
}

/// The state folder in which the example was built; tests copy from it. It is kept between test
/// processes, and brought up to date by the first that asks.
fn artifacts() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| build("fx-rates", "example"));
    &BUILT
}

/// Builds an example, in scratch folders whose names begin with `stem`, and answers with the state
/// folder that it was built in.
pub(crate) fn build(name: &str, stem: &str) -> PathBuf {
    let scratch = binary::scratch();
    let lock = fs_err::File::create(scratch.join(format!("{stem}.lock"))).expect("a lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock on a file of our own");
    // Built from a copy: building writes the lock file beside the manifest.
    let folder = scratch.join(stem);
    copy(&source_of(name), &folder, &LEFT_OUT);
    let state = scratch.join(format!("{stem}-state"));
    Invocation::of_binary(scratch, ["build"])
        .argument(folder.join("pipeline.yaml"))
        .argument("--state")
        .argument(&state)
        .env("XDG_CONFIG_HOME", scratch.join(format!("{stem}-config")))
        .within(std::time::Duration::from_secs(30 * 60))
        .finish()
        .exits_with(0);
    state
}

/// Copies a folder; files that are the same already keep their times, lest compilers think that
/// they changed.
///
/// # Panics
/// If it cannot be copied.
pub fn copy(from: &Path, to: &Path, left_out: &[&str]) {
    fs_err::create_dir_all(to).expect("a folder of the tests' own");
    for entry in fs_err::read_dir(from).expect("the folder can be listed") {
        let entry = entry.expect("the folder can be listed");
        let (name, path) = (entry.file_name(), entry.path());
        if left_out.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let target = to.join(&name);
        let kind = entry.file_type().expect("what it is");
        if kind.is_dir() {
            copy(&path, &target, &[]);
        } else if kind.is_symlink() {
            let aim = fs_err::read_link(&path).expect("a link can be read");
            std::os::unix::fs::symlink(aim, &target).expect("a link can be made");
        } else if !same(&path, &target) {
            fs_err::copy(&path, &target).expect("a file can be copied");
        }
    }
}

fn same(one: &Path, other: &Path) -> bool {
    let length = |path: &Path| std::fs::metadata(path).map(|found| found.len()).ok();
    length(one) == length(other) && std::fs::read(one).ok() == std::fs::read(other).ok()
}
