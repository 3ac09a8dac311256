//! What a sandbox's name server answers: a function of the query and of what is declared.
//!
//! Knows no sockets. Nothing that is asked here is asked of anyone else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use barecount_model::untrusted::Label;
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, OPT, PTR, RData},
};

use crate::{inspect::without_userinfo, name::HostName, reason::ReasonCode};

/// How long an answer may be kept, in seconds. The address stays the same in any case; a name is
/// resolved when it is dialled.
const TTL: u32 = 5;
/// The length of a message over UDP without EDNS (RFC 1035 section 2.3.4).
const PLAIN_UDP: usize = 512;
/// The most that is sent over UDP however much a client takes.
const MOST_UDP: usize = 1_232;
/// A query has one additional record, or three: EDNS, a cookie's or a signature's.
const MAX_ADDITIONAL: u16 = 4;

/// What names mean to the one who asks.
pub trait Zone {
    /// The addresses of a name that may be reached.
    fn addresses(&self, name: &HostName) -> Lookup;
    /// The name that was given an address.
    fn name_of(&self, address: IpAddr) -> Option<HostName>;
}

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// These are its addresses.
    Found(Ipv4Addr, Option<Ipv6Addr>),
    /// It may not be reached.
    Undeclared,
    /// No address is left for it.
    Exhausted,
}

/// How a query came, and so how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In one datagram.
    Udp,
    /// Over a connection, after its length.
    Tcp,
}

/// What is sent back and what is written down.
#[derive(Debug, Default)]
pub struct Response {
    /// The message to send; nothing for what is no query.
    pub bytes: Option<Vec<u8>>,
    /// The name that was refused, as it was asked for, and why.
    pub refused: Option<(Option<Label>, ReasonCode)>,
}

/// Answers a message.
pub fn respond(message: &[u8], transport: Transport, zone: &impl Zone) -> Response {
    let Some(header) = Header::read(message) else {
        // Too short to have a number, or an answer itself, to which nobody answers.
        return Response::default();
    };
    let malformed = || Response {
        bytes: Some(header.alone(RCODE::FormatError)),
        refused: Some((None, ReasonCode::LookupRefused)),
    };
    if header.opcode() != 0 {
        return Response {
            bytes: Some(header.alone(RCODE::NotImplemented)),
            refused: Some((None, ReasonCode::LookupRefused)),
        };
    }
    // Before anything is read, as room is made for as many records as a header claims.
    if header.counts[..3] != [1, 0, 0] || header.counts[3] > MAX_ADDITIONAL {
        return malformed();
    }
    let Ok(query) = Packet::parse(message) else {
        return malformed();
    };
    let one_opt = query
        .additional_records
        .iter()
        .all(|record| record.rdata.type_code() != TYPE::OPT);
    let [question] = query.questions.as_slice() else {
        return malformed();
    };
    if !one_opt {
        return malformed();
    }
    let answer = answer(&query, question, zone);
    let limit = match (transport, query.opt()) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => PLAIN_UDP,
        (Transport::Udp, Some(opt)) => usize::from(opt.udp_packet_size).clamp(PLAIN_UDP, MOST_UDP),
    };
    Response {
        bytes: build(&query, question, answer.code, answer.records, limit),
        refused: answer.refused,
    }
}

struct Answered<'a> {
    code: RCODE,
    records: Vec<RData<'a>>,
    refused: Option<(Option<Label>, ReasonCode)>,
}

impl Answered<'_> {
    fn of(code: RCODE, records: Vec<RData<'_>>) -> Answered<'_> {
        Answered {
            code,
            records,
            refused: None,
        }
    }

    fn refused(code: RCODE, question: &Question<'_>, reason: ReasonCode) -> Self {
        Self {
            code,
            records: Vec::new(),
            refused: Some((
                Some(without_userinfo(&question.qname.to_string()).into()),
                reason,
            )),
        }
    }
}

