//! One machine: booted, given its rows, and switched off.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    artifacts::{Artifacts, Kernel},
    rows::{Row, World},
};
use crate::{
    project::Project,
    setup,
    steps::{Failure, Task},
    supervise::Shown,
};

/// Room for what the rows leave.
const RESULTS_BYTES: u64 = 64 << 20;
/// A machine that takes longer hangs.
const MINUTES: u64 = 15;

/// A machine to be.
pub(super) struct Boot {
    pub(super) name: String,
    /// The kernel's version.
    pub(super) kernel: String,
    pub(super) world: World,
    /// Whether it is the oldest kernel.
    pub(super) is_oldest: bool,
}

impl Boot {
    /// Every kernel as people have it; the oldest without systemd also.
    pub(super) fn all(kernels: &[Kernel]) -> Vec<Self> {
        let mut all = Vec::new();
        for (index, kernel) in kernels.iter().enumerate() {
            let version = kernel.version.split('-').next().unwrap_or_default();
            let mut boot = |world: World, name: &str| {
                all.push(Self {
                    name: format!("{name}-{version}"),
                    kernel: kernel.version.clone(),
                    world,
                    is_oldest: index == 0,
                });
            };
            boot(World::Systemd, "systemd");
            if index == 0 {
                boot(World::Plain, "plain");
                boot(World::Bare, "bare");
            }
        }
        all
    }

    /// Runs rows, and answers with the folder that has one of each row's name with what came of it.
    pub(super) fn run(
        &self,
        rows: &[&Row],
        artifacts: &Artifacts,
        project: &Project,
    ) -> Result<PathBuf, Failure> {
        let folder = artifacts.folder.join("runs").join(&self.name);
        let failed =
            |error: io::Error| Failure::new("vm", format!("{}: {error}", folder.display()));
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::create_dir_all(folder.join("tmp")).map_err(failed)?;
        let job = self.job(rows, artifacts, project, &folder)?;
        let results = folder.join("results.tar");
        File::create(&results)
            .and_then(|file| file.set_len(RESULTS_BYTES))
            .map_err(failed)?;
        self.machine(artifacts, &job, &results)?
            .env("TMPDIR", setup::text(&folder.join("tmp"))?)
            .minutes(MINUTES)
            .shown(Shown::InLog)
            .run(&format!("vm-{}", self.name), project)?;
        let out = folder.join("out");
        fs::create_dir_all(&out).map_err(failed)?;
        Task::new("tar --extract --no-same-owner --file")
            .argument(setup::text(&results)?)
            .argument("--directory".to_owned())
            .argument(setup::text(&out)?)
            .shown(Shown::InLog)
            .run("vm-results", project)?;
        for file in [&results, &job] {
            fs::remove_file(file).map_err(failed)?;
        }
        Ok(out)
    }

    /// What the guest unpacks: the program, the pipelines, and the rows as lines of a script.
    fn job(
        &self,
        rows: &[&Row],
        artifacts: &Artifacts,
        project: &Project,
        folder: &Path,
    ) -> Result<PathBuf, Failure> {
        let mut script = ". /job/rows.sh\n".to_owned();
        if self.world.is_systemd() {
            script.push_str("loginctl enable-linger $user\n");
        }
        for row in rows {
            let Row {
                name,
                user,
                pipeline,
                way,
                ..
            } = row;
            // Writing to a string does not fail.
            let _ = writeln!(script, "row {name} {user} {pipeline} {way}");
        }
        fs::write(artifacts.job.join("run.sh"), script)
            .map_err(|error| Failure::new("vm", format!("{}: {error}", artifacts.job.display())))?;
        let job = folder.join("job.tar");
        Task::new("tar --create --owner=0 --group=0 --file")
            .argument(setup::text(&job)?)
            .argument("--directory".to_owned())
            .argument(setup::text(&artifacts.job)?)
            .argument(".".to_owned())
            .shown(Shown::InLog)
            .run("vm-job", project)?;
        Ok(job)
    }

    fn machine(&self, artifacts: &Artifacts, job: &Path, results: &Path) -> Result<Task, Failure> {
        let kernel = artifacts.kernel(&self.kernel)?;
        let disk = |path: &Path, more: &str| -> Result<String, Failure> {
            Ok(format!(
                "file={},format=raw,if=virtio{more}",
                setup::text(path)?
            ))
        };
        let mut line = "console=ttyS0 panic=5 quiet loglevel=4".to_owned();
        match self.world {
            World::Systemd => line.push_str(" vm.systemd systemd.show_status=no"),
            World::Plain => {}
            World::Bare => line.push_str(" lsm=capability"),
        }
        Ok(
            Task::new("qemu-system-x86_64 -nodefaults -no-reboot -display none -serial stdio")
                // A `/dev/kvm` that is there may do nothing: machines within machines have such.
                .arguments(["-accel", "tcg,thread=multi", "-machine", "q35"])
                .arguments(["-cpu", "max", "-smp", "2", "-m", "3072"])
                .arguments(["-kernel", &setup::text(&kernel.image)?])
                .arguments(["-initrd", &setup::text(&kernel.initramfs)?])
                .arguments(["-append", &line])
                .arguments(["-drive", &disk(&artifacts.disk, ",snapshot=on")?])
                .arguments(["-drive", &disk(job, ",readonly=on")?])
                .arguments(["-drive", &disk(results, "")?]),
        )
    }
}
