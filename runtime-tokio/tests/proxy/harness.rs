//! A worker, apps behind it and clients before it, on one thread.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tidegate::clock::Clock;
use tidegate::net::{Net, TokioNet};
use tidegate::telemetry::log::AccessLog;
use tidegate::worker::{PoolView, ProberDeps, WorkerConfig, WorkerDeps, WorkerLink, run_worker, start_prober};
use tidegate_core::id::{EndpointId, ServiceId};
use tidegate_core::rng::Rng;
use tidegate_core::route::RouteTable;
use tidegate_core::route::spec::{EndpointSpec, HostPattern, Leaving, RouteSpec};
use tidegate_core::snapshot::model::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long anything that is expected may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Runs a test as a worker's thread would run it.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        timeout(LIMIT * 2, test).await.expect("the test ends in time");
    });
}

/// Waits until `done` says so.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = timeout(LIMIT, async {
        while !done().await {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// Bytes as text, for looking at.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One routed service.
pub(crate) fn route(name: &str, host: &str, endpoints: &[SocketAddr]) -> RouteSpec {
    RouteSpec {
        hosts: vec![HostPattern::from_normalised(host.to_owned())],
        endpoints: endpoints.iter().map(|addr| endpoint(*addr)).collect(),
        ..RouteSpec::new(ServiceId::from(name), name, "2024-01-01T00:00:00Z")
    }
}

/// A service with these labels, as a file of services has it.
pub(crate) fn labelled(name: &str, labels: &[(&str, &str)], endpoints: &[SocketAddr]) -> RouteSpec {
    let mut text = format!("[services.{name}]\nendpoints = {endpoints:?}\n[services.{name}.labels]\n");
    for (key, value) in labels {
        text += &format!("{key:?} = {value:?}\n");
    }
    // Addresses are written as texts.
    for addr in endpoints {
        text = text.replacen(&addr.to_string(), &format!("\"{addr}\""), 1);
    }
    let file = tidegate_core::source_file::read(&text).expect("the file is TOML");
    assert_eq!(file.services.len(), 1, "{:?}", file.diagnostics);
    file.services[0].spec(|endpoint| vec![endpoint.host.parse().expect("an address")])
}

pub(crate) fn endpoint(addr: SocketAddr) -> EndpointSpec {
    EndpointSpec {
        id: EndpointId::from(format!("task-{addr}")),
        addr,
        via: None,
        node: None,
        leaving: None,
        unsure: false,
    }
}

pub(crate) fn leaving(addr: SocketAddr, last_resort_ms: u32) -> EndpointSpec {
    EndpointSpec {
        leaving: Some(Leaving { last_resort_ms }),
        ..endpoint(addr)
    }
}

/// A table's worth of routes.
pub(crate) fn snapshot(routes: impl IntoIterator<Item = RouteSpec>) -> Snapshot {
    let routes = routes.into_iter().map(|spec| (spec.service.clone(), Arc::new(spec)));
    Snapshot {
        routes: routes.collect(),
        ..Snapshot::default()
    }
}

/// A running worker.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    /// Where it takes TLS, if it does.
    pub(crate) tls_addr: Option<SocketAddr>,
    pub(crate) drain: CancellationToken,
    pub(crate) link: WorkerLink,
    pub(crate) done: JoinHandle<std::io::Result<()>>,
    tables: watch::Sender<Arc<RouteTable>>,
}

impl Proxy {
    pub(crate) async fn start(snapshot: Snapshot) -> Proxy {
        Self::start_with(snapshot, AccessLog::off(), |_| {}).await
    }

    pub(crate) async fn start_with(
        snapshot: Snapshot,
        access: AccessLog,
        change: impl FnOnce(&mut WorkerConfig),
    ) -> Proxy {
        Self::start_over(TokioNet, snapshot, access, change).await
    }

    pub(crate) async fn start_over<N: Net>(
        net: N,
        snapshot: Snapshot,
        access: AccessLog,
        change: impl FnOnce(&mut WorkerConfig),
    ) -> Proxy {
        let (tables, receiver) = watch::channel(Arc::new(RouteTable::compile(&snapshot)));
        let drain = CancellationToken::new();
        let clock = Clock::system();
        let prober = (net.clone(), receiver.clone());
        let (deps, mut link) = WorkerDeps::new(net, clock, Rng::new(1), receiver, drain.clone(), access);
        let mut config = WorkerConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)), "proxy-1");
        change(&mut config);
        config.unfit = start_prober(ProberDeps {
            net: prober.0,
            clock,
            rng: Rng::new(2),
            tables: prober.1,
            secrets: config.secrets.clone(),
            stop: drain.clone(),
        });
        let done = spawn_local(run_worker(deps, config));
        let addr = (&mut link.bound)
            .await
            .expect("the worker lives")
            .expect("the address is free");
        let tls_addr = (&mut link.bound_tls).await.ok();
        Proxy {
            addr,
            tls_addr,
            drain,
            link,
            done,
            tables,
        }
    }

    /// Publishes a new table; workers take it when they next wait.
    pub(crate) fn publish(&self, snapshot: &Snapshot) {
        self.tables.send_replace(Arc::new(RouteTable::compile(snapshot)));
    }

    pub(crate) async fn pool(&self, name: &str) -> PoolView {
        let pools = self.link.pools().await.expect("the worker lives");
        pools
            .into_iter()
            .find(|pool| pool.name == name)
            .expect("the pool exists")
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("the proxy accepts")
    }

    /// Sends bytes, and reads until the proxy closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("the proxy reads");
        let mut answer = Vec::new();
        let read = timeout(LIMIT, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the proxy closes"); // a reset after the answer is an end too
        text(&answer)
    }

    /// `GET /` of a host on a connection of its own: head and body as text.
    pub(crate) async fn get(&self, host: &str, target: &str) -> String {
        self.raw(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
            .await
    }
}

