//! What machines are made of: Debian's kernels and a Debian with systemd, from the archive that this
//! machine's own apt uses. Prepared once, in `target/vm`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    project::Project,
    setup,
    steps::{Failure, Task},
};

/// The release of Debian that is booted.
const RELEASE: &str = "bookworm";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,libpam-systemd,dbus-user-session,procps,iproute2,\
                        util-linux,login,passwd,kmod,libgcc-s1,ca-certificates";
/// Modules that a disk needs, in the order in which they are loaded.
const DISK_MODULES: [&str; 12] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "crc16",
    "mbcache",
    "jbd2",
    "crc32c_generic",
    "libcrc32c",
    "ext4",
];
/// What of a kernel's modules the guest has.
const GUEST_MODULES: [&str; 7] = [
    "arch",
    "crypto",
    "drivers/block",
    "drivers/net",
    "fs",
    "lib",
    "net",
];
/// Would wait for a terminal or a network, or do what nobody needs here.
const MASKED: [&str; 8] = [
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    "console-getty.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "systemd-timesyncd.service",
];
/// Where the guest's pieces are in the project.
const PIECES: &str = "xtask/vm";

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// As `uname -r` prints it.
    pub(super) version: String,
    pub(super) image: PathBuf,
    pub(super) initramfs: PathBuf,
    modules: PathBuf,
}

/// All of it.
pub(super) struct Artifacts {
    pub(super) folder: PathBuf,
    /// From the oldest on.
    pub(super) kernels: Vec<Kernel>,
    /// The file system of the guests, which none of them changes.
    pub(super) disk: PathBuf,
    /// What the guests are given at each boot.
    pub(super) job: PathBuf,
}

struct Preparing<'a> {
    project: &'a Project,
    folder: PathBuf,
}

impl Artifacts {
    /// Makes what is not there yet, and takes the program as it is now.
    pub(super) fn prepare(project: &Project, binary: &Path) -> Result<Self, Failure> {
        let folder = project.target.join("vm");
        let preparing = Preparing { project, folder };
        preparing.download()?;
        let kernels = preparing.kernels()?;
        let disk = preparing.disk(&kernels)?;
        let job = preparing.job(binary)?;
        let folder = preparing.folder;
        Ok(Self {
            folder,
            kernels,
            disk,
            job,
        })
    }

    pub(super) fn kernel(&self, version: &str) -> Result<&Kernel, Failure> {
        let found = self.kernels.iter().find(|kernel| kernel.version == version);
        found.ok_or_else(|| Failure::new("vm", format!("there is no kernel {version}")))
    }
}

