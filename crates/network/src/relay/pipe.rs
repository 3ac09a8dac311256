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

/// Pipes for the flows of a broker: a bounded number that are held, and fewer that nobody holds.
#[derive(Debug)]
pub(crate) struct PipePool {
    pipes: Mutex<Pipes>,
    keep: usize,
    most: usize,
}

#[derive(Debug, Default)]
struct Pipes {
    idle: Vec<Pipe>,
    held: usize,
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
    /// A pool that keeps up to `keep` empty pipes and lets up to `most` be held at a time.
    pub(crate) fn new(keep: usize, most: usize) -> Self {
        Self {
            pipes: Mutex::default(),
            keep,
            most,
        }
    }

    /// An empty pipe. An error of kind `Unsupported` says that there is none, for now or at all.
    pub(crate) fn take(&self) -> io::Result<HeldPipe<'_>> {
        let idle = {
            let mut pipes = self.pipes.lock().expect("no holder panics");
            if pipes.held >= self.most {
                return Err(io::Error::new(io::ErrorKind::Unsupported, NoPipe::Spent));
            }
            pipes.held += 1;
            pipes.idle.pop()
        };
        let mut held = HeldPipe {
            pool: self,
            pipe: idle,
            filled: 0,
        };
        if held.pipe.is_none() {
            let made = Pipe::new().map_err(NoPipe::Refused);
            held.pipe =
                Some(made.map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))?);
        }
        Ok(held)
    }
}

/// There is no pipe, so that bytes must be copied.
#[derive(Debug, thiserror::Error)]
enum NoPipe {
    #[error("as many pipes are held as may be")]
    Spent,
    #[error("the kernel made no pipe")]
    Refused(#[source] io::Error),
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

    pub(super) fn filled(&self) -> usize {
        self.filled
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
        let mut pipes = self.pool.pipes.lock().expect("no holder panics");
        pipes.held -= 1;
        let empty = self.pipe.take().filter(|_| self.filled == 0);
        if let Some(pipe) = empty
            && pipes.idle.len() < self.pool.keep
        {
            pipes.idle.push(pipe);
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

    fn idle(pool: &PipePool) -> usize {
        pool.pipes.lock().expect("no holder panics").idle.len()
    }

    #[test]
    fn no_more_pipes_are_held_than_allowed() -> io::Result<()> {
        let pool = PipePool::new(1, 2);
        let (first, _second) = (pool.take()?, pool.take()?);
        assert!(is_unavailable(&pool.take().expect_err("two are held")));
        drop(first);
        assert!(pool.take().is_ok());
        Ok(())
    }

    fn connected() -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((client, listener.accept()?.0))
    }

    #[test]
    fn a_pipe_that_holds_bytes_is_not_used_again() -> io::Result<()> {
        let pool = PipePool::new(8, 8);
        let (mut client, server) = connected()?;
        client.write_all(b"secret")?;
        server.set_nonblocking(false)?;
        let mut held = pool.take()?;
        held.fill(&server, 64)?;
        assert!(!held.is_empty());
        drop(held);
        assert!(idle(&pool) == 0);
        Ok(())
    }

    #[test]
    fn an_empty_pipe_goes_back_and_no_more_are_kept_than_allowed() -> io::Result<()> {
        let pool = PipePool::new(2, 8);
        let held = [pool.take()?, pool.take()?, pool.take()?];
        drop(held);
        assert_eq!(idle(&pool), 2);
        Ok(())
    }

    #[test]
    fn bytes_pass_through_a_pipe() -> io::Result<()> {
        let pool = PipePool::new(1, 1);
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
