//! The proxy's sockets: its own, and those that legs open for it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tidegate_core::id::NetworkId;
use tidegate_core::leg::message::{BODY_BYTES_MAX, HEAD_BYTES, LIMIT_MAX};
use tidegate_core::leg::{Answer, Parsed, Question, Refused};
use tidegate_core::route::allow::IpRange;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

use super::{NoLeg, pass, socket_path};
use crate::copy::Moved;
use crate::net::{Net, TokioNet};

/// Beyond the time that a leg has for the endpoint, for its answer to arrive.
const ANSWER_MAX: Duration = Duration::from_millis(250);

/// Real sockets of a process that is on some networks itself and reaches others through legs.
#[derive(Clone, Debug)]
pub struct LegNet {
    folder: Option<Arc<Path>>,
    own: Arc<[IpRange]>,
}

impl LegNet {
    /// Meets legs in `folder`, if there is one; `own` are the ranges of the networks that the process is on.
    pub fn new(folder: Option<&Path>, own: Vec<IpRange>) -> Self {
        LegNet {
            folder: folder.map(Arc::from),
            own: own.into(),
        }
    }

    /// Meets no leg.
    pub fn alone() -> Self {
        LegNet::new(None, Vec::new())
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.own.iter().any(|range| range.contains(ip))
    }

    /// Asks the leg of `network`. What it is asked to do within `limit` is late a little after that.
    async fn ask(
        &self,
        network: &NetworkId,
        question: &Question,
        limit: Duration,
    ) -> io::Result<(Answer, Option<TcpStream>)> {
        let no_leg = |why: String| {
            let network = network.clone();
            io::Error::other(NoLeg { network, why })
        };
        let Some(folder) = &self.folder else {
            return Err(no_leg("this process has no folder where legs are".to_owned()));
        };
        let talk = async {
            let leg = UnixStream::connect(socket_path(folder, network))
                .await
                .map_err(|error| {
                    if crate::upstream::connect::is_ours(&error) {
                        error
                    } else {
                        no_leg(error.to_string())
                    }
                })?;
            pass::send(&leg, &question.to_bytes(), None)
                .await
                .map_err(|error| no_leg(error.to_string()))?;
            let (mut bytes, mut socket) = (Vec::new(), None);
            let mut buffer = [0; 2048];
            loop {
                let (count, passed) = pass::receive(&leg, &mut buffer)
                    .await
                    .map_err(|error| no_leg(error.to_string()))?;
                if count == 0 {
                    return Err(no_leg("it left without an answer".to_owned()));
                }
                socket = passed.or(socket);
                bytes.extend_from_slice(&buffer[..count]);
                match Answer::parse(&bytes) {
                    Parsed::NeedMore if bytes.len() <= HEAD_BYTES + BODY_BYTES_MAX => {}
                    Parsed::NeedMore => return Err(no_leg("its answer has no end".to_owned())),
                    Parsed::Done(answer) => return Ok((answer, socket)),
                    Parsed::Reject(why) => return Err(no_leg(why.to_owned())),
                }
            }
        };
        let (answer, socket) = timeout(limit + ANSWER_MAX, talk)
            .await
            .map_err(|_| no_leg("it does not answer".to_owned()))??;
        let socket = socket.map(|socket| {
            let socket = std::net::TcpStream::from(socket);
            socket.set_nonblocking(true)?;
            TcpStream::from_std(socket)
        });
        Ok((answer, socket.transpose()?))
    }
}

/// Why a leg refused, in the words of the socket that it stands for.
fn error(network: &NetworkId, why: Refused) -> io::Error {
    match why {
        Refused::ByEndpoint => io::ErrorKind::ConnectionRefused.into(),
        Refused::TimedOut => io::ErrorKind::TimedOut.into(),
        Refused::Unreachable => io::ErrorKind::HostUnreachable.into(),
        Refused::Exhausted => Errno::NFILE.into(),
        Refused::NoAnswer => io::ErrorKind::NotFound.into(),
        Refused::NotUnderstood | Refused::Outside => io::Error::other(NoLeg {
            network: network.clone(),
            why: why.to_string(),
        }),
    }
}

impl Net for LegNet {
    type Stream = TcpStream;
    type Listener = TcpListener;

    fn listen(&self, addr: SocketAddr) -> impl Future<Output = io::Result<TcpListener>> {
        TokioNet.listen(addr)
    }

    fn local_addr(&self, listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    fn accept(&self, listener: &TcpListener) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> {
        TokioNet.accept(listener)
    }

    fn turn_away(&self, listener: &TcpListener) -> io::Result<()> {
        TokioNet.turn_away(listener)
    }

    fn connect(&self, addr: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> {
        TokioNet.connect(addr)
    }

    fn near_addr(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        TokioNet.near_addr(stream)
    }

    async fn copy(&self, a: &mut TcpStream, b: &mut TcpStream, moved: &Moved) -> io::Result<()> {
        TokioNet.copy(a, b, moved).await
    }

    fn resolve(&self, name: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> {
        TokioNet.resolve(name, port)
    }

    async fn connect_on(&self, network: &NetworkId, addr: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        // Of a network that the process is on, nobody else has the addresses.
        if self.is_own(addr.ip()) {
            return TokioNet.connect(addr).await;
        }
        let limit = limit.min(LIMIT_MAX);
        let (answer, socket) = self.ask(network, &Question::Connect { addr, limit }, limit).await?;
        match (answer, socket) {
            (Answer::Connected, Some(socket)) if socket.peer_addr().ok() == Some(addr) => {
                socket.set_nodelay(true)?;
                Ok(socket)
            }
            (Answer::Refused(why), _) => Err(error(network, why)),
            // The kernel drops a descriptor for which this process has no room.
            (Answer::Connected, None) => Err(Errno::MFILE.into()),
            (Answer::Addresses(_) | Answer::Connected, _) => Err(error(network, Refused::NotUnderstood)),
        }
    }

    async fn resolve_on(&self, network: Option<&NetworkId>, name: &str, limit: Duration) -> io::Result<Vec<IpAddr>> {
        let Some(network) = network else {
            let found = timeout(limit, TokioNet.resolve(name, 0)).await??;
            // A resolver of the world outside knows some names too.
            return Ok(found.iter().map(SocketAddr::ip).filter(|ip| self.is_own(*ip)).collect());
        };
        let name = name.to_owned();
        match self.ask(network, &Question::Resolve { name, limit }, limit).await?.0 {
            Answer::Addresses(addresses) => Ok(addresses),
            Answer::Refused(why) => Err(error(network, why)),
            Answer::Connected => Err(error(network, Refused::NotUnderstood)),
        }
    }
}
