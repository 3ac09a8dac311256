use std::cell::RefCell;

use super::*;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A program with the place of code that its build script made, which is an absolute path, as
/// that of every dependency is.
const MAIN: &str = r#"include!(concat!(env!("OUT_DIR"), "/made.rs"));
fn main() {
    println!("{}", place());
    if std::env::args().count() > 1 { panic!("asked to"); }
}
"#;

const BUILD_SCRIPT: &str = r#"fn main() {
    let made = std::path::Path::new(&std::env::var_os("OUT_DIR").unwrap()).join("made.rs");
    std::fs::write(made, "fn place() -> &'static str { file!() }").unwrap();
}
"#;

/// A source folder in a temporary folder whose name is as long as `depth` makes it.
struct Source {
    folder: tempfile::TempDir,
    request: Request,
}

impl Source {
    fn new(depth: usize, recipe: &str, main: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let source = folder.path().join("deeper/".repeat(depth)).join("tiny");
        std::fs::create_dir_all(source.join("src"))?;
        std::fs::write(source.join(FILE_NAME), recipe)?;
        let manifest =
            "[package]\nname = \"tiny\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\n[workspace]\n";
        std::fs::write(source.join("Cargo.toml"), manifest)?;
        let lock = "version = 3\n\n[[package]]\nname = \"tiny\"\nversion = \"1.0.0\"\n";
        std::fs::write(source.join("Cargo.lock"), lock)?;
        std::fs::write(source.join("build.rs"), BUILD_SCRIPT)?;
        std::fs::write(source.join("src/main.rs"), main)?;
        let request = Request {
            source,
            target: folder.path().join("target"),
            timeout: Duration::from_secs(300),
            limits: Limits::default(),
        };
        Ok(Self { folder, request })
    }

    fn store(&self) -> Result<Store, StoreError> {
        Store::open(&self.folder.path().join("artifacts"))
    }

    fn build(&self, previous: Option<&Built>) -> Result<super::Outcome, BuildError> {
        build(
            &self.store()?,
            &self.request,
            &tools(),
            previous,
            &Cancel::default(),
            &mut |_| {},
        )
    }
}

fn tools() -> Toolchain {
    Toolchain::new(std::env::vars_os())
}

const PACKAGE: &str = "kind: package\ncargo: { package: tiny }\n";

// R-J2
#[test]
fn two_builds_in_different_folders_give_one_digest() -> Outcome {
    let first = Source::new(0, PACKAGE, MAIN)?;
    let second = Source::new(3, PACKAGE, MAIN)?;
    let one = first.build(None)?;
    let two = second.build(None)?;
    assert!(matches!(one, super::Outcome::Built(_)));
    assert_eq!(one.artifact().digest, two.artifact().digest);
    assert_eq!(one.artifact().source, two.artifact().source);
    assert_eq!(one.artifact().builder, two.artifact().builder);

    let folder = package::unpack(
        &first.store()?,
        &one.artifact().digest,
        package::BOOTSTRAP,
        &Limits::default(),
    )?;
    let output = std::process::Command::new(folder.join(package::BOOTSTRAP)).output()?;
    let place = String::from_utf8(output.stdout)?;
    assert!(
        place.starts_with("/target/"),
        "the place {place} was not replaced"
    );
    let bytes = std::fs::read(folder.join(package::BOOTSTRAP))?;
    let here = first.folder.path().to_str().ok_or("a path")?.as_bytes();
    assert!(
        !bytes.windows(here.len()).any(|window| window == here),
        "the folder's path is in it"
    );
    assert!(
        !asks_for_an_interpreter(&bytes),
        "it is not linked statically"
    );
    barecount_tree::remove(&folder, &barecount_tree::to_the_end)?;
    Ok(())
}

/// Whether a 64-bit little-endian ELF file has a program header of the type `PT_INTERP`.
fn asks_for_an_interpreter(elf: &[u8]) -> bool {
    let half = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
    let start = half(32);
    (0..half(56)).any(|number| half(start + number * half(54)) == 3)
}

#[test]
fn what_has_not_changed_is_not_built_again() -> Outcome {
    let source = Source::new(0, PACKAGE, MAIN)?;
    let built = source.build(None)?.artifact().clone();
    assert!(
        matches!(source.build(Some(&built))?, super::Outcome::Unchanged(again) if again == built)
    );

    std::fs::write(source.request.source.join("src/main.rs"), "fn main() {}")?;
    let changed = source.build(Some(&built))?;
    assert!(matches!(&changed, super::Outcome::Built(now) if now.digest != built.digest));

    let changed = changed.artifact().clone();
    std::fs::remove_file(source.store()?.blobs().path(&changed.digest))?;
    assert!(
        matches!(source.build(Some(&changed))?, super::Outcome::Built(now) if now.digest == changed.digest)
    );
    Ok(())
}

