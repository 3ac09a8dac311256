//! The packages that people install: a static binary, packed four ways, each of them tried.

use std::path::Path;

use crate::{
    project::Project,
    steps::{Failure, Task},
};

/// Where release binaries for others are built: linked statically, so that the oldest system that
/// they run on is one of the kernel's and not of the C library's.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Functions that are the same are kept once, and what the loader has to relocate is packed.
const FLAGS: &str = "-Ctarget-feature=+crt-static -Clink-arg=-Wl,--icf=all \
                     -Clink-arg=-Wl,-z,pack-relative-relocs";

/// Builds the binary, packs it into `target/dist`, and installs and runs each package.
pub(crate) fn make(project: &Project) -> Result<(), Failure> {
    let text = |path: &Path| path.display().to_string();
    Task::new("cargo build --release --locked --package barecount --target")
        .argument(target())
        .env("RUSTFLAGS", FLAGS)
        .minutes(90)
        .run("dist-build", project)?;
    let binary = project.target.join(target()).join("release/barecount");
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
