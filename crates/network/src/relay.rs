//! Carrying bytes both ways between the work and a destination.
//!
//! Between two sockets of the kernel's, what is long goes through a pipe without being copied
//! (splice(2)); a pipe is held only while it has something in it. What is short is copied, which
//! takes fewer calls of the kernel. Each direction ends by itself; an error, or silence for too
//! long, ends both.

mod pipe;

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};

use barecount_model::manifest::EgressProtocol;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::Instant,
};

pub(crate) use self::pipe::PipePool;
use crate::{
    inspect::{self, MAX_HEAD, http::Requests},
    limit::Rate,
    path::{Connection, close_gently},
    reason::Reason,
    record::Meter,
};

/// What is copied at once where nothing can be spliced.
const COPY_BUFFER: usize = 16 * 1024;
/// What fills this much at once is long: the rest is spliced, until an eighth of it comes.
const SHORT: usize = 8 * 1024;

/// What a relay needs besides the two ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) meter: &'a Meter,
    pub(crate) pipes: &'a PipePool,
    pub(crate) pace: Option<&'a Rate>,
    pub(crate) idle: Duration,
}

/// What is done with the bytes from the work.
#[derive(Debug)]
pub(crate) enum Upward<'a> {
    /// The first have been read already, and so many of them sent; the rest passes untouched.
    Pass { first: Vec<u8>, sent: usize },
    /// Every request is looked at.
    Requests(Opened),
    /// The first bytes tell what is spoken; nothing is held back.
    Guess(&'a OnceLock<EgressProtocol>),
}

/// Requests of which the first has been looked at.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) requests: Requests,
    /// What is to be passed on.
    pub(crate) ready: Vec<u8>,
    /// What was read and not taken yet.
    pub(crate) held: Vec<u8>,
}

/// Why a relay ended other than by both sides being done.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Nothing was carried for too long.
    Idle,
    /// A connection failed.
    Lost(io::Error),
    /// A request is not for the declared host.
    Violation(Reason),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Carries bytes until both directions have ended, and closes both sockets. They come here such that
/// dropping them resets them; that is lifted at a good end, so that neither side ever takes a cut for
/// an end.
pub(crate) async fn relay(
    mut inside: TcpStream,
    outside: Connection,
    upward: Upward<'_>,
    terms: Terms<'_>,
) -> Result<(), Broken> {
    let last = Activity::new();
    let up = Lane::new(terms.meter.up(), &last, terms);
    let down = Lane::new(terms.meter.down(), &last, terms);
    match outside {
        Connection::Tcp(mut outside) => {
            let (mut from_work, mut to_work) = inside.split();
            let (mut from_there, mut to_there) = outside.split();
            let up = up.carry_up(&mut from_work, &mut to_there, upward);
            let down = async {
                down.pass(&mut from_there, &mut to_work).await?;
                Ok(())
            };
            until_idle(&last, terms.idle, async { tokio::try_join!(up, down) }).await?;
            close_gently(&outside);
        }
        Connection::Stream(stream) => {
            let (mut from_work, mut to_work) = inside.split();
            let (mut from_there, mut to_there) = tokio::io::split(stream);
            let up = up.carry_up_copied(&mut from_work, &mut to_there, upward);
            let down = async {
                down.copy(&mut from_there, &mut to_work).await?;
                Ok(())
            };
            until_idle(&last, terms.idle, async { tokio::try_join!(up, down) }).await?;
        }
    }
    close_gently(&inside);
    Ok(())
}

