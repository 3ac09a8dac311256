use proptest::prelude::*;

use super::*;

/// `api.example` is declared, and has a mapped address.
struct Declared;

impl Zone for Declared {
    fn addresses(&self, name: &HostName) -> Lookup {
        match name.as_str() {
            "api.example" => Lookup::Found(
                Ipv4Addr::new(198, 18, 0, 1),
                Some("fd00::1".parse().expect("an address")),
            ),
            "full.example" => Lookup::Exhausted,
            _ => Lookup::Undeclared,
        }
    }

    fn name_of(&self, address: IpAddr) -> Option<HostName> {
        let known = ["198.18.0.1", "fd00::1"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
        known
            .contains(&address)
            .then(|| "api.example".parse().expect("a name"))
    }
}

fn query(name: &str, kind: TYPE) -> Packet<'_> {
    let mut packet = Packet::new_query(0xbeef);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).expect("a name");
    let question = Question::new(name, kind.into(), CLASS::IN.into(), false);
    packet.questions.push(question);
    packet
}

fn with_edns(mut packet: Packet<'_>, size: u16, version: u8) -> Packet<'_> {
    *packet.opt_mut() = Some(OPT {
        opt_codes: Vec::new(),
        udp_packet_size: size,
        version,
    });
    packet
}

fn ask_bytes(bytes: &[u8]) -> Response {
    respond(bytes, Transport::Udp, &Declared)
}

fn ask(packet: &Packet<'_>) -> Response {
    ask_bytes(&packet.build_bytes_vec().expect("a message"))
}

fn code(response: &Response) -> RCODE {
    let bytes = response.bytes.as_deref().expect("an answer");
    Packet::parse(bytes).expect("a message").rcode()
}

#[test]
fn a_declared_name_has_one_address_of_each_family_in_the_case_it_was_asked_for() {
    for (kind, expected) in [
        (
            TYPE::A,
            RData::A(A {
                address: 0xc612_0001,
            }),
        ),
        (
            TYPE::AAAA,
            RData::AAAA(AAAA {
                address: 0xfd << 120 | 1,
            }),
        ),
    ] {
        let response = ask(&query("aPi.ExAmPlE", kind));
        assert!(response.refused.is_none());
        let bytes = response.bytes.expect("an answer");
        let answer = Packet::parse(&bytes).expect("a message");
        assert_eq!(answer.id(), 0xbeef);
        assert!(answer.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        assert_eq!(answer.questions[0].qname.to_string(), "aPi.ExAmPlE");
        let [record] = answer.answers.as_slice() else {
            panic!("{answer:?}");
        };
        assert_eq!(record.name.to_string(), "aPi.ExAmPlE");
        assert_eq!((&record.rdata, record.ttl), (&expected, TTL));
    }
}

#[test]
fn other_kinds_of_records_of_a_declared_name_are_empty() {
    for kind in [
        TYPE::CNAME,
        TYPE::MX,
        TYPE::TXT,
        TYPE::HTTPS,
        TYPE::SRV,
        TYPE::NS,
        TYPE::PTR,
    ] {
        let response = ask(&query("api.example", kind));
        assert_eq!(code(&response), RCODE::NoError, "{kind:?}");
        let bytes = response.bytes.expect("an answer");
        assert!(Packet::parse(&bytes).expect("a message").answers.is_empty());
        assert!(response.refused.is_none());
    }
}

#[test]
fn a_name_that_is_not_declared_does_not_exist_whatever_is_asked_of_it() {
    for name in [
        "evil.example",
        "x.api.example",
        "example",
        "api.example.evil",
        "a_b.example",
        "10.0.0.1",
        "",
    ] {
        for kind in [TYPE::A, TYPE::AAAA, TYPE::TXT, TYPE::PTR] {
            let response = ask(&query(name, kind));
            assert_eq!(code(&response), RCODE::NameError, "{name}");
            let (refused, reason) = response.refused.expect("a record");
            assert_eq!(
                (refused.as_ref().map(Label::raw), reason),
                (Some(name), ReasonCode::NameNotDeclared)
            );
        }
    }
    assert_eq!(
        code(&ask(&query("full.example", TYPE::A))),
        RCODE::ServerFailure
    );
}

#[test]
fn addresses_lead_back_to_names() {
    let v6 = format!("1.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
    for name in ["1.0.18.198.in-addr.arpa", "1.0.18.198.IN-ADDR.arpa", &v6] {
        let response = ask(&query(name, TYPE::PTR));
        let bytes = response.bytes.expect("an answer");
        let answer = Packet::parse(&bytes).expect("a message");
        assert!(
            matches!(&answer.answers[0].rdata, RData::PTR(to) if to.to_string() == "api.example"),
            "{name}: {answer:?}"
        );
    }
    for name in ["1.0.0.127.in-addr.arpa", "1.198.in-addr.arpa", "x.ip6.arpa"] {
        assert_eq!(
            code(&ask(&query(name, TYPE::PTR))),
            RCODE::NameError,
            "{name}"
        );
    }
}

#[test]
fn edns_is_answered_with_edns_and_unknown_versions_of_it_with_badvers() {
    let plain = ask(&query("api.example", TYPE::A))
        .bytes
        .expect("an answer");
    assert!(Packet::parse(&plain).expect("a message").opt().is_none());
    let extended = ask(&with_edns(query("api.example", TYPE::A), 1_232, 0));
    let extended = extended.bytes.expect("an answer");
    assert!(Packet::parse(&extended).expect("a message").opt().is_some());
    let newer = ask(&with_edns(query("api.example", TYPE::A), 1_232, 1));
    assert_eq!(code(&newer), RCODE::BADVERS);
}

#[test]
fn an_answer_that_does_not_fit_is_marked_as_cut() {
    let packet = query("api.example", TYPE::A);
    let records = || vec![RData::A(A { address: 1 }); 100];
    let question = &packet.questions[0];
    let cut = build(&packet, question, RCODE::NoError, records(), PLAIN_UDP).expect("an answer");
    let cut = Packet::parse(&cut).expect("a message");
    assert!(cut.has_flags(PacketFlag::TRUNCATION) && cut.answers.is_empty());
    let whole = build(&packet, question, RCODE::NoError, records(), 65_535).expect("an answer");
    assert_eq!(Packet::parse(&whole).expect("a message").answers.len(), 100);
}

#[test]
fn what_is_no_query_has_no_answer_or_an_error() {
    let good = query("api.example", TYPE::A)
        .build_bytes_vec()
        .expect("a message");
    assert!(ask_bytes(&good[..11]).bytes.is_none());
    let mut response = good.clone();
    response[2] |= 0x80;
    assert!(ask_bytes(&response).bytes.is_none());
    let mut update = good.clone();
    update[2] = 5 << 3;
    assert_eq!(code(&ask_bytes(&update)), RCODE::NotImplemented);
    for (at, value) in [
        (4, 0xff),
        (5, 0),
        (5, 2),
        (7, 1),
        (9, 1),
        (10, 0xff),
        (12, 0xff),
        (12, 200),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(code(&ask_bytes(&bad)), RCODE::FormatError, "{at} {value}");
    }
    let mut looping = good.clone();
    looping.splice(12..25, [0xc0, 12]);
    assert_eq!(code(&ask_bytes(&looping)), RCODE::FormatError);
}

#[test]
fn another_class_is_refused() {
    let mut packet = query("api.example", TYPE::A);
    packet.questions[0].qclass = CLASS::CH.into();
    assert_eq!(code(&ask(&packet)), RCODE::Refused);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn bytes_of_any_kind_are_answered_with_a_message_or_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let response = ask_bytes(&bytes);
        if let Some(answer) = response.bytes {
            prop_assert!(answer.len() <= MOST_UDP);
            prop_assert_eq!(&answer[..2], &bytes[..2]);
            prop_assert!(Packet::parse(&answer).is_ok());
        }
    }

    #[test]
    fn a_damaged_query_is_answered_with_a_message_or_nothing(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let mut bytes = with_edns(query("api.example", TYPE::A), 512, 0).build_bytes_vec().expect("a message");
        for (at, value) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Some(answer) = ask_bytes(&bytes).bytes {
            prop_assert!(Packet::parse(&answer).is_ok());
        }
    }
}

#[test]
fn a_password_that_is_looked_up_with_a_name_is_in_no_record() {
    for (asked, recorded) in [
        ("user:canary@api.example", "…@api.example"),
        ("canary@evil.example", "…@evil.example"),
        ("user:canary", "user:…"),
    ] {
        let (refused, _) = ask(&query(asked, TYPE::A)).refused.expect("a record");
        assert_eq!(refused.as_ref().map(Label::raw), Some(recorded));
    }
}
