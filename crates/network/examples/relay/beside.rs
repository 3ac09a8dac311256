//! Other programs that give a network namespace a way out in user space: slirp4netns, pasta.

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
};

use crate::measuring::Outcome;

/// Where the host's loopback is from inside, for both.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const ADDRESS: &str = "10.0.2.15";
/// Tries until the way out is there, each a process that looks.
const TRIES: usize = 200;

/// A namespace with such a program at work; both end when dropped.
pub(crate) struct Attached {
    holder: Child,
    program: Child,
}

impl Attached {
    /// With slirp4netns, and the largest packets that it takes.
    pub(crate) fn slirp4netns() -> Outcome<Self> {
        let holder = holder()?;
        let mut program = Command::new("slirp4netns");
        program.args(["--configure", "--mtu=65520"]);
        program.arg(holder.id().to_string()).arg("tap0");
        Self::attach(holder, &mut program)
    }

    /// With pasta. Its tap device leads to the gateway; ports of the host's loopback are also on that
    /// of the namespace, without packets between.
    pub(crate) fn pasta() -> Outcome<Self> {
        let holder = holder()?;
        let mut program = Command::new("pasta");
        program.args(["--config-net", "--foreground", "--quiet"]);
        program.args(["--address", ADDRESS, "--netmask", "24"]);
        program.args(["--gateway", &GATEWAY.to_string()]);
        if rustix::process::geteuid().is_root() {
            // As nobody, which root's becomes, it may not enter a namespace of root's.
            program.args(["--runas", "0"]);
        }
        program.arg(holder.id().to_string());
        Self::attach(holder, &mut program)
    }

    fn attach(holder: Child, program: &mut Command) -> Outcome<Self> {
        let program = program
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut attached = Self { holder, program };
        for _ in 0..TRIES {
            if attached.program.try_wait()?.is_some() {
                return Err("it ended".into());
            }
            let routes = attached.inside("cat").arg("/proc/net/route").output()?;
            // A line for the default route, which both set last.
            let text = String::from_utf8(routes.stdout)?;
            if text
                .lines()
                .any(|line| line.split('\t').nth(1) == Some("00000000"))
            {
                return Ok(attached);
            }
        }
        Err("no route came".into())
    }

    /// The host's loopback from inside.
    pub(crate) fn by_gateway(host: SocketAddr) -> SocketAddr {
        SocketAddr::new(GATEWAY.into(), host.port())
    }

    /// A program in the namespace.
    pub(crate) fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--user", "--net", "--preserve-credentials", "--target"]);
        command
            .arg(self.holder.id().to_string())
            .arg("--")
            .arg(program);
        command
    }

    /// This program as a client inside; the figure that it prints.
    pub(crate) fn figure(&self, arguments: &[&str]) -> Outcome<f64> {
        let mut client = self.inside(std::env::current_exe()?);
        let output = client.arg("client").args(arguments).output()?;
        let text = String::from_utf8(output.stdout)?;
        let complaint = || String::from_utf8_lossy(&output.stderr).into_owned();
        text.trim().parse().map_err(|_| complaint().into())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for child in [&mut self.program, &mut self.holder] {
            // It is gone already if this fails.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process in new user and network namespaces, which waits.
fn holder() -> Outcome<Child> {
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(std::env::current_exe()?)
        .arg("hold")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    BufReader::new(output).read_line(&mut String::new())?;
    Ok(child)
}

/// What the holder does: says that it is there, and waits to be let go.
pub(crate) fn hold() -> Outcome<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "here")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
