//! turmoil's sockets behind Tidegate's own seam, and the names that simulated hosts can resolve.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use tidegate::net::Net;
use turmoil::net::{TcpListener, TcpStream};

use crate::reset::SimStream;
use crate::shared::Shared;

/// The simulated network, as the host sees it that uses it.
#[derive(Clone)]
pub struct SimNet {
    shared: Rc<Shared>,
}

impl SimNet {
    /// A network whose names are those of `shared`.
    pub fn new(shared: Rc<Shared>) -> Self {
        SimNet { shared }
    }

    fn watched(&self, stream: TcpStream) -> io::Result<SimStream> {
        SimStream::new(stream, &mut self.shared.connections.borrow_mut())
    }
}

impl fmt::Debug for SimNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimNet")
    }
}

/// A bound port of a simulated host.
pub struct Listener(TcpListener);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.0.local_addr()).finish()
    }
}

impl Net for SimNet {
    type Stream = SimStream;
    type Listener = Listener;

    async fn listen(&self, addr: SocketAddr) -> io::Result<Listener> {
        // A simulated host has one address besides loopback, and turmoil wants no other named.
        let ip = if addr.ip().is_loopback() {
            addr.ip()
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        TcpListener::bind(SocketAddr::new(ip, addr.port())).await.map(Listener)
    }

    fn local_addr(&self, listener: &Listener) -> io::Result<SocketAddr> {
        listener.0.local_addr()
    }

    async fn accept(&self, listener: &Listener) -> io::Result<(SimStream, SocketAddr)> {
        let (stream, peer) = listener.0.accept().await?;
        Ok((self.watched(stream)?, peer))
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<SimStream> {
        self.watched(TcpStream::connect(addr).await?)
    }

    fn near_addr(&self, stream: &SimStream) -> io::Result<SocketAddr> {
        stream.inner().local_addr()
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut found = match name.parse::<IpAddr>() {
            Ok(literal) => vec![literal],
            Err(_) => {
                let delay = self.shared.draw("resolve", 1, 4);
                self.shared.wait(delay).await;
                self.shared.addresses_of(name)
            }
        };
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("nobody knows {name}")));
        }
        found.sort();
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}
