//! The sandbox's name server on its sockets, and the client that asks a given one.

use std::{net::Ipv4Addr, time::Duration};

use barecount_model::{manifest::EgressProtocol, untrusted::Label};
use barecount_network::{
    NameServer,
    reason::ReasonCode,
    record::{FlowProtocol, Verdict},
    resolver::{ResolveError, Resolver},
};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord, TYPE,
    rdata::{A, CNAME, RData},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use crate::rig::*;

#[tokio::test]
async fn a_name_that_is_not_declared_does_not_exist_and_is_written_down() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let answer = rig.ask("Undeclared.Example", TYPE::A).await?;
    assert_eq!(Packet::parse(&answer)?.rcode(), RCODE::NameError);
    let log = attempt.end().await;
    let record = only(&log);
    assert_eq!(
        record.name.as_ref().map(Label::raw),
        Some("Undeclared.Example")
    );
    assert_eq!((record.port, record.protocol), (53, FlowProtocol::Dns));
    assert_eq!(
        (record.verdict, code(record)),
        (Verdict::Refused, Some(ReasonCode::NameNotDeclared))
    );
    Ok(())
}

#[tokio::test]
async fn a_name_has_the_same_address_over_udp_and_tcp() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let attempt = rig.begin(EgressProtocol::Tcp);
    let over_udp = rig.ask("api.example", TYPE::A).await?;
    let query = query("api.example", TYPE::A)?;
    let over_tcp = rig.ask_over_tcp(&[query.clone(), query]).await?;
    assert_eq!(over_tcp, [over_udp.clone(), over_udp]);
    assert!(attempt.end().await.records.is_empty());
    Ok(())
}

#[tokio::test]
async fn lookups_that_come_too_fast_have_no_answer_and_are_counted() -> TestResult {
    let rig = Rig::start(loopback(hosts())).await?;
    let mut policy = rig.policy(EgressProtocol::Tcp);
    policy.limits.dns_queries_per_second = 2;
    let attempt = rig.broker.begin(policy)?;
    let query = query("api.example", TYPE::A)?;
    let asked = rig.ask_over_tcp(&vec![query; 20]).await;
    assert!(asked.is_err(), "the connection is closed");
    let log = attempt.end().await;
    assert_eq!(code(only(&log)), Some(ReasonCode::LookupsTooFast));
    Ok(())
}

/// A name server that answers each query as it is told to.
async fn name_server(
    answer: impl Fn(&Packet<'_>) -> Vec<Vec<u8>> + Send + 'static,
    over_tcp: Option<fn(&Packet<'_>) -> Vec<u8>>,
) -> Result<NameServer, Box<dyn std::error::Error>> {
    let (socket, listener) = udp_and_tcp().await?;
    let address = socket.local_addr()?;
    let (socket, listener) = (
        UdpSocket::from_std(socket)?,
        TcpListener::from_std(listener)?,
    );
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let query = Packet::parse(&buffer[..length]).expect("a query");
            for answer in answer(&query) {
                let _ = socket.send_to(&answer, client).await;
            }
        }
    });
    tokio::spawn(async move {
        while let (Ok((mut stream, _)), Some(answer)) = (listener.accept().await, over_tcp) {
            let length = stream.read_u16().await.expect("a length");
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await.expect("a query");
            let answer = answer(&Packet::parse(&query).expect("a query"));
            let length = u16::try_from(answer.len()).expect("a short answer");
            stream.write_u16(length).await.expect("sent");
            stream.write_all(&answer).await.expect("sent");
        }
    });
    Ok(NameServer::new(address).with_patience(Duration::from_millis(300)))
}

fn reply<'a>(query: &Packet<'a>, records: Vec<ResourceRecord<'a>>) -> Packet<'a> {
    let mut reply = Packet::new_reply(query.id());
    reply.questions = query.questions.clone();
    if reply.questions[0].qtype == TYPE::A.into() {
        reply.answers = records;
    }
    reply
}

