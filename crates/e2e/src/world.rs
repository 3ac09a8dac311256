//! A world of the test's own around the binary: a network namespace with public and private hosts,
//! name servers, a proxy and a metadata service, and another one behind a tunnel. All of them are
//! the program `programs/world.rs`.

use std::{ffi::OsString, path::Path};

use crate::{
    mounts::{HOLDER, MountNamespace},
    place::Place,
    process::{Invocation, Running},
};

/// The interface of the host that leads to the hosts behind the tunnel.
pub const TUNNEL: &str = "tun9";

/// Makes the tunnel from its far side, `$0` being a process of the near one, and becomes the hosts
/// there.
const FAR_SIDE: &str = "set -e; ip link set lo up
ip link add tun8 type veth peer name tun9 netns \"$0\"
for address in $1; do ip address add \"$address/16\" dev tun8; done
ip link set tun8 up
exec \"$2\" \"$3\"";

/// Hosts, in the words of the program `world`.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// Around the host that the binary is started on.
    pub near: &'a str,
    /// Behind its tunnel; the addresses are of one network with 16 bits, as the one after this.
    pub far: &'a str,
    /// The host's own address in the tunnel.
    pub own_in_tunnel: &'a str,
    /// Whom the host's resolver asks.
    pub resolver: &'a str,
}

/// Network namespaces in which everything has its place. They are gone when this is dropped.
#[derive(Debug)]
pub struct World {
    // Dropped first: they run in the namespace.
    near: Running,
    far: Running,
    namespace: MountNamespace,
    _place: Place,
}

impl World {
    /// A world of these hosts, which are the program `world`.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new(program: &Path, hosts: Hosts<'_>) -> Self {
        let place = Place::new();
        let mut namespace = MountNamespace::with_network();
        namespace.run("ip link set lo up");
        for address in addresses(hosts.near) {
            // Without waiting for others to claim it: nobody else is here.
            let flags = if address.contains(':') { "nodad" } else { "" };
            namespace.run(&format!("ip address add {address} dev lo {flags}"));
        }
        let resolver = hosts.resolver;
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
        let start = |invocation: Invocation| {
            let invocation = invocation.env(HOLDER, "1");
            let hosts = invocation.behind(&namespace.entry(place.path())).start();
            hosts.wait_until("the hosts are there", || {
                hosts.so_far().starts_with("ready\n")
            });
            hosts
        };
        let file = place.write("near", hosts.near);
        let near = start(Invocation::of(program, place.path(), [file]));
        let file = place.write("far", hosts.far);
        let addresses: Vec<&str> = addresses(hosts.far).collect();
        let far = Invocation::of("unshare", place.path(), ["--net", "sh", "-c", FAR_SIDE])
            .argument(namespace.holder().to_string())
            .argument(addresses.join(" "))
            .argument(program)
            .argument(file);
        let far = start(far);
        let own = hosts.own_in_tunnel;
        namespace.run(&format!("ip address add {own}/16 dev {TUNNEL}"));
        namespace.run(&format!("ip link set {TUNNEL} up"));
        Self {
            near,
            far,
            namespace,
            _place: place,
        }
    }

    /// What is put in front of a program's command line to start it in this world, in `folder`.
    pub fn entry(&self, folder: &Path) -> Vec<OsString> {
        self.namespace.entry(folder)
    }

    /// Shows a file or folder in another place to all that is started in this world from now on.
    ///
    /// # Panics
    /// If that fails.
    pub fn show(&mut self, path: &Path, at: &str) {
        let path = path.display();
        self.namespace.run(&format!("mount --bind '{path}' {at}"));
    }

    /// Takes the tunnel's interface down.
    ///
    /// # Panics
    /// If that fails.
    pub fn cut_tunnel(&mut self) {
        self.namespace.run(&format!("ip link set {TUNNEL} down"));
    }

    /// What has come to any of its hosts until now, a line each.
    pub fn heard(&self) -> Vec<String> {
        let heard = [&self.near, &self.far].map(Running::so_far).concat();
        let lines = heard.lines().filter(|line| !matches!(*line, "" | "ready"));
        lines.map(str::to_owned).collect()
    }
}

fn addresses(hosts: &str) -> impl Iterator<Item = &str> {
    hosts
        .lines()
        .filter_map(|line| line.strip_prefix("address "))
}
