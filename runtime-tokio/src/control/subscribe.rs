//! The proxy's side of the control network: runs the [`Subscriber`] and hands its tables to the workers.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tidegate_core::id::{ClusterName, ProxyId};
use tidegate_core::machine::{Input, step};
use tidegate_core::rng::Rng;
use tidegate_core::snapshot::message::LINE_BYTES_MAX;
use tidegate_core::snapshot::subscriber::{Action, Fact, Install};
use tidegate_core::snapshot::{Ack, Connection, Digest, Subscriber};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::store::Store;
use super::{LINES_WAITING_MAX, LinkFact, LocalExecutor};
use crate::clock::Clock;
use crate::identity::CONTROLLER_NAME;
use crate::net::Net;
use crate::secrets::Secrets;

/// Time to resolve, connect and shake hands with a controller.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where tables come from.
#[derive(Clone, Debug)]
pub enum Controllers<N> {
    /// A controller in this process.
    Local(mpsc::Sender<LinkFact>),
    /// Controllers on the control network.
    Remote {
        /// The network.
        net: N,
        /// Host name or address; a name may stand for many.
        host: String,
        /// Their port.
        port: u16,
        /// This proxy's identity.
        tls: Arc<ClientConfig>,
    },
}

/// What a subscription is made of.
#[derive(Debug)]
pub struct Subscription<N, S> {
    /// This proxy's name.
    pub proxy: ProxyId,
    /// Its service cluster.
    pub cluster: ClusterName,
    /// Where tables come from.
    pub controllers: Controllers<N>,
    /// Where the last good one is kept.
    pub store: S,
    /// The secrets that tables name; what a controller gives of them goes there.
    pub secrets: Secrets,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub rng: Rng,
}

/// What the rest of the process may know about the subscription.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct SubscriptionStatus {
    /// Whether there is a table to serve.
    pub has_table: bool,
    /// Whether a controller is heard.
    pub connected: bool,
    /// Whether it confirms the table that is here.
    pub current: bool,
    /// The revision that is served.
    pub revision: u64,
    /// Its digest.
    pub digest: String,
    /// Specs that this version cannot serve.
    pub refused: Vec<String>,
}

/// Takes tables until `stop`. `install` puts one to work; the future it returns ends when every worker serves by it,
/// and only then is it acknowledged.
pub async fn subscribe<N: Net, S: Store, F: Future<Output = ()> + 'static>(
    subscription: Subscription<N, S>,
    mut install: impl FnMut(Install) -> F,
    mut report: impl FnMut(SubscriptionStatus),
    stop: CancellationToken,
) {
    let Subscription {
        proxy,
        cluster,
        controllers,
        store,
        secrets,
        clock,
        rng,
    } = subscription;
    let mut machine = Subscriber::new(proxy.clone(), rng, clock.now());
    let (facts, mut incoming) = mpsc::channel::<(u64, Fact)>(LINES_WAITING_MAX);
    let (acks, outgoing) = mpsc::channel::<Ack>(LINES_WAITING_MAX);
    let outgoing = Rc::new(tokio::sync::Mutex::new(outgoing));
    // Of the connections that were tried, the present one; facts of earlier ones are dropped.
    let mut generation = 0_u64;
    let mut link: Option<AbortOnDropHandle<()>> = None;
    let mut installed: Option<F> = None;
    let mut input = match store.load() {
        Ok(Some(text)) => {
            let age = store.confirmed().map(|at| clock.wall().saturating_sub(at));
            let age = age.unwrap_or_default();
            Input::Fact(Fact::Stored { text, age })
        }
        Ok(None) => Input::Timeout,
        Err(error) => {
            tracing::warn!(%error, "the stored table cannot be read; waiting for a controller");
            Input::Timeout
        }
    };
    loop {
        let next = step(&mut machine, input, clock.now(), |action| match action {
            Action::Ack(ack) => {
                let (acks, installed) = (acks.clone(), installed.take());
                tokio::task::spawn_local(async move {
                    if let Some(installed) = installed {
                        installed.await;
                    }
                    acks.send(ack).await.ok(); // the subscription has ended where this fails
                });
            }
            Action::Connect { pick, digest } => {
                generation += 1;
                let session = Session {
                    generation,
                    facts: facts.clone(),
                    acks: outgoing.clone(),
                    cluster: cluster.clone(),
                    proxy: proxy.clone(),
                    secrets: secrets.clone(),
                    clock,
                    pick,
                    digest,
                };
                let controllers = controllers.clone();
                link = Some(AbortOnDropHandle::new(tokio::task::spawn_local(async move {
                    let (generation, facts) = (session.generation, session.facts.clone());
                    let reason = match controllers {
                        Controllers::Local(controller) => local(session, controller).await,
                        Controllers::Remote { net, host, port, tls } => remote(session, net, &host, port, tls).await,
                    };
                    facts.send((generation, Fact::Disconnected(reason))).await.ok();
                })));
            }
            Action::Confirmed => {
                if let Err(error) = store.confirm(clock.wall()) {
                    tracing::debug!(%error, "the stored table cannot be noted to be right still");
                }
            }
            Action::Disconnect => {
                generation += 1;
                link = None;
            }
            Action::Install(table) => {
                tracing::info!(revision = %table.revision, cause = %table.cause, "table installed");
                installed = Some(install(table));
            }
            Action::Greeted { controller, version } => tracing::info!(controller, version, "a controller is heard"),
            Action::Notice(text) => tracing::warn!("{text}"),
            Action::Store(text) => {
                if let Err(error) = store.save(&text) {
                    tracing::warn!(%error, "the table cannot be stored; a restart without controllers would serve an older one");
                }
            }
        });
        report(status(&machine));
        input = loop {
            tokio::select! { biased;
                () = stop.cancelled() => return,
                () = clock.sleep_until(next.map(|deadline| deadline.at)) => break Input::Timeout,
                Some((of, fact)) = incoming.recv() => if of == generation { break Input::Fact(fact) },
            }
        };
    }
}

