//! What a stage reaches, what it is refused, and that evidence tells of both.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    thread,
    time::Duration,
};

use barecount_e2e::{
    Outcome,
    place::Place,
    process::{Finished, Invocation},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::pipelines;

/// A server on this host that answers every request in the same words.
pub(crate) fn serve(words: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    serve_at(listener, words);
    Ok(address)
}

fn serve_at(listener: TcpListener, words: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{words}",
                words.len()
            );
        }
    });
}

/// An environment in which `erp.example` has a private endpoint on this host.
fn environment(more: &str) -> String {
    format!(
        "apiVersion: barecount.dev/v1
kind: Environment
metadata: {{ name: office }}
spec:
  kind: development
  backends: {{ serverless: local, container: local, managed_etl: local, dedicated_compute: local }}
  governance:
    matrix:
      - tenant: '*'
        allow:
          - classes: [serverless, container]
            sizes: [small]
            network_profiles: [privatelink, private_vpc, public_vpc_egress]
  networks:
    privatelink: {{ endpoints: {{ erp.example: 127.0.0.1 }} }}
    public_vpc_egress: {{ allow: [example.com] }}
{more}"
    )
}

/// A stage of the class that reaches out to these targets, and may reach `erp.example` on a port.
pub(crate) fn place(class: &str, targets: &str, port: u16) -> Place {
    let more = format!("      egress: [{{ host: erp.example, port: {port}, protocol: http }}]\n");
    let place = match class {
        "container" => pipelines::container_with("reach out", &more),
        _ => pipelines::function_with("reach out", &more, pipelines::GOOD_ROWS),
    };
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml")).expect("it was written");
    let manifest = manifest
        .replace(
            "network_profile: private_vpc",
            "network_profile: privatelink",
        )
        .replace("env: { ", &format!("env: {{ TARGETS: \"{targets}\", "));
    place.write("pipeline.yaml", manifest);
    place.write("environments/office.yaml", environment(""));
    place
}

fn run(place: &Place) -> Finished {
    command(place).finish()
}

pub(crate) fn command(place: &Place) -> Invocation {
    place.barecount(["run", "pipeline.yaml", "--env", "office", "-o", "json"])
}

/// What evidence has of the network of a run's only attempt.
fn network(place: &Place) -> Value {
    attempt(place)["detail"]["network"].clone()
}

/// What evidence has of a run's only attempt.
fn attempt(place: &Place) -> Value {
    let listed = place
        .barecount(["evidence", "ls", "-o", "json"])
        .finish()
        .exits_with(0);
    let listed = listed.json("evidence");
    let attempt = listed["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["kind"] == "attempt")
        .expect("there was an attempt");
    let shown = place
        .barecount([
            "evidence",
            "show",
            &attempt["index"].to_string(),
            "-o",
            "json",
        ])
        .finish()
        .exits_with(0);
    shown.json("evidence_entry")["statement"]["predicate"].clone()
}

fn record<'a>(network: &'a Value, key: &str, value: &Value, port: u16) -> &'a Value {
    network["records"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|flow| flow[key] == *value && flow["port"] == port)
        .unwrap_or_else(|| panic!("no record of {value}:{port} in {network:#}"))
}

