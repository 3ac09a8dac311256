//! Rules that lead what the payload sends to the agent's sockets, over nfnetlink
//! (`linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink_log.h`).
//!
//! In the words of `nft`, for IPv4 (IPv6 has the like in a table of its own):
//! ```text
//! table ip barecount {
//!   chain redirect { type nat hook output priority dstnat;
//!     meta l4proto udp ip daddr != 127.0.0.0/8 udp dport 53 dnat to :LOOKUPS
//!     meta l4proto tcp ip daddr != 127.0.0.0/8 tcp dport 53 dnat to 127.0.0.53
//!     meta l4proto tcp ip daddr != 127.0.0.0/8 redirect to :PORT
//!   }
//!   chain refuse { type filter hook output priority filter;
//!     meta l4proto != tcp ip daddr != 127.0.0.0/8 ct state new ct status ! dnat log group 0 reject
//!   }
//! }
//! ```
//! A query keeps the address that it was sent to, so that whoever takes it knows which name server
//! was asked; of TCP the kernel remembers it. The second chain sees where packets go after the first.
//! What is not new there is an answer of ours, or the kernel telling of an error.

use rustix::io::Result;
use rustix::net::netlink;

use crate::netlink::{Attributes, Batch, Channel};
use crate::network::Brokered;

const TABLE: &str = "barecount";
const REDIRECT: &str = "redirect";
const REFUSE: &str = "refuse";
/// The group of the packet log. Groups belong to the network namespace, so it meets no other.
const LOG_GROUP: u16 = 0;
/// How much of a packet is logged: the largest IPv4 header and ports, or IPv6 with some extensions.
const LOGGED_BYTES: u32 = 128;

// Attributes of nf_tables messages.
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

/// Bit of `ct state` for the first packet of a flow.
const STATE_NEW: u32 = 1 << 3;
/// Bit of `ct status` for a flow that was led elsewhere (`IPS_DST_NAT`).
const STATUS_DNAT: u32 = 1 << 5;
/// Port unreachable, in ICMP and in ICMPv6.
const PORT_UNREACHABLE: (u8, u8) = (3, 4);

/// A family of addresses, and where its rules lead.
struct Family {
    /// `NFPROTO_*`.
    number: u8,
    /// Where the destination begins in the network header.
    destination_offset: u32,
    /// The first bytes of it in loopback addresses.
    loopback: Vec<u8>,
    name_server: Vec<u8>,
    unreachable: u8,
    ports: Ports,
}

/// Where a family's packets are led.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    /// TCP, on loopback.
    pub(super) tcp: u16,
    /// Queries by UDP, on whatever address they were sent to.
    pub(super) lookups: u16,
}

/// Installs the rules of both families in one transaction: all of them, or none.
/// Without IPv6 there is nothing to lead there.
pub(super) fn install(v4: Ports, v6: Option<Ports>, brokered: &Brokered, log: bool) -> Result<()> {
    let mut families = vec![Family {
        number: libc::NFPROTO_IPV4 as u8,
        destination_offset: 16,
        loopback: vec![127],
        name_server: Brokered::NAME_SERVER_V4.octets().to_vec(),
        unreachable: PORT_UNREACHABLE.0,
        ports: v4,
    }];
    families.extend(v6.map(|ports| Family {
        number: libc::NFPROTO_IPV6 as u8,
        destination_offset: 24,
        loopback: std::net::Ipv6Addr::LOCALHOST.octets().to_vec(),
        name_server: Brokered::NAME_SERVER_V6.octets().to_vec(),
        unreachable: PORT_UNREACHABLE.1,
        ports,
    }));
    let mut batch = Batch::new();
    let of_tables = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
    let frame = [libc::AF_UNSPEC as u8, 0, of_tables[0], of_tables[1]];
    batch.message(libc::NFNL_MSG_BATCH_BEGIN as u16, 0, &frame, |_| {});
    for family in &families {
        family.add_to(&mut batch, brokered, log);
    }
    // Told once the whole is in force.
    batch.acknowledge_last();
    batch.message(libc::NFNL_MSG_BATCH_END as u16, 0, &frame, |_| {});
    Channel::open(Some(netlink::NETFILTER))?.carry_out(&batch)
}

