//! Flow records: what an attempt reached, and what it was refused.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use barecount_model::{
    class::NetworkProfile, digest::Digest, manifest::EgressProtocol, untrusted::Label,
};
use serde::{Deserialize, Serialize};

use crate::{path::PathKind, policy::Mode, reason::Reason};

/// What an attempt did with one destination: connections and lookups that went the same way to
/// the same end are one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowRecord {
    /// The name, as the work asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Label>,
    /// The address that was dialled; of what was refused before, the one that the work used: of a
    /// lookup, that of the name server that was asked, whichever that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port that the work used.
    pub port: u16,
    /// What was spoken, or would have been.
    pub protocol: FlowProtocol,
    /// The attempt's network profile.
    pub profile: NetworkProfile,
    /// The path that was taken, if any was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathKind>,
    /// Bytes from the work to the destination.
    pub bytes_up: u64,
    /// Bytes from the destination to the work.
    pub bytes_down: u64,
    /// When it was first seen, in milliseconds since 1970.
    pub first_at: u64,
    /// When it was last seen, in milliseconds since 1970.
    pub last_at: u64,
    /// What the broker decided.
    pub verdict: Verdict,
    /// Why it was refused, or how it ended if not by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// How many connections or lookups this record stands for.
    pub count: u64,
}

/// What a flow speaks, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowProtocol {
    /// TCP, and nothing is known of what is spoken over it.
    Tcp,
    /// TLS from the first byte.
    Tls,
    /// HTTP in the clear.
    Http,
    /// A lookup with the sandbox's own name server.
    Dns,
    /// Datagrams, which go nowhere.
    Udp,
    /// ICMP and ICMPv6, which go nowhere.
    Icmp,
    /// Any other protocol over IP, which goes nowhere.
    Other,
}

impl From<EgressProtocol> for FlowProtocol {
    fn from(protocol: EgressProtocol) -> Self {
        match protocol {
            EgressProtocol::Tls => Self::Tls,
            EgressProtocol::Http => Self::Http,
            EgressProtocol::Tcp => Self::Tcp,
        }
    }
}

/// What the broker decided about a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Declared, and let through.
    Allowed,
    /// Not let through.
    Refused,
    /// Not declared, and let through because the attempt is audited.
    Audited,
}

/// The flow records of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowLog {
    /// Sums over every flow, listed or not.
    pub totals: FlowTotals,
    /// In the order in which they were first seen.
    pub records: Vec<FlowRecord>,
}

/// Sums over the flows of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowTotals {
    /// The attempt's network profile.
    pub profile: NetworkProfile,
    /// Whether what was not declared was refused.
    pub mode: Mode,
    /// Flows that were allowed.
    pub allowed: u64,
    /// Flows and lookups that were refused.
    pub refused: u64,
    /// Flows that were let through though not declared.
    pub audited: u64,
    /// Bytes from the work to destinations.
    pub bytes_up: u64,
    /// Bytes from destinations to the work.
    pub bytes_down: u64,
    /// Flows and lookups that the records leave out, because there were too many kinds of them.
    pub unlisted: u64,
}

impl FlowLog {
    /// Whether every flow is in a record.
    pub fn is_complete(&self) -> bool {
        self.totals.unlisted == 0
    }

    /// The totals and then each record, a JSON object a line: what is kept beside the ledger.
    pub fn to_json_lines(&self) -> String {
        let mut lines = json_line(&self.totals);
        for record in &self.records {
            lines.push_str(&json_line(record));
        }
        lines
    }

    /// The SHA-256 of exactly the bytes of [`to_json_lines`](Self::to_json_lines), so that a
    /// stored copy can be checked with any tool.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_json_lines().as_bytes())
    }
}

fn json_line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).expect("records have text keys only");
    line.push('\n');
    line
}

/// Bytes that a flow has carried so far.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    up: AtomicU64,
    down: AtomicU64,
}

impl Meter {
    pub(crate) fn up(&self) -> &AtomicU64 {
        &self.up
    }

    pub(crate) fn down(&self) -> &AtomicU64 {
        &self.down
    }

    pub(crate) fn read(&self) -> (u64, u64) {
        (
            self.up.load(Ordering::Relaxed),
            self.down.load(Ordering::Relaxed),
        )
    }
}

/// What makes two flows one record.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    name: Option<Label>,
    address: Option<IpAddr>,
    port: u16,
    protocol: FlowProtocol,
    path: Option<PathKind>,
    verdict: Verdict,
    reason: Option<Reason>,
}

impl Kind {
    fn of(record: &FlowRecord) -> Self {
        Self {
            name: record.name.clone(),
            address: record.address,
            port: record.port,
            protocol: record.protocol,
            path: record.path,
            verdict: record.verdict,
            reason: record.reason.clone(),
        }
    }
}

