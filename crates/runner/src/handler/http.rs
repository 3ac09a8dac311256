//! The Runtime API over HTTP/1.1, on a listening socket that was opened inside the sandbox.
//!
//! The one who connects is the work itself, and hostile: connections, headers and bodies are
//! bounded, one body is read at a time, and requests are taken at a pace: answering them is the
//! agent's work, outside of what the stage may use.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore},
    task::JoinSet,
};

use super::{
    pace::Pace,
    protocol::{Conversation, Invocation, PAYLOAD_MAX, Refusal},
};

/// Connections at a time. Published clients use one or two.
const CONNECTIONS: usize = 16;
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 * 1024;
/// The largest body of an error report.
const ERROR_BODY_MAX: usize = 256 * 1024;
/// How much of a body that is too large is read and dropped, so that its sender gets to read why.
const DISCARD_MAX: usize = 4 * PAYLOAD_MAX;

const PREFIX: &str = "/2018-06-01/runtime/";
const ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-runtime-function-error-type");

type Answer = Response<Full<Bytes>>;

#[derive(Debug)]
struct Endpoint {
    conversation: Arc<Conversation>,
    /// Held while a body is read: what is kept in memory does not grow with the connections.
    reading: Mutex<()>,
    pace: Pace,
}

/// Serves one function process until it is dropped, which closes its connections.
pub(super) async fn serve(listener: TcpListener, conversation: Arc<Conversation>) {
    let endpoint = Arc::new(Endpoint {
        conversation,
        reading: Mutex::new(()),
        pace: Pace::new(),
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Further connections wait in the kernel's bounded queue.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!(%error, "a function's connection could not be taken");
                return;
            }
        };
        while connections.try_join_next().is_some() {}
        endpoint.pace.take().await;
        let endpoint = endpoint.clone();
        connections.spawn(async move {
            connection(stream, endpoint).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, endpoint: Arc<Endpoint>) {
    // Requests are small and answered one by one: nothing is gained by waiting for more.
    drop(stream.set_nodelay(true));
    let conversation = endpoint.conversation.clone();
    let service = service_fn(move |request| {
        let endpoint = endpoint.clone();
        async move { Ok::<_, Infallible>(endpoint.answer(request).await) }
    });
    let served = http1::Builder::new()
        // Between two requests on one connection lies the function's work, which takes as long as
        // its attempt may. Idle connections are bounded by their number, and end with the process.
        .header_read_timeout(None)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        if error.is_parse() {
            conversation.misbehave();
        }
        tracing::debug!(%error, "a function's connection ended early");
    }
}

impl Endpoint {
    /// Answers a request when its turn comes. Who goes on asking for what is refused loses the
    /// connection each time, and serves no other attempt.
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        self.pace.take().await;
        let mut answer = self.routed(request).await;
        if answer.status().is_client_error() && self.pace.refuse() {
            self.conversation.misbehave();
            let headers = answer.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn routed(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let Some(path) = path.strip_prefix(PREFIX) else {
            return not_found();
        };
        let mut parts = path.split('/');
        let route = (parts.next(), parts.next(), parts.next(), parts.next());
        let method = request.method().clone();
        match (method, route) {
            (Method::GET, (Some("invocation"), Some("next"), None, None)) => self.next().await,
            (Method::POST, (Some("invocation"), Some(id), Some("response"), None)) => {
                self.response(id, request).await
            }
            (Method::POST, (Some("invocation"), Some(id), Some("error"), None)) => {
                self.error(Some(id), request).await
            }
            (Method::POST, (Some("init"), Some("error"), None, None)) => {
                self.error(None, request).await
            }
            _ => not_found(),
        }
    }

    async fn next(&self) -> Answer {
        match self.conversation.next().await {
            Ok(invocation) => {
                self.pace.renew();
                event(invocation)
            }
            Err(refusal) => refused(refusal),
        }
    }

    async fn response(&self, id: &str, request: Request<Incoming>) -> Answer {
        if let Err(refusal) = self.conversation.expects(id) {
            return refused(refusal);
        }
        let _one_at_a_time = self.reading.lock().await;
        match read(request.into_body(), PAYLOAD_MAX, &self.pace).await {
            // A function that streams may fail half-way, and says so in a trailer.
            Ok(Read {
                bytes,
                failed: Some(error_type),
            }) => taken(self.conversation.fail(id, Some(&error_type), &bytes)),
            Ok(Read {
                bytes,
                failed: None,
            }) => {
                let result = self.conversation.respond(id, &bytes);
                // Whoever waits for the answer goes on before the function hears that it came.
                tokio::task::yield_now().await;
                taken(result)
            }
            Err(Unread::TooLarge) => refused(self.conversation.overflow(id)),
            Err(Unread::Broken) => self.broken(),
        }
    }

    fn broken(&self) -> Answer {
        self.conversation.misbehave();
        bad_request()
    }

    async fn error(&self, id: Option<&str>, request: Request<Incoming>) -> Answer {
        if let Some(id) = id
            && let Err(refusal) = self.conversation.expects(id)
        {
            return refused(refusal);
        }
        let header = error_type(request.headers());
        let header = header.as_deref();
        let _one_at_a_time = self.reading.lock().await;
        let body = match read(request.into_body(), ERROR_BODY_MAX, &self.pace).await {
            Ok(read) => read.bytes,
            // The error counts even where its description is beyond bounds.
            Err(Unread::TooLarge) => {
                Bytes::from_static(b"the description of the error is too large")
            }
            Err(Unread::Broken) => return self.broken(),
        };
        taken(match id {
            Some(id) => self.conversation.fail(id, header, &body),
            None => self.conversation.fail_init(header, &body),
        })
    }
}

struct Read {
    bytes: Bytes,
    failed: Option<String>,
}

enum Unread {
    TooLarge,
    Broken,
}

/// Reads a body into one piece of memory: each piece in which it comes keeps what it was received in,
/// so that a body that comes byte by byte would take many times its size.
async fn read<B>(mut body: B, limit: usize, pace: &Pace) -> Result<Read, Unread>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut bytes = Vec::new();
    let mut failed = None;
    while let Some(frame) = body.frame().await {
        pace.take_part().await;
        let frame = frame.map_err(|_| Unread::Broken)?;
        match frame.into_data() {
            Ok(data) if data.len() > limit - bytes.len() => {
                discard(body, pace).await;
                return Err(Unread::TooLarge);
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => failed = frame.trailers_ref().and_then(error_type).or(failed),
        }
    }
    Ok(Read {
        bytes: bytes.into(),
        failed,
    })
}

/// The type of an error that a function reports in a header or a trailer.
fn error_type(headers: &HeaderMap) -> Option<String> {
    let told = headers.get(ERROR_TYPE)?.to_str();
    told.ok().map(str::to_owned)
}

async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B, pace: &Pace) {
    let mut left = DISCARD_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        pace.take_part().await;
        let size = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn event(invocation: Invocation) -> Answer {
    let mut response = json(StatusCode::OK, invocation.payload);
    let mut set = |name: &'static str, value: String| {
        // Our own ids and numbers are always valid header values.
        if let Ok(value) = HeaderValue::try_from(value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    };
    set("lambda-runtime-aws-request-id", invocation.id);
    set(
        "lambda-runtime-deadline-ms",
        invocation.deadline_ms.to_string(),
    );
    set("lambda-runtime-invoked-function-arn", invocation.function);
    if let Some(trace) = invocation.trace {
        set("lambda-runtime-trace-id", trace);
    }
    response
}

fn taken(result: Result<(), Refusal>) -> Answer {
    match result {
        Ok(()) => json(
            StatusCode::ACCEPTED,
            Bytes::from_static(b"{\"status\":\"OK\"}\n"),
        ),
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::InvalidRequestId => error(
            StatusCode::BAD_REQUEST,
            "InvalidRequestID",
            "no invocation with this request id is being served",
        ),
        Refusal::InvalidStateTransition => error(
            StatusCode::FORBIDDEN,
            "InvalidStateTransition",
            "this request does not follow from the ones before",
        ),
        Refusal::TooLarge => error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            "the payload is larger than 6 MiB",
        ),
    }
}

fn bad_request() -> Answer {
    error(
        StatusCode::BAD_REQUEST,
        "InvalidRequest",
        "the body could not be read",
    )
}

fn not_found() -> Answer {
    error(
        StatusCode::NOT_FOUND,
        "NotFound",
        "the Runtime API 2018-06-01 has no such path",
    )
}

fn error(status: StatusCode, error_type: &str, message: &str) -> Answer {
    let body = serde_json::json!({ "errorType": error_type, "errorMessage": message });
    json(status, Bytes::from(body.to_string()))
}

fn json(status: StatusCode, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        pin::Pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Poll},
        time::Duration,
    };

    use hyper::body::Frame;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::*;

    /// A body that comes in these pieces, each of which is received in its own kibibyte.
    struct Pieces(usize, Arc<AtomicUsize>);

    /// What a piece was received in; counts how many of these there are at once.
    struct Received([u8; 1024], Arc<AtomicUsize>);

    impl AsRef<[u8]> for Received {
        fn as_ref(&self) -> &[u8] {
            &self.0[..1]
        }
    }

    impl Drop for Received {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some(left) = self.0.checked_sub(1) else {
                return Poll::Ready(None);
            };
            self.0 = left;
            let before = self.1.fetch_add(1, Ordering::Relaxed);
            assert!(before < 16, "what came is kept as it came");
            let piece = Bytes::from_owner(Received([b'7'; 1024], self.1.clone()));
            Poll::Ready(Some(Ok(Frame::data(piece))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_takes_the_memory_of_its_bytes_however_it_comes() {
        let body = Pieces(1 << 16, Arc::default());
        let pace = Pace::new();
        let read = read(body, 1 << 16, &pace).await;
        assert!(read.is_ok_and(|read| read.bytes == vec![b'7'; 1 << 16]));
        let body = Pieces(1 << 16, Arc::default());
        let read = super::read(body, (1 << 16) - 1, &pace).await;
        assert!(matches!(read, Err(Unread::TooLarge)));
    }

    async fn exchange(stream: &mut TcpStream, request: String) -> io::Result<String> {
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 2048];
        let length = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    fn task(number: u32) -> Invocation {
        Invocation {
            id: format!("task-{number}"),
            deadline_ms: 0,
            function: "arn".to_owned(),
            trace: None,
            payload: Bytes::from_static(b"{}"),
        }
    }

    /// Sends so many requests for what there is not at once, and counts those that were answered
    /// before the connection was closed.
    async fn flood(address: SocketAddr, requests: usize) -> io::Result<usize> {
        let mut stream = TcpStream::connect(address).await?;
        let all = "GET /x HTTP/1.1\r\nhost: a\r\n\r\n".repeat(requests);
        // Of one that is closed meanwhile the rest is lost.
        drop(stream.write_all(all.as_bytes()).await);
        let mut answers = Vec::new();
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut part).await {
            answers.extend_from_slice(&part[..length]);
        }
        let text = String::from_utf8_lossy(&answers);
        Ok(text.matches("HTTP/1.1 404").count())
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_requests_waits_where_it_costs_the_agent_nothing() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let conversation = Arc::new(Conversation::new());
        let server = tokio::spawn(serve(listener, conversation.clone()));
        // What is refused costs the connection after some tries, and its process its future.
        let first = flood(address, 64).await?;
        assert!((16..64).contains(&first), "{first} were answered");
        assert!(conversation.misbehaved());
        let before = Instant::now();
        let mut answered = 0;
        for _ in 0..1_000 {
            answered += flood(address, 8).await?;
        }
        let seconds = before.elapsed().as_secs_f64();
        assert_eq!(answered, 1_000, "one on each connection");
        assert!(seconds > 15.0, "2,000 were taken within {seconds} s");
        // Whoever is given an event does not wait for what was asked before.
        let _outcome = conversation.invoke(task(1));
        let mut stream = TcpStream::connect(address).await?;
        let next = format!("GET {PREFIX}invocation/next HTTP/1.1\r\nhost: a\r\n\r\n");
        let event = exchange(&mut stream, next).await?;
        assert!(event.starts_with("HTTP/1.1 200"), "{event}");
        let before = Instant::now();
        let again = flood(address, 64).await?;
        assert_eq!(again, first);
        assert_eq!(before.elapsed(), Duration::ZERO);
        server.abort();
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn work_of_an_hour_may_be_answered_on_the_connection_that_its_event_came_on()
    -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let conversation = Arc::new(Conversation::new());
        let _outcome = conversation.invoke(task(1));
        let server = tokio::spawn(serve(listener, conversation));
        let mut stream = TcpStream::connect(address).await?;
        let next = format!("GET {PREFIX}invocation/next HTTP/1.1\r\nhost: a\r\n\r\n");
        let event = exchange(&mut stream, next).await?;
        assert!(event.starts_with("HTTP/1.1 200"), "{event}");
        tokio::time::advance(Duration::from_secs(3600)).await;
        // Lets whatever has come due close what it would.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let answer = format!(
            "POST {PREFIX}invocation/task-1/response HTTP/1.1\r\nhost: a\r\n\
             content-length: 1\r\n\r\n1"
        );
        let taken = exchange(&mut stream, answer).await?;
        assert!(taken.starts_with("HTTP/1.1 202"), "{taken}");
        server.abort();
        Ok(())
    }
}