fn a(name: &'static str, last: u8) -> ResourceRecord<'static> {
    let address = u32::from(Ipv4Addr::new(10, 0, 0, last));
    let name = Name::new(name).expect("a name");
    ResourceRecord::new(name, CLASS::IN, 60, RData::A(A { address }))
}

fn alias(name: &'static str, to: &'static str) -> ResourceRecord<'static> {
    let to = CNAME(Name::new(to).expect("a name"));
    ResourceRecord::new(
        Name::new(name).expect("a name"),
        CLASS::IN,
        60,
        RData::CNAME(to),
    )
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    packet.build_bytes_vec().expect("a message")
}

#[tokio::test]
async fn aliases_are_followed_and_records_of_other_names_ignored() -> TestResult {
    let server = name_server(
        |query| {
            let records = vec![
                a("bystander.example", 9),
                alias("api.example", "edge.example"),
                alias("edge.example", "HOST.example"),
                a("host.example", 1),
                a("host.example", 2),
            ];
            vec![bytes(&reply(query, records))]
        },
        None,
    )
    .await?;
    let addresses = server.resolve(&host("api.example")).await?;
    assert_eq!(
        addresses,
        [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]
    );
    Ok(())
}

#[tokio::test]
async fn aliases_that_go_round_lead_nowhere() -> TestResult {
    let server = name_server(
        |query| {
            let records = vec![
                alias("api.example", "b.example"),
                alias("b.example", "api.example"),
            ];
            vec![bytes(&reply(query, records))]
        },
        None,
    )
    .await?;
    let resolved = server.resolve(&host("api.example")).await;
    assert!(
        matches!(resolved, Err(ResolveError::NoAddress)),
        "{resolved:?}"
    );
    Ok(())
}

#[tokio::test]
async fn answers_to_other_questions_are_passed_over() -> TestResult {
    let server = name_server(
        |query| {
            let mut other_number = reply(query, vec![a("api.example", 66)]);
            other_number.set_id(query.id().wrapping_add(1));
            let mut other_name = reply(query, vec![a("api.example", 67)]);
            other_name.questions[0].qname = Name::new("evil.example").expect("a name");
            let mut no_reply = reply(query, vec![a("api.example", 68)]);
            no_reply.remove_flags(PacketFlag::RESPONSE);
            let good = reply(query, vec![a("api.example", 1)]);
            let mut all = vec![Vec::new(), vec![0; 12], vec![0xff; 600]];
            all.extend([other_number, other_name, no_reply, good].iter().map(bytes));
            all
        },
        None,
    )
    .await?;
    let addresses = server.resolve(&host("api.example")).await?;
    assert_eq!(addresses, [Ipv4Addr::new(10, 0, 0, 1)]);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_asked_for_over_tcp() -> TestResult {
    let server = name_server(
        |query| {
            let mut cut = reply(query, Vec::new());
            cut.set_flags(PacketFlag::TRUNCATION);
            vec![bytes(&cut)]
        },
        Some(|query| bytes(&reply(query, vec![a("api.example", 3)]))),
    )
    .await?;
    let addresses = server.resolve(&host("api.example")).await?;
    assert_eq!(addresses, [Ipv4Addr::new(10, 0, 0, 3)]);
    Ok(())
}

#[tokio::test]
async fn a_name_server_that_says_no_or_nothing_is_an_error() -> TestResult {
    let denies = name_server(
        |query| {
            let mut no = reply(query, Vec::new());
            *no.rcode_mut() = RCODE::NameError;
            vec![bytes(&no)]
        },
        None,
    )
    .await?;
    let resolved = denies.resolve(&host("api.example")).await;
    assert!(
        matches!(resolved, Err(ResolveError::NoSuchName)),
        "{resolved:?}"
    );
    let silent = name_server(|_| Vec::new(), None).await?;
    let silent = silent.with_patience(Duration::from_millis(10));
    let resolved = silent.resolve(&host("api.example")).await;
    assert!(
        matches!(resolved, Err(ResolveError::Timeout)),
        "{resolved:?}"
    );
    Ok(())
}
