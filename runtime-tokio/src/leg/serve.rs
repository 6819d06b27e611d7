//! The leg: one unix socket, one question and one answer per connection.
//!
//! It dials addresses inside its network and nothing else, holds no secret, and keeps no state. A new leg takes the place of
//! an old one's socket by a rename, so that between the two there is always one that answers.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tidegate_core::id::NetworkId;
use tidegate_core::leg::message::{ADDRESSES_MAX, BODY_BYTES_MAX, HEAD_BYTES};
use tidegate_core::leg::{Answer, Parsed, Question, Refused};
use tidegate_core::route::allow::IpRange;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{pass, socket_path};
use crate::clock::Clock;
use crate::net::{Net, TokioNet};
use crate::upstream::connect::is_ours;

/// For a proxy to say what it wants, and to take the answer.
const TALK_MAX: Duration = Duration::from_secs(5);
/// Questions that are worked on at once; beyond it, proxies wait in the listener's backlog.
const QUESTIONS_MAX: usize = 4096;
/// For questions under way when the leg is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Between two complaints that the socket cannot be accepted from.
const PAUSE: Duration = Duration::from_millis(100);

/// What a leg is made of.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The network's id.
    pub network: NetworkId,
    /// The ranges that it may dial into.
    pub inside: Vec<IpRange>,
    /// The folder that it shares with proxies.
    pub folder: PathBuf,
    /// Tells this process from another one in the same folder.
    pub nonce: u64,
}

/// Serves until `stop`.
///
/// # Errors
/// If the socket cannot be made in the folder.
pub async fn serve(leg: Leg, clock: Clock, stop: CancellationToken) -> io::Result<()> {
    let path = socket_path(&leg.folder, &leg.network);
    let beside = leg.folder.join(format!("{}.{:016x}.new", leg.network, leg.nonce));
    let listener = UnixListener::bind(&beside)?;
    std::fs::rename(&beside, &path)?;
    let inode = |path: &PathBuf| std::fs::metadata(path).map(|meta| meta.ino()).ok();
    let own = inode(&path);
    let ranges: Vec<String> = leg.inside.iter().map(ToString::to_string).collect();
    info!(network = %leg.network, inside = ranges.join(" "), "the leg stands");
    let inside: Rc<[IpRange]> = leg.inside.into();
    let (open, closed) = (Rc::new(Cell::new(0_usize)), Rc::new(Notify::new()));
    loop {
        let accepted = tokio::select! { biased;
            () = stop.cancelled() => break,
            () = closed.notified(), if open.get() >= QUESTIONS_MAX => continue,
            accepted = listener.accept(), if open.get() < QUESTIONS_MAX => accepted,
        };
        match accepted {
            Ok((proxy, _)) => {
                open.set(open.get() + 1);
                let (inside, open, closed) = (inside.clone(), open.clone(), closed.clone());
                spawn_local(async move {
                    if let Err(error) = answer(&proxy, &inside).await {
                        debug!(%error, "a proxy left");
                    }
                    open.set(open.get() - 1);
                    closed.notify_one();
                });
            }
            Err(error) => {
                warn!(%error, "proxies cannot be heard");
                clock.pause(PAUSE).await;
            }
        }
    }
    // The successor's socket, if it stands already, is not ours to remove.
    if own.is_some() && inode(&path) == own {
        std::fs::remove_file(&path).ok();
    }
    drop(listener);
    let until = clock.now() + DRAIN_MAX;
    while open.get() > 0 && clock.now() < until {
        tokio::select! { biased;
            () = closed.notified() => {}
            () = clock.sleep_until(Some(until)) => {}
        }
    }
    info!("the leg leaves; connections that it made live on");
    Ok(())
}

/// One question and its answer.
async fn answer(proxy: &UnixStream, inside: &[IpRange]) -> io::Result<()> {
    let Some(question) = timeout(TALK_MAX, question(proxy)).await?? else {
        return Ok(());
    };
    let (answer, socket) = match question {
        Err(why) => {
            warn!(why, "a question is not understood");
            (Answer::Refused(Refused::NotUnderstood), None)
        }
        Ok(Question::Connect { addr, limit }) if inside.iter().any(|range| range.contains(addr.ip())) => {
            match timeout(limit, TokioNet.connect(addr)).await {
                Ok(Ok(socket)) => (Answer::Connected, Some(socket)),
                Ok(Err(error)) => (Answer::Refused(refused(&error)), None),
                Err(_) => (Answer::Refused(Refused::TimedOut), None),
            }
        }
        Ok(Question::Connect { addr, .. }) => {
            warn!(%addr, "refused to dial an address outside the network");
            (Answer::Refused(Refused::Outside), None)
        }
        Ok(Question::Resolve { name, limit }) => (resolve(&name, limit, inside).await, None),
    };
    send(proxy, &answer, socket.as_ref()).await
}

/// None: the proxy left without a word. An error inside: what it said is none of this version's questions.
async fn question(proxy: &UnixStream) -> io::Result<Option<Result<Question, &'static str>>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; HEAD_BYTES + 512];
    loop {
        let (count, _) = pass::receive(proxy, &mut buffer).await?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..count]);
        match Question::parse(&bytes) {
            Parsed::NeedMore if bytes.len() > HEAD_BYTES + BODY_BYTES_MAX => return Ok(None),
            Parsed::NeedMore => {}
            Parsed::Done(question) => return Ok(Some(Ok(question))),
            Parsed::Reject(why) => return Ok(Some(Err(why))),
        }
    }
}

async fn send(proxy: &UnixStream, answer: &Answer, socket: Option<&TcpStream>) -> io::Result<()> {
    let fd = socket.map(AsFd::as_fd);
    debug!(?answer, fd = fd.map(|fd| fd.as_raw_fd()), "answered");
    timeout(TALK_MAX, pass::send(proxy, &answer.to_bytes(), fd)).await?
}

async fn resolve(name: &str, limit: Duration, inside: &[IpRange]) -> Answer {
    let found = match timeout(limit, TokioNet.resolve(name, 0)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            debug!(name, %error, "a name is not resolved");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    let addresses: Vec<_> = found
        .into_iter()
        .map(|addr| addr.ip())
        .filter(|ip| inside.iter().any(|range| range.contains(*ip)))
        .collect();
    if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
        return Answer::Refused(Refused::NoAnswer);
    }
    Answer::Addresses(addresses)
}

fn refused(error: &io::Error) -> Refused {
    if is_ours(error) {
        return Refused::Exhausted;
    }
    let is = |kind| error.kind() == kind;
    if is(io::ErrorKind::ConnectionRefused) || is(io::ErrorKind::ConnectionReset) {
        Refused::ByEndpoint
    } else if is(io::ErrorKind::TimedOut) {
        Refused::TimedOut
    } else {
        Refused::Unreachable
    }
}