fn status(machine: &Subscriber) -> SubscriptionStatus {
    let (revision, digest) = machine.revision();
    SubscriptionStatus {
        has_table: machine.has_table(),
        connected: machine.is_connected(),
        current: machine.is_current(),
        revision: revision.0,
        digest: digest.to_string(),
        refused: machine
            .refused()
            .map(|refusal| format!("{}: {}", refusal.service, refusal.reason))
            .collect(),
    }
}

/// One connection to one controller.
struct Session {
    generation: u64,
    facts: mpsc::Sender<(u64, Fact)>,
    acks: Rc<tokio::sync::Mutex<mpsc::Receiver<Ack>>>,
    cluster: ClusterName,
    proxy: ProxyId,
    secrets: Secrets,
    clock: Clock,
    pick: u64,
    digest: Option<Digest>,
}

impl Session {
    /// Takes secrets and tells about them, as long as what is returned lives.
    fn follow_secrets(&self, requests: &SendRequest<Full<Bytes>>, base: &str) -> Vec<AbortOnDropHandle<()>> {
        let (proxy, secrets) = (self.proxy.clone(), self.secrets.clone());
        let telling = super::secrets::tell(requests.clone(), base.to_owned(), proxy.clone(), secrets.clone());
        let mut tasks = vec![AbortOnDropHandle::new(tokio::task::spawn_local(telling))];
        if secrets.is_brought() {
            let taking = super::secrets::take(requests.clone(), base.to_owned(), proxy, secrets, self.clock);
            tasks.push(AbortOnDropHandle::new(tokio::task::spawn_local(taking)));
        }
        tasks
    }

    /// Whether the subscription still listens.
    async fn tell(&self, fact: Fact) -> bool {
        self.facts.send((self.generation, fact)).await.is_ok()
    }
}

async fn local(session: Session, controller: mpsc::Sender<LinkFact>) -> String {
    let (lines, mut receiver) = mpsc::channel(LINES_WAITING_MAX);
    let connection = Connection(session.generation);
    let cluster = session.cluster.clone();
    let connected = LinkFact::Connected {
        connection,
        cluster: cluster.clone(),
        proxy: session.proxy.clone(),
        digest: session.digest,
        lines,
    };
    if !session.tell(Fact::Connected).await || controller.send(connected).await.is_err() {
        return "the controller is stopping".to_owned();
    }
    let mut acks = session.acks.lock().await;
    let mut findings = session.secrets.findings();
    findings.mark_changed();
    loop {
        tokio::select! { biased;
            Some(ack) = acks.recv() => {
                if controller.send(LinkFact::Ack { cluster: cluster.clone(), ack }).await.is_err() { break }
            }
            Ok(()) = findings.changed() => {
                let report = super::secrets::report(&session.proxy, &findings.borrow_and_update());
                if controller.send(LinkFact::Report { cluster: cluster.clone(), report }).await.is_err() { break }
            }
            line = receiver.recv() => {
                let Some(line) = line else { break };
                if !session.tell(Fact::Line(line.trim_end().to_owned())).await { break }
            }
        }
    }
    "the controller is stopping".to_owned()
}

