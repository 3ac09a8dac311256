//! The probes of each network profile, and what is to become of them; the world that they are sent
//! into.

use barecount_e2e::world::TUNNEL;

/// Where the names of the profile that is tried are looked up.
pub(crate) const RESOLVER: &str = "10.20.0.53";
const RESOLVER_BEHIND_THE_TUNNEL: &str = "10.60.0.53";

/// Hosts to which some profile leads.
const REACHABLE: [&str; 12] = [
    "93.184.215.14",
    "2606:2800:220:1::14",
    "10.20.0.5",
    "10.20.0.6",
    "fd12:3456::5",
    "fd12:3456::6",
    "10.20.0.80",
    RESOLVER,
    "10.30.0.5",
    "10.40.0.5",
    "10.50.0.5",
    "10.50.0.6",
];

/// Hosts to which the tunnel leads.
const BEHIND_THE_TUNNEL: [&str; 3] = ["10.60.0.5", "10.60.0.6", RESOLVER_BEHIND_THE_TUNNEL];

/// Hosts to which none leads.
const UNREACHABLE: [&str; 13] = [
    "64:ff9b::a14:5",
    "198.18.77.77",
    "fd62:6172:6563::4d4d",
    "93.184.215.15",
    "2606:2800:220:1::15",
    "10.99.0.1",
    "fd99::1",
    "8.8.8.8",
    "169.254.169.254",
    "169.254.7.7",
    "fd00:ec2::254",
    "fe80::7",
    "192.0.0.8",
];

/// A way out that is tried.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// As the program `prober` understands it.
    pub(crate) line: String,
    pub(crate) end: End,
}

/// What is to become of it inside a boundary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It gets there, and is answered so.
    Reached(String),
    /// It is refused, and recorded with the name or address, the port, and the reason.
    Refused {
        host: &'static str,
        port: u16,
        code: &'static str,
        /// Where a name led, or which name server it was asked of.
        led_to: Option<&'static str>,
    },
    /// It is refused before there is anything to send: there is no destination to record.
    Unsent,
}

/// A network profile, and what a stage declares to reach by it.
#[derive(Debug, Clone)]
pub(crate) struct Battery {
    pub(crate) profile: &'static str,
    /// Host, port and protocol.
    pub(crate) egress: Vec<(&'static str, u16, &'static str)>,
    pub(crate) probes: Vec<Probe>,
}

fn reached(line: &str, words: &str) -> Probe {
    Probe {
        line: line.to_owned(),
        end: End::Reached(words.to_owned()),
    }
}

fn refused(line: &str, host: &'static str, port: u16, code: &'static str) -> Probe {
    Probe {
        line: line.to_owned(),
        end: End::Refused {
            host,
            port,
            code,
            led_to: None,
        },
    }
}

/// A declared name that leads where it must not.
fn astray(host: &'static str, port: u16, led_to: &'static str, code: &'static str) -> Probe {
    Probe {
        line: format!("tcp {host}:{port}"),
        end: End::Refused {
            host,
            port,
            code,
            led_to: Some(led_to),
        },
    }
}

fn unsent(line: &str) -> Probe {
    Probe {
        line: line.to_owned(),
        end: End::Unsent,
    }
}

const NAME: &str = "name_not_declared";
const PORT: &str = "port_not_declared";
const ADDRESS: &str = "address_not_declared";
const PROTOCOL: &str = "protocol_refused";
const NOT_PUBLIC: &str = "address_not_public";
const OUTSIDE: &str = "address_outside_ranges";

