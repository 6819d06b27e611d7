//! The seam to the network: real sockets in production, turmoil's in simulations.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tidegate_core::id::NetworkId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::copy::{self, Moved};

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
    /// Begins no new connection on `listener`, so that who tries finds silence or is refused, for clients of this machine as far
    /// as its kernel allows; what has begun can be accepted still. Without it, closing a listener resets the connections that
    /// its clients already think open. Where nothing is known of such a means, nothing is done.
    ///
    /// # Errors
    ///
    /// What the kernel said. The listener goes on as before then.
    fn turn_away(&self, _listener: &Self::Listener) -> io::Result<()> {
        Ok(())
    }
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
    /// The address that the other end of an accepted connection connected to.
    fn near_addr(&self, stream: &Self::Stream) -> io::Result<SocketAddr>;
    /// Passes bytes on, both ways, until both sides have ended.
    fn copy(&self, a: &mut Self::Stream, b: &mut Self::Stream, moved: &Moved) -> impl Future<Output = io::Result<()>> {
        copy::through_memory(a, b, moved)
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

/// A peer that lost power or link never says so: the kernel asks a silent one after 10 s, and gives up what is not
/// acknowledged after 30 s, rather than after hours and a quarter of one.
fn outlive_nobody(stream: &TcpStream) -> io::Result<()> {
    const SILENCE: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_secs(5);
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new().with_time(SILENCE).with_interval(PAUSE);
    socket.set_tcp_keepalive(&keepalive)?;
    // Elsewhere than on Linux the system's own limit holds.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    Ok(())
}

/// A classic BPF program (Linux: Documentation/networking/filter.rst) that drops a segment with SYN and without ACK, the
/// first one of a connection, and passes every other one. To a TCP socket's filter, a packet begins with the TCP header;
/// byte 13 of it has the flags (RFC 9293 §3.1). A client sends its SYN again after 1 s (RFC 6298 §2).
#[cfg(target_os = "linux")]
const NO_SYN: [socket2::SockFilter; 5] = {
    use socket2::SockFilter;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        SockFilter::new(0x30, 0, 0, 13),        // ldb [13]
        SockFilter::new(0x54, 0, 0, SYN | ACK), // and #SYN|ACK
        SockFilter::new(0x15, 0, 1, SYN),       // jeq #SYN, next, skip one
        SockFilter::new(0x06, 0, 0, 0),         // ret #0: drop
        SockFilter::new(0x06, 0, 0, u32::MAX),  // ret #-1: pass
    ]
};

/// A listener of the loopback device is not found by what comes from elsewhere, so that is refused. Anybody may bind a socket to
/// a device since Linux 5.7.
#[cfg(target_os = "linux")]
fn hear_loopback_alone(listener: &TcpListener) -> io::Result<()> {
    socket2::SockRef::from(listener).bind_device(Some(b"lo"))
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

    #[cfg(target_os = "linux")]
    fn turn_away(&self, listener: &TcpListener) -> io::Result<()> {
        // Recent kernels attach a filter to a listener for CAP_NET_ADMIN alone, which containers lack.
        let filtered = socket2::SockRef::from(listener).attach_filter(&NO_SYN);
        filtered.or_else(|_| hear_loopback_alone(listener))
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        outlive_nobody(&stream)?;
        Ok(stream)
    }

    fn near_addr(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        stream.local_addr()
    }

    async fn copy(&self, a: &mut TcpStream, b: &mut TcpStream, moved: &Moved) -> io::Result<()> {
        copy::through_kernel(a, b, moved).await
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut found: Vec<SocketAddr> = tokio::net::lookup_host((name, port)).await?.collect();
        found.sort();
        found.dedup();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn listening() -> (TokioNet, TcpListener, SocketAddr) {
        let net = TokioNet;
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = net.listen(any).await.expect("a port");
        let addr = net.local_addr(&listener).expect("an address");
        (net, listener, addr)
    }

    #[tokio::test]
    async fn connections_do_not_outlive_a_peer_that_lost_power() {
        let (net, _listener, addr) = listening().await;
        let stream = net.connect(addr).await.expect("somebody listens");
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), Duration::from_secs(10));
        #[cfg(target_os = "linux")]
        assert_eq!(
            socket.tcp_user_timeout().expect("an option"),
            Some(Duration::from_secs(30))
        );
    }

    /// Elsewhere nobody knows how to.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_listener_that_turns_away_still_gives_what_has_begun_and_begins_nothing() {
        let (net, listener, addr) = listening().await;
        let begun = net.connect(addr).await.expect("somebody listens");
        net.turn_away(&listener).expect("the kernel knows the program");
        let (stream, peer) = net.accept(&listener).await.expect("it has begun");
        assert_eq!(peer, begun.local_addr().expect("an address"));
        let late = net.connect(addr);
        let close = async {
            tokio::task::yield_now().await; // its SYN is sent
            drop(listener);
        };
        let (late, ()) = tokio::join!(biased; late, close);
        assert_eq!(
            late.expect_err("never established").kind(),
            io::ErrorKind::ConnectionRefused
        );
        drop(stream);
    }

    /// The same by the other means, for where that one wants a privilege. What comes from elsewhere takes a second network
    /// namespace to show: `cargo e2e zero-loss proxies-updated` has it.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_listener_of_the_loopback_device_still_gives_what_has_begun() {
        let (net, listener, addr) = listening().await;
        let begun = net.connect(addr).await.expect("somebody listens");
        hear_loopback_alone(&listener).expect("anybody may");
        let device = socket2::SockRef::from(&listener).device().expect("an option");
        assert_eq!(device.as_deref(), Some(&b"lo"[..]));
        let (_, peer) = net.accept(&listener).await.expect("it has begun");
        assert_eq!(peer, begun.local_addr().expect("an address"));
    }
}