/// An app behind the proxy.
pub(crate) struct App {
    pub(crate) addr: SocketAddr,
    /// Connections that it accepted.
    pub(crate) accepted: Rc<Cell<usize>>,
    /// Heads of the requests that it got.
    pub(crate) seen: Rc<RefCell<Vec<Request<()>>>>,
    pub(crate) task: JoinHandle<()>,
}

/// Real sockets of a machine that has its troubles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faulty {
    /// Who has no power: packets to it vanish, as they do when a network namespace is gone. No new connection to it comes
    /// about, and none is refused.
    pub(crate) lost: Rc<Cell<Option<SocketAddr>>>,
    /// Whether the worker gets no processor between the begin of its drain and the end of its listeners' linger.
    pub(crate) stalls: bool,
    pub(crate) is_stalled: Rc<Cell<bool>>,
}

impl Faulty {
    /// Nothing at this address ever had power.
    pub(crate) fn without(addr: SocketAddr) -> Self {
        let faulty = Faulty::default();
        faulty.lost.set(Some(addr));
        faulty
    }
}

impl Net for Faulty {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn listen(&self, addr: SocketAddr) -> std::io::Result<TcpListener> {
        TokioNet.listen(addr).await
    }

    fn local_addr(&self, listener: &TcpListener) -> std::io::Result<SocketAddr> {
        TokioNet.local_addr(listener)
    }

    async fn accept(&self, listener: &TcpListener) -> std::io::Result<(TcpStream, SocketAddr)> {
        if self.is_stalled.take() {
            std::future::pending::<()>().await;
        }
        TokioNet.accept(listener).await
    }

    fn turn_away(&self, listener: &TcpListener) -> std::io::Result<()> {
        self.is_stalled.set(self.stalls);
        TokioNet.turn_away(listener)
    }

    async fn connect(&self, addr: SocketAddr) -> std::io::Result<TcpStream> {
        if self.lost.get() == Some(addr) {
            std::future::pending::<()>().await;
        }
        TokioNet.connect(addr).await
    }

    fn near_addr(&self, stream: &TcpStream) -> std::io::Result<SocketAddr> {
        TokioNet.near_addr(stream)
    }

    async fn resolve(&self, name: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        TokioNet.resolve(name, port).await
    }
}

/// Where nobody listens: an address that refuses.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

pub(crate) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed_unsync()
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExec;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

impl App {
    /// Speaks HTTP/1.1 and HTTP/2 with prior knowledge.
    pub(crate) async fn start<F, A>(answer: A) -> App
    where
        A: Fn(Request<Incoming>) -> F + 'static,
        F: Future<Output = Response<Body>> + 'static,
    {
        Self::listen("127.0.0.1:0".parse().expect("an address"), answer).await
    }

    pub(crate) async fn listen<F, A>(addr: SocketAddr, answer: A) -> App
    where
        A: Fn(Request<Incoming>) -> F + 'static,
        F: Future<Output = Response<Body>> + 'static,
    {
        let answer = Rc::new(answer);
        let seen: Rc<RefCell<Vec<Request<()>>>> = Rc::default();
        let heads = Rc::clone(&seen);
        Self::raw(addr, seen, move |stream| {
            let (answer, heads) = (Rc::clone(&answer), Rc::clone(&heads));
            async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let mut head = Request::new(());
                    *head.method_mut() = request.method().clone();
                    *head.uri_mut() = request.uri().clone();
                    *head.version_mut() = request.version();
                    *head.headers_mut() = request.headers().clone();
                    heads.borrow_mut().push(head);
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let _ = auto::Builder::new(LocalExec) // clients may leave as they like
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            }
        })
        .await
    }

    /// Answers every request with its own name.
    pub(crate) async fn named(name: &'static str) -> App {
        Self::start(move |_| async move { Response::new(full(name)) }).await
    }

    /// Does what it likes with each connection, numbered by `accepted`.
    pub(crate) async fn scripted<F, A>(script: A) -> App
    where
        A: Fn(TcpStream) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        Self::raw("127.0.0.1:0".parse().expect("an address"), Rc::default(), script).await
    }

    async fn raw<F, A>(addr: SocketAddr, seen: Rc<RefCell<Vec<Request<()>>>>, script: A) -> App
    where
        A: Fn(TcpStream) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind(addr).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let accepted = Rc::new(Cell::new(0));
        let count = Rc::clone(&accepted);
        let task = spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.set(count.get() + 1);
                spawn_local(script(stream));
            }
        });
        App {
            addr,
            accepted,
            seen,
            task,
        }
    }

    /// The only head that it got.
    pub(crate) fn head(&self) -> Request<()> {
        let mut seen = self.seen.borrow_mut();
        assert_eq!(seen.len(), 1, "one request was expected: {seen:?}");
        seen.remove(0)
    }
}

/// Reads the head of an HTTP/1.1 message, up to and with its empty line.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    };
    timeout(LIMIT, reading).await.expect("a head in time");
    text(&head)
}

/// Reads exactly `len` bytes.
pub(crate) async fn read_exact(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    timeout(LIMIT, stream.read_exact(&mut bytes))
        .await
        .expect("bytes in time")
        .expect("bytes before the end");
    bytes
}

/// The status of an answer.
pub(crate) fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no status in {answer:?}"))
}