/// Opens the packet log. Each packet is told at once.
pub(super) fn open_log() -> Result<Channel> {
    let channel = Channel::open(Some(netlink::NETFILTER))?;
    let mut batch = Batch::new();
    let group = LOG_GROUP.to_be_bytes();
    let kind = ((libc::NFNL_SUBSYS_ULOG as u16) << 8) | libc::NFULNL_MSG_CONFIG as u16;
    let fixed = [libc::AF_UNSPEC as u8, 0, group[0], group[1]];
    batch.message(kind, 0, &fixed, |message| {
        let bind = libc::NFULNL_CFG_CMD_BIND as u8;
        message.bytes(libc::NFULA_CFG_CMD as u16, &[bind]);
        let mut mode = LOGGED_BYTES.to_be_bytes().to_vec();
        mode.extend([libc::NFULNL_COPY_PACKET as u8, 0]);
        message.bytes(libc::NFULA_CFG_MODE as u16, &mode);
        message.be32(libc::NFULA_CFG_QTHRESH as u16, 1);
    });
    batch.acknowledge_last();
    channel.carry_out(&batch)?;
    Ok(channel)
}

impl Family {
    fn add_to(&self, batch: &mut Batch, brokered: &Brokered, log: bool) {
        self.message(batch, libc::NFT_MSG_NEWTABLE, |message| {
            message.text(TABLE_NAME, TABLE);
        });
        self.chain(batch, REDIRECT, "nat", libc::NF_IP_PRI_NAT_DST);
        self.chain(batch, REFUSE, "filter", libc::NF_IP_PRI_FILTER);
        let dns = Brokered::NAME_SERVER_PORT;
        self.rule(batch, REDIRECT, |rule| {
            rule.only_protocol(libc::IPPROTO_UDP);
            rule.not_to_loopback(self);
            rule.only_port(dns);
            rule.lead_to_lookups(self);
        });
        if !brokered.declared_ports.contains(&dns) {
            self.rule(batch, REDIRECT, |rule| {
                rule.only_protocol(libc::IPPROTO_TCP);
                rule.not_to_loopback(self);
                rule.only_port(dns);
                rule.lead_to_name_server(self);
            });
        }
        self.rule(batch, REDIRECT, |rule| {
            rule.only_protocol(libc::IPPROTO_TCP);
            rule.not_to_loopback(self);
            rule.lead_to_port(self.ports.tcp);
        });
        self.rule(batch, REFUSE, |rule| {
            rule.any_protocol_but(libc::IPPROTO_TCP);
            rule.not_to_loopback(self);
            rule.only_new();
            rule.not_led_elsewhere();
            if log {
                rule.log();
            }
            rule.reject(self);
        });
    }