impl Preparing<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn text(&self, name: &str) -> Result<String, Failure> {
        setup::text(&self.path(name))
    }

    fn piece(&self, name: &str) -> PathBuf {
        self.project.root.join(PIECES).join(name)
    }

    /// Fetches kernels and the system, once.
    fn download(&self) -> Result<(), Failure> {
        // Written last: without it, an earlier attempt did not get to its end.
        let marker = self.path("downloaded");
        if marker.exists() {
            return Ok(());
        }
        if !rustix::process::geteuid().is_root() {
            let reason = "a root file system is made by root alone: run it as root the first time";
            return Err(Failure::new("vm", reason));
        }
        let mirror = mirror()?;
        for name in ["kernels", "rootfs", "debs"] {
            remove(&self.path(name))?;
        }
        for name in [
            "apt/lists/partial",
            "apt/cache/archives/partial",
            "debs",
            "kernels",
        ] {
            make(&self.path(name))?;
        }
        for (index, suite) in [RELEASE.to_owned(), format!("{RELEASE}-backports")]
            .iter()
            .enumerate()
        {
            let sources = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
            fs::write(self.path("apt/sources.list"), sources).map_err(failed)?;
            run(&self.apt("apt-get")?.argument("update".to_owned()))?;
            let package = self.kernel_package()?;
            let to = self.path(&format!("debs/{index}"));
            make(&to)?;
            run(&Task::new("sh -c")
                .argument("cd \"$0\" && exec \"$@\"".to_owned())
                .argument(setup::text(&to)?)
                .arguments(self.apt("apt-get")?.words())
                .arguments(["download", &package]))?;
            for deb in entries(&to)? {
                let kernel = self.path("kernels").join(format!("{index}-{package}"));
                run(&Task::new("dpkg-deb --extract")
                    .argument(setup::text(&deb)?)
                    .argument(setup::text(&kernel)?))?;
            }
        }
        run(&Task::new("debootstrap --variant=minbase")
            .argument(format!("--include={PACKAGES}"))
            .argument(format!("--keyring={KEYRING}"))
            .argument(RELEASE.to_owned())
            .argument(self.text("rootfs")?)
            .argument(mirror))?;
        fs::write(marker, "").map_err(failed)
    }

    /// A command of apt that has folders of its own.
    fn apt(&self, program: &str) -> Result<Task, Failure> {
        let options = [
            format!("Dir::Etc::sourcelist={}", self.text("apt/sources.list")?),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", self.text("apt/lists")?),
            format!("Dir::Cache={}", self.text("apt/cache")?),
        ];
        let command = Task::new(program);
        Ok(options
            .iter()
            .fold(command, |command, option| command.arguments(["-o", option])))
    }

    /// The package of the newest kernel in the suite.
    fn kernel_package(&self) -> Result<String, Failure> {
        let command = self
            .apt("apt-cache")?
            .arguments(["depends", "linux-image-amd64"]);
        let told = output(&command.words())?;
        let found = told
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "));
        found
            .map(str::to_owned)
            .ok_or_else(|| Failure::new("vm", "the archive has no kernel for linux-image-amd64"))
    }

    fn kernels(&self) -> Result<Vec<Kernel>, Failure> {
        let mut kernels = Vec::new();
        for folder in entries(&self.path("kernels"))? {
            let modules = entries(&folder.join("lib/modules"))?;
            let [modules] = modules.as_slice() else {
                let reason = format!("{} has not one kernel", folder.display());
                return Err(Failure::new("vm", reason));
            };
            let version = modules
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let version = version.unwrap_or_default();
            let kernel = Kernel {
                image: folder.join("boot").join(format!("vmlinuz-{version}")),
                initramfs: folder.join("initramfs"),
                modules: modules.clone(),
                version,
            };
            self.initramfs(&kernel)?;
            kernels.push(kernel);
        }
        Ok(kernels)
    }

    /// What a kernel needs to find its disk: busybox, some modules, and a script.
    fn initramfs(&self, kernel: &Kernel) -> Result<(), Failure> {
        let content = self.path("initramfs");
        remove(&content)?;
        for name in ["bin", "dev", "modules", "proc", "root", "sys"] {
            make(&content.join(name))?;
        }
        copy(Path::new("/bin/busybox"), &content.join("bin/busybox"))?;
        copy(&self.piece("guest/first"), &content.join("init"))?;
        let mut order = String::new();
        for name in DISK_MODULES {
            let find = [
                "find",
                &setup::text(&kernel.modules)?,
                "-name",
                &format!("{name}.ko*"),
            ];
            let found = output(&find.map(str::to_owned))?;
            // What is not there is part of the kernel.
            let Some(file) = found.lines().next() else {
                continue;
            };
            let to = content.join("modules").join(format!("{name}.ko"));
            let unpack = if file.ends_with(".xz") {
                "xz --decompress --stdout"
            } else {
                "cat"
            };
            run(&Task::new("sh -c")
                .argument(format!("{unpack} \"$0\" >\"$1\""))
                .arguments([file, &setup::text(&to)?]))?;
            order.push_str(&format!("{name}.ko\n"));
        }
        fs::write(content.join("modules/order"), order).map_err(failed)?;
        let pack = "cd \"$0\" && find . | cpio --quiet -o -H newc | gzip -1 >\"$1\"";
        run(&Task::new("sh -c")
            .argument(pack.to_owned())
            .arguments([setup::text(&content)?, setup::text(&kernel.initramfs)?]))
    }

    /// The guests' file system.
    fn disk(&self, kernels: &[Kernel]) -> Result<PathBuf, Failure> {
        let (root, disk) = (self.path("rootfs"), self.path("disk.ext4"));
        let binaries = root.join("usr/local/sbin");
        make(&binaries)?;
        for name in ["plain", "job"] {
            copy(&self.piece(&format!("guest/{name}")), &binaries.join(name))?;
        }
        let units = root.join("etc/systemd/system");
        for name in ["job.service", "job.target"] {
            copy(&self.piece(&format!("guest/{name}")), &units.join(name))?;
        }
        link(
            "/etc/systemd/system/job.target",
            &units.join("default.target"),
        )?;
        for name in MASKED {
            link("/dev/null", &units.join(name))?;
        }
        fs::write(root.join("etc/fstab"), "").map_err(failed)?;
        fs::write(root.join("etc/hostname"), "vm\n").map_err(failed)?;
        let passwd = fs::read_to_string(root.join("etc/passwd")).map_err(failed)?;
        if !passwd.contains("\neve:") {
            let add = "useradd --create-home --uid 1000 --shell /bin/bash eve";
            run(&Task::new("chroot")
                .argument(setup::text(&root)?)
                .arguments(add.split(' ')))?;
        }
        for kernel in kernels {
            self.modules(kernel, &root)?;
        }
        remove(&disk)?;
        run(
            &Task::new("mke2fs -q -t ext4 -O ^metadata_csum -d").arguments([
                setup::text(&root)?,
                setup::text(&disk)?,
                "3G".to_owned(),
            ]),
        )?;
        Ok(disk)
    }

    /// Gives the guests the modules of a kernel that matter to them.
    fn modules(&self, kernel: &Kernel, root: &Path) -> Result<(), Failure> {
        let to = root.join("lib/modules").join(&kernel.version);
        if to.exists() {
            return Ok(());
        }
        for part in GUEST_MODULES {
            let place = to.join("kernel").join(part);
            make(place.parent().unwrap_or(&to))?;
            run(&Task::new("cp --archive")
                .argument(setup::text(&kernel.modules.join("kernel").join(part))?)
                .argument(setup::text(&place)?))?;
        }
        for file in [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ] {
            copy(&kernel.modules.join(file), &to.join(file))?;
        }
        run(&Task::new("chroot").arguments([
            &setup::text(root)?,
            "depmod",
            kernel.version.as_str(),
        ]))
    }

    /// The program, without what only a debugger reads, and what it is to run.
    fn job(&self, binary: &Path) -> Result<PathBuf, Failure> {
        let job = self.path("job");
        remove(&job)?;
        make(&job)?;
        copy(&self.piece("guest/rows.sh"), &job.join("rows.sh"))?;
        run(&Task::new("strip -o")
            .argument(setup::text(&job.join("barecount"))?)
            .argument(setup::text(binary)?))?;
        run(&Task::new("cp --recursive")
            .argument(setup::text(&self.piece("pipelines"))?)
            .argument(setup::text(&job.join("pipelines"))?))?;
        let probe = job.join("pipelines/images/probe/probe");
        run(&Task::new("cc -O1 -static -pthread -o")
            .arguments([setup::text(&probe)?, setup::text(&self.piece("probe.c"))?]))?;
        copy(&probe, &job.join("pipelines/functions/probe/probe"))?;
        Ok(job)
    }
}