fn answer<'a>(query: &Packet<'_>, question: &Question<'_>, zone: &impl Zone) -> Answered<'a> {
    if query.opt().is_some_and(|opt| opt.version != 0) {
        return Answered::of(RCODE::BADVERS, Vec::new());
    }
    if question.qclass != QCLASS::CLASS(CLASS::IN) {
        return Answered::refused(RCODE::Refused, question, ReasonCode::LookupRefused);
    }
    let asked = question.qname.to_string();
    if let Some(address) = reverse(&asked) {
        return match zone.name_of(address) {
            Some(name) if question.qtype == QTYPE::TYPE(TYPE::PTR) => {
                let name = String::from(name);
                match Name::new(&name) {
                    Ok(name) => {
                        let records = vec![RData::PTR(PTR(name.into_owned()))];
                        Answered::of(RCODE::NoError, records)
                    }
                    Err(_) => Answered::of(RCODE::ServerFailure, Vec::new()),
                }
            }
            Some(_) => Answered::of(RCODE::NoError, Vec::new()),
            None => Answered::refused(RCODE::NameError, question, ReasonCode::AddressNotDeclared),
        };
    }
    let found = match asked.parse::<HostName>() {
        Ok(name) => zone.addresses(&name),
        Err(_) => Lookup::Undeclared,
    };
    match (found, question.qtype) {
        (Lookup::Undeclared, _) => {
            Answered::refused(RCODE::NameError, question, ReasonCode::NameNotDeclared)
        }
        (Lookup::Exhausted, _) => {
            Answered::refused(RCODE::ServerFailure, question, ReasonCode::LookupsTooFast)
        }
        (Lookup::Found(v4, _), QTYPE::TYPE(TYPE::A)) => {
            Answered::of(RCODE::NoError, vec![RData::A(A { address: v4.into() })])
        }
        (Lookup::Found(_, Some(v6)), QTYPE::TYPE(TYPE::AAAA)) => Answered::of(
            RCODE::NoError,
            vec![RData::AAAA(AAAA { address: v6.into() })],
        ),
        // The name is there and has no record of that kind; HTTPS records with keys for an
        // encrypted ClientHello among them.
        (Lookup::Found(..), _) => Answered::of(RCODE::NoError, Vec::new()),
    }
}

/// The address of a name in `in-addr.arpa` (RFC 1035) or `ip6.arpa` (RFC 3596).
fn reverse(name: &str) -> Option<IpAddr> {
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let turned: Vec<&str> = octets.split('.').rev().collect();
        return turned.join(".").parse().ok().map(IpAddr::V4);
    }
    let nibbles: Vec<&str> = name.strip_suffix(".ip6.arpa")?.split('.').rev().collect();
    if nibbles.len() != 32 || nibbles.iter().any(|nibble| nibble.len() != 1) {
        return None;
    }
    let bits = u128::from_str_radix(&nibbles.concat(), 16).ok()?;
    Some(IpAddr::V6(bits.into()))
}

fn build(
    query: &Packet<'_>,
    question: &Question<'_>,
    code: RCODE,
    records: Vec<RData<'_>>,
    limit: usize,
) -> Option<Vec<u8>> {
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *reply.rcode_mut() = code;
    // The name is repeated in the case in which it was asked for, which some resolvers check.
    reply.questions.push(question.clone());
    reply.answers.extend(
        records
            .into_iter()
            .map(|rdata| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, rdata)),
    );
    if query.opt().is_some() {
        *reply.opt_mut() = Some(OPT {
            opt_codes: Vec::new(),
            udp_packet_size: u16::try_from(MOST_UDP).unwrap_or(u16::MAX),
            version: 0,
        });
    }
    let bytes = reply.build_bytes_vec_compressed().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    reply.answers.clear();
    reply.set_flags(PacketFlag::TRUNCATION);
    reply.build_bytes_vec_compressed().ok()
}

/// The fixed part of a message that is a query.
struct Header {
    id: [u8; 2],
    flags: [u8; 2],
    counts: [u16; 4],
}

impl Header {
    fn read(message: &[u8]) -> Option<Self> {
        let (head, _) = message.split_first_chunk::<12>()?;
        let is_response = head[2] & 0x80 != 0;
        let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        (!is_response).then_some(Self {
            id: [head[0], head[1]],
            flags: [head[2], head[3]],
            counts: [count(4), count(6), count(8), count(10)],
        })
    }

    fn opcode(&self) -> u8 {
        (self.flags[0] >> 3) & 0x0f
    }

    /// An answer of nothing but a header.
    fn alone(&self, code: RCODE) -> Vec<u8> {
        let kept = self.flags[0] & 0b0111_1001;
        let mut bytes = vec![self.id[0], self.id[1], 0x80 | kept, 0x80 | code as u8];
        bytes.resize(12, 0);
        bytes
    }
}

#[cfg(test)]
mod tests;
