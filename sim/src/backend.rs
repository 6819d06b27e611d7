//! Apps: what a task runs that is not Tidegate's own. Each answers HTTP/1.1 and HTTP/2 with its service and task in
//! headers, echoes what comes over an upgraded connection, says to the trace what it was asked, and reacts to SIGTERM as
//! its service was told to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tidegate::control::LocalExecutor;
use tidegate_core::id::TaskId;
use tidegate_core::simulated::{Fact, Start};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use turmoil::net::{TcpListener, TcpStream};

use crate::client::WISH;
use crate::shared::Shared;
use crate::witness::Arrival;

/// Port that apps listen on.
pub const APP_PORT: u16 = 80;

/// How the tasks of a service behave.
#[derive(Clone, Debug)]
pub struct App {
    /// Milliseconds to think about an answer, from and to.
    pub think_ms: (u64, u64),
    /// What SIGTERM does.
    pub on_sigterm: OnSigterm,
    /// Requests in a thousand whose connection is dropped instead of an answer.
    pub flaky: u64,
    /// Whether it keeps half-dead connections: it never closes one by itself and stops answering on some.
    pub leaky: bool,
    /// Ends TLS itself.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Default for App {
    fn default() -> Self {
        App {
            think_ms: (0, 20),
            on_sigterm: OnSigterm::Exit,
            flaky: 0,
            leaky: false,
            tls: None,
        }
    }
}

/// What ails one task, beside what its service's app is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// Every connection is dropped instead of an answer.
    Drops,
    /// Every answer is 500.
    Errors,
    /// It answers as always, and says 500 to whoever asks [`PROBED`].
    Unfit,
}

/// What active checks ask for.
pub const PROBED: &str = "/healthz";

/// What an app does when told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSigterm {
    /// Goes on serving for so many milliseconds, then exits.
    Drain(u64),
    /// Exits at once, with whatever is under way.
    Exit,
    /// Does not listen; SIGKILL follows after the grace period.
    Ignore,
}

/// What the world tells a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL.
    Kill,
    /// Nothing.
    None,
    /// SIGTERM.
    Term,
}

