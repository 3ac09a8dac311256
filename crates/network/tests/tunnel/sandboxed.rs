//! The broker of a real sandbox: where its lookups were sent is what is written down.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use barecount_model::class::NetworkProfile;
use barecount_network::{
    broker::{Broker, BrokerOptions},
    capture::{Capture, InsideSockets},
    path::{Endpoint, Path},
    policy::{Limits, Mode, Policy},
    reason::ReasonCode,
    record::FlowProtocol,
    resolver::HostResolver,
};
use barecount_sandbox::{Brokered, Intercepted, Network, SandboxName, Spec, Stdio};

use crate::{TestResult, launcher};

tests!(a_lookup_elsewhere_is_written_down_with_the_name_server_that_was_asked,);

/// Asks each name server by UDP and by TCP, and fails unless it answers itself.
const PAYLOAD: &str = "
import socket, struct
QUERY = (b'\\x12\\x34\\x01\\x00\\x00\\x01' + b'\\0' * 6
    + b'\\x09elsewhere\\x07example\\x00' + b'\\x00\\x01\\x00\\x01')
for server in ('127.0.0.53', '8.8.8.8', '2001:4860:4860::8888'):
    family = socket.AF_INET6 if ':' in server else socket.AF_INET
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        s = socket.socket(family, kind)
        s.settimeout(30)
        s.connect((server, 53))
        if kind == socket.SOCK_DGRAM:
            s.send(QUERY)
            assert s.recv(512)[:2] == QUERY[:2]
        else:
            s.sendall(struct.pack('>H', len(QUERY)) + QUERY)
            assert s.recv(512)[2:4] == QUERY[:2]
";

fn inside(intercepted: Intercepted) -> InsideSockets {
    fn sockets<T: From<OwnedFd>>(from: Vec<OwnedFd>) -> Vec<T> {
        from.into_iter().map(T::from).collect()
    }
    InsideSockets {
        tcp: sockets(intercepted.tcp),
        dns_udp: sockets(intercepted.dns_udp),
        dns_tcp: sockets(intercepted.dns_tcp),
        capture: match intercepted.capture {
            barecount_sandbox::Capture::Redirected => Capture::Redirected,
            barecount_sandbox::Capture::DeclaredPorts => Capture::DeclaredPorts,
        },
    }
}

async fn a_lookup_elsewhere_is_written_down_with_the_name_server_that_was_asked() -> TestResult {
    let argv = ["/usr/bin/python3", "-c", PAYLOAD].map(str::to_owned);
    let mut spec = Spec::new(SandboxName::new("lookups")?, argv.into());
    spec.network = Network::Brokered(Brokered::default());
    let stdio = Stdio {
        stdin: std::fs::File::open("/dev/null")?.into(),
        stdout: std::io::stdout().as_fd().try_clone_to_owned()?,
        stderr: std::io::stderr().as_fd().try_clone_to_owned()?,
    };
    let mut sandbox = launcher().launch(&spec, stdio)?;
    let intercepted = sandbox.take_intercepted().ok_or("it is not brokered")?;
    let profile = NetworkProfile::PrivateLink;
    let nowhere = Path::Endpoint(Endpoint {
        services: BTreeMap::new(),
        resolver: Arc::new(HostResolver::default()),
    });
    let options = BrokerOptions::new(BTreeMap::from([(profile, Arc::new(nowhere))]));
    let policy = Policy {
        profile,
        mode: Mode::Enforce,
        destinations: Vec::new(),
        limits: Limits::default(),
    };
    let (_broker, attempt) = Broker::start_with(inside(intercepted), options, policy)?;
    let exit = tokio::task::spawn_blocking(move || sandbox.wait()).await??;
    assert!(exit.status.success(), "{exit:?}");
    let log = attempt.end().await;
    let told: Vec<_> = log
        .records
        .iter()
        .map(|record| {
            let code = record.reason.as_ref().map(|reason| reason.code);
            assert_eq!(code, Some(ReasonCode::NameNotDeclared));
            assert_eq!((record.protocol, record.port), (FlowProtocol::Dns, 53));
            let asked = record.address.map(|address| address.to_string());
            (asked.unwrap_or_default(), record.count)
        })
        .collect();
    let each = ["127.0.0.53", "8.8.8.8", "2001:4860:4860::8888"];
    assert_eq!(told, each.map(|asked| (asked.to_owned(), 2)));
    Ok(())
}
