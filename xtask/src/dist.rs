//! The packages that people install: a static binary, packed four ways, each of them tried.

use std::path::Path;

use crate::{
    project::Project,
    steps::{Failure, Task},
};

/// Linked statically, so that the oldest system that it runs on is one of the kernel's and not of the
/// C library's. Functions that are the same are kept once, and what the loader has to relocate is
/// packed. All of that is the last step's: what it links is what any release build has compiled.
const LINKED: [&str; 3] = [
    "-Ctarget-feature=+crt-static",
    "-Clink-arg=-Wl,--icf=all",
    "-Clink-arg=-Wl,-z,pack-relative-relocs",
];

/// Builds the binary, packs it into `target/dist`, and installs and runs each package.
pub(crate) fn make(project: &Project) -> Result<(), Failure> {
    let text = |path: &Path| path.display().to_string();
    let build = "cargo rustc --release --locked --package barecount --bin barecount --";
    LINKED
        .iter()
        .fold(Task::new(build), |task, flag| {
            task.argument((*flag).to_owned())
        })
        .minutes(90)
        .run("dist-build", project)?;
    let binary = project.target.join("release/barecount");
    let folder = project.target.join("dist");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .map_err(|error| Failure::new("dist", format!("{}: {error}", folder.display())))?;
    }
    Task::new("python3 xtask/dist/pack.py")
        .argument("--binary".to_owned())
        .argument(text(&binary))
        .argument(format!("--version={}", env!("CARGO_PKG_VERSION")))
        .argument(format!("--machine={}", std::env::consts::ARCH))
        .argument("--to".to_owned())
        .argument(text(&folder))
        .minutes(10)
        .run("dist-pack", project)?;
    Task::new("python3 xtask/dist/check.py")
        .argument(text(&folder))
        .minutes(10)
        .run("dist-check", project)
}
