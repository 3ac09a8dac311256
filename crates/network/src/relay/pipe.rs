//! Pipes for splicing, kept for the next flow once they are empty.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Mutex,
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

/// What is asked of the kernel for a pipe; it may grant less to an ordinary user.
const CAPACITY: usize = 256 * 1024;

/// Pipes that nobody holds, a bounded number of them.
#[derive(Debug)]
pub(crate) struct PipePool {
    idle: Mutex<Vec<Pipe>>,
    keep: usize,
}

#[derive(Debug)]
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    capacity: usize,
}

/// A pipe that one flow holds. It goes back to its pool if it is empty, and is closed otherwise:
/// the next flow must not get this one's bytes.
#[derive(Debug)]
pub(crate) struct HeldPipe<'a> {
    pool: &'a PipePool,
    pipe: Option<Pipe>,
    filled: usize,
}

impl PipePool {
    pub(crate) fn keeping(keep: usize) -> Self {
        Self {
            idle: Mutex::default(),
            keep,
        }
    }

    pub(crate) fn take(&self) -> io::Result<HeldPipe<'_>> {
        let idle = self.idle.lock().expect("no holder panics").pop();
        let pipe = match idle {
            Some(pipe) => pipe,
            None => Pipe::new()
                .map_err(|source| io::Error::new(io::ErrorKind::Unsupported, NoPipe { source }))?,
        };
        Ok(HeldPipe {
            pool: self,
            pipe: Some(pipe),
            filled: 0,
        })
    }
}

/// No pipe could be made, so that bytes must be copied.
#[derive(Debug, thiserror::Error)]
#[error("no pipe could be made")]
struct NoPipe {
    source: io::Error,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // An ordinary user has a quota of pages in pipes; past it the pipe stays as it is.
        let capacity = fcntl_setpipe_size(&into, CAPACITY).unwrap_or(64 * 1024);
        Ok(Self {
            out,
            into,
            capacity,
        })
    }
}

impl HeldPipe<'_> {
    fn pipe(&self) -> &Pipe {
        self.pipe.as_ref().expect("taken on drop only")
    }

    pub(super) fn capacity(&self) -> usize {
        self.pipe().capacity
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Takes what a socket has; nothing at its end.
    pub(super) fn fill(&mut self, from: impl AsFd, length: usize) -> io::Result<()> {
        self.filled = splice(from, None, &self.pipe().into, None, length, flags())?;
        Ok(())
    }

    /// Gives a socket what it takes.
    pub(super) fn empty_into(&mut self, to: impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.pipe().out, None, to, None, self.filled, flags())?;
        self.filled -= moved;
        Ok(moved)
    }
}

impl Drop for HeldPipe<'_> {
    fn drop(&mut self) {
        let Some(pipe) = self.pipe.take().filter(|_| self.filled == 0) else {
            return;
        };
        let mut idle = self.pool.idle.lock().expect("no holder panics");
        if idle.len() < self.pool.keep {
            idle.push(pipe);
        }
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

/// Whether bytes must be copied: the kernel does not splice these sockets, or has no pipe for us.
pub(super) fn is_unavailable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
        || error.raw_os_error() == Some(Errno::NOSYS.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, TcpListener, TcpStream},
    };

    use super::*;

    fn connected() -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((client, listener.accept()?.0))
    }

    #[test]
    fn a_pipe_that_holds_bytes_is_not_used_again() -> io::Result<()> {
        let pool = PipePool::keeping(8);
        let (mut client, server) = connected()?;
        client.write_all(b"secret")?;
        server.set_nonblocking(false)?;
        let mut held = pool.take()?;
        held.fill(&server, 64)?;
        assert!(!held.is_empty());
        drop(held);
        assert!(pool.idle.lock().expect("no holder panics").is_empty());
        Ok(())
    }

    #[test]
    fn an_empty_pipe_goes_back_and_no_more_are_kept_than_allowed() -> io::Result<()> {
        let pool = PipePool::keeping(2);
        let held = [pool.take()?, pool.take()?, pool.take()?];
        drop(held);
        assert_eq!(pool.idle.lock().expect("no holder panics").len(), 2);
        Ok(())
    }

    #[test]
    fn bytes_pass_through_a_pipe() -> io::Result<()> {
        let pool = PipePool::keeping(1);
        let (mut client, server) = connected()?;
        let (sink, mut reader) = connected()?;
        client.write_all(b"hello")?;
        let mut held = pool.take()?;
        held.fill(&server, 64)?;
        assert_eq!(held.empty_into(&sink)?, 5);
        let mut read = [0; 5];
        reader.read_exact(&mut read)?;
        assert_eq!(&read, b"hello");
        Ok(())
    }
}
