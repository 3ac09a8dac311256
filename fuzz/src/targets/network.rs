//! What the broker reads of the work, of name servers and proxies, and of the kernel's packet log.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use barecount_network::{
    dns::{
        client::{Family, addresses_in},
        responder::{Lookup, Transport, Zone, respond},
    },
    inspect::{Target as Host, check_hello, guess, http::Requests},
    name::HostName,
    path::proxy_accepted,
    reason::ReasonCode,
};
use barecount_sandbox::parse_refusals;

use super::{MEMORY_BYTES, Target};

/// Longer than what the broker reads before it decides.
const LONGEST: usize = 40 << 10;
/// The number of the question whose answers are read.
const NUMBER: u16 = 0x1234;
const NAME: &str = "api.example";
/// The most that a name server sends over UDP.
const MOST_UDP: usize = 1_232;

pub(crate) const REFUSALS: Target = Target {
    name: "packet-log",
    seeds: || {
        Ok(vec![
            logged(&udp_packet()),
            [logged(&udp_packet()), logged(&udp6_packet())].concat(),
        ])
    },
    words: &["\u{4}\u{0}", "\u{9}\u{0}", "\u{0}\u{4}", "E\u{0}", "`\u{0}"],
    longest: 64 << 10,
    memory_bytes: MEMORY_BYTES,
    run: refusals,
};

pub(crate) const CLIENT_HELLO: Target = Target {
    name: "client-hello",
    seeds: || {
        Ok(vec![
            hello(Some(NAME)),
            hello(Some("other.example")),
            hello(None),
        ])
    },
    words: &[
        NAME,
        "\u{0}\u{0}",
        "\u{16}\u{3}\u{1}",
        "\u{1}\u{0}\u{0}",
        "\u{3}\u{3}",
        "\u{0}\u{b}",
        "\u{0}\u{10}",
    ],
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: client_hello,
};

pub(crate) const HTTP_REQUESTS: Target = Target {
    name: "http-requests",
    seeds: || {
        let get = "GET /a HTTP/1.1\r\nHost: api.example\r\n\r\n";
        let post = "POST /b HTTP/1.1\r\nHost: api.example:80\r\nContent-Length: 4\r\n\r\nbody";
        let chunks = "PUT /c HTTP/1.1\r\nHost: API.example\r\nTransfer-Encoding: chunked\r\n\r\n\
                      4;x=y\r\nbody\r\n0\r\nTrailer: t\r\n\r\n";
        let whole = "GET http://api.example/d HTTP/1.1\r\nHost: api.example\r\n\r\n";
        let all = [get, post, chunks, whole].concat();
        Ok([get, post, chunks, whole, &all]
            .map(|text| text.as_bytes().to_vec())
            .into())
    },
    words: &[
        "GET ",
        "CONNECT ",
        "OPTIONS * ",
        "HTTP/1.1\r\n",
        "HTTP/1.0\r\n",
        "\r\n\r\n",
        "\r\n",
        "\n",
        "Host: api.example\r\n",
        "Host: other.example\r\n",
        "Host:",
        "Content-Length: 4\r\n",
        "Content-Length: +4\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Upgrade: websocket\r\n",
        "0\r\n\r\n",
        "ffffffffffffffff\r\n",
        "http://",
        "@",
        " ",
        "\t",
    ],
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: http_requests,
};

pub(crate) const DNS_QUERY: Target = Target {
    name: "dns-query",
    seeds: || Ok(vec![query(1), query(28), query(12), query(255)]),
    words: DNS_WORDS,
    longest: 4 << 10,
    memory_bytes: MEMORY_BYTES,
    run: dns_query,
};

pub(crate) const DNS_ANSWER: Target = Target {
    name: "dns-answer",
    seeds: || Ok(vec![answer(false), answer(true)]),
    words: DNS_WORDS,
    longest: 64 << 10,
    memory_bytes: MEMORY_BYTES,
    run: dns_answer,
};

pub(crate) const PROXY_ANSWER: Target = Target {
    name: "proxy-answer",
    seeds: || {
        let answers = [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 407 No\r\nProxy-Authenticate: x\r\n\r\n",
        ];
        Ok(answers.map(|text| text.as_bytes().to_vec()).into())
    },
    words: &[
        "HTTP/1.1 ",
        "HTTP/1.0 ",
        "200",
        "\r\n",
        ": ",
        "Content-Length: 0",
    ],
    longest: 8 << 10,
    memory_bytes: MEMORY_BYTES,
    run: |input, _| match proxy_accepted(input) {
        Ok(()) => "a connection".to_owned(),
        Err(error) => error.to_string(),
    },
};

