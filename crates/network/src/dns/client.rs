//! A stub resolver that asks one given name server.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE,
    rdata::{OPT, RData},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UdpSocket,
};

use crate::{
    name::HostName,
    path::{Binding, Connection, FirstWord, Tunnel, any_address, connect},
    resolver::{ResolveError, Resolver},
};

/// What is offered for answers over UDP: what passes everywhere in one piece (RFC 9715).
const UDP_SIZE: u16 = 1_232;
/// How often a question is sent before the name server counts as silent.
const TRIES: u32 = 3;
/// A chain of more aliases than this is a loop, or might as well be.
const MAX_ALIASES: usize = 16;
/// More records than this are of no use to us, and room is made for as many as a header claims.
const MAX_RECORDS: u16 = 512;

/// Asks one name server over UDP, and over TCP when an answer does not fit.
///
/// Each question has a random number and a socket, so a port, of its own (RFC 5452); an answer
/// counts only if it comes from the server's address and repeats number and question.
#[derive(Debug, Clone)]
pub struct NameServer {
    address: SocketAddr,
    reached: Reached,
    patience: Duration,
}

/// How the name server is reached.
#[derive(Debug, Clone)]
enum Reached {
    Host,
    Bound(Binding),
    /// Over TCP, which is what tunnels carry.
    Through(Arc<dyn Tunnel>),
}

impl NameServer {
    /// A name server that is reached over the host's network.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            reached: Reached::Host,
            patience: Duration::from_secs(2),
        }
    }

    /// Reaches the name server over an interface, or from an address.
    pub fn bound(self, binding: Binding) -> Self {
        Self {
            reached: Reached::Bound(binding),
            ..self
        }
    }

    /// Reaches the name server through a tunnel, over TCP.
    pub fn through(self, tunnel: Arc<dyn Tunnel>) -> Self {
        Self {
            reached: Reached::Through(tunnel),
            ..self
        }
    }

    /// Waits this long for each answer before it asks again, three times at most.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    fn binding(&self) -> Option<&Binding> {
        match &self.reached {
            Reached::Bound(binding) => Some(binding),
            _ => None,
        }
    }

    async fn ask(&self, name: &HostName, kind: TYPE) -> Result<Vec<IpAddr>, ResolveError> {
        for _ in 0..TRIES {
            let question = Asked::new(rand::random(), name, kind)?;
            match tokio::time::timeout(self.patience, self.exchange(&question)).await {
                Ok(answer) => return answer,
                Err(_) => continue,
            }
        }
        Err(ResolveError::Timeout)
    }

    async fn exchange(&self, question: &Asked<'_>) -> Result<Vec<IpAddr>, ResolveError> {
        match &self.reached {
            Reached::Through(tunnel) => {
                let stream = tunnel.connect(self.address).await;
                match stream.map_err(ResolveError::Unreachable)? {
                    Connection::Tcp(stream) => over_stream(stream, question).await,
                    Connection::Stream(stream) => over_stream(stream, question).await,
                }
            }
            Reached::Host | Reached::Bound(_) => match self.over_udp(question).await? {
                Some(answer) => answer,
                None => {
                    let connected = connect(self.address, self.binding(), FirstWord::Ours).await;
                    let (stream, _) = connected.map_err(ResolveError::Unreachable)?;
                    over_stream(stream, question).await
                }
            },
        }
    }

    /// The answer, or nothing if it did not fit.
    async fn over_udp(
        &self,
        question: &Asked<'_>,
    ) -> Result<Option<Result<Vec<IpAddr>, ResolveError>>, ResolveError> {
        let socket = self.udp_socket().await.map_err(ResolveError::Unreachable)?;
        socket
            .send(&question.bytes)
            .await
            .map_err(ResolveError::Unreachable)?;
        let mut buffer = [0; 4096];
        loop {
            let length = socket
                .recv(&mut buffer)
                .await
                .map_err(ResolveError::Unreachable)?;
            // What does not answer our question may come from anyone: we wait on.
            match question.read(&buffer[..length]) {
                Answer::Stray => {}
                Answer::Truncated => return Ok(None),
                Answer::Whole(answer) => return Ok(Some(answer)),
            }
        }
    }

    async fn udp_socket(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(any_address(self.address, self.binding())).await?;
        if let Some(Binding::Interface(name)) = self.binding() {
            socket.bind_device(Some(name.as_bytes()))?;
        }
        socket.connect(self.address).await?;
        Ok(socket)
    }
}

