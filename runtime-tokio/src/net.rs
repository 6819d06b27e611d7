//! The seam to the network: real sockets in production, turmoil's in simulations.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tidegate_core::id::NetworkId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// Listens, connects and resolves. Nothing here decides or limits: callers put a timeout around every call.
pub trait Net: Clone + Debug + 'static {
    /// A connection. `Send` because hyper asks for it where a connection may be upgraded.
    type Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static;
    /// A bound port.
    type Listener: Debug + 'static;

    /// Binds `addr`. Several listeners of one process may bind the same port (`SO_REUSEPORT`), and the kernel deals
    /// connections out among them.
    fn listen(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>>;
    /// The address that was bound.
    fn local_addr(&self, listener: &Self::Listener) -> io::Result<SocketAddr>;
    /// The next connection.
    fn accept(&self, listener: &Self::Listener) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>>;
    /// Opens a connection, with `TCP_NODELAY`.
    fn connect(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>>;
    /// The same to an address on `network`, where this process may not be: then somebody there does it, within `limit`.
    /// Unless said otherwise, the process is on every network.
    fn connect_on(
        &self,
        _network: &NetworkId,
        addr: SocketAddr,
        _limit: Duration,
    ) -> impl Future<Output = io::Result<Self::Stream>> {
        self.connect(addr)
    }
    /// All addresses of `name`, with `port`, sorted.
    fn resolve(&self, name: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>>;
    /// All addresses of `name` inside `network`, or inside the networks of this process, sorted. Within `limit`.
    fn resolve_on(
        &self,
        _network: Option<&NetworkId>,
        name: &str,
        limit: Duration,
    ) -> impl Future<Output = io::Result<Vec<IpAddr>>> {
        async move {
            let found = tokio::time::timeout(limit, self.resolve(name, 0)).await??;
            Ok(found.iter().map(SocketAddr::ip).collect())
        }
    }
}

/// Real sockets, of this process alone: [`LegNet`](crate::leg::net::LegNet) has those of legs too.
#[derive(Clone, Copy, Debug)]
pub struct TokioNet;

impl Net for TokioNet {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn listen(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        let domain = if addr.is_ipv6() {
            socket2::Domain::IPV6
        } else {
            socket2::Domain::IPV4
        };
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(4096)?;
        TcpListener::from_std(socket.into())
    }

    fn local_addr(&self, listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, peer))
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut found: Vec<SocketAddr> = tokio::net::lookup_host((name, port)).await?.collect();
        found.sort();
        found.dedup();
        Ok(found)
    }
}
