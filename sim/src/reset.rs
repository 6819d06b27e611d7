//! Connections of the product that a fault can reset: whoever reads or writes next is told so, and the other end sees it
//! closed.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use crate::walls::Side;
use crate::world::World;

/// Whether a connection was reset, and who waits to hear of it.
#[derive(Debug, Default)]
struct Fate {
    reset: bool,
    waiting: Vec<Waker>,
}

/// All connections that are open.
#[derive(Debug, Default)]
pub(crate) struct Connections(Vec<(IpAddr, IpAddr, Weak<Mutex<Fate>>)>);

impl Connections {
    fn add(&mut self, near: IpAddr, far: IpAddr, fate: &Arc<Mutex<Fate>>) {
        self.0.retain(|(_, _, fate)| fate.strong_count() > 0);
        self.0.push((near, far, Arc::downgrade(fate)));
    }

    /// Resets those between two addresses; how many ends of them are the product's.
    fn reset(&self, one: IpAddr, other: IpAddr) -> usize {
        let between = |near: IpAddr, far: IpAddr| (near, far) == (one, other) || (near, far) == (other, one);
        let fates = self.0.iter().filter(|(near, far, _)| between(*near, *far));
        let fates = fates.filter_map(|(_, _, fate)| fate.upgrade());
        fates.fold(0, |count, fate| {
            let mut fate = fate.lock().unwrap_or_else(PoisonError::into_inner);
            fate.reset = true;
            fate.waiting.drain(..).for_each(Waker::wake);
            count + 1
        })
    }
}

impl World {
    /// Every connection between two sides is reset; new ones may be opened at once. What may be sent again is.
    pub fn reset(&mut self, a: &Side, b: &Side) {
        let connections = self.shared.connections.borrow();
        let pairs = self.pairs(a, b);
        let count: usize = pairs.iter().map(|(one, other)| connections.reset(*one, *other)).sum();
        if count == 0 {
            return;
        }
        let what = format!("connections between {a} and {b} are reset, {count} ends");
        self.shared.trace("world", &what);
        for side in [a, b] {
            if let Side::Service(name) = side {
                self.shared
                    .witness
                    .blow_to_unsafe(self.now(), name, &[], "connections are reset");
            }
        }
    }
}

/// A connection of the product.
pub struct SimStream {
    inner: TcpStream,
    fate: Arc<Mutex<Fate>>,
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl SimStream {
    pub(crate) fn new(inner: TcpStream, connections: &mut Connections) -> io::Result<Self> {
        let fate = Arc::default();
        connections.add(inner.local_addr()?.ip(), inner.peer_addr()?.ip(), &fate);
        Ok(SimStream { inner, fate })
    }

    pub(crate) fn inner(&self) -> &TcpStream {
        &self.inner
    }

    /// Its end of the connection, unless it was reset; whoever waits for it hears of a reset.
    fn alive(&mut self, cx: &Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        if fate.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if !fate.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            fate.waiting.push(cx.waker().clone());
        }
        Ok(Pin::new(&mut self.inner))
    }
}

impl AsyncRead for SimStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?.poll_read(cx, buf)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.alive(cx)?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?.poll_shutdown(cx)
    }
}