/// The Debian archive that this machine's apt is set up for.
fn mirror() -> Result<String, Failure> {
    let command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE)"];
    let told = output(&command.map(str::to_owned))?;
    let found = told.lines().find_map(|line| line.strip_prefix("Debian "));
    found.map(str::to_owned).ok_or_else(|| {
        let reason =
            "this machine's apt is set up for no Debian archive, of which the guests are made";
        Failure::new("vm", reason)
    })
}

/// Runs a command of the preparation, which says nothing as long as it succeeds.
fn run(task: &Task) -> Result<(), Failure> {
    output(&task.words()).map(drop)
}

/// What a command prints.
fn output(words: &[String]) -> Result<String, Failure> {
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| Failure::new("vm", "no command"))?;
    let ended = Command::new(program).args(arguments).output();
    let ended = ended.map_err(|error| Failure::new("vm", format!("{program}: {error}")))?;
    if !ended.status.success() {
        let told = String::from_utf8_lossy(&ended.stderr);
        return Err(Failure::new(
            "vm",
            format!("{}: {}", words.join(" "), told.trim()),
        ));
    }
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

fn failed(error: io::Error) -> Failure {
    Failure::new("vm", error.to_string())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::new("vm", format!("{path}: {error}"))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let read = || {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()
    };
    let mut entries = read().map_err(at(folder))?;
    entries.sort();
    Ok(entries)
}

fn make(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(at(folder))
}

fn remove(path: &Path) -> Result<(), Failure> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(at(path))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::copy(from, to).map(drop).map_err(at(from))
}

fn link(to: &str, at_path: &Path) -> Result<(), Failure> {
    remove(at_path)?;
    std::os::unix::fs::symlink(to, at_path).map_err(at(at_path))
}
