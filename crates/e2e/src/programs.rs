//! Small programs to run in sandboxes, and packages of them.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{binary, place::Place};

/// A statically linked program that behaves as the variable `BEHAVIOUR` says, made once per test
/// process from `programs/worker.rs`.
///
/// # Panics
/// If it cannot be made.
pub fn worker() -> &'static Path {
    static WORKER: OnceLock<PathBuf> = OnceLock::new();
    WORKER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/worker.rs");
        let program = binary::scratch().join(format!("worker-{}", std::process::id()));
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(rustc)
            .args(["--edition", "2024", "-C", "target-feature=+crt-static"])
            .args(["-C", "strip=symbols", "-C", "panic=abort", "-o"])
            .arg(&program)
            .arg(source)
            .output()
            .expect("rustc can be started");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the worker is built: {told}");
        program
    })
}

/// Writes a package whose program is the [`worker`], as a zip file, with files beside the program.
///
/// # Panics
/// If it cannot be written.
pub fn package(place: &Place, name: &str, program: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let path = place.write(name, []);
    let file = fs_err::File::create(&path).expect("a file in the test's own folder");
    let mut zip = ZipWriter::new(file);
    let worker = fs_err::read(worker()).expect("the worker was built");
    let executable = (program, worker.as_slice());
    for (name, content) in std::iter::once(&executable).chain(files) {
        let mode = if *name == program { 0o755 } else { 0o644 };
        zip.start_file(*name, SimpleFileOptions::default().unix_permissions(mode))
            .and_then(|()| Ok(zip.write_all(content)?))
            .expect("a zip file can be written");
    }
    zip.finish().expect("a zip file can be written");
    path
}