#[test]
fn what_is_declared_is_reached_and_everything_else_is_refused_and_recorded() -> Outcome {
    let server = serve("the ledger says hello")?;
    let port = server.port();
    let targets = format!(
        "tcp://erp.example:{port} tcp://other.example:{port} tcp://127.0.0.1:{port} \
         tcp://169.254.169.254:80 tcp://192.0.2.7:443 udp://192.0.2.7:443 \
         tcp://erp.example:{}",
        port ^ 1
    );
    for class in ["container", "serverless"] {
        let place = place(class, &targets, port);
        let finished = run(&place).exits_with(0);
        let id = finished.json("run")["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let log = place
            .barecount(["runs", "logs", &id])
            .finish()
            .exits_with(0);
        assert_eq!(
            log.stdout.matches("the ledger says hello").count(),
            1,
            "{log}"
        );
        assert_eq!(log.stdout.matches("refused: ").count(), 6, "{log}");
        let network = network(&place);
        let reached = record(&network, "name", &"erp.example".into(), port);
        assert_eq!(reached["verdict"], "allowed", "{network:#}");
        assert_eq!(reached["address"], "127.0.0.1", "{network:#}");
        assert!(
            reached["bytes_down"]
                .as_u64()
                .is_some_and(|bytes| bytes > 20)
        );
        for (key, value, port) in [
            ("name", "other.example", 53),
            ("address", "169.254.169.254", 80),
            ("address", "192.0.2.7", 443),
            ("name", "erp.example", port ^ 1),
        ] {
            let refused = record(&network, key, &value.into(), port);
            assert_eq!(refused["verdict"], "refused", "{network:#}");
            assert!(refused["reason"]["text"].is_string(), "{network:#}");
        }
        let protocols = network["records"].as_array().into_iter().flatten();
        assert!(
            protocols.clone().any(|flow| flow["protocol"] == "udp"),
            "{network:#}"
        );
        place.nothing_is_left();
    }
    Ok(())
}

#[test]
fn a_destination_that_the_profile_does_not_lead_to_is_refused_before_anything_is_made() -> Outcome {
    let place = place("container", "", 443);
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
    let spoilt = |from: &str, to: &str| {
        let changed = manifest.replace(from, to);
        assert_ne!(changed, manifest);
        place.write("pipeline.yaml", changed);
        run(&place)
    };
    spoilt("host: erp.example", "host: other.example")
        .fails_with(2, "BC0307")
        .tells("no private endpoint");
    spoilt("network_profile: privatelink", "network_profile: vpn")
        .fails_with(2, "BC0307")
        .tells("networks.vpn");
    spoilt(
        "network_profile: privatelink",
        "network_profile: public_vpc_egress",
    )
    .fails_with(2, "BC0307")
    .tells("choose `network_profile: privatelink`");
    spoilt("      egress:", "      egress_mode: audit\n      egress:").fails_with(2, "BC0308");
    assert!(!place.state().exists(), "nothing was made");
    Ok(())
}

#[test]
fn what_an_audited_stage_reached_is_advised_as_lines_of_its_manifest() -> Outcome {
    let server = serve("learned")?;
    let port = server.port();
    let target = format!("tcp://erp.example:{port} tcp://192.0.2.7:443");
    let place = place("container", &target, port);
    place.write("environments/office.yaml", environment("    audit: true\n"));
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
    let line = format!("      egress: [{{ host: erp.example, port: {port}, protocol: http }}]\n");
    let audited = manifest.replace(&line, "      egress_mode: audit\n");
    assert_ne!(audited, manifest);
    place.write("pipeline.yaml", audited);
    let finished = run(&place).exits_with(0);
    let id = finished.json("run")["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    // Being audited opens no way that the profile does not have.
    place
        .barecount(["runs", "show", &id])
        .finish()
        .exits_with(0)
        .tells("audited")
        .tells("refused")
        .tells("192.0.2.7");
    place
        .barecount(["advise", "egress", &id])
        .finish()
        .exits_with(0)
        .tells("# stage work")
        .tells(&format!(
            "  - {{ host: erp.example, port: {port}, protocol: http }}"
        ));
    let advised = place
        .barecount(["advise", "egress", &id, "-o", "json"])
        .finish()
        .exits_with(0)
        .json("egress_advice");
    assert_eq!(advised["items"][0]["egress"][0]["host"], "erp.example");
    // A record that somebody changed afterwards advises nothing.
    for entry in fs_err::read_dir(place.state().join("logs"))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".flows.jsonl") {
            let text = fs_err::read_to_string(&path)?;
            fs_err::write(&path, text.replace("erp.example", "evil.example"))?;
        }
    }
    place
        .barecount(["advise", "egress", &id])
        .finish()
        .fails_with(7, "BC0904");
    Ok(())
}

#[test]
fn what_an_attempt_tried_is_in_evidence_also_if_it_had_to_be_stopped() -> Outcome {
    let server = serve("never mind")?;
    for class in ["container", "serverless"] {
        let place = place(
            class,
            "udp://192.0.2.7:443 tcp://192.0.2.8:80",
            server.port(),
        );
        let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
        let hangs = manifest
            .replace("\"reach out\"", "\"reach out and hang\"")
            .replace("      egress:", "      timeout: 3s\n      egress:");
        assert_ne!(hangs, manifest);
        place.write("pipeline.yaml", hangs);
        let finished = run(&place).exits_with(1).tells("[BC0609]");
        let attempt = &finished.json("run")["tasks"][0]["attempts"][0];
        assert_eq!(attempt["failure"]["kind"], "timeout", "{attempt}");
        let network = network(&place);
        record(&network, "address", &"192.0.2.7".into(), 443);
        record(&network, "address", &"192.0.2.8".into(), 80);
        place.nothing_is_left();
    }
    Ok(())
}

