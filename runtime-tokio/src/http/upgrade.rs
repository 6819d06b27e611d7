//! Connections that switched protocols (WebSocket and whatever else, RFC 9110 §7.8): bytes are copied both ways until one
//! side ends or both are silent for too long. They count towards their endpoint, and a drain waits for them.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tidegate_core::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::task::spawn_local;
use tracing::debug;

use super::exchange::Exchange;
use crate::clock::Clock;
use crate::worker::Shared;

/// Bytes that are under way in each direction of an upgraded connection.
const COPY_BYTES: usize = 16 * 1024;

/// What a client wants to switch to.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) protocol: HeaderValue,
    /// Gives the client's side, once the answer was written.
    pub(crate) client: Option<OnUpgrade>,
}

/// Starts copying, as soon as both sides have switched.
pub(crate) fn run(
    worker: &Rc<Shared>,
    wanted: Option<Wanted>,
    upstream: Option<OnUpgrade>,
    idle_max: Duration,
    exchange: &mut Exchange,
) {
    let held = exchange.take_upstream();
    let (Some(client), Some(upstream)) = (wanted.and_then(|wanted| wanted.client), upstream) else {
        return;
    };
    let worker = Rc::clone(worker);
    let open = worker.open_upgrade();
    spawn_local(async move {
        match futures_util::future::try_join(client, upstream).await {
            Ok((client, upstream)) => {
                let clock = worker.clock;
                let noted = std::cell::Cell::new(clock.now());
                let mut client = Noted::new(TokioIo::new(client), clock, &noted);
                let mut upstream = Noted::new(TokioIo::new(upstream), clock, &noted);
                let ended = tokio::select! { biased;
                    ended = copy_bidirectional_with_sizes(&mut client, &mut upstream, COPY_BYTES, COPY_BYTES) => ended,
                    () = silence(clock, &noted, idle_max) => Err(io::ErrorKind::TimedOut.into()),
                    () = worker.leave_now() => Err(io::ErrorKind::Interrupted.into()),
                };
                if let Err(error) = ended {
                    debug!(%error, "an upgraded connection ended");
                }
            }
            Err(error) => debug!(%error, "an upgrade did not happen"),
        }
        drop(held);
        drop(open);
    });
}

/// Returns when nothing moved for `max`.
pub(crate) async fn silence(clock: Clock, noted: &std::cell::Cell<Instant>, max: Duration) {
    loop {
        let until = noted.get() + max;
        if clock.now() >= until {
            return;
        }
        clock.sleep_until(Some(until)).await;
    }
}

/// Notes when bytes move.
struct Noted<'a, S> {
    stream: S,
    clock: Clock,
    noted: &'a std::cell::Cell<Instant>,
}

impl<'a, S> Noted<'a, S> {
    fn new(stream: S, clock: Clock, noted: &'a std::cell::Cell<Instant>) -> Self {
        Noted { stream, clock, noted }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.noted.set(self.clock.now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
