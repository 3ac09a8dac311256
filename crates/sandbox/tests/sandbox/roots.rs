//! Root file systems and mounts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use barecount_sandbox::{Mount, Root, Spec};
use tempfile::TempDir;

use crate::TestResult;
use crate::launched::{bind, fresh_name, hold, output_of, probing, run, shell, spec};

tests!(
    a_writable_bind_takes_files_and_a_read_only_one_does_not,
    a_file_can_be_bound,
    a_memory_mount_is_bounded,
    mounts_nest_in_their_order,
    an_empty_root_holds_nothing_but_the_mounts,
    a_directory_is_a_root_and_stays_as_it_was,
    a_directory_with_every_place_is_laid_under_an_overlay_too,
    links_in_a_root_lead_nowhere_outside,
    links_are_followed_while_others_mount,
    a_source_that_is_a_link_is_refused,
    a_missing_source_is_named,
    a_missing_root_is_named,
);

fn folder() -> std::io::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    Ok(folder)
}

fn a_writable_bind_takes_files_and_a_read_only_one_does_not() -> TestResult {
    let (input, output) = (folder()?, folder()?);
    fs::write(input.path().join("in"), "data")?;
    let mut spec = shell("cat /data/in/in; echo done > /data/out/out; echo x > /data/in/x");
    spec.mounts = vec![
        bind(input.path(), "/data/in", true),
        bind(output.path(), "/data/out", false),
    ];
    let ended = run(&spec)?;
    assert_eq!(ended.stdout, "data");
    assert!(
        ended.stderr.contains("Read-only file system"),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read_to_string(output.path().join("out"))?, "done\n");
    assert!(!input.path().join("x").exists());
    Ok(())
}

fn a_file_can_be_bound() -> TestResult {
    let folder = folder()?;
    fs::write(folder.path().join("secret"), "s3")?;
    fs::write(folder.path().join("beside"), "not this")?;
    symlink(folder.path(), folder.path().join("link"))?;
    let mut spec = shell("cat /run/secrets/*; ls /run/secrets");
    spec.mounts = vec![
        bind(&folder.path().join("secret"), "/run/secrets/one", true),
        bind(&folder.path().join("link/secret"), "/run/secrets/two", true),
    ];
    assert_eq!(output_of(&spec)?, "s3s3one\ntwo");
    Ok(())
}

fn a_memory_mount_is_bounded() -> TestResult {
    let mut spec = shell("head -c 100000 /dev/zero > /scratch/x; stat -c %s /scratch/x");
    spec.mounts = vec![Mount::Tmpfs {
        target: "/scratch".into(),
        size_bytes: 8192,
    }];
    assert_eq!(run(&spec)?.stdout, "8192\n");
    Ok(())
}

fn mounts_nest_in_their_order() -> TestResult {
    let folder = folder()?;
    fs::write(folder.path().join("inner"), "inner")?;
    let mut spec = shell("cat /outer/deep/place/inner; cat /tmp/here/inner");
    spec.mounts = vec![
        Mount::Tmpfs {
            target: "/outer".into(),
            size_bytes: 65_536,
        },
        bind(folder.path(), "/outer/deep/place", true),
        bind(folder.path(), "/tmp/here", true),
    ];
    assert_eq!(output_of(&spec)?, "innerinner");
    Ok(())
}

fn an_empty_root_holds_nothing_but_the_mounts() -> TestResult {
    let mut spec = spec(&["/bin/ls", "-A", "/"]);
    spec.root = Root::Empty;
    spec.mounts = system_binds();
    assert_eq!(output_of(&spec)?, "bin\ndev\nlib\nlib64\nproc\ntmp\nusr");
    Ok(())
}

/// What it takes to run a program of the host.
pub(crate) fn system_binds() -> Vec<Mount> {
    ["bin", "lib", "lib64", "usr"]
        .map(|name| Path::new("/").join(name))
        .into_iter()
        .filter_map(|path| {
            let source = fs::canonicalize(&path).ok()?;
            Some(Mount::Bind {
                source,
                target: path,
                read_only: true,
                executable: true,
                changes: false,
            })
        })
        .collect()
}

/// A small root file system with the host's programs mounted into it.
fn image() -> Result<(TempDir, Spec), Box<dyn std::error::Error>> {
    let image = folder()?;
    for name in ["bin", "lib", "lib64", "usr", "var/deep"] {
        fs::create_dir_all(image.path().join(name))?;
    }
    fs::write(image.path().join("var/file"), "of the image")?;
    let mut spec = shell("cat /var/file; ls -A /var; ls -A /");
    spec.root = Root::Directory(image.path().to_owned());
    spec.mounts = system_binds();
    Ok((image, spec))
}