#[test]
fn a_run_waits_for_a_path_that_is_down_says_so_and_goes_on_once_it_is_up() -> Outcome {
    // An endpoint at which nothing listens yet.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let place = place(
        "container",
        &format!("tcp://erp.example:{}", address.port()),
        address.port(),
    );
    let running = command(&place).start();
    let waits = "waiting: the path of network profile privatelink is down: erp.example";
    running.wait_until("it says what it waits for", || {
        running.so_far().contains(waits)
    });
    // Whoever asks from elsewhere is told as well.
    let listed = place.barecount(["runs", "ls", "-o", "json"]).finish();
    let listed = listed.exits_with(0).json("runs");
    let id = listed["items"][0]["id"].as_str().unwrap_or_default();
    let shown = place.barecount(["runs", "show", id, "-o", "json"]).finish();
    let shown = shown.exits_with(0).json("run");
    let held = &shown["tasks"][0]["held"];
    assert_eq!(held["reason"]["kind"], "path_down", "{shown:#}");
    assert_eq!(held["reason"]["profile"], "privatelink", "{shown:#}");
    let told = shown["waiting_reason"].as_str().unwrap_or_default();
    assert!(told.contains("privatelink is down"), "{told}");
    serve_at(TcpListener::bind(address)?, "at last");
    running.finish().exits_with(0);
    let attempt = attempt(&place);
    assert_eq!(
        attempt["attempt"], 1,
        "waiting cost no attempt: {attempt:#}"
    );
    assert_eq!(
        attempt["held"]["reason"]["kind"], "path_down",
        "{attempt:#}"
    );
    let latency = &attempt["detail"]["path"]["latency_us"];
    assert!(
        latency.as_u64().is_some_and(|micros| micros > 0),
        "{attempt:#}"
    );
    place.nothing_is_left();
    Ok(())
}

/// A private key of WireGuard that is used nowhere else.
const KEY: &str = "IXHl9LglNQId25qajj7bb0hL+7jNEe9jCUFRbeFfsL4=";

#[test]
fn a_tunnel_has_its_keys_from_the_environments_own_secrets_and_nothing_leaves_beside_it() -> Outcome
{
    // A peer that hears, and never answers.
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    peer.set_read_timeout(Some(Duration::from_secs(60)))?;
    let place = place("container", "tcp://10.88.0.7:7000", 7000);
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
    let through = manifest
        .replace("network_profile: privatelink", "network_profile: vpn")
        .replace("host: erp.example", "host: 10.88.0.7")
        .replace("protocol: http", "protocol: tcp");
    place.write("pipeline.yaml", through);
    let tunnel = format!(
        "    vpn:
      tunnel:
        private_key: network/vpn.key
        address: [10.77.0.2/32]
        peers:
          - public_key: hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
            endpoint: {}
            allowed_ips: [10.88.0.0/16]\n",
        peer.local_addr()?
    );
    let environment = environment(&tunnel).replace("[privatelink, ", "[vpn, privatelink, ");
    place.write("environments/office.yaml", environment);

    run(&place)
        .fails_with(2, "BC0309")
        .tells("secrets set network/vpn.key --tenant environment");
    let set = [
        "secrets",
        "set",
        "network/vpn.key",
        "--tenant",
        "environment",
        "--env",
        "office",
    ];
    place.barecount(set).reads(KEY).finish().exits_with(0);

    let running = command(&place).start();
    let waits = "waiting: the path of network profile vpn is down";
    running.wait_until("it says what it waits for", || {
        running.so_far().contains(waits)
    });
    let mut packet = [0; 2048];
    let (length, _) = peer.recv_from(&mut packet)?;
    // The first message of the handshake, and nothing that was meant to go through.
    assert_eq!((packet[0], length), (1, 148));
    running.signal(Signal::INT);
    let cancelled = running.finish().exits_with(1).tells("cancelled");
    let attempts = &cancelled.json("run")["tasks"][0]["attempts"];
    assert_eq!(attempts, &serde_json::json!([]), "nothing was tried");
    place.nothing_is_left();

    let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
    let taken = manifest.replace("tenant: demo", "tenant: environment");
    place.write("pipeline.yaml", taken);
    run(&place)
        .fails_with(2, "BC0207")
        .tells("environments themselves");
    Ok(())
}
