//! From what an audited attempt reached to the manifest lines that allow it.

use std::collections::BTreeMap;

use barecount_model::{
    manifest::{Egress, EgressProtocol},
    text::EgressHost,
};

use crate::record::{FlowProtocol, FlowRecord, Verdict};

/// The lines that would have declared what was audited, sorted, each once. What is spoken was
/// guessed from the first bytes that the work sent; where that differed between connections, and
/// where the other side spoke first, it is `tcp`.
///
/// A destination that was reached by address is a line with the address, which a manifest may use
/// only where no name exists.
pub fn advise<'a>(records: impl IntoIterator<Item = &'a FlowRecord>) -> Vec<Egress> {
    let mut lines: BTreeMap<(EgressHost, u16), EgressProtocol> = BTreeMap::new();
    for record in records {
        let protocol = match (record.verdict, record.protocol) {
            (Verdict::Audited, FlowProtocol::Tls) => EgressProtocol::Tls,
            (Verdict::Audited, FlowProtocol::Http) => EgressProtocol::Http,
            (Verdict::Audited, FlowProtocol::Tcp) => EgressProtocol::Tcp,
            _ => continue,
        };
        let address = || record.address.map(|address| address.to_string());
        let name = record.name.as_ref().map(|name| name.raw().to_owned());
        let host = name.or_else(address);
        // What a record names was a name or an address when it was dialled.
        let Some(Ok(host)) = host.map(|host| host.parse()) else {
            continue;
        };
        lines
            .entry((host, record.port))
            .and_modify(|known| {
                if *known != protocol {
                    *known = EgressProtocol::Tcp;
                }
            })
            .or_insert(protocol);
    }
    lines
        .into_iter()
        .map(|((host, port), protocol)| Egress {
            host,
            port,
            protocol,
        })
        .collect()
}