    fn message(&self, batch: &mut Batch, kind: i32, attributes: impl FnOnce(&mut Attributes<'_>)) {
        let kind = ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | kind as u16;
        let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
        batch.message(kind, flags, &[self.number, 0, 0, 0], attributes);
    }

    /// A chain that accepts what its rules let through.
    fn chain(&self, batch: &mut Batch, name: &str, kind: &str, priority: i32) {
        self.message(batch, libc::NFT_MSG_NEWCHAIN, |message| {
            message.text(CHAIN_TABLE, TABLE);
            message.text(CHAIN_NAME, name);
            message.nested(CHAIN_HOOK, |hook| {
                hook.be32(HOOK_NUMBER, libc::NF_INET_LOCAL_OUT as u32);
                hook.be32(HOOK_PRIORITY, priority as u32);
            });
            message.text(CHAIN_TYPE, kind);
        });
    }

    fn rule(&self, batch: &mut Batch, chain: &str, write: impl FnOnce(&mut Rule<'_, '_>)) {
        self.message(batch, libc::NFT_MSG_NEWRULE, |message| {
            message.text(RULE_TABLE, TABLE);
            message.text(RULE_CHAIN, chain);
            message.nested(RULE_EXPRESSIONS, |list| write(&mut Rule { list }));
        });
    }
}

/// The expressions of a rule. They are evaluated in order until one does not match.
struct Rule<'a, 'b> {
    list: &'a mut Attributes<'b>,
}

/// Registers of 16 bytes; the first serves every comparison.
const REGISTER: u32 = libc::NFT_REG_1 as u32;

impl Rule<'_, '_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
        self.list.nested(LIST_ELEMENT, |element| {
            element.text(EXPRESSION_NAME, name);
            element.nested(EXPRESSION_DATA, data);
        });
    }

    fn compare(&mut self, operator: i32, value: &[u8]) {
        const SOURCE: u16 = 1;
        const OPERATOR: u16 = 2;
        const DATA: u16 = 3;
        self.expression("cmp", |data| {
            data.be32(SOURCE, REGISTER);
            data.be32(OPERATOR, operator as u32);
            data.nested(DATA, |inner| inner.bytes(DATA_VALUE, value));
        });
    }

    fn load_from_packet(&mut self, header: i32, offset: u32, length: usize) {
        const TARGET: u16 = 1;
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LENGTH: u16 = 4;
        self.expression("payload", |data| {
            data.be32(TARGET, REGISTER);
            data.be32(BASE, header as u32);
            data.be32(OFFSET, offset);
            data.be32(LENGTH, length as u32);
        });
    }

    fn load(&mut self, value: &[u8]) {
        const TARGET: u16 = 1;
        const DATA: u16 = 2;
        self.expression("immediate", |data| {
            data.be32(TARGET, REGISTER);
            data.nested(DATA, |inner| inner.bytes(DATA_VALUE, value));
        });
    }

    fn load_protocol(&mut self) {
        const TARGET: u16 = 1;
        const KEY: u16 = 2;
        self.expression("meta", |data| {
            data.be32(TARGET, REGISTER);
            data.be32(KEY, libc::NFT_META_L4PROTO as u32);
        });
    }

    fn only_protocol(&mut self, protocol: i32) {
        self.load_protocol();
        self.compare(libc::NFT_CMP_EQ, &[protocol as u8]);
    }

    fn any_protocol_but(&mut self, protocol: i32) {
        self.load_protocol();
        self.compare(libc::NFT_CMP_NEQ, &[protocol as u8]);
    }

    fn not_to_loopback(&mut self, family: &Family) {
        let length = family.loopback.len();
        self.load_from_packet(
            libc::NFT_PAYLOAD_NETWORK_HEADER,
            family.destination_offset,
            length,
        );
        self.compare(libc::NFT_CMP_NEQ, &family.loopback);
    }

    fn only_port(&mut self, port: u16) {
        // UDP and TCP alike: source port, then destination port.
        self.load_from_packet(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
        self.compare(libc::NFT_CMP_EQ, &port.to_be_bytes());
    }

    fn only_new(&mut self) {
        self.load_tracked(libc::NFT_CT_STATE, STATE_NEW);
        self.compare(libc::NFT_CMP_NEQ, &[0; 4]);
    }

    fn not_led_elsewhere(&mut self) {
        self.load_tracked(libc::NFT_CT_STATUS, STATUS_DNAT);
        self.compare(libc::NFT_CMP_EQ, &[0; 4]);
    }

    /// One bit of what is known of the flow.
    fn load_tracked(&mut self, key: i32, bit: u32) {
        const TARGET: u16 = 1;
        const KEY: u16 = 2;
        self.expression("ct", |data| {
            data.be32(TARGET, REGISTER);
            data.be32(KEY, key as u32);
        });
        const SOURCE: u16 = 1;
        const RESULT: u16 = 2;
        const LENGTH: u16 = 3;
        const MASK: u16 = 4;
        const XOR: u16 = 5;
        self.expression("bitwise", |data| {
            data.be32(SOURCE, REGISTER);
            data.be32(RESULT, REGISTER);
            data.be32(LENGTH, 4);
            // Registers hold it in the machine's order.
            let mask = bit.to_ne_bytes();
            data.nested(MASK, |inner| inner.bytes(DATA_VALUE, &mask));
            data.nested(XOR, |inner| inner.bytes(DATA_VALUE, &[0; 4]));
        });
    }

    /// The address is left as it is.
    fn lead_to_lookups(&mut self, family: &Family) {
        const KIND: u16 = 1;
        const FAMILY: u16 = 2;
        const PORT: u16 = 5;
        self.load(&family.ports.lookups.to_be_bytes());
        self.expression("nat", |data| {
            data.be32(KIND, libc::NFT_NAT_DNAT as u32);
            data.be32(FAMILY, u32::from(family.number));
            data.be32(PORT, REGISTER);
        });
    }

    /// The port is left as it is.
    fn lead_to_name_server(&mut self, family: &Family) {
        const KIND: u16 = 1;
        const FAMILY: u16 = 2;
        const ADDRESS: u16 = 3;
        self.load(&family.name_server);
        self.expression("nat", |data| {
            data.be32(KIND, libc::NFT_NAT_DNAT as u32);
            data.be32(FAMILY, u32::from(family.number));
            data.be32(ADDRESS, REGISTER);
        });
    }

    /// To a port of the first loopback address.
    fn lead_to_port(&mut self, port: u16) {
        const PORT: u16 = 1;
        self.load(&port.to_be_bytes());
        self.expression("redir", |data| data.be32(PORT, REGISTER));
    }

    fn log(&mut self) {
        const GROUP: u16 = 1;
        const LENGTH: u16 = 3;
        self.expression("log", |data| {
            data.be16(GROUP, LOG_GROUP);
            data.be32(LENGTH, LOGGED_BYTES);
        });
    }

    fn reject(&mut self, family: &Family) {
        const KIND: u16 = 1;
        const CODE: u16 = 2;
        self.expression("reject", |data| {
            data.be32(KIND, libc::NFT_REJECT_ICMP_UNREACH as u32);
            data.bytes(CODE, &[family.unreachable]);
        });
    }
}