/// Names of which nobody has said anything, asked for in every way.
fn undeclared_names() -> Vec<Probe> {
    let not_found = |kind: &str, name| refused(&format!("{kind}{name}"), name, 53, NAME);
    let asked_of = |server, kind: &str, name: &'static str| Probe {
        line: format!("{kind} {server} {name}"),
        end: End::Refused {
            host: name,
            port: 53,
            code: NAME,
            led_to: Some(server),
        },
    };
    let leaked = "secret-in-a-name.undeclared.example";
    vec![
        refused(
            "tcp undeclared.example:7000",
            "undeclared.example",
            53,
            NAME,
        ),
        refused("udp undeclared.example:443", "undeclared.example", 53, NAME),
        not_found("dns-udp own ", leaked),
        not_found("dns-tcp own ", "by-tcp.undeclared.example"),
        asked_of("8.8.8.8", "dns-udp", "elsewhere.undeclared.example"),
        asked_of("8.8.8.8", "dns-tcp", "elsewhere-by-tcp.undeclared.example"),
        // Lookups within TLS or HTTP.
        refused("tls 8.8.8.8:443 dns.google", "8.8.8.8", 443, ADDRESS),
        refused("http 8.8.8.8:80 dns.google", "8.8.8.8", 80, ADDRESS),
    ]
}

/// Addresses of which nobody has said anything.
fn undeclared_addresses() -> Vec<Probe> {
    let tcp = |host: &'static str, port| {
        let to = match host.split_once(':') {
            Some(_) => format!("[{host}]:{port}"),
            None => format!("{host}:{port}"),
        };
        refused(&format!("tcp {to}"), host, port, ADDRESS)
    };
    vec![
        tcp("93.184.215.15", 7000),
        tcp("2606:2800:220:1::15", 7000),
        refused(
            "tcp [::ffff:93.184.215.15]:7001",
            "93.184.215.15",
            7001,
            ADDRESS,
        ),
        tcp("10.99.0.1", 7000),
        tcp("fd99::1", 7000),
        tcp("169.254.7.7", 7000),
        refused("tcp [fe80::7%1]:7000", "fe80::7", 7000, ADDRESS),
        refused(
            "http 169.254.169.254:80 metadata",
            "169.254.169.254",
            80,
            ADDRESS,
        ),
        refused(
            "http [fd00:ec2::254]:80 metadata",
            "fd00:ec2::254",
            80,
            ADDRESS,
        ),
        refused("mptcp 93.184.215.15:80", "93.184.215.15", 80, ADDRESS),
        // From where names are given addresses inside, and these were given to none.
        tcp("198.18.77.77", 7000),
        tcp("fd62:6172:6563::4d4d", 7000),
        // What every sandbox takes for its own.
        tcp("192.0.0.8", 7000),
        refused("udp 93.184.215.15:443", "93.184.215.15", 443, PROTOCOL),
        refused(
            "udp [2606:2800:220:1::15]:443",
            "2606:2800:220:1::15",
            443,
            PROTOCOL,
        ),
        refused("udp 10.99.0.1:7007", "10.99.0.1", 7007, PROTOCOL),
    ]
}

/// Ways around that end before there is anything to send.
fn ways_around() -> Vec<Probe> {
    vec![
        // The loopback inside is the sandbox's own: nothing left it.
        unsent("tcp 127.0.0.1:7000"),
        unsent("tcp [::1]:7000"),
        unsent("tcp 0.0.0.0:7000"),
        unsent("udp 127.0.0.1:7007"),
        unsent("hosts redirected.example 93.184.215.15 7001"),
        unsent("icmp 93.184.215.15"),
        unsent("raw 93.184.215.15"),
        unsent("packet"),
        unsent("abstract barecount-e2e-world"),
        unsent("flush-rules"),
        unsent("delete-route 93.184.215.14"),
        // The last one: a probe that gets out here is somewhere else from then on.
        unsent("new-namespaces"),
    ]
}

