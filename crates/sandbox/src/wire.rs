//! What agent, launcher and the inits say to each other: one JSON value per packet of a
//! `SOCK_SEQPACKET` socket, with descriptors beside it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroup::Directory;
use crate::error::Failure;
use crate::network::Layout;
use crate::report::{Enforcement, Exit, ExitStatus, Exposed, HostReport, Usage};
use crate::spec::Spec;
use crate::tunnel::{InternetFamily, TunnelNetwork};

/// A packet up to this size travels in the socket; a larger one in a memory file beside it.
const INLINE_BYTES: usize = 32 * 1024;
/// The most that a packet in a memory file may hold.
const MAX_PACKET_BYTES: u64 = 16 << 20;
/// `SCM_MAX_FD`.
const MAX_DESCRIPTORS: usize = 253;

/// Agent to launcher, first of all: until then the launcher does nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start;

/// Agent to launcher, on the control socket. Descriptors beside `Launch`: session, stdin, stdout,
/// stderr; beside `Sweep`: where to answer; beside `Tunnel`: session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Launch(Box<Spec>),
    Sweep,
    Tunnel(TunnelNetwork),
}

/// Launcher to agent: `Host` on the control socket when it is ready, the others on a session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Host(Box<HostReport>),
    /// The payload runs; the directories of its control group are beside it, then what the
    /// init sent.
    Launched {
        pid: i32,
        enforcement: Box<Enforcement>,
        group: Vec<Directory>,
        intercepted: Option<Layout>,
    },
    /// The process inside a tunnel's namespace is ready; the device is beside it.
    Tunnel {
        pid: i32,
    },
    NameInUse,
    NoUserNamespaces {
        reason: String,
        remedy: String,
    },
    Failed(Failure),
    /// The init died before the payload ran.
    Died,
    Exited(Exit),
    Swept {
        removed: u32,
        left: Vec<String>,
    },
}

/// Agent to launcher, on a session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    Signal(i32),
    Kill,
}

/// Launcher to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitOrder {
    /// Identity is mapped, control group is ready.
    Go,
    Signal(i32),
    /// Kill all of the tree; for isolation without a process namespace.
    Kill,
}

/// Init to launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitReport {
    /// The payload runs; the listeners are beside it, then what is intercepted.
    Ready {
        landlock: bool,
        exposed: Exposed,
        intercepted: Option<Layout>,
    },
    Failed(Failure),
    Exited {
        status: ExitStatus,
        usage: Usage,
    },
}

/// Agent to the process inside a tunnel's namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InsideOrder {
    TcpSocket(InternetFamily),
}

/// And back.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InsideReply {
    /// It is beside this.
    Socket,
    /// With this number of an error.
    Failed(i32),
}

/// Two connected sockets that keep packets apart.
pub(crate) fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Sends a value with descriptors beside it.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    value: &T,
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|_| Errno::INVAL)?;
    if bytes.len() <= INLINE_BYTES {
        return send_bytes(socket.as_fd(), &bytes, descriptors, flags);
    }
    // An empty packet says: the value is in the memory file that comes last.
    let file = rustix::fs::memfd_create(c"barecount-request", MemfdFlags::CLOEXEC)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    let mut with_file = descriptors.to_vec();
    with_file.push(file.as_fd());
    send_bytes(socket.as_fd(), b" ", &with_file, flags)
}

fn send_bytes(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOMANYREFS);
    }
    let flags = flags | SendFlags::NOSIGNAL;
    retry(|| rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, flags)).map(drop)
}

/// Receives the next value; `None` when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; INLINE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let length = loop {
        match rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut beside,
            flags,
        ) {
            Ok(message) => break message.bytes,
            // The other side closed with something of ours unread; told once, and before what it
            // sent last.
            Err(Errno::CONNRESET | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    bytes.truncate(length);
    if bytes == b" " {
        bytes = read_file(&descriptors.pop().ok_or(Errno::BADMSG)?)?;
    }
    let value = serde_json::from_slice(&bytes).map_err(|_| Errno::BADMSG)?;
    Ok(Some((value, descriptors)))
}

fn read_file(file: &OwnedFd) -> Result<Vec<u8>> {
    let size = rustix::fs::seek(file, SeekFrom::End(0))?;
    if size > MAX_PACKET_BYTES {
        return Err(Errno::MSGSIZE);
    }
    let mut bytes = vec![0; size as usize];
    let mut at = 0;
    while at < bytes.len() {
        match rustix::io::pread(file, &mut bytes[at..], at as u64)? {
            0 => return Err(Errno::BADMSG),
            read => at += read,
        }
    }
    Ok(bytes)
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
