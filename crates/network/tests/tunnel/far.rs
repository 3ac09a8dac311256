//! The other side of a tunnel, with a host behind it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

use barecount_network::tunnel::{PresharedKey, PrivateKey, PublicKey};
use barecount_sandbox::{InternetFamily, Prefix, TunnelNamespace, TunnelNetwork};
use base64::{Engine, prelude::BASE64_STANDARD};
use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::StaticSecret,
};
use simple_dns::{CLASS, Name, Packet, ResourceRecord, TYPE, rdata::RData};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, unix::AsyncFd},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use crate::launcher;

pub(crate) const NEAR_V4: &str = "10.77.0.2";
pub(crate) const NEAR_V6: &str = "fd77::2";
/// The host behind the far side.
pub(crate) const HOST_V4: &str = "10.88.0.5";
pub(crate) const HOST_V6: &str = "fd88::5";
/// The host's name, which the name server behind the tunnel alone knows.
pub(crate) const HOST_NAME: &str = "host.behind.example";
/// Allowed to the far side, and no host of its.
pub(crate) const ABSENT_V4: &str = "10.88.0.9";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A key of either kind, as the tools write it.
#[derive(Clone)]
pub(crate) struct Key([u8; 32]);

impl Key {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    pub(crate) fn text(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }

    pub(crate) fn private(&self) -> PrivateKey {
        PrivateKey::from_base64(self.text().as_bytes()).expect("a key")
    }

    pub(crate) fn shared(&self) -> PresharedKey {
        PresharedKey::from_base64(self.text().as_bytes()).expect("a key")
    }

    pub(crate) fn public(&self) -> PublicKey {
        self.private().public_key()
    }
}

/// What the far side's tasks share.
struct Side {
    device: AsyncFd<OwnedFd>,
    session: Mutex<Tunn>,
    socket: Mutex<Arc<UdpSocket>>,
    near: Mutex<Option<SocketAddr>>,
    /// The last message with a packet that was sent.
    last_sent: Mutex<Vec<u8>>,
}

/// The far side.
pub(crate) struct Far {
    namespace: TunnelNamespace,
    side: Arc<Side>,
    work: Mutex<JoinSet<()>>,
    services: Mutex<JoinSet<()>>,
}

impl Far {
    /// A peer that knows `near` by its key, with a name server and a host that echoes behind it.
    pub(crate) async fn start(
        key: &Key,
        near: PublicKey,
        shared: Option<&Key>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut namespace = launcher().tunnel(&TunnelNetwork {
            addresses: ["10.77.0.1", HOST_V4, "fd77::1", HOST_V6].map(ip).into(),
            routes: vec![
                Prefix {
                    address: ip("10.77.0.0"),
                    length: 24,
                },
                Prefix {
                    address: ip("fd77::"),
                    length: 64,
                },
            ],
            mtu: 1_420,
        })?;
        let device = namespace.take_device().ok_or("no device")?;
        let near: [u8; 32] = BASE64_STANDARD
            .decode(near.to_string())?
            .try_into()
            .map_err(|_| "no key")?;
        let secret = StaticSecret::from(key.0);
        let session = Tunn::new(secret, near.into(), shared.map(|key| key.0), None, 7, None);
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let side = Arc::new(Side {
            device: watched(device)?,
            session: Mutex::new(session),
            socket: Mutex::new(socket),
            near: Mutex::new(None),
            last_sent: Mutex::default(),
        });
        let far = Self {
            namespace,
            side,
            work: Mutex::default(),
            services: Mutex::default(),
        };
        far.carry();
        Ok(far)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let socket = self.side.socket.lock().expect("no holder panics");
        socket.local_addr().expect("it is bound")
    }

    /// (Re)starts what carries.
    fn carry(&self) {
        let mut work = JoinSet::new();
        work.spawn(outbound(self.side.clone()));
        work.spawn(inbound(self.side.clone()));
        *self.work.lock().expect("no holder panics") = work;
    }

    /// Carries nothing any more, and does not say so.
    pub(crate) fn die(&self) {
        *self.work.lock().expect("no holder panics") = JoinSet::new();
    }

    /// Goes on from another port, and says so by a keepalive.
    pub(crate) async fn roam(&self) -> io::Result<()> {
        self.die();
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        *self.side.socket.lock().expect("no holder panics") = socket;
        self.carry();
        self.send_packet(&[]).await
    }

    /// Sends a packet through the tunnel that no socket has sent.
    pub(crate) async fn send_packet(&self, packet: &[u8]) -> io::Result<()> {
        let mut buffer = vec![0; 2_048];
        let message = encapsulate(&self.side, packet, &mut buffer);
        self.send_message(message).await
    }

    /// Sends a datagram as it is.
    pub(crate) async fn send_message(&self, message: &[u8]) -> io::Result<()> {
        send(&self.side, message).await
    }

    /// The last message with a packet that was sent, as it went over the host's network.
    pub(crate) fn last_message(&self) -> Vec<u8> {
        self.side
            .last_sent
            .lock()
            .expect("no holder panics")
            .clone()
    }

