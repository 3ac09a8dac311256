//! The programs of a measurement are processes of one program in several roles.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::measuring::Outcome;

/// A thousand flows are two thousand descriptors.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where that is not allowed, the flows that do not fit fail, and say so.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// A process of this program in another role, ended when dropped.
pub(crate) struct Role {
    child: Child,
    /// The first line that it printed.
    pub(crate) said: String,
}

impl Role {
    pub(crate) fn start(arguments: &[&str]) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        let output = child.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut said)?;
        Ok(Self { child, said })
    }

    /// Where it listens, if that is what it printed.
    pub(crate) fn address(&self) -> Outcome<SocketAddr> {
        Ok(self.said.trim().parse()?)
    }

    /// Ends it by itself, and waits until it has.
    pub(crate) fn let_go(mut self) -> Outcome<()> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn resident_kib(&self) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let digits = line
            .and_then(|line| line.split_whitespace().nth(1))
            .ok_or("no VmRSS")?;
        Ok(digits.parse()?)
    }

    /// Seconds of processor time so far.
    pub(crate) fn processor_time(&self) -> Outcome<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, after) = stat.rsplit_once(')').ok_or("no name")?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let (user, system): (u32, u32) = (fields[11].parse()?, fields[12].parse()?);
        Ok(f64::from(user + system) / 100.0)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
