//! What all tests share: the launcher, and the files that sandboxes run from.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use barecount_runner::{
    clock::{Clock, SystemClock},
    launch::Isolation,
    local::Host,
};
use barecount_sandbox::{Availability, Controller, Launcher};
use tempfile::TempDir;

/// What all tests of this binary share.
pub(crate) struct Shared {
    pub(crate) runtime: tokio::runtime::Runtime,
    launcher: Arc<Launcher>,
    pub(crate) clock: Arc<dyn Clock>,
    /// An image with this binary as `/payload`, and a package with it and its loader.
    pub(crate) files: PathBuf,
    _temporary: Option<TempDir>,
    subjects: AtomicU64,
}

impl Shared {
    pub(crate) fn new(launcher: Launcher, runtime: tokio::runtime::Runtime) -> io::Result<Self> {
        let files = tempfile::tempdir()?;
        open_to_all(files.path())?;
        make_image(&files.path().join("image"))?;
        make_package(&files.path().join("package"))?;
        let path = files.path().to_owned();
        Ok(Self {
            _temporary: Some(files),
            ..Self::on(launcher, runtime, path)
        })
    }

    /// With the files that another process made.
    pub(crate) fn on(launcher: Launcher, runtime: tokio::runtime::Runtime, files: PathBuf) -> Self {
        let clock = {
            let _inside = runtime.enter();
            SystemClock::start()
        };
        Self {
            runtime,
            launcher: Arc::new(launcher),
            clock: Arc::new(clock),
            files,
            _temporary: None,
            subjects: AtomicU64::new(0),
        }
    }

    /// Whether this host has control groups that tell processor time.
    pub(crate) fn measures_processor_time(&self) -> bool {
        let controllers = &self.launcher.host().controllers;
        controllers
            .get(&Controller::Cpuacct)
            .is_some_and(Availability::is_available)
    }

    /// A number that no other test of this process gets.
    pub(crate) fn number(&self) -> u64 {
        self.subjects.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn host(&self) -> Host {
        Host {
            launcher: self.launcher.clone(),
            clock: self.clock.clone(),
            paths: barecount_network::path::Paths::default(),
            weakest: Isolation::Sandbox,
        }
    }
}

/// A root file system with this binary as `/payload` and the libraries that it has mapped.
fn make_image(image: &Path) -> io::Result<()> {
    fs_err::create_dir_all(image)?;
    fs_err::copy(std::env::current_exe()?, image.join("payload"))?;
    for library in libraries()? {
        let target = image.join(library.strip_prefix("/").unwrap_or(&library));
        if let Some(folder) = target.parent() {
            fs_err::create_dir_all(folder)?;
        }
        fs_err::copy(&library, &target)?;
    }
    // The program names its loader by the path that the architecture's ABI fixes.
    for (link, loader) in [("lib64", "usr/lib64"), ("lib", "usr/lib")] {
        let link = image.join(link);
        if !link.exists() && image.join(loader).exists() {
            fs_err::os::unix::fs::symlink(loader, link)?;
        }
    }
    if let Some(loader) = libraries()?
        .iter()
        .find(|path| path.to_string_lossy().contains("/ld-linux"))
        && !image.join("lib64").exists()
        && let Some(name) = loader.file_name()
    {
        fs_err::create_dir_all(image.join("lib64"))?;
        fs_err::copy(loader, image.join("lib64").join(name))?;
    }
    Ok(())
}

/// A package with this binary as `bootstrap`, its libraries, and the `loader` that a root without
/// anything else lacks.
fn make_package(package: &Path) -> io::Result<()> {
    fs_err::create_dir_all(package)?;
    fs_err::copy(std::env::current_exe()?, package.join("bootstrap"))?;
    for library in libraries()? {
        let name = library.file_name().unwrap_or_default();
        let loader = name.to_string_lossy().starts_with("ld-linux");
        let target = if loader {
            package.join("loader")
        } else {
            package.join(name)
        };
        fs_err::copy(&library, target)?;
    }
    Ok(())
}

/// The shared libraries of this process, loader included.
fn libraries() -> io::Result<Vec<PathBuf>> {
    let maps = fs_err::read_to_string("/proc/self/maps")?;
    let mut found: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(5))
        .filter(|path| path.contains(".so"))
        .map(PathBuf::from)
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Work of an unprivileged user of the host passes through here.
pub(crate) fn open_to_all(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs_err::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}