const DNS_WORDS: &[&str] = &[
    "\u{3}api\u{7}example\u{0}",
    "\u{5}other\u{7}example\u{0}",
    "\u{0}\u{1}\u{0}\u{1}",
    "\u{0}\u{1c}\u{0}\u{1}",
    "\u{0}\u{5}\u{0}\u{1}",
    "\u{0}\u{0}\u{29}",
    "\u{4}arpa\u{0}",
    "\u{7}in-addr\u{4}arpa\u{0}",
];

fn host() -> Host {
    Host::Name(name())
}

fn name() -> HostName {
    NAME.parse().expect("it is a name")
}

fn refusals(input: &[u8], _: &Path) -> String {
    let refused = parse_refusals(input);
    assert!(refused.len() <= input.len() / 16, "each has a header");
    let kinds: Vec<_> = refused
        .iter()
        .take(4)
        .map(|packet| {
            (
                packet.protocol,
                packet.destination.is_ipv4(),
                packet.port.is_some(),
            )
        })
        .collect();
    format!("{kinds:?}")
}

fn client_hello(input: &[u8], _: &Path) -> String {
    let host = host();
    let whole = check_hello(input, &host);
    // What has been decided of the beginning is not decided otherwise by what comes after it.
    let beginning = check_hello(&input[..input.len() / 2], &host);
    match (&beginning, &whole) {
        (Ok(true), Ok(true)) | (Ok(false), _) | (Err(_), Err(_)) => {}
        _ => panic!("{beginning:?} of the beginning, {whole:?} of the whole"),
    }
    let told = whole.map_err(|reason| reason.code);
    format!("{told:?} {:?}", guess(input))
}

fn http_requests(input: &[u8], _: &Path) -> String {
    let (mut at_once, mut forwarded) = (Vec::new(), Vec::new());
    let whole = Requests::new(host(), 80).advance(input, &mut at_once);
    // In pieces, no byte passes that does not pass in one, and all that do.
    let mut requests = Requests::new(host(), 80);
    let piece = 1 + 16 * usize::from(input.first().copied().unwrap_or(0));
    let (mut passed, mut there) = (0, 0);
    let refused = loop {
        match requests.advance(&input[passed..there], &mut forwarded) {
            Ok(more) => passed += more,
            Err(reason) => break Some(reason),
        }
        if there == input.len() {
            break None;
        }
        there = input.len().min(there + piece);
    };
    match (&whole, &refused) {
        (Ok(all), None) => {
            assert_eq!(*all, passed, "in pieces of {piece}");
            assert_eq!(at_once, forwarded, "in pieces of {piece}");
            passes_again(&at_once);
        }
        (Err(_), Some(_)) => {}
        _ => panic!("{whole:?} in one, {passed} and {refused:?} in pieces of {piece}"),
    }
    match whole {
        Ok(0) => "more is needed".to_owned(),
        Ok(_) => "passed".to_owned(),
        Err(reason) => format!("{:?}", reason.code),
    }
}

/// What is passed on is what was understood: read once more, it is the same.
fn passes_again(forwarded: &[u8]) {
    let mut again = Vec::new();
    match Requests::new(host(), 80).advance(forwarded, &mut again) {
        Ok(taken) => assert_eq!((taken, forwarded), (forwarded.len(), again.as_slice())),
        // The field that says that it is the last may be the one too many.
        Err(reason) => assert_eq!(reason.code, ReasonCode::HeadTooLarge),
    }
}

struct OneName;

impl Zone for OneName {
    fn addresses(&self, asked: &HostName) -> Lookup {
        if *asked == name() {
            Lookup::Found(Ipv4Addr::new(127, 64, 0, 1), Some(Ipv6Addr::LOCALHOST))
        } else {
            Lookup::Undeclared
        }
    }

    fn name_of(&self, address: IpAddr) -> Option<HostName> {
        (address == Ipv4Addr::new(127, 64, 0, 1)).then(name)
    }
}