async fn remote<N: Net>(session: Session, net: N, host: &str, port: u16, tls: Arc<ClientConfig>) -> String {
    let requests = match tokio::time::timeout(CONNECT_TIMEOUT, connect(&session, &net, host, port, tls)).await {
        Ok(Ok(requests)) => requests,
        Ok(Err(error)) => return format!("{host}:{port}: {error:#}"),
        Err(_) => return format!("{host}:{port}: no connection within {} s", CONNECT_TIMEOUT.as_secs()),
    };
    match exchange(&session, requests).await {
        Ok(()) => format!("{host}:{port}: the controller closed the connection"),
        Err(error) => format!("{host}:{port}: {error:#}"),
    }
}

async fn connect<N: Net>(
    session: &Session,
    net: &N,
    host: &str,
    port: u16,
    tls: Arc<ClientConfig>,
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let addresses = net.resolve(host, port).await?;
    anyhow::ensure!(!addresses.is_empty(), "the name has no address");
    open(net, addresses[(session.pick % addresses.len() as u64) as usize], tls).await
}

/// HTTP/2 over mutual TLS to the controller at `address`.
pub(super) async fn open<N: Net>(
    net: &N,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = net.connect(address).await?;
    let name = ServerName::try_from(CONTROLLER_NAME)?;
    let stream = TlsConnector::from(tls).connect(name, stream).await?;
    let (requests, connection) = hyper::client::conn::http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the control connection ended");
        }
    });
    Ok(requests)
}

async fn exchange(session: &Session, mut requests: SendRequest<Full<Bytes>>) -> anyhow::Result<()> {
    let base = format!("https://{CONTROLLER_NAME}/v1/clusters/{}", session.cluster);
    let digest = session
        .digest
        .map(|digest| format!("&digest={digest}"))
        .unwrap_or_default();
    let request = Request::get(format!("{base}/table?proxy={}{digest}", session.proxy)).body(Full::default())?;
    let response = requests.send_request(request).await?;
    anyhow::ensure!(
        response.status() == StatusCode::OK,
        "the controller answered {}",
        response.status()
    );
    if !session.tell(Fact::Connected).await {
        return Ok(());
    }
    let _secrets = session.follow_secrets(&requests, &base);
    let mut lines = LineReader::new(response.into_body());
    let mut acks = session.acks.lock().await;
    loop {
        tokio::select! { biased;
            Some(ack) = acks.recv() => {
                let body = Full::from(serde_json::to_vec(&ack)?);
                let answer = requests.send_request(Request::post(format!("{base}/acks")).body(body)?);
                tokio::task::spawn_local(async move {
                    if let Err(error) = answer.await {
                        tracing::debug!(%error, "an acknowledgement was lost");
                    }
                });
            }
            line = lines.next() => match line? {
                Some(line) => if !session.tell(Fact::Line(line)).await { return Ok(()) },
                None => return Ok(()),
            }
        }
    }
}

/// Cuts a body into lines. Safe to drop between lines: what was read stays in the buffer.
pub(super) struct LineReader {
    body: Incoming,
    buffer: Vec<u8>,
    searched: usize,
}

impl LineReader {
    pub(super) fn new(body: Incoming) -> LineReader {
        LineReader {
            body,
            buffer: Vec::new(),
            searched: 0,
        }
    }

    pub(super) async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.searched = 0;
                return Ok(Some(String::from_utf8(line)?));
            }
            self.searched = self.buffer.len();
            anyhow::ensure!(
                self.buffer.len() <= LINE_BYTES_MAX,
                "a line is longer than {LINE_BYTES_MAX} bytes"
            );
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}
