//! Routes that make every address of the world one of the sandbox's own, over rtnetlink
//! (`linux/rtnetlink.h`).

use std::net::{Ipv4Addr, Ipv6Addr};

use rustix::io::Result;

use crate::netlink::{Batch, Channel};
use crate::rtnetlink::add_address;

/// The loopback device is the first of every network namespace.
const LOOPBACK: u32 = 1;

/// What the payload's connections come from: the dummy address of RFC 7600, which is never a
/// destination. Were there loopback addresses alone, `getaddrinfo` with `AI_ADDRCONFIG` would take
/// the host to have no network, and find nothing.
const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The same for IPv6, which has no dummy address: a unique local one (RFC 4193). Nothing else in the
/// namespace has an address, so that it stands in nobody's way.
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd62, 0x6172, 0x6563, 0, 0, 0, 0, 8);

/// Sets addresses and routes, all in one packet.
pub(super) fn set_up(ipv6: bool) -> Result<()> {
    let mut batch = Batch::new();
    add_address(&mut batch, LOOPBACK, OWN_V4.into());
    add_route(&mut batch, libc::AF_INET, Some(OWN_V4));
    if ipv6 {
        add_address(&mut batch, LOOPBACK, OWN_V6.into());
        add_route(&mut batch, libc::AF_INET6, None);
    }
    batch.acknowledge_last();
    Channel::open(None)?.carry_out(&batch)
}

/// Everything that no other route leads to is here (known as AnyIP).
fn add_route(batch: &mut Batch, family: i32, source: Option<Ipv4Addr>) {
    let (destination_bits, source_bits, service) = (0, 0, 0);
    let mut fixed = vec![
        family as u8,
        destination_bits,
        source_bits,
        service,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
    ];
    fixed.extend([0; 4]);
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    batch.message(libc::RTM_NEWROUTE, create, &fixed, |message| {
        message.u32(libc::RTA_OIF, LOOPBACK);
        if let Some(source) = source {
            message.bytes(libc::RTA_PREFSRC, &source.octets());
        }
    });
}
