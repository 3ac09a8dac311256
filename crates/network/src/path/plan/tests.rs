use std::{collections::BTreeMap, io, sync::Arc};

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::{
    name::HostName,
    path::{Bound, Connection, Names, Through, TunnelState},
};

/// Every name has these addresses.
#[derive(Debug)]
struct Answers(Vec<IpAddr>);

#[async_trait]
impl Resolver for Answers {
    async fn resolve(&self, _: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        Ok(self.0.clone())
    }
}

#[derive(Debug)]
struct NoTunnel;

#[async_trait]
impl Tunnel for NoTunnel {
    async fn connect(&self, _: SocketAddr) -> io::Result<Connection> {
        Err(io::ErrorKind::NetworkDown.into())
    }

    async fn state(&self, _: Option<IpAddr>) -> TunnelState {
        TunnelState::Down {
            reason: "a test's".to_owned(),
        }
    }
}

/// Every path that leads to ranges only, with these ranges.
fn ranged(ranges: &[IpNet], answers: &[IpAddr]) -> Vec<Path> {
    let resolver = || Arc::new(Answers(answers.to_vec()));
    let ranges = || ranges.to_vec();
    vec![
        Path::Private(Private {
            ranges: ranges(),
            resolver: resolver(),
            public_via: None,
            public_names: Names::Any,
        }),
        Path::Bound(Bound {
            binding: Binding::Interface("tun0".to_owned()),
            ranges: ranges(),
            resolver: resolver(),
        }),
        Path::Through(Through {
            tunnel: Arc::new(NoTunnel),
            ranges: ranges(),
            resolver: resolver(),
        }),
        Path::Facility(Facility {
            zones: vec!["example".parse().expect("a name")],
            ranges: ranges(),
            resolver: resolver(),
        }),
    ]
}

fn plan(path: &Path, target: &Target) -> Result<Vec<IpAddr>, DialError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let plan = runtime.block_on(path.plan(target, 443))?;
    Ok(plan.candidates.iter().map(SocketAddr::ip).collect())
}

fn name() -> Target {
    Target::Name("api.example".parse().expect("a name"))
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
        any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from(bits).to_ipv6_mapped())),
        prop::sample::select(vec![
            "169.254.169.254",
            "10.1.2.3",
            "127.0.0.1",
            "::1",
            "fd00:ec2::254"
        ])
        .prop_map(|text| text.parse().expect("an address")),
    ]
}

fn any_range() -> impl Strategy<Value = IpNet> {
    (any_address(), any::<u8>()).prop_map(|(address, length)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length % (most + 1))
            .expect("a length in bounds")
            .trunc()
    })
}

proptest! {
    #[test]
    fn a_direct_path_leads_to_public_addresses_only(answers in prop::collection::vec(any_address(), 1..12)) {
        let path = Path::Direct(Direct { names: Names::Any, resolver: Arc::new(Answers(answers.clone())) });
        match plan(&path, &name()) {
            Ok(candidates) => {
                prop_assert!(!candidates.is_empty() && candidates.len() <= MAX_CANDIDATES);
                prop_assert!(candidates.iter().all(|ip| classify(*ip) == AddressClass::Public));
            }
            Err(error) => {
                let refused = matches!(error, DialError::NotPublic { .. });
                prop_assert!(refused);
                prop_assert!(answers.iter().all(|ip| classify(*ip) != AddressClass::Public));
            }
        }
    }

    #[test]
    fn a_path_with_ranges_leads_into_them_only(
        ranges in prop::collection::vec(any_range(), 0..4),
        answers in prop::collection::vec(any_address(), 1..12),
        literal: bool,
    ) {
        let target = if literal { Target::Address(answers[0]) } else { name() };
        for path in ranged(&ranges, &answers) {
            if let Ok(candidates) = plan(&path, &target) {
                for address in candidates {
                    prop_assert!(ranges.iter().any(|range| range.contains(&address)));
                    prop_assert!(!is_metadata_service(address));
                    prop_assert!(!literal || address == answers[0].to_canonical());
                }
            }
        }
    }
}

#[test]
fn an_endpoint_path_leads_to_no_literal_address() {
    let address: IpAddr = "10.0.0.1".parse().expect("an address");
    let path = Path::Endpoint(Endpoint {
        services: BTreeMap::from([(
            "api.example".parse().expect("a name"),
            EndpointAddress::Ip(address),
        )]),
        resolver: Arc::new(Answers(vec![address])),
    });
    assert_eq!(plan(&path, &name()).ok(), Some(vec![address]));
    let literal = plan(&path, &Target::Address(address));
    assert!(matches!(literal, Err(DialError::NoEndpoint { .. })));
}

#[test]
fn an_approved_source_address_leads_to_public_addresses_only() {
    let path = |answer: &str| {
        Path::Private(Private {
            ranges: vec!["10.0.0.0/16".parse().expect("a range")],
            resolver: Arc::new(Answers(vec![answer.parse().expect("an address")])),
            public_via: Some(PublicVia::Nat([10, 0, 0, 9].into())),
            public_names: Names::Any,
        })
    };
    for (answer, leads) in [
        ("93.184.216.34", true),
        ("10.0.1.1", true),
        ("10.1.1.1", false),
        ("169.254.169.254", false),
        ("127.0.0.1", false),
    ] {
        assert_eq!(plan(&path(answer), &name()).is_ok(), leads, "{answer}");
    }
}

#[test]
fn an_allow_list_holds_whoever_declared_the_name() {
    let answer = "93.184.216.34".parse().expect("an address");
    let names = |zone: &str| Names::Below(vec![zone.parse().expect("a name")]);
    let direct = |zone| {
        Path::Direct(Direct {
            names: names(zone),
            resolver: Arc::new(Answers(vec![answer])),
        })
    };
    let private = |zone| {
        Path::Private(Private {
            ranges: Vec::new(),
            resolver: Arc::new(Answers(vec![answer])),
            public_via: Some(PublicVia::Proxy(([10, 0, 0, 9], 3128).into())),
            public_names: names(zone),
        })
    };
    let literal = Target::Address(answer);
    for path in [direct("example"), private("example")] {
        assert!(plan(&path, &name()).is_ok(), "{path:?}");
        assert!(plan(&path, &literal).is_err(), "{path:?}");
    }
    let refused = plan(&direct("other.example"), &name());
    assert!(matches!(refused, Err(DialError::NotAllowed { .. })));
    let refused = plan(&private("other.example"), &name());
    assert!(matches!(refused, Err(DialError::OutsideRanges { .. })));
}