/// A flow log in the making, bounded whatever the work does.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    log: FlowLog,
    places: HashMap<std::sync::Arc<Kind>, usize>,
    limit: usize,
}

impl Recorder {
    pub(crate) fn new(profile: NetworkProfile, mode: Mode, limit: u32) -> Self {
        Self {
            log: FlowLog {
                totals: FlowTotals {
                    profile,
                    mode,
                    allowed: 0,
                    refused: 0,
                    audited: 0,
                    bytes_up: 0,
                    bytes_down: 0,
                    unlisted: 0,
                },
                records: Vec::new(),
            },
            places: HashMap::new(),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        }
    }

    pub(crate) fn add(&mut self, record: FlowRecord) {
        let FlowLog { totals, records } = &mut self.log;
        let verdicts = match record.verdict {
            Verdict::Allowed => &mut totals.allowed,
            Verdict::Refused => &mut totals.refused,
            Verdict::Audited => &mut totals.audited,
        };
        *verdicts += record.count;
        totals.bytes_up += record.bytes_up;
        totals.bytes_down += record.bytes_down;
        let kind = Kind::of(&record);
        if let Some(place) = self.places.get(&kind) {
            let folded = &mut records[*place];
            folded.count += record.count;
            folded.bytes_up += record.bytes_up;
            folded.bytes_down += record.bytes_down;
            folded.first_at = folded.first_at.min(record.first_at);
            folded.last_at = folded.last_at.max(record.last_at);
        } else if records.len() < self.limit {
            self.places.insert(kind.into(), records.len());
            records.push(record);
        } else {
            totals.unlisted += record.count;
        }
    }

    /// The log. Flows are added when they end, and listed in the order in which they began; of
    /// those of one millisecond what was allowed comes first.
    pub(crate) fn into_log(mut self) -> FlowLog {
        let began = |record: &FlowRecord| (record.first_at, record.verdict == Verdict::Refused);
        self.log.records.sort_by_key(began);
        self.log
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reason::ReasonCode;

    fn refusal(name: &str, port: u16, at: u64) -> FlowRecord {
        FlowRecord {
            name: Some(name.into()),
            address: None,
            port,
            protocol: FlowProtocol::Tcp,
            profile: NetworkProfile::PrivateVpc,
            path: None,
            bytes_up: 0,
            bytes_down: 0,
            first_at: at,
            last_at: at,
            verdict: Verdict::Refused,
            reason: Some(Reason::new(ReasonCode::NameNotDeclared, "not declared")),
            count: 1,
        }
    }

    fn recorder(limit: u32) -> Recorder {
        Recorder::new(NetworkProfile::PrivateVpc, Mode::Enforce, limit)
    }

    #[test]
    fn flows_are_listed_as_they_began_and_not_as_they_ended() {
        let mut recorder = recorder(10);
        for (port, at) in [(2, 7), (1, 5), (3, 9), (1, 4)] {
            recorder.add(refusal("erp.example", port, at));
        }
        let records = recorder.into_log().records;
        let ports: Vec<u16> = records.iter().map(|record| record.port).collect();
        assert_eq!(ports, [1, 2, 3]);
    }

    #[test]
    fn identical_refusals_are_one_record_with_a_count() {
        let mut recorder = recorder(10);
        for at in [5, 7, 6] {
            recorder.add(refusal("evil.example", 443, at));
        }
        recorder.add(refusal("evil.example", 80, 9));
        let log = recorder.into_log();
        assert_eq!(log.records.len(), 2);
        let first = &log.records[0];
        assert_eq!((first.count, first.first_at, first.last_at), (3, 5, 7));
        assert!(log.is_complete());
    }

    #[test]
    fn the_digest_is_of_the_lines_that_are_kept() {
        let mut recorder = recorder(10);
        recorder.add(refusal("evil.example", 443, 5));
        let log = recorder.into_log();
        assert_eq!(log.digest(), Digest::of(log.to_json_lines().as_bytes()));
        let mut other = log.clone();
        other.records[0].port = 444;
        assert_ne!(log.digest(), other.digest());
    }

    proptest! {
        #[test]
        fn counts_are_exact_however_many_kinds_there_are(
            limit in 0u32..8,
            ports in prop::collection::vec(0u16..12, 0..80),
        ) {
            let mut recorder = recorder(limit);
            for (at, port) in (0..).zip(&ports) {
                recorder.add(refusal("evil.example", *port, at));
            }
            let log = recorder.into_log();
            let listed: u64 = log.records.iter().map(|record| record.count).sum();
            prop_assert!(log.records.len() <= limit as usize);
            prop_assert_eq!(listed + log.totals.unlisted, ports.len() as u64);
            prop_assert_eq!(log.totals.refused, ports.len() as u64);
        }
    }
}