#[async_trait]
impl Resolver for NameServer {
    async fn resolve(&self, name: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        let (v4, v6) = tokio::join!(self.ask(name, TYPE::A), self.ask(name, TYPE::AAAA));
        match (v4, v6) {
            (Ok(mut addresses), v6) => {
                addresses.extend(v6.unwrap_or_default());
                if addresses.is_empty() {
                    return Err(ResolveError::NoAddress);
                }
                Ok(addresses)
            }
            (Err(_), Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            (Err(error), _) => Err(error),
        }
    }
}

/// A question that was asked.
#[derive(Debug)]
struct Asked<'a> {
    id: u16,
    name: Name<'a>,
    kind: TYPE,
    bytes: Vec<u8>,
}

/// What a message from the name server is to a question.
#[derive(Debug)]
enum Answer {
    Stray,
    Truncated,
    Whole(Result<Vec<IpAddr>, ResolveError>),
}

/// What a message says the addresses of a name are, if it answers the question for them that had
/// the number `id`; nothing if it does not, or is cut short. Any bytes are safe.
pub fn addresses_in(
    message: &[u8],
    id: u16,
    name: &HostName,
    family: Family,
) -> Option<Result<Vec<IpAddr>, ResolveError>> {
    let kind = match family {
        Family::V4 => TYPE::A,
        Family::V6 => TYPE::AAAA,
    };
    match Asked::new(id, name, kind).ok()?.read(message) {
        Answer::Whole(answer) => Some(answer),
        Answer::Stray | Answer::Truncated => None,
    }
}

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Records of type A.
    V4,
    /// Records of type AAAA.
    V6,
}

impl<'a> Asked<'a> {
    fn new(id: u16, name: &'a HostName, kind: TYPE) -> Result<Self, ResolveError> {
        let name = Name::new(name.as_str()).map_err(|_| ResolveError::Malformed)?;
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(
            name.clone(),
            kind.into(),
            CLASS::IN.into(),
            false,
        ));
        *packet.opt_mut() = Some(OPT {
            opt_codes: Vec::new(),
            udp_packet_size: UDP_SIZE,
            version: 0,
        });
        let bytes = packet
            .build_bytes_vec()
            .map_err(|_| ResolveError::Malformed)?;
        Ok(Self {
            id,
            name,
            kind,
            bytes,
        })
    }

    fn read(&self, bytes: &[u8]) -> Answer {
        let Some(counts) = bytes.get(6..12) else {
            return Answer::Stray;
        };
        let crowded = counts
            .chunks_exact(2)
            .any(|count| u16::from_be_bytes([count[0], count[1]]) > MAX_RECORDS);
        if bytes[..2] != self.id.to_be_bytes() || bytes[4..6] != [0, 1] || crowded {
            return Answer::Stray;
        }
        let Ok(packet) = Packet::parse(bytes) else {
            return Answer::Stray;
        };
        let ours = packet.has_flags(PacketFlag::RESPONSE)
            && matches!(packet.questions.as_slice(), [question]
                if question.qname == self.name && question.qtype == QTYPE::TYPE(self.kind));
        if !ours {
            return Answer::Stray;
        }
        if packet.has_flags(PacketFlag::TRUNCATION) {
            return Answer::Truncated;
        }
        Answer::Whole(match packet.rcode() {
            RCODE::NoError => Ok(self.addresses(&packet)),
            RCODE::NameError => Err(ResolveError::NoSuchName),
            other => Err(ResolveError::ServerFailure(other as u16)),
        })
    }

    /// The addresses of the name, or of the name that it is an alias of. Records of other names
    /// in the answer count for nothing.
    fn addresses(&self, packet: &Packet<'_>) -> Vec<IpAddr> {
        let mut name = self.name.clone();
        for _ in 0..MAX_ALIASES {
            let (mut addresses, mut alias) = (Vec::new(), None);
            for record in packet.answers.iter().filter(|record| record.name == name) {
                match (&record.rdata, self.kind) {
                    (RData::A(a), TYPE::A) => addresses.push(Ipv4Addr::from(a.address).into()),
                    (RData::AAAA(a), TYPE::AAAA) => {
                        addresses.push(Ipv6Addr::from(a.address).into());
                    }
                    (RData::CNAME(to), _) => alias = Some(to.0.clone()),
                    _ => {}
                }
            }
            match alias {
                Some(alias) if addresses.is_empty() => name = alias,
                _ => return addresses,
            }
        }
        Vec::new()
    }
}

async fn over_stream(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: &Asked<'_>,
) -> Result<Vec<IpAddr>, ResolveError> {
    let length = u16::try_from(question.bytes.len()).map_err(|_| ResolveError::Malformed)?;
    let framed = [&length.to_be_bytes()[..], &question.bytes].concat();
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        answer.resize(length.into(), 0);
        stream.read_exact(&mut answer).await.map(drop)
    };
    exchange.await.map_err(ResolveError::Unreachable)?;
    match question.read(&answer) {
        Answer::Whole(answer) => answer,
        Answer::Stray | Answer::Truncated => Err(ResolveError::Malformed),
    }
}