/// What holds for the host that is declared for four protocols, whatever the profile.
fn declared(name: &'static str, address: &str) -> Vec<Probe> {
    let here = |port: u16| format!("here is {address}:{port}");
    vec![
        // The other side speaks first; both ends are ended apart.
        reached(
            &format!("tcp {name}:7000"),
            &format!("{} hello", here(7000)),
        ),
        reached(&format!("http {name}:80 {name}"), &here(80)),
        reached(&format!("tls {name}:443 {name}"), &here(443)),
        reached(
            &format!("cut {name}:7002"),
            &format!("{}  and then it was cut", here(7002)),
        ),
        refused(&format!("tcp {name}:7001"), name, 7001, PORT),
        refused(&format!("udp {name}:7007"), name, 7007, PROTOCOL),
        refused(
            &format!("http {name}:80 other.example"),
            name,
            80,
            "host_mismatch",
        ),
        refused(
            &format!("connect {name}:80 undeclared.example:443"),
            name,
            80,
            "method_refused",
        ),
        refused(
            &format!("tls {name}:443 other.example"),
            name,
            443,
            "server_name_mismatch",
        ),
        refused(
            &format!("tls {name}:443 -"),
            name,
            443,
            "server_name_missing",
        ),
        refused(&format!("http {name}:443 {name}"), name, 443, "not_tls"),
        refused(
            &format!("absolute {name}:80 {name} http://undeclared.example/"),
            name,
            80,
            "host_mismatch",
        ),
        refused(
            &format!("upgrade {name}:80 {name}"),
            name,
            80,
            "method_refused",
        ),
        refused(
            &format!("hidden {name}:443 {name}"),
            name,
            443,
            "server_name_encrypted",
        ),
    ]
}

fn for_host(name: &'static str) -> Vec<(&'static str, u16, &'static str)> {
    vec![
        (name, 7000, "tcp"),
        (name, 80, "http"),
        (name, 443, "tls"),
        (name, 7002, "tcp"),
    ]
}

/// A name that leads to a good address, until it leads to another.
fn rebinding(
    name: &'static str,
    first: &str,
    second: &'static str,
    code: &'static str,
) -> Vec<Probe> {
    vec![
        reached(
            &format!("flip {name}:7000 {name}"),
            &format!("here is {first}:7000"),
        ),
        astray(name, 7001, second, code),
    ]
}

fn battery(
    profile: &'static str,
    egress: [Vec<(&'static str, u16, &'static str)>; 2],
    probes: [Vec<Probe>; 2],
) -> Battery {
    let common = [undeclared_names(), undeclared_addresses(), ways_around()];
    let probes = probes.into_iter().chain(common);
    Battery {
        profile,
        egress: egress.concat(),
        probes: probes.flatten().collect(),
    }
}

/// The battery of every profile.
pub(crate) fn batteries() -> Vec<Battery> {
    vec![public(), private(), endpoint(), tunnel(), facility()]
}

/// That of `public_vpc_egress`.
pub(crate) fn public() -> Battery {
    let tcp = |host| (host, 7000, "tcp");
    let more = vec![
        tcp("chain.example"),
        tcp("private.example"),
        tcp("metadata.example"),
        tcp("host.example"),
        tcp("mapped.example"),
        tcp("translated.example"),
        tcp("mixed.example"),
        tcp("rebinding.example"),
        ("rebinding.example", 7001, "tcp"),
    ];
    let mut probes = rebinding(
        "rebinding.example",
        "93.184.215.14",
        "10.20.0.5",
        NOT_PUBLIC,
    );
    probes.extend([
        astray("chain.example", 7000, "10.99.0.1", NOT_PUBLIC),
        astray("private.example", 7000, "10.20.0.5", NOT_PUBLIC),
        astray("metadata.example", 7000, "169.254.169.254", NOT_PUBLIC),
        astray("host.example", 7000, "127.0.0.1", NOT_PUBLIC),
        astray("mapped.example", 7000, "10.20.0.5", NOT_PUBLIC),
        astray("translated.example", 7000, "64:ff9b::a14:5", NOT_PUBLIC),
        // Of what a name leads to, the public part is used.
        reached("tcp mixed.example:7000", "here is 93.184.215.14:7000"),
        refused("tcp 93.184.215.14:7000", "93.184.215.14", 7000, ADDRESS),
    ]);
    let name = "public.example";
    battery(
        "public_vpc_egress",
        [for_host(name), more],
        [declared(name, "93.184.215.14"), probes],
    )
}

