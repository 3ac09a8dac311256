//! Small programs to run in sandboxes, and packages of them.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{binary, place::Place};

/// A statically linked program that behaves as the variable `BEHAVIOUR` says, made once per test
/// process from `programs/worker.rs`.
///
/// # Panics
/// If it cannot be made.
pub fn worker() -> &'static Path {
    static WORKER: LazyLock<PathBuf> = LazyLock::new(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/worker.rs");
        let program = binary::scratch().join(binary::own("worker"));
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
    });
    &WORKER
}

/// Writes a package whose program is the [`worker`], as a zip file, with files beside the program.
///
/// # Panics
/// If it cannot be written.
pub fn package(place: &Place, name: &str, program: &str, files: &[(&str, &[u8])]) -> PathBuf {
    package_with(place, name, &[program], files)
}

/// The same with more files that are programs, by name: the first is the [`worker`].
///
/// # Panics
/// If it cannot be written.
pub fn package_with(
    place: &Place,
    name: &str,
    programs: &[&str],
    files: &[(&str, &[u8])],
) -> PathBuf {
    let path = place.write(name, []);
    let file = fs_err::File::create(&path).expect("a file in the test's own folder");
    let mut zip = ZipWriter::new(file);
    let worker = fs_err::read(worker()).expect("the worker was built");
    let program = programs.first().map(|name| (*name, worker.as_slice()));
    for (name, content) in program.iter().chain(files) {
        let mode = if programs.contains(name) {
            0o755
        } else {
            0o644
        };
        zip.start_file(*name, SimpleFileOptions::default().unix_permissions(mode))
            .and_then(|()| Ok(zip.write_all(content)?))
            .expect("a zip file can be written");
    }
    zip.finish().expect("a zip file can be written");
    path
}

/// What a dynamically linked Rust program needs to be started where no library is installed: the
/// loader, under the name `loader`, and the libraries by theirs. Those of this test process, which
/// was linked as the program was.
///
/// # Panics
/// If they cannot be read.
pub fn loader_and_libraries() -> Vec<(String, Vec<u8>)> {
    let maps = fs_err::read_to_string("/proc/self/maps").expect("a process sees its own maps");
    let mapped = maps.lines().filter_map(|line| line.split_once('/'));
    let paths: BTreeSet<PathBuf> = mapped
        .map(|(_, path)| Path::new("/").join(path))
        .filter(|path| name_of(path).contains(".so"))
        .collect();
    let named = paths.into_iter().map(|path| {
        let content = fs_err::read(&path).expect("a library that is in use can be read");
        match name_of(&path) {
            name if name.starts_with("ld") => ("loader".to_owned(), content),
            name => (name, content),
        }
    });
    named.collect()
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