fn listing(folder: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn a_directory_is_a_root_and_stays_as_it_was() -> TestResult {
    let (image, mut spec) = image()?;
    let given = folder()?;
    fs::write(given.path().join("f"), "given")?;
    spec.argv[2].push_str("; cat /var/task/code/f; echo x > /var/x");
    spec.mounts.push(bind(given.path(), "/var/task/code", true));
    let output = run(&spec)?;
    let expected = "of the imagedeep\nfile\ntask\nbin\ndev\nlib\nlib64\nproc\ntmp\nusr\nvar\ngiven";
    assert_eq!(output.stdout, expected, "{}", output.stderr);
    assert!(
        output.stderr.contains("Read-only file system"),
        "{}",
        output.stderr
    );
    assert_eq!(
        listing(image.path())?,
        ["bin", "lib", "lib64", "usr", "var"]
    );
    assert_eq!(listing(&image.path().join("var"))?, ["deep", "file"]);
    Ok(())
}

fn a_directory_with_every_place_is_laid_under_an_overlay_too() -> TestResult {
    let (image, mut spec) = image()?;
    for name in ["proc", "dev", "tmp"] {
        fs::create_dir(image.path().join(name))?;
    }
    spec.argv[2] =
        "grep -c ' / / .*overlay' /proc/self/mountinfo; cat /var/file; echo x > /x".to_owned();
    let output = run(&spec)?;
    assert_eq!(output.stdout, "1\nof the image");
    assert!(
        output.stderr.contains("Read-only file system"),
        "{}",
        output.stderr
    );
    Ok(())
}

fn links_in_a_root_lead_nowhere_outside() -> TestResult {
    let (image, mut spec) = image()?;
    let outside = folder()?;
    let given = folder()?;
    fs::write(given.path().join("f"), "given")?;
    symlink(outside.path(), image.path().join("absolute"))?;
    symlink(
        "../../../../../../../../../..",
        image.path().join("climbing"),
    )?;
    symlink("circle", image.path().join("circle"))?;
    spec.argv[2] = "cat /absolute/f /climbing/new/f; ls /climbing/; ls /new /..".to_owned();
    spec.mounts.push(bind(given.path(), "/absolute", true));
    spec.mounts.push(bind(given.path(), "/climbing/new", true));
    let output = run(&spec)?;
    assert_eq!(output.stderr, "");
    let seen = "absolute\nbin\ncircle\nclimbing\ndev\nlib\nlib64\nnew\nproc\ntmp\nusr\nvar\n";
    assert_eq!(
        output.stdout,
        format!("givengiven{seen}/..:\n{seen}\n/new:\nf\n")
    );
    assert!(
        listing(outside.path())?.is_empty(),
        "something was made outside"
    );
    spec.mounts.push(bind(given.path(), "/circle/x", true));
    let error = hold(&spec).err().ok_or("it ran")?;
    assert_eq!(error.to_string(), "cannot mount on /circle/x");
    Ok(())
}

fn links_are_followed_while_others_mount() -> TestResult {
    let (image, mut spec) = image()?;
    let given = folder()?;
    let climbing = "../".repeat(30);
    symlink(climbing, image.path().join("climbing"))?;
    spec.argv[2] = "true".to_owned();
    for name in ["one", "two", "three"] {
        let target = format!("/climbing/{name}");
        spec.mounts.push(bind(given.path(), &target, true));
    }
    let launch = |spec: Spec| {
        move || {
            (0..20).try_for_each(|_| {
                let mut spec = spec.clone();
                spec.name = fresh_name();
                match run(&spec) {
                    Ok(output) if output.exit.status.success() => Ok(()),
                    Ok(output) => Err(format!("{output:?}")),
                    Err(error) => Err(format!("{error}: {:?}", error.source())),
                }
            })
        }
    };
    let threads: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(launch(spec.clone())))
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn a_source_that_is_a_link_is_refused() -> TestResult {
    let folder = folder()?;
    symlink("/etc", folder.path().join("link"))?;
    let mut spec = shell("true");
    spec.mounts = vec![bind(&folder.path().join("link"), "/data", true)];
    let error = hold(&spec).err().ok_or("it ran")?;
    assert!(
        error
            .to_string()
            .starts_with("cannot open the mount source"),
        "{error}"
    );
    Ok(())
}

fn a_missing_source_is_named() -> TestResult {
    let mut spec = probing(&["spin"]);
    spec.mounts
        .push(bind(Path::new("/nowhere/at/all"), "/data", true));
    let error = hold(&spec).err().ok_or("it ran")?;
    assert_eq!(
        error.to_string(),
        "cannot open the mount source /nowhere/at/all"
    );
    let reason = error.source().ok_or("no reason")?.to_string();
    assert!(reason.contains("No such file or directory"), "{reason}");
    Ok(())
}

fn a_missing_root_is_named() -> TestResult {
    let mut spec = shell("true");
    spec.root = Root::Directory("/nowhere".into());
    let error = hold(&spec).err().ok_or("it ran")?;
    assert_eq!(error.to_string(), "cannot open the mount source /nowhere");
    Ok(())
}
