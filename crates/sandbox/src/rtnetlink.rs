//! Addresses, routes and devices of a network namespace, over rtnetlink (`linux/rtnetlink.h`).

use std::net::IpAddr;

use crate::netlink::Batch;

/// `IN6_ADDR_GEN_MODE_NONE` of `linux/if_link.h`: a device gets no address by itself.
const NO_GENERATED_ADDRESS: u8 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;

/// Where a route leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// The network's first address.
    pub(crate) to: IpAddr,
    /// How many bits of it count.
    pub(crate) length: u8,
    /// The device by which it leaves.
    pub(crate) device: u32,
}

/// The number of an address's family, and its bytes.
pub(crate) fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET as u8, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6 as u8, address.octets().to_vec()),
    }
}

/// Gives a device an address, of which nobody else is in reach.
pub(crate) fn add_address(batch: &mut Batch, device: u32, address: IpAddr) {
    let (family, bytes) = octets(address);
    let prefix_bits = (bytes.len() * 8) as u8;
    // Nobody else can have it, so it need not be looked for.
    let flags = libc::IFA_F_NODAD as u8;
    let mut fixed = vec![family, prefix_bits, flags, libc::RT_SCOPE_UNIVERSE];
    fixed.extend(device.to_ne_bytes());
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    batch.message(libc::RTM_NEWADDR, create, &fixed, |message| {
        message.bytes(libc::IFA_LOCAL, &bytes);
        message.bytes(libc::IFA_ADDRESS, &bytes);
    });
}

/// Leads a network out by a device.
pub(crate) fn add_route(batch: &mut Batch, route: Route) {
    let (family, bytes) = octets(route.to);
    let (source_bits, service) = (0, 0);
    let mut fixed = vec![
        family,
        route.length,
        source_bits,
        service,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_LINK,
        libc::RTN_UNICAST,
    ];
    fixed.extend([0; 4]);
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    batch.message(libc::RTM_NEWROUTE, create, &fixed, |message| {
        message.bytes(libc::RTA_DST, &bytes);
        message.u32(libc::RTA_OIF, route.device);
    });
}

/// Keeps the kernel from giving a device IPv6 addresses of its own, by which it would look for
/// neighbours and routers.
pub(crate) fn generate_no_addresses(batch: &mut Batch, device: u32) {
    batch.message(libc::RTM_NEWLINK, 0, &link(device, 0), |message| {
        message.nested(libc::IFLA_AF_SPEC, |families| {
            families.nested(libc::AF_INET6 as u16, |inet6| {
                inet6.bytes(IFLA_INET6_ADDR_GEN_MODE, &[NO_GENERATED_ADDRESS]);
            });
        });
    });
}

/// Sets how large the packets of a device may be, and switches it on.
pub(crate) fn bring_up(batch: &mut Batch, device: u32, mtu: u16) {
    let up = libc::IFF_UP as u32;
    batch.message(libc::RTM_NEWLINK, 0, &link(device, up), |message| {
        message.u32(libc::IFLA_MTU, mtu.into());
    });
}

/// `struct ifinfomsg`, with flags to be set.
fn link(device: u32, flags: u32) -> Vec<u8> {
    let family_padding_and_type = [0; 4];
    let mut fixed = family_padding_and_type.to_vec();
    for field in [device, flags, flags] {
        fixed.extend(field.to_ne_bytes());
    }
    fixed
}
