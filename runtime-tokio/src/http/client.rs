//! A client's connection as its requests see it, and the stream beneath it.
//!
//! The stream notes when bytes move and looks at each head before hyper does (see `core::request::framing::Sniff`). What it
//! notes is shared with the connection's service through atomics, only because hyper wants streams to be `Send`; nobody
//! else ever touches them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use http::HeaderValue;
use tidegate_core::request::framing::Sniff;
use tidegate_core::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;
use crate::proxy_protocol::Peer;

/// Who is at the other end, in the forms that requests need.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: Peer,
    /// The peer's address without port, as text.
    pub(crate) ip: HeaderValue,
    /// Whether it speaks TLS with us.
    pub(crate) tls: bool,
    /// The port that the client connected to, as text.
    pub(crate) local_port: HeaderValue,
    pub(crate) pulse: Arc<Pulse>,
}

/// What moves on a connection.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Requests under way.
    in_flight: AtomicU32,
    /// Bodies under way to the client, and from it: while there are any, silence counts.
    moving: AtomicU32,
    receiving: AtomicU32,
    /// Milliseconds of silence that the routes of the requests under way allow beyond the listener's limit.
    silence: AtomicU64,
    /// Milliseconds since start at which bytes moved last, and at which the present head or pause began.
    last_bytes: AtomicU64,
    since: AtomicU64,
    head_begun: AtomicBool,
    ambiguous: AtomicBool,
    is_http2: AtomicBool,
    begun: AtomicBool,
}

/// One body that moves.
#[derive(Debug)]
pub(crate) struct Moving {
    pulse: Arc<Pulse>,
    receiving: bool,
}

impl Drop for Moving {
    fn drop(&mut self) {
        bump(self.pulse.counter(self.receiving), -1);
    }
}

/// Limits of a client's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientLimits {
    /// Silence while a body comes and nothing goes; zero: as `idle`.
    pub(crate) body: Duration,
    pub(crate) header: Duration,
    pub(crate) idle: Duration,
    pub(crate) keepalive: Duration,
}

/// What is due on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The client is too slow: close at once.
    Abort,
    /// It is merely idle: close gracefully.
    Close,
    /// Nothing before this moment.
    Later(Instant),
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Pulse {
            in_flight: AtomicU32::new(0),
            moving: AtomicU32::new(0),
            receiving: AtomicU32::new(0),
            silence: AtomicU64::new(0),
            last_bytes: AtomicU64::new(millis(now)),
            since: AtomicU64::new(millis(now)),
            head_begun: AtomicBool::new(false),
            ambiguous: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            begun: AtomicBool::new(false),
        }
    }

    /// Whether the client speaks HTTP/2, as far as it has said anything.
    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    /// A request begins; whether its head was ambiguous.
    pub(crate) fn handle_request(&self) -> bool {
        bump(&self.in_flight, 1);
        self.head_begun.store(false, Relaxed);
        self.ambiguous.swap(false, Relaxed)
    }

    /// The route of a request under way allows this much silence.
    pub(crate) fn allow_silence(&self, max: Duration) {
        let max = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
        self.silence.store(self.silence.load(Relaxed).max(max), Relaxed);
    }

    /// A request ended.
    pub(crate) fn handle_end(&self, now: Instant) {
        bump(&self.in_flight, -1);
        if self.in_flight.load(Relaxed) == 0 {
            self.silence.store(0, Relaxed);
        }
        self.since.store(millis(now), Relaxed);
    }

    /// A body begins to go to the client.
    pub(crate) fn moving(self: &Arc<Self>) -> Moving {
        self.begin(false)
    }

    /// A body begins to come from the client.
    pub(crate) fn receiving(self: &Arc<Self>) -> Moving {
        self.begin(true)
    }

    fn begin(self: &Arc<Self>, receiving: bool) -> Moving {
        bump(self.counter(receiving), 1);
        Moving {
            pulse: Arc::clone(self),
            receiving,
        }
    }

    fn counter(&self, receiving: bool) -> &AtomicU32 {
        if receiving { &self.receiving } else { &self.moving }
    }

    /// What is due at `now`.
    pub(crate) fn due(&self, limits: &ClientLimits, now: Instant) -> Due {
        let at = |millis: &AtomicU64| Instant::from_millis(millis.load(Relaxed));
        let (deadline, due) = if self.in_flight.load(Relaxed) > 0 {
            // Waiting for an endpoint has limits of its own.
            let (moving, receiving) = (self.moving.load(Relaxed) > 0, self.receiving.load(Relaxed) > 0);
            let from = if moving || receiving { at(&self.last_bytes) } else { now };
            let idle = limits.idle.max(Duration::from_millis(self.silence.load(Relaxed)));
            let only_receiving = receiving && !moving && limits.body > Duration::ZERO;
            let silence = if only_receiving { limits.body.min(idle) } else { idle };
            (from + silence, Due::Abort)
        } else if self.is_http2.load(Relaxed) {
            (at(&self.since) + limits.keepalive, Due::Close)
        } else if self.head_begun.load(Relaxed) || !self.begun.load(Relaxed) {
            (at(&self.since) + limits.header, Due::Abort)
        } else {
            (at(&self.since) + limits.keepalive, Due::Close)
        };
        if deadline <= now { due } else { Due::Later(deadline) }
    }

    fn handle_bytes(&self, now: Instant) {
        self.last_bytes.store(millis(now), Relaxed);
    }
}

fn bump(count: &AtomicU32, by: i32) {
    // One thread alone writes, so this needs no read-modify-write.
    count.store(count.load(Relaxed).wrapping_add_signed(by), Relaxed);
}

fn millis(at: Instant) -> u64 {
    u64::try_from(at.since_start().as_millis()).unwrap_or(u64::MAX)
}

/// The client's stream.
#[derive(Debug)]
pub(crate) struct ClientIo<S> {
    stream: S,
    pulse: Arc<Pulse>,
    sniff: Sniff,
    sniffing: bool,
    clock: Clock,
}

impl<S> ClientIo<S> {
    pub(crate) fn new(stream: S, pulse: Arc<Pulse>, clock: Clock) -> Self {
        ClientIo {
            stream,
            pulse,
            sniff: Sniff::default(),
            sniffing: false,
            clock,
        }
    }

    fn handle_read(&mut self, piece: &[u8]) {
        let now = self.clock.now();
        let pulse = &self.pulse;
        pulse.handle_bytes(now);
        if piece.is_empty() || pulse.is_http2.load(Relaxed) {
            return;
        }
        if !pulse.begun.swap(true, Relaxed) && piece.starts_with(b"PRI * HTTP/2") {
            pulse.is_http2.store(true, Relaxed);
            return;
        }
        if pulse.in_flight.load(Relaxed) > 0 {
            self.sniffing = false;
            return;
        }
        if !self.sniffing {
            self.sniffing = true;
            self.sniff = Sniff::default();
        }
        if !pulse.head_begun.swap(true, Relaxed) {
            pulse.since.store(millis(now), Relaxed);
        }
        if self.sniff.feed(piece) {
            pulse.ambiguous.store(true, Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.handle_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
        this.pulse.handle_bytes(this.clock.now());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
        this.pulse.handle_bytes(this.clock.now());
        Poll::Ready(Ok(written))
    }
}