fn dns_query(input: &[u8], _: &Path) -> String {
    let response = respond(input, Transport::Udp, &OneName);
    let streamed = respond(input, Transport::Tcp, &OneName);
    if let Some(bytes) = &response.bytes {
        assert!(bytes.len() <= MOST_UDP, "{} bytes over UDP", bytes.len());
        assert_eq!(bytes[..2], input[..2], "it has the number of its query");
        assert_ne!(bytes[2] & 0x80, 0, "it is an answer");
        assert_eq!(input[2] & 0x80, 0, "nobody answers an answer");
    }
    assert_eq!(response.refused, streamed.refused);
    let code = response.bytes.map(|bytes| bytes[3] & 0x0f);
    format!(
        "code {code:?}, refused {:?}",
        response.refused.map(|(_, code)| code)
    )
}

fn dns_answer(input: &[u8], _: &Path) -> String {
    let read = |family| addresses_in(input, NUMBER, &name(), family);
    let (v4, v6) = (read(Family::V4), read(Family::V6));
    assert!(v4.is_none() || v6.is_none(), "it answers one question");
    let kind = |addresses: &[IpAddr], four: bool| {
        assert!(addresses.iter().all(|address| address.is_ipv4() == four));
        format!("{} addresses", addresses.len())
    };
    match (v4, v6) {
        (Some(Ok(addresses)), _) => kind(&addresses, true),
        (_, Some(Ok(addresses))) => kind(&addresses, false),
        (Some(Err(error)), _) | (_, Some(Err(error))) => error.to_string(),
        (None, None) => "stray".to_owned(),
    }
}

/// A length before the bytes.
fn with_length<const N: usize>(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len())
        .expect("seeds are short")
        .to_be_bytes();
    [&length[4 - N..], bytes].concat()
}

/// A record with a ClientHello, which has little in it but the name.
fn hello(name: Option<&str>) -> Vec<u8> {
    let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
    if let Some(name) = name {
        let list = [&[0][..], &with_length::<2>(name.as_bytes())].concat();
        extensions.extend([0, 0]);
        extensions.extend(with_length::<2>(&with_length::<2>(&list)));
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session, one suite, no compression.
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(with_length::<2>(&extensions));
    let message = [&[1][..], &with_length::<3>(&body)].concat();
    [&[22, 3, 1][..], &with_length::<2>(&message)].concat()
}

fn question(kind: u8) -> Vec<u8> {
    let mut question = b"\x03api\x07example\x00".to_vec();
    question.extend([0, kind, 0, 1]);
    question
}

fn query(kind: u8) -> Vec<u8> {
    let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    let edns = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    [&header[..], &question(kind), &edns].concat()
}

/// An answer with an address, by way of an alias or without.
fn answer(alias: bool) -> Vec<u8> {
    let count = 1 + u8::from(alias);
    let mut bytes = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
    bytes.extend(question(1));
    let mut owner = vec![0xc0, 12];
    if alias {
        let target = b"\x05alias\xc0\x10";
        bytes.extend(
            [
                &owner[..],
                &[0, 5, 0, 1, 0, 0, 0, 60],
                &with_length::<2>(target),
            ]
            .concat(),
        );
        owner = b"\x05alias\xc0\x10".to_vec();
    }
    let address = [192, 0, 2, 1];
    bytes.extend(
        [
            &owner[..],
            &[0, 1, 0, 1, 0, 0, 0, 60],
            &with_length::<2>(&address),
        ]
        .concat(),
    );
    bytes
}

/// A message of the packet log about one packet.
fn logged(packet: &[u8]) -> Vec<u8> {
    const PAYLOAD: u16 = 9;
    let attribute = u16::try_from(packet.len() + 4).expect("seeds are short");
    let mut body = vec![2, 0, 0, 1];
    body.extend(attribute.to_ne_bytes());
    body.extend(PAYLOAD.to_ne_bytes());
    body.extend(packet);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut message = u32::try_from(16 + body.len())
        .expect("seeds are short")
        .to_ne_bytes()
        .to_vec();
    // NFULNL_MSG_PACKET of NFNL_SUBSYS_ULOG.
    message.extend(0x0400_u16.to_ne_bytes());
    message.extend([0; 10]);
    message.extend(body);
    message
}

fn udp_packet() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([127, 0, 0, 1, 192, 0, 2, 1]);
    packet.extend([0x30, 0x39, 0x01, 0xbb, 0, 8, 0, 0]);
    packet
}

fn udp6_packet() -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 16, 0, 64];
    packet.extend(Ipv6Addr::LOCALHOST.octets());
    packet.extend(Ipv6Addr::LOCALHOST.octets());
    // A hop-by-hop header, then UDP.
    packet.extend([17, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend([0x30, 0x39, 0x01, 0xbb, 0, 8, 0, 0]);
    packet
}
