//! The process that keeps a tunnel's namespace: it makes the TUN device there, hands it to the
//! agent, and then opens sockets there on demand, since only a process inside can.
//!
//! A fork of the launcher. It reads nothing but what the agent asks, has given up every capability
//! before it is asked the first time, and ends when the agent closes its socket or the launcher
//! dies, whichever it hears of first.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};

use super::readable;
use crate::error::{Failure, InStep, Step};
use crate::init;
use crate::netlink::{Batch, Channel};
use crate::rtnetlink::{self, Route};
use crate::sys::{self, Forked};
use crate::tunnel::{InternetFamily, TunnelNetwork};
use crate::wire::{self, Answer, InsideOrder, InsideReply};

const DEVICE: &str = "/dev/net/tun";
/// What the device is called inside.
const NAME: &std::ffi::CStr = c"tunnel";
const NAMESPACES: u64 = (libc::CLONE_NEWUSER | libc::CLONE_NEWNET) as u64;

/// Forks the process; it answers on `session` itself. In the child this does not return.
pub(super) fn start(network: &TunnelNetwork, session: &OwnedFd) -> Result<(Pid, OwnedFd), Failure> {
    let launcher = rustix::process::getpid();
    match readable::fork(NAMESPACES, None).step(Step::CreateNamespaces)? {
        Forked::Child => run(network, session, launcher),
        Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}

fn run(network: &TunnelNetwork, session: &OwnedFd, launcher: Pid) -> ! {
    sys::close_all_but(&mut [session.as_raw_fd()]);
    _ = rustix::thread::set_name(c"barecount-tun");
    let told = match prepare(network, launcher) {
        Ok(device) => {
            let pid = rustix::process::getpid().as_raw_nonzero().get();
            let ready = Answer::Tunnel { pid };
            wire::send(session, &ready, &[device.as_fd()], SendFlags::empty())
        }
        Err(failure) => {
            // Should the agent be gone, nobody is left to be told.
            _ = wire::send(session, &Answer::Failed(failure), &[], SendFlags::empty());
            sys::exit_now(1)
        }
    };
    let served = told.and_then(|()| serve(session));
    sys::exit_now(i32::from(served.is_err()))
}

fn prepare(network: &TunnelNetwork, launcher: Pid) -> Result<OwnedFd, Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step(Step::TieLife)?;
    if rustix::process::getppid() != Some(launcher) {
        // It died before that, so that no signal will come.
        sys::exit_now(1);
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let device = rustix::fs::open(DEVICE, flags, Mode::empty()).step_at(Step::OpenTun, DEVICE)?;
    sys::make_tun(device.as_fd(), NAME).step(Step::MakeTun)?;
    configure(network).step(Step::ConfigureTun)?;
    init::drop_capabilities()?;
    Ok(device)
}

/// Sets addresses and routes, all in one packet. Loopback stays down: nothing is served here.
fn configure(network: &TunnelNetwork) -> rustix::io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let any = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    let name = NAME.to_str().map_err(|_| rustix::io::Errno::INVAL)?;
    let device = rustix::net::netdevice::name_to_index(&any, name)?;
    let kernel = Channel::open(None)?;
    let mut batch = Batch::new();
    rtnetlink::generate_no_addresses(&mut batch, device);
    batch.acknowledge_last();
    match kernel.carry_out(&batch) {
        // A kernel without IPv6 generates none.
        Ok(()) | Err(rustix::io::Errno::AFNOSUPPORT) => {}
        Err(errno) => return Err(errno),
    }
    let mut batch = Batch::new();
    rtnetlink::bring_up(&mut batch, device, network.mtu);
    for &address in &network.addresses {
        rtnetlink::add_address(&mut batch, device, address);
    }
    let mut routes = network.routes.clone();
    routes.sort_unstable();
    routes.dedup();
    for prefix in routes {
        let (to, length) = (prefix.address, prefix.length);
        // Without an address of its family nothing could be sent there.
        if network
            .addresses
            .iter()
            .any(|own| own.is_ipv4() == to.is_ipv4())
        {
            rtnetlink::add_route(&mut batch, Route { to, length, device });
        }
    }
    batch.acknowledge_last();
    kernel.carry_out(&batch)
}

/// Opens sockets until the agent is gone.
fn serve(session: &OwnedFd) -> rustix::io::Result<()> {
    while let Some((InsideOrder::TcpSocket(family), _)) =
        wire::receive(session, RecvFlags::empty())?
    {
        match open(family) {
            Ok(socket) => {
                let beside = [socket.as_fd()];
                wire::send(session, &InsideReply::Socket, &beside, SendFlags::empty())?;
            }
            Err(errno) => {
                let failed = InsideReply::Failed(errno.raw_os_error());
                wire::send(session, &failed, &[], SendFlags::empty())?;
            }
        }
    }
    Ok(())
}

fn open(family: InternetFamily) -> rustix::io::Result<OwnedFd> {
    let family = match family {
        InternetFamily::V4 => AddressFamily::INET,
        InternetFamily::V6 => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}