/// Runs one task's process until it ends, and stays for ever after: whether its address then refuses or swallows
/// packets is the world's to say.
pub async fn run(shared: Rc<Shared>, start: Start, app: App, mut signals: watch::Receiver<Signal>) {
    let task = start.task.clone();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, APP_PORT)))
        .await
        .expect("a new task's address has no listener");
    let mut connections = JoinSet::new();
    let code = {
        let ending = ending(&shared, app.on_sigterm, &mut signals);
        tokio::pin!(ending);
        loop {
            tokio::select! { biased;
                code = &mut ending => break code,
                Ok((stream, peer)) = listener.accept() => {
                    connections.spawn_local(serve(shared.clone(), start.clone(), app.clone(), stream, peer.ip()));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    };
    drop(listener);
    connections.abort_all();
    while connections.join_next().await.is_some() {}
    exited(&shared, task, code);
    std::future::pending::<()>().await;
}

fn exited(shared: &Shared, task: TaskId, code: i32) {
    shared.trace(&shared.task_name(&task), &format!("exits with {code}"));
    shared.tell(Fact::Exited { task, code });
}

/// The exit code, when it is time.
async fn ending(shared: &Shared, on_sigterm: OnSigterm, signals: &mut watch::Receiver<Signal>) -> i32 {
    let killed = |signal: &Signal| *signal == Signal::Kill;
    loop {
        let signal = *signals.borrow_and_update();
        match (signal, on_sigterm) {
            (Signal::Kill, _) => return 137,
            (Signal::Term, OnSigterm::Exit) => return 0,
            (Signal::Term, OnSigterm::Drain(ms)) => {
                tokio::select! { biased;
                    _ = signals.wait_for(killed) => return 137,
                    () = shared.wait(Duration::from_millis(ms)) => return 0,
                }
            }
            (Signal::Term, OnSigterm::Ignore) | (Signal::None, _) => {}
        }
        if signals.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn serve(shared: Rc<Shared>, start: Start, app: App, stream: TcpStream, from: IpAddr) {
    let Ok(own) = stream.local_addr() else { return };
    let line = Rc::new(Line::open(&shared, from, &start.task, own.ip()));
    let answer = |mut request: Request<Incoming>| {
        let (shared, start, app, line) = (shared.clone(), start.clone(), app.clone(), line.clone());
        async move {
            let ailment = shared.ailment(&start.task);
            let _busy = line.busy();
            if request.uri().path() == PROBED {
                let code = if ailment == Some(Ailment::Unfit) { 500 } else { 200 };
                return Ok(status(code));
            }
            let what = Arrival {
                service: start.name.clone(),
                host: host_of(&request),
                path: request.uri().path().to_owned(),
            };
            shared.witness().arrival(&start.task, what, from, shared.now());
            // Before it has the whole of a request an app does nothing with it, and what stops there may be sent again.
            let body = request.body_mut().collect().await.map_err(|_| Dropped)?.to_bytes();
            if let Some(name) = request.headers().get(WISH).and_then(|name| name.to_str().ok()) {
                let may_be_sent_again = request.method().is_safe();
                let (witness, service) = (shared.witness(), &start.name);
                witness.arrives_as(name, may_be_sent_again, service, from, shared.now());
            }
            if app.flaky > 0
                && shared.draw(&format!("moods of {}", start.task), 1, 1000).as_millis() as u64 <= app.flaky
            {
                shared.trace(
                    &shared.task_name(&start.task),
                    "drops a connection instead of an answer",
                );
                return Err(Dropped);
            }
            match ailment {
                Some(Ailment::Drops) => return Err(Dropped),
                Some(Ailment::Errors) => return Ok(status(500)),
                Some(Ailment::Unfit) | None => {}
            }
            if request.headers().contains_key(http::header::UPGRADE) {
                return Ok(upgrade(&shared, &start, request, line.busy()));
            }
            Ok(answer(&shared, &start, &app, &request, body.len()).await)
        }
    };
    let mut builder = auto::Builder::new(LocalExecutor);
    builder.http1().auto_date_header(false);
    builder.http2().auto_date_header(false);
    // A client that goes away in the middle is no news.
    if let Some(tls) = &app.tls {
        if let Ok(stream) = TlsAcceptor::from(tls.clone()).accept(stream).await {
            let _ = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        }
        return;
    }
    let _ = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer))
        .await;
}

/// A connection that somebody opened to a task, for as long as it is open there.
struct Line {
    shared: Rc<Shared>,
    number: u64,
}

/// One request, or one stream, on a connection.
struct Busy(Rc<Line>);

impl Line {
    fn open(shared: &Rc<Shared>, from: IpAddr, task: &TaskId, own: IpAddr) -> Self {
        Line {
            number: shared.witness().opens(from, task, own, shared.now()),
            shared: shared.clone(),
        }
    }

    fn busy(self: &Rc<Self>) -> Busy {
        self.shared.witness().begins(self.number, self.shared.now());
        Busy(self.clone())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.witness().closes(self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Line { shared, number } = &*self.0;
        shared.witness().finishes(*number, shared.now());
    }
}

fn status(code: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = http::StatusCode::from_u16(code).expect("a status of ours");
    response
}

/// Says 101 and echoes what comes from then on.
fn upgrade(shared: &Rc<Shared>, start: &Start, mut request: Request<Incoming>, busy: Busy) -> Response<Full<Bytes>> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (shared, task) = (shared.clone(), start.task.clone());
    tokio::task::spawn_local(async move {
        let _busy = busy;
        let Ok(upgraded) = upgrade.await else { return };
        shared.trace(&shared.task_name(&task), "holds a stream");
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        // It ends with whoever ends first.
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    Response::builder()
        .status(101)
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "websocket")
        .header("x-service", &start.name)
        .header("x-task", start.task.as_str())
        .body(Full::default())
        .expect("names of services are header values")
}

/// An app that drops a connection gives no reason.
#[derive(Debug)]
struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dropped")
    }
}

impl std::error::Error for Dropped {}

fn host_of(request: &Request<Incoming>) -> String {
    let host = request.headers().get(http::header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).or(request.uri().host());
    host.unwrap_or_default().to_owned()
}

/// To a request with a body of so many `bytes`.
async fn answer(
    shared: &Shared,
    start: &Start,
    app: &App,
    request: &Request<Incoming>,
    bytes: usize,
) -> Response<Full<Bytes>> {
    if app.leaky && shared.draw(&format!("leaks of {}", start.task), 1, 1000).as_millis() <= 10 {
        shared.trace(&shared.task_name(&start.task), "keeps a request for ever");
        std::future::pending::<()>().await;
    }
    let host = host_of(request);
    let path = request.uri().path();
    let (low, high) = app.think_ms;
    let think = shared.draw(start.task.as_str(), low, high);
    shared.wait(think).await;
    shared.trace(&shared.task_name(&start.task), &format!("answers {host}{path}"));
    let body = format!("{} took {bytes} bytes for {path}\n", start.name);
    Response::builder()
        .header("x-service", &start.name)
        .header("x-task", start.task.as_str())
        .body(Full::new(Bytes::from(body)))
        .expect("names of services are header values")
}
