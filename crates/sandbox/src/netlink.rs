//! Netlink messages: many in one packet to the kernel, answered together. The layout is that of
//! `linux/netlink.h`; integers of attributes are in network order where netfilter asks for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Bytes of a message's header (`struct nlmsghdr`).
pub(crate) const HEADER_BYTES: usize = 16;
/// Bytes of an attribute's header (`struct nlattr`).
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// The kernel answers an error with the message that it is about; the beginning is all we read.
const ANSWER_BYTES: usize = 1024;

/// Where the next message or attribute begins.
const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Messages to be carried out in order.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(4096),
            last: 0,
        }
    }

    /// Appends a message: its type, its flags beside `NLM_F_REQUEST`, the fixed part that its
    /// subsystem asks for, its attributes.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: i32,
        fixed: &[u8],
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.last = start;
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        // Sequence number and port: one batch is under way at a time on a socket of its own.
        self.bytes.extend([0; 8]);
        self.bytes.extend(fixed);
        attributes(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }

    /// The messages as they are sent.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Has the kernel say when the last message so far is carried out. It tells of errors without
    /// being asked.
    pub(crate) fn acknowledge_last(&mut self) {
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]);
        let flags = flags | libc::NLM_F_ACK as u16;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }
}

/// The attributes of a message, or those within one of them.
pub(crate) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.framed(kind, |bytes| bytes.extend(value));
    }

    /// In network order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// In network order.
    pub(crate) fn be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// In the machine's order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// With the closing NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.framed(kind, |bytes| {
            bytes.extend(value.as_bytes());
            bytes.push(0);
        });
    }

    pub(crate) fn nested(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) {
        let kind = kind | libc::NLA_F_NESTED as u16;
        self.framed(kind, |bytes| inner(&mut Attributes(bytes)));
    }

    fn framed(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        value(self.0);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(aligned(self.0.len()), 0);
    }
}

/// A socket to a subsystem of the kernel, in the network namespace it was opened in.
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol).map(Self)
    }

    /// Sends a batch and waits until it is carried out, which one of its messages must have been
    /// marked to tell (see [`Batch::acknowledge_last`]).
    ///
    /// # Errors
    /// What the kernel says of the first message that it refused.
    pub(crate) fn carry_out(&self, batch: &Batch) -> Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.0, batch.as_bytes(), SendFlags::empty(), &kernel)?;
        let mut answer = [0; ANSWER_BYTES];
        loop {
            // The kernel has carried it out before the call above returned, so that its answers are
            // there; if none is, none comes.
            let (length, _) = rustix::net::recv(&self.0, &mut answer, RecvFlags::DONTWAIT)?;
            if let Some(code) = acknowledgement(&answer[..length]) {
                return match code {
                    0 => Ok(()),
                    code => Err(Errno::from_raw_os_error(-code)),
                };
            }
        }
    }

    pub(crate) fn into_socket(self) -> OwnedFd {
        self.0
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The code of an acknowledgement: 0, or the negative number of an error.
fn acknowledgement(packet: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(packet.get(4..6)?.try_into().ok()?);
    let code = packet.get(HEADER_BYTES..HEADER_BYTES + 4)?;
    let code = i32::from_ne_bytes(code.try_into().ok()?);
    (i32::from(kind) == libc::NLMSG_ERROR).then_some(code)
}

/// Messages that came in one packet: their types and what follows their headers. Ends at the first
/// that is not whole.
pub(crate) fn messages(packet: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(HEADER_BYTES..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Attributes one after another: their types and values. Ends at the first that is not whole.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(ATTRIBUTE_HEADER_BYTES..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind & !(libc::NLA_F_NESTED as u16), value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::new();
        batch.message(7, libc::NLM_F_CREATE, &[1, 2, 3, 4], |message| {
            message.text(1, "name");
            message.nested(2, |inner| {
                inner.be16(3, 0x0102);
                inner.be32(4, 5);
            });
        });
        batch.message(8, 0, &[], |message| message.u32(9, 1));
        batch
    }

    #[test]
    fn what_was_built_is_read_back() {
        let batch = batch();
        let read: Vec<_> = messages(&batch.bytes).collect();
        assert_eq!(
            read.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
            [7, 8]
        );
        assert_eq!(read[0].1[..4], [1, 2, 3, 4]);
        let outer: Vec<_> = attributes(&read[0].1[4..]).collect();
        assert_eq!(outer[0], (1, b"name\0".as_slice()));
        assert_eq!(outer[1].0, 2);
        let inner: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!(
            inner,
            [(3, [1, 2].as_slice()), (4, [0, 0, 0, 5].as_slice())]
        );
    }

    #[test]
    fn only_the_last_message_so_far_is_acknowledged() {
        let mut batch = batch();
        batch.acknowledge_last();
        batch.message(9, 0, &[], |_| {});
        let flags: Vec<u16> = [6, batch.bytes.len() - HEADER_BYTES - 18, batch.last + 6]
            .map(|at| u16::from_ne_bytes([batch.bytes[at], batch.bytes[at + 1]]))
            .into();
        let asked = |flags: &u16| flags & libc::NLM_F_ACK as u16 != 0;
        assert_eq!(
            flags.iter().map(asked).collect::<Vec<_>>(),
            [false, true, false]
        );
    }

    #[test]
    fn what_is_not_whole_ends_the_reading() {
        let bytes = batch().bytes;
        for length in 0..bytes.len() {
            let read = messages(&bytes[..length]).count();
            assert!(read < 2, "{length} bytes of {}", bytes.len());
        }
        // A length of nothing would go round for ever.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }
}