fn private() -> Battery {
    let tcp = |host| (host, 7000, "tcp");
    let more = vec![
        tcp("peered.example"),
        tcp("10.20.0.6"),
        tcp("fd12:3456::6"),
        ("far.example", 443, "tls"),
        tcp("public.example"),
        tcp("chain.example"),
        tcp("metadata.example"),
        tcp("rebinding-private.example"),
        ("rebinding-private.example", 7001, "tcp"),
    ];
    let mut probes = rebinding(
        "rebinding-private.example",
        "10.20.0.5",
        "10.99.0.1",
        OUTSIDE,
    );
    probes.extend([
        reached("tcp peered.example:7000", "here is 10.30.0.5:7000"),
        reached("tcp 10.20.0.6:7000", "here is 10.20.0.6:7000"),
        reached("tcp [fd12:3456::6]:7000", "here is [fd12:3456::6]:7000"),
        reached(
            "tls far.example:443 far.example",
            "here is the proxy for far.example:443",
        ),
        // Public, and not approved for the proxy.
        astray("public.example", 7000, "93.184.215.14", OUTSIDE),
        astray("chain.example", 7000, "10.99.0.1", OUTSIDE),
        astray("metadata.example", 7000, "169.254.169.254", OUTSIDE),
        refused("tcp 10.20.0.5:7000", "10.20.0.5", 7000, ADDRESS),
        refused("tcp 10.20.0.6:7001", "10.20.0.6", 7001, PORT),
        refused(
            "connect 10.20.0.80:3128 undeclared.example:443",
            "10.20.0.80",
            3128,
            ADDRESS,
        ),
    ]);
    let name = "private.example";
    battery(
        "private_vpc",
        [for_host(name), more],
        [declared(name, "10.20.0.5"), probes],
    )
}

fn endpoint() -> Battery {
    let more = vec![
        ("moving.example", 7000, "tcp"),
        ("moving.example", 7001, "tcp"),
    ];
    let mut probes = rebinding("moving.example", "10.40.0.5", "93.184.215.15", OUTSIDE);
    probes[0].line = "flip moving.example:7000 rebinding-endpoint.example".to_owned();
    probes.push(refused("tcp 10.40.0.5:7000", "10.40.0.5", 7000, ADDRESS));
    let name = "service.example";
    battery(
        "privatelink",
        [for_host(name), more],
        [declared(name, "10.40.0.5"), probes],
    )
}

fn tunnel() -> Battery {
    let more = vec![
        ("10.60.0.6", 7000, "tcp"),
        ("rebinding-tunnel.example", 7000, "tcp"),
        ("rebinding-tunnel.example", 7001, "tcp"),
    ];
    let mut probes = rebinding(
        "rebinding-tunnel.example",
        "10.60.0.5",
        "10.20.0.5",
        OUTSIDE,
    );
    probes.push(reached("tcp 10.60.0.6:7000", "here is 10.60.0.6:7000"));
    probes.push(refused("tcp 10.60.0.5:7000", "10.60.0.5", 7000, ADDRESS));
    let name = "tunnel.example";
    battery(
        "vpn",
        [for_host(name), more],
        [declared(name, "10.60.0.5"), probes],
    )
}

/// A tunnel that goes down once somebody has sent `flip cut.example`.
pub(crate) fn cut_tunnel() -> Battery {
    let name = "tunnel.example";
    let probe = format!("outlive {name}:7000 cut.example");
    Battery {
        profile: "vpn",
        egress: vec![(name, 7000, "tcp")],
        probes: vec![refused(&probe, name, 7000, "path_down")],
    }
}

fn facility() -> Battery {
    let more = vec![
        ("10.50.0.6", 7000, "tcp"),
        ("stray.plant.example", 7000, "tcp"),
        ("rebinding.plant.example", 7000, "tcp"),
        ("rebinding.plant.example", 7001, "tcp"),
    ];
    let mut probes = rebinding("rebinding.plant.example", "10.50.0.5", "10.20.0.5", OUTSIDE);
    probes.extend([
        reached("tcp 10.50.0.6:7000", "here is 10.50.0.6:7000"),
        astray("stray.plant.example", 7000, "10.99.0.1", OUTSIDE),
        refused("tcp 10.50.0.5:7000", "10.50.0.5", 7000, ADDRESS),
    ]);
    let name = "site.plant.example";
    battery(
        "on_prem_agent",
        [for_host(name), more],
        [declared(name, "10.50.0.5"), probes],
    )
}