    /// A listener on the host behind.
    pub(crate) fn listen(&self, address: &str, port: u16) -> io::Result<TcpListener> {
        let address = SocketAddr::new(ip(address), port);
        let family = match address {
            SocketAddr::V4(_) => InternetFamily::V4,
            SocketAddr::V6(_) => InternetFamily::V6,
        };
        let socket = self.namespace.tcp_socket(family)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, 64)?;
        TcpListener::from_std(socket.into())
    }

    /// Echoes on a port of the host behind, at both its addresses.
    pub(crate) fn echo(&self, port: u16) -> io::Result<()> {
        for address in [HOST_V4, HOST_V6] {
            let listener = self.listen(address, port)?;
            self.serve(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let (mut read, mut write) = stream.split();
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                    });
                }
            });
        }
        Ok(())
    }

    /// A name server on the host behind, over TCP.
    pub(crate) fn name_server(&self) -> io::Result<SocketAddr> {
        let listener = self.listen(HOST_V4, 53)?;
        let address = listener.local_addr()?;
        self.serve(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
        Ok(address)
    }

    fn serve(&self, service: impl Future<Output = ()> + Send + 'static) {
        self.services
            .lock()
            .expect("no holder panics")
            .spawn(service);
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe, for types whose descriptor may change; an owned one does not"
)]
fn watched(device: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(device, Interest::READABLE)
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut query = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut query).await?;
    let malformed = |_| io::ErrorKind::InvalidData;
    let query = Packet::parse(&query).map_err(malformed)?;
    let mut reply = Packet::new_reply(query.id());
    for question in &query.questions {
        reply.questions.push(question.clone());
        let data = match (
            question.qname == Name::new_unchecked(HOST_NAME),
            question.qtype,
        ) {
            (true, simple_dns::QTYPE::TYPE(TYPE::A)) => RData::A(
                HOST_V4
                    .parse::<std::net::Ipv4Addr>()
                    .expect("an address")
                    .into(),
            ),
            (true, simple_dns::QTYPE::TYPE(TYPE::AAAA)) => RData::AAAA(
                HOST_V6
                    .parse::<std::net::Ipv6Addr>()
                    .expect("an address")
                    .into(),
            ),
            _ => {
                *reply.rcode_mut() = simple_dns::RCODE::NameError;
                continue;
            }
        };
        reply.answers.push(ResourceRecord::new(
            question.qname.clone(),
            CLASS::IN,
            60,
            data,
        ));
    }
    let reply = reply.build_bytes_vec().map_err(malformed)?;
    stream
        .write_u16(u16::try_from(reply.len()).expect("a short reply"))
        .await?;
    stream.write_all(&reply).await
}

fn encapsulate<'a>(side: &Side, packet: &[u8], buffer: &'a mut [u8]) -> &'a [u8] {
    let mut session = side.session.lock().expect("no holder panics");
    match session.encapsulate(packet, buffer) {
        TunnResult::WriteToNetwork(message) => message,
        _ => &[],
    }
}

async fn send(side: &Side, message: &[u8]) -> io::Result<()> {
    let near = *side.near.lock().expect("no holder panics");
    let socket = side.socket.lock().expect("no holder panics").clone();
    match near {
        Some(near) if !message.is_empty() => socket.send_to(message, near).await.map(drop),
        _ => Ok(()),
    }
}

async fn outbound(side: Arc<Side>) {
    let (mut packet, mut buffer) = (vec![0; 2_048], vec![0; 2_048]);
    loop {
        let read = side
            .device
            .async_io(Interest::READABLE, |device| {
                Ok(rustix::io::read(device, packet.as_mut_slice())?)
            })
            .await;
        let Ok(length) = read else { return };
        let message = encapsulate(&side, &packet[..length], &mut buffer);
        *side.last_sent.lock().expect("no holder panics") = message.to_vec();
        // As a network loses some.
        let _ = send(&side, message).await;
    }
}

async fn inbound(side: Arc<Side>) {
    let (mut datagram, mut buffer) = (vec![0; 65_536], vec![0; 65_536]);
    let socket = side.socket.lock().expect("no holder panics").clone();
    loop {
        let Ok((length, from)) = socket.recv_from(&mut datagram).await else {
            return;
        };
        *side.near.lock().expect("no holder panics") = Some(from);
        let mut input = &datagram[..length];
        loop {
            let answer = {
                let mut session = side.session.lock().expect("no holder panics");
                match session.decapsulate(Some(from.ip()), input, &mut buffer) {
                    TunnResult::WriteToNetwork(answer) => answer.to_vec(),
                    TunnResult::WriteToTunnelV4(packet, _)
                    | TunnResult::WriteToTunnelV6(packet, _) => {
                        let _ = rustix::io::write(side.device.get_ref(), packet);
                        break;
                    }
                    _ => break,
                }
            };
            let _ = socket.send_to(&answer, from).await;
            input = &[];
        }
    }
}
