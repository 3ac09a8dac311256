//! How much the kernel may hold for relayed connections.
//!
//! It is memory of the agent's and of no control group of the work's: who opens connections and reads
//! nothing fills four buffers with each. Left alone, the kernel gives each up to megabytes. The first
//! connections of an attempt are left alone, since a long way needs big buffers; the more there are,
//! the less each has.

use std::{io, os::fd::AsFd};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

/// Up to so many connections open, a new one has buffers as the kernel likes.
const LEFT_ALONE: usize = 16;
/// Up to so many, it has some of [`SOME`]; beyond, of [`FEW`].
const WITH_SOME: usize = 128;
/// Bytes to receive and to send. The kernel holds twice as much, for what it needs besides.
const SOME: (usize, usize) = (256 * 1024, 256 * 1024);
/// A segment over loopback has 64 KiB: what receives less than that at a time stalls.
const FEW: (usize, usize) = (64 * 1024, 32 * 1024);

/// Bounds the buffers of a socket of a connection, with which so many are open.
pub(crate) fn bound(socket: impl AsFd, open: usize) -> io::Result<()> {
    if open <= LEFT_ALONE {
        return Ok(());
    }
    let (receive, send) = if open <= WITH_SOME { SOME } else { FEW };
    set_socket_recv_buffer_size(&socket, receive)?;
    set_socket_send_buffer_size(&socket, send)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use rustix::net::sockopt::{socket_recv_buffer_size, socket_send_buffer_size};

    use super::*;

    #[test]
    fn the_more_are_open_the_less_a_new_one_holds() -> io::Result<()> {
        let sizes = |open| {
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            bound(&socket, open)?;
            let held = socket_recv_buffer_size(&socket)? + socket_send_buffer_size(&socket)?;
            io::Result::Ok(held)
        };
        assert!(sizes(LEFT_ALONE + 1)? <= 1 << 20);
        assert!(sizes(WITH_SOME + 1)? <= 192 * 1024);
        Ok(())
    }
}