/// When something was last carried, and how far a relay has ended.
#[derive(Debug)]
struct Activity {
    start: Instant,
    last_ms: AtomicU64,
    /// Whether one direction has ended.
    half_ended: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
            half_ended: AtomicBool::new(false),
        }
    }

    fn touch(&self) {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(passed, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// Runs `work` until it ends or nothing has been carried for `idle`. One timer for a connection,
/// which bytes do not touch.
async fn until_idle<T>(
    activity: &Activity,
    idle: Duration,
    work: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    let silence = async {
        loop {
            let deadline = activity.last() + idle;
            if Instant::now() >= deadline {
                return Broken::Idle;
            }
            tokio::time::sleep_until(deadline).await;
        }
    };
    tokio::select! {
        biased;
        ended = work => ended,
        broken = silence => Err(broken),
    }
}

/// One direction.
#[derive(Debug, Clone, Copy)]
struct Lane<'a> {
    moved: &'a AtomicU64,
    activity: &'a Activity,
    terms: Terms<'a>,
}

impl<'a> Lane<'a> {
    fn new(moved: &'a AtomicU64, activity: &'a Activity, terms: Terms<'a>) -> Self {
        Self {
            moved,
            activity,
            terms,
        }
    }

    async fn carry_up(
        &self,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        upward: Upward<'_>,
    ) -> Result<(), Broken> {
        if self.begin_up(from, to, upward).await? {
            self.pass(from, to).await?;
        }
        Ok(())
    }

    async fn carry_up_copied(
        &self,
        from: &mut ReadHalf<'_>,
        to: &mut (impl AsyncWrite + Unpin),
        upward: Upward<'_>,
    ) -> Result<(), Broken> {
        if self.begin_up(from, to, upward).await? {
            self.copy(from, to).await?;
        }
        Ok(())
    }

    /// Carries what has to be looked at; whether there is more, which has not.
    async fn begin_up(
        &self,
        from: &mut ReadHalf<'_>,
        to: &mut (impl AsyncWrite + Unpin),
        upward: Upward<'_>,
    ) -> Result<bool, Broken> {
        match upward {
            Upward::Pass { first, sent } => {
                self.count(sent).await;
                self.write(to, &first[sent..]).await?;
            }
            Upward::Requests(opened) => {
                self.requests(from, to, opened).await?;
                return Ok(false);
            }
            Upward::Guess(guess) => self.guess(from, guess).await?,
        }
        Ok(true)
    }

    async fn guess(
        &self,
        from: &mut ReadHalf<'_>,
        guess: &OnceLock<EgressProtocol>,
    ) -> io::Result<()> {
        let mut first = [0; 16];
        let length = from.peek(&mut first).await?;
        let _ = guess.set(inspect::guess(&first[..length]));
        Ok(())
    }

    /// Passes on requests for the declared host, until there is one that is not.
    async fn requests(
        &self,
        from: &mut ReadHalf<'_>,
        to: &mut (impl AsyncWrite + Unpin),
        opened: Opened,
    ) -> Result<(), Broken> {
        let Opened {
            mut requests,
            mut ready,
            mut held,
        } = opened;
        loop {
            let taken = requests.advance(&held, &mut ready);
            held.drain(..taken.map_err(Broken::Violation)?);
            self.write(to, &ready).await?;
            ready.clear();
            if held.is_empty() {
                // Nothing is kept while nothing comes.
                (held, ready) = (Vec::new(), Vec::new());
                from.readable().await?;
            }
            held.reserve(COPY_BUFFER);
            let room = MAX_HEAD.saturating_sub(held.len()).clamp(1, COPY_BUFFER);
            if (&mut *from).take(room as u64).read_buf(&mut held).await? == 0 {
                to.shutdown().await?;
                return Ok(());
            }
        }
    }

    async fn write(&self, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        to.write_all(bytes).await?;
        to.flush().await?;
        self.count(bytes.len()).await;
        Ok(())
    }

    async fn count(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        self.activity.touch();
        if let Some(pace) = self.terms.pace {
            pace.spend(bytes).await;
        }
    }

    fn portion(&self, most: usize) -> usize {
        self.terms.pace.map_or(most, |pace| pace.portion(most))
    }

    async fn copy(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let mut buffer = vec![0; self.portion(COPY_BUFFER)];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            self.write(to, &buffer[..length]).await?;
        }
    }

    /// Moves bytes from socket to socket, until the end.
    async fn pass(&self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> io::Result<()> {
        while self.copy_short(from, to).await? {
            if !self.splice_long(from, to).await? {
                return self.copy(from, to).await;
            }
        }
        if self.activity.half_ended.swap(true, Ordering::Relaxed) {
            // Both have: closing the sockets, which is next, says the same.
            return Ok(());
        }
        to.shutdown().await
    }

    /// Copies as long as little comes at a time; whether there is more.
    async fn copy_short(
        &self,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
    ) -> io::Result<bool> {
        let most = self.portion(SHORT);
        loop {
            let mut rest = Vec::new();
            let (length, written) = poll_fn(|context| {
                // On the stack, so that a connection that waits holds no memory for it.
                let mut bytes = [MaybeUninit::uninit(); SHORT];
                let mut read = ReadBuf::uninit(&mut bytes[..most]);
                ready!(Pin::new(&mut *from).poll_read(context, &mut read))?;
                let bytes = read.filled();
                if bytes.is_empty() {
                    return Poll::Ready(Ok((0, 0)));
                }
                let written = match to.try_write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    written => written?,
                };
                rest.extend_from_slice(&bytes[written..]);
                Poll::Ready(io::Result::Ok((bytes.len(), written)))
            })
            .await?;
            if length == 0 {
                return Ok(false);
            }
            self.count(written).await;
            self.write(to, &rest).await?;
            if length == most {
                return Ok(true);
            }
        }
    }

    /// Splices as long as much comes at a time. False where the kernel does not splice, or has no
    /// pipe left for us.
    async fn splice_long(
        &self,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
    ) -> io::Result<bool> {
        loop {
            let source: &TcpStream = from.as_ref();
            let filled = source
                .async_io(Interest::READABLE, || {
                    let mut pipe = self.terms.pipes.take()?;
                    let length = self.portion(pipe.capacity());
                    pipe.fill(source, length)?;
                    Ok(pipe)
                })
                .await;
            let mut pipe = match filled {
                Ok(pipe) => pipe,
                Err(error) if pipe::is_unavailable(&error) => return Ok(false),
                Err(error) => return Err(error),
            };
            let is_short = pipe.filled() < SHORT / 8;
            let sink: &TcpStream = to.as_ref();
            while !pipe.is_empty() {
                let length = sink
                    .async_io(Interest::WRITABLE, || pipe.empty_into(sink))
                    .await?;
                // Counted here and not at the end, so that what a slow reader took shows.
                self.moved.fetch_add(length as u64, Ordering::Relaxed);
                self.activity.touch();
                if let Some(pace) = self.terms.pace {
                    pace.spend(length).await;
                }
            }
            if is_short {
                // Also at the end, which copying finds again.
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_relay_after_its_time_and_not_before() {
        let activity = Activity::new();
        let start = Instant::now();
        let ended = until_idle(
            &activity,
            IDLE,
            std::future::pending::<Result<(), Broken>>(),
        )
        .await;
        assert!(matches!(ended, Err(Broken::Idle)));
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn traffic_keeps_a_relay_open() {
        let activity = Activity::new();
        let talks = async {
            for _ in 0..10 {
                tokio::time::sleep_until(Instant::now() + Duration::from_secs(50)).await;
                activity.touch();
            }
            std::future::pending::<Result<(), Broken>>().await
        };
        let start = Instant::now();
        let ended = until_idle(&activity, IDLE, talks).await;
        assert!(matches!(ended, Err(Broken::Idle)));
        assert_eq!(start.elapsed().as_secs(), 560);
    }

    async fn connected() -> io::Result<(TcpStream, TcpStream)> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        Ok((client, listener.accept().await?.0))
    }

    #[tokio::test]
    async fn what_cannot_be_spliced_is_copied() -> Result<(), Box<dyn std::error::Error>> {
        let (mut work, inside) = connected().await?;
        let (outside, mut there) = connected().await?;
        let (meter, pipes) = (Meter::default(), PipePool::new(0, 0));
        let terms = Terms {
            meter: &meter,
            pipes: &pipes,
            pace: None,
            idle: IDLE,
        };
        let first = Upward::Pass {
            first: b"first, ".to_vec(),
            sent: 0,
        };
        let relayed = relay(inside, Connection::Tcp(outside), first, terms);
        let talk = async {
            work.write_all(b"then the rest").await?;
            work.shutdown().await?;
            let (mut up, mut down) = (Vec::new(), Vec::new());
            there.read_to_end(&mut up).await?;
            there.write_all(&up).await?;
            there.shutdown().await?;
            work.read_to_end(&mut down).await?;
            Ok::<_, io::Error>(down)
        };
        let (relayed, echoed) = tokio::join!(relayed, talk);
        assert!(relayed.is_ok(), "{relayed:?}");
        assert_eq!(echoed?, b"first, then the rest");
        assert_eq!(meter.read(), (20, 20));
        Ok(())
    }

    #[tokio::test]
    async fn what_is_short_and_what_is_long_arrives_in_order()
    -> Result<(), Box<dyn std::error::Error>> {
        let (mut work, inside) = connected().await?;
        let (outside, mut there) = connected().await?;
        let (meter, pipes) = (Meter::default(), PipePool::new(2, 2));
        let terms = Terms {
            meter: &meter,
            pipes: &pipes,
            pace: None,
            idle: IDLE,
        };
        let nothing = Upward::Pass {
            first: Vec::new(),
            sent: 0,
        };
        let relayed = relay(inside, Connection::Tcp(outside), nothing, terms);
        // Each of another length, around what is copied at once, and far beyond it.
        let lengths = [
            1,
            SHORT - 1,
            SHORT,
            SHORT + 1,
            1,
            600 * 1024,
            3,
            2 * SHORT,
            200_000,
        ];
        let talk = async {
            for (number, length) in (0_u8..).zip(lengths) {
                let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ number).collect();
                let mut heard = vec![0; length];
                let send = async {
                    work.write_all(&sent).await?;
                    work.flush().await
                };
                tokio::try_join!(send, there.read_exact(&mut heard))?;
                assert!(heard == sent, "message {number}");
                there.write_all(&[number]).await?;
                assert_eq!(work.read_u8().await?, number);
            }
            work.shutdown().await?;
            assert_eq!(there.read(&mut [0]).await?, 0);
            there.shutdown().await?;
            assert_eq!(work.read(&mut [0]).await?, 0);
            Ok::<_, io::Error>(())
        };
        let (relayed, talked) = tokio::join!(relayed, talk);
        talked?;
        assert!(relayed.is_ok(), "{relayed:?}");
        let all = lengths.iter().sum::<usize>() as u64;
        assert_eq!(meter.read(), (all, lengths.len() as u64));
        Ok(())
    }
}
