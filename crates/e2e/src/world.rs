//! A world of the test's own around the binary: a network namespace with public and private hosts,
//! name servers, a proxy and a metadata service, all of which is the program `programs/world.rs`.

use std::{ffi::OsString, path::Path};

use crate::{
    mounts::{HOLDER, MountNamespace},
    place::Place,
    process::{Invocation, Running},
};

/// A network namespace in which everything has its place. It is gone when this is dropped.
#[derive(Debug)]
pub struct World {
    // Dropped first: it runs in the namespace.
    hosts: Running,
    namespace: MountNamespace,
    _place: Place,
}

impl World {
    /// A world as the lines describe it, in the words of the program `world`; who asks the host's
    /// resolver asks `resolver`.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new(program: &Path, lines: &str, resolver: &str) -> Self {
        let place = Place::new();
        let file = place.write("world", lines);
        let mut namespace = MountNamespace::with_network();
        namespace.run("ip link set lo up");
        for line in lines.lines() {
            if let Some(address) = line.strip_prefix("address ") {
                // Without waiting for others to claim it: nobody else is here.
                let flags = if address.contains(':') { "nodad" } else { "" };
                namespace.run(&format!("ip address add {address} dev lo {flags}"));
            }
        }
        // What a program without a boundary does to the host's files, it does to these.
        for (name, content) in [
            ("resolv.conf", format!("nameserver {resolver}\n")),
            ("hosts", "127.0.0.1 localhost\n".to_owned()),
            ("nsswitch.conf", "hosts: files dns\n".to_owned()),
        ] {
            let file = place.write(name, content);
            namespace.run(&format!("mount --bind '{}' /etc/{name}", file.display()));
        }
        // Some hosts let everybody send echo requests, others nobody.
        namespace.run("echo '0 0' > /proc/sys/net/ipv4/ping_group_range");
        let hosts = Invocation::of(program, place.path(), [file])
            .env(HOLDER, "1")
            .behind(&namespace.entry(place.path()))
            .start();
        hosts.wait_until("the world is there", || {
            hosts.so_far().starts_with("ready\n")
        });
        Self {
            hosts,
            namespace,
            _place: place,
        }
    }

    /// What is put in front of a program's command line to start it in this world, in `folder`.
    pub fn entry(&self, folder: &Path) -> Vec<OsString> {
        self.namespace.entry(folder)
    }

    /// What has come to any of its hosts until now, a line each.
    pub fn heard(&self) -> Vec<String> {
        let heard = self.hosts.so_far();
        let lines = heard.lines().skip(1).filter(|line| !line.is_empty());
        lines.map(str::to_owned).collect()
    }
}