/// The hosts of the world, in the words of the program `world`.
pub(crate) fn near() -> String {
    listed(REACHABLE.iter().chain(&UNREACHABLE))
        + "name public.example 93.184.215.14 2606:2800:220:1::14
name private.example 10.20.0.5 fd12:3456::5
name peered.example 10.30.0.5
name service.example 10.40.0.5
name site.plant.example 10.50.0.5
name far.example 93.184.215.15
name stray.example 10.99.0.1
name stray.plant.example 10.99.0.1
name metadata.example 169.254.169.254
name host.example 127.0.0.1
name mapped.example ::ffff:10.20.0.5
name translated.example 64:ff9b::a14:5
name mixed.example 10.99.0.1 93.184.215.14
alias chain.example next.example
alias next.example stray.example
rebinding rebinding.example 93.184.215.14 10.20.0.5
rebinding rebinding-private.example 10.20.0.5 10.99.0.1
rebinding rebinding-endpoint.example 10.40.0.5 93.184.215.15
rebinding rebinding.plant.example 10.50.0.5 10.20.0.5
name undeclared.example 93.184.215.15
name secret-in-a-name.undeclared.example 93.184.215.15
name by-tcp.undeclared.example 93.184.215.15
name elsewhere.undeclared.example 93.184.215.15
name elsewhere-by-tcp.undeclared.example 93.184.215.15
abstract barecount-e2e-world
"
}

/// Those behind the tunnel.
pub(crate) fn far() -> String {
    listed(BEHIND_THE_TUNNEL.iter())
        + "name tunnel.example 10.60.0.5
rebinding rebinding-tunnel.example 10.60.0.5 10.20.0.5
"
}

fn listed<'a>(hosts: impl Iterator<Item = &'a &'a str>) -> String {
    hosts.map(|host| format!("address {host}\n")).collect()
}

/// What each profile means in this world.
pub(crate) fn environment() -> String {
    format!(
        "apiVersion: barecount.dev/v1
kind: Environment
metadata: {{ name: world }}
spec:
  kind: development
  backends: {{ serverless: local, container: local, managed_etl: local, dedicated_compute: local }}
  governance:
    matrix:
      - tenant: '*'
        allow:
          - classes: [serverless, container, managed_etl, dedicated_compute]
            sizes: [small]
            network_profiles: [public_vpc_egress, private_vpc, privatelink, vpn, on_prem_agent]
  networks:
    public_vpc_egress: {{ allow: [example], clear_text: true, resolver: '{RESOLVER}:53' }}
    private_vpc:
      ranges: [10.20.0.0/16, 'fd12:3456::/32']
      peering: [10.30.0.0/16]
      resolver: '{RESOLVER}:53'
      public: {{ proxy: '10.20.0.80:3128', allow: [far.example] }}
    privatelink:
      endpoints: {{ service.example: 10.40.0.5, moving.example: rebinding-endpoint.example }}
      resolver: '{RESOLVER}:53'
    vpn: {{ interface: {TUNNEL}, ranges: [10.60.0.0/16], resolver: '{RESOLVER_BEHIND_THE_TUNNEL}:53' }}
    on_prem_agent:
      facility: plant
      zones: [plant.example]
      ranges: [10.50.0.0/16]
      resolver: '{RESOLVER}:53'
"
    )
}

/// Whether something that came to the world may have come from a boundary: what it says is what
/// the program `world` writes.
pub(crate) fn may_come(heard: &str) -> bool {
    match heard.split_once(' ') {
        Some(("tcp", to)) => {
            let host = to.rsplit_once(':').map_or(to, |(host, _)| host);
            let host = host.trim_matches(['[', ']']);
            REACHABLE.contains(&host) || BEHIND_THE_TUNNEL.contains(&host)
        }
        Some(("udp", to)) => [RESOLVER, RESOLVER_BEHIND_THE_TUNNEL]
            .map(|host| format!("{host}:53"))
            .contains(&to.to_owned()),
        Some(("dns", name)) => !name.contains("undeclared") && name != "redirected.example",
        Some(("flip", _)) => true,
        Some(("proxy", to)) => to == "far.example:443",
        _ => false,
    }
}