#[test]
fn an_image_and_a_driver_are_built_of_files_alone() -> Outcome {
    let image = "kind: image\nfiles: [{ from: Cargo.toml, to: /app/run, executable: true }]\nentrypoint: [/app/run]\nenv: { A: b }\n";
    let source = Source::new(0, image, "")?;
    let built = source.build(None)?.artifact().clone();
    assert_eq!(
        (built.kind, built.name.as_str()),
        (ArtifactKind::Image, "tiny")
    );
    let store = source.store()?;
    let image = image::open(
        &store,
        &built.digest,
        &Platform::of_this_program(),
        &Limits::default(),
    )?;
    assert_eq!(image.config.env, ["A=b"]);
    assert!(image.rootfs.join("app/run").is_file());
    barecount_tree::remove(&image.rootfs, &barecount_tree::to_the_end)?;

    let driver = "kind: driver\nname: d\nversion: '1'\nto: bin/d\nfiles: [{ from: Cargo.toml, to: bin/d, executable: true }]\n";
    std::fs::write(source.request.source.join(FILE_NAME), driver)?;
    let built = source.build(None)?.artifact().clone();
    let wanted = driver::Wanted {
        name: "d".into(),
        version: Some("1".into()),
        digest: built.digest,
    };
    let driver = driver::open(&store, &wanted, &Limits::default())?;
    assert_eq!(built.name, "d");
    barecount_tree::remove(&driver.folder, &barecount_tree::to_the_end)?;
    Ok(())
}

#[test]
fn a_compile_error_shows_what_the_compiler_said() -> Outcome {
    let source = Source::new(0, PACKAGE, "fn main() { no_such_function() }")?;
    let heard = RefCell::new(Vec::new());
    let failed = build(
        &source.store()?,
        &source.request,
        &tools(),
        None,
        &Cancel::default(),
        &mut |line| heard.borrow_mut().push(line.to_owned()),
    );
    let Err(BuildError::Failed { tail, .. }) = failed else {
        panic!("{failed:?}")
    };
    assert!(
        tail.iter().any(|line| line.contains("no_such_function")),
        "{tail:?}"
    );
    assert!(
        heard
            .into_inner()
            .iter()
            .any(|line| line.contains("Compiling tiny"))
    );
    Ok(())
}

#[test]
fn a_lock_that_does_not_fit_is_told_from_a_failure() -> Outcome {
    let source = Source::new(0, PACKAGE, MAIN)?;
    std::fs::remove_file(source.request.source.join("Cargo.lock"))?;
    assert!(matches!(
        source.build(None),
        Err(BuildError::LockOutOfDate { .. })
    ));
    Ok(())
}

#[test]
fn missing_tools_timeouts_and_cancellation_are_told_apart() -> Outcome {
    let source = Source::new(0, PACKAGE, MAIN)?;
    let store = source.store()?;
    let none = Toolchain::new([("PATH".into(), "/nonexistent".into())]);
    let cancel = Cancel::default();
    let missing = build(&store, &source.request, &none, None, &cancel, &mut |_| {});
    assert!(
        matches!(missing, Err(BuildError::NoTool { .. })),
        "{missing:?}"
    );

    let hurried = Request {
        timeout: Duration::ZERO,
        ..source.request.clone()
    };
    let late = build(&store, &hurried, &tools(), None, &cancel, &mut |_| {});
    assert!(matches!(late, Err(BuildError::Timeout { .. })), "{late:?}");

    cancel.cancel();
    let cancelled = build(
        &store,
        &source.request,
        &tools(),
        None,
        &cancel,
        &mut |_| {},
    );
    assert!(
        matches!(cancelled, Err(BuildError::Cancelled { .. })),
        "{cancelled:?}"
    );
    Ok(())
}

#[test]
fn the_environment_of_the_caller_does_not_reach_the_build() {
    let toolchain = Toolchain::new(
        [
            ("RUSTFLAGS", "-Cfoo"),
            ("PATH", "/bin"),
            ("CARGO_BUILD_TARGET", "x"),
            ("CC", "evil"),
        ]
        .map(|(name, value)| (name.into(), value.into())),
    );
    let names: Vec<_> = toolchain.environment.keys().collect();
    assert_eq!(names, ["PATH"]);
}

#[test]
fn one_problem_of_a_recipe_is_told_as_one_and_several_by_their_number() -> Outcome {
    for (recipe, told) in [
        ("kind: package\n", "has a problem at 1:1: "),
        (
            "kind: driver\ncargo: { package: a }\n",
            "has 3 problems, the first at 1:1: ",
        ),
    ] {
        let refused = Source::new(0, recipe, MAIN)?.build(None);
        let refused = refused.expect_err("the recipe is wrong").to_string();
        assert!(refused.contains(told), "{refused}");
    }
    Ok(())
}
