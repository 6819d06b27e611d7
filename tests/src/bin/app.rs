//! The application that tests route to: one static binary, so its image is `FROM scratch` too.
//!
//! | path | answer |
//! |---|---|
//! | any | task, node, version, and the request as it arrived, a line each |
//! | any, with `Upgrade:` | 101, then every byte comes back (WebSocket or not) |
//! | `/echo` | the request's body, streamed |
//! | `/length` | how long the request's body was, once it is there |
//! | `/slow?MS` | as any, after so many milliseconds |
//! | `/sick` | 204; from now on everything is answered 503, checks included |
//! | `/login?COOKIE` | as any, and sets the cookie of that name to a value that no other answer sets |
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge. Environment: `PORT` (8080), `VERSION`, `TASK`, `NODE` (told in answers),
//! `STOP` (`drain`: requests under way end first; `now`: it ends at once on SIGTERM; `die`: so, and as one that does not handle it), `START_MS` (waits before it listens).
//! `app check` asks the one beside it and exits 0 or 1, for health checks; `app sick` asks it for `/sick`. `app resolve NAME` prints
//! the addresses of a name as it is known in its container, a line each.
//!
//! It stands in for `traefik/whoami` in the stack files of `deploy/examples/`: `WHOAMI_NAME` and `WHOAMI_PORT_NUMBER` are
//! understood, and `--port`, `--cert` and `--key`, with which it ends TLS itself.

use std::convert::Infallible;
use std::env;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

type Body = BoxBody<Bytes, hyper::Error>;

fn main() -> ExitCode {
    let asked = match env::args().nth(1).as_deref() {
        Some("check") => Some(ask_own("/", "HTTP/1.1 200")),
        Some("sick") => Some(ask_own("/sick", "HTTP/1.1 204")),
        Some("resolve") => Some(resolve(&env::args().nth(2).unwrap_or_default())),
        Some(_) | None => None,
    };
    match asked {
        Some(Some(())) => return ExitCode::SUCCESS,
        Some(None) => return ExitCode::FAILURE,
        None => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(serve()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("app: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.into())
}

/// The value behind `--name`.
fn flag(name: &str) -> Option<String> {
    env::args()
        .skip_while(|argument| argument.trim_start_matches('-') != name)
        .nth(1)
}

fn port() -> String {
    flag("port").unwrap_or_else(|| setting("PORT", &setting("WHOAMI_PORT_NUMBER", "8080")))
}

/// With `--cert FILE --key FILE`: what TLS is ended with.
fn tls() -> anyhow::Result<Option<TlsAcceptor>> {
    let (Some(chain), Some(key)) = (flag("cert"), flag("key")) else {
        return Ok(None);
    };
    let certificates = CertificateDer::pem_file_iter(&chain).and_then(Iterator::collect);
    let certificates: Vec<_> = certificates.with_context(|| chain.clone())?;
    let key = PrivateKeyDer::from_pem_file(&key).with_context(|| key.clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn resolve(name: &str) -> Option<()> {
    for address in (name, 0).to_socket_addrs().ok()? {
        println!("{}", address.ip());
    }
    Some(())
}

/// One request to the app of this container.
fn ask_own(path: &str, expected: &str) -> Option<()> {
    let mut connection = TcpStream::connect(format!("127.0.0.1:{}", port())).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nhost: check\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    answer.starts_with(expected).then_some(())
}

async fn serve() -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::time::sleep(Duration::from_millis(setting("START_MS", "0").parse()?)).await;
    let tls = tls()?;
    let listener = TcpListener::bind(format!("0.0.0.0:{}", port())).await?;
    println!("app: listens on {}", listener.local_addr()?);
    let open = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! { biased;
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        stream.set_nodelay(true)?;
        let (tls, watcher) = (tls.clone(), open.watcher());
        tokio::spawn(async move {
            match tls {
                None => serve_connection(stream, watcher).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve_connection(stream, watcher).await;
                    }
                }
            }
        });
    }
    drop(listener);
    match setting("STOP", "drain").as_str() {
        "drain" => open.shutdown().await,
        "die" => std::process::exit(143),
        _ => {}
    }
    Ok(())
}

async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, open: Watcher) {
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer));
    let connection = open.watch(connection.into_owned());
    // The client went away: nobody is left to be told.
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    static IS_SICK: AtomicBool = AtomicBool::new(false);
    if request.uri().path() == "/sick" {
        IS_SICK.store(true, Ordering::Relaxed);
        return Ok(built(
            Response::builder().status(StatusCode::NO_CONTENT),
            Full::default(),
        ));
    }
    if IS_SICK.load(Ordering::Relaxed) {
        let sick = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
        return Ok(built(sick, Full::from("sick\n")));
    }
    if let Some(protocol) = request.headers().get(header::UPGRADE).cloned() {
        tokio::spawn(echo(request));
        let switching = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, protocol);
        return Ok(built(switching, Full::default()));
    }
    if request.uri().path() == "/echo" {
        return Ok(Response::new(request.into_body().boxed()));
    }
    if request.uri().path() == "/length" {
        let length = match request.into_body().collect().await {
            Ok(whole) => whole.to_bytes().len().to_string(),
            Err(error) => error.to_string(),
        };
        return Ok(built(Response::builder(), Full::from(format!("length: {length}\n"))));
    }
    if request.uri().path() == "/slow"
        && let Some(ms) = request.uri().query().and_then(|query| query.parse().ok())
    {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    let mut plain = Response::builder().header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    if request.uri().path() == "/login"
        && let Some(name) = request.uri().query()
    {
        plain = plain.header(header::SET_COOKIE, format!("{name}={}; Path=/", session()));
    }
    Ok(built(plain, Full::from(description(&request))))
}

/// A value of its own for each session: the container's name is its task's.
fn session() -> String {
    static SESSIONS: AtomicU64 = AtomicU64::new(0);
    let container = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}-{}", container.trim(), SESSIONS.fetch_add(1, Ordering::Relaxed))
}

fn built(builder: http::response::Builder, body: Full<Bytes>) -> Response<Body> {
    let body = body.map_err(|never| match never {}).boxed();
    builder.body(body).expect("the headers are right as they stand here")
}

fn description(request: &Request<Incoming>) -> String {
    let mut text = env::var("WHOAMI_NAME").map_or_else(|_| String::new(), |name| format!("Name: {name}\n"));
    text.push_str(&format!(
        "task: {}\nnode: {}\nversion: {}\nrequest: {} {} {:?}\n",
        setting("TASK", "-"),
        setting("NODE", "-"),
        setting("VERSION", "-"),
        request.method(),
        request.uri(),
        request.version(),
    ));
    for (name, value) in request.headers() {
        text.push_str(&format!(
            "header {name}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    text
}

async fn echo(request: Request<Incoming>) {
    if let Ok(upgraded) = hyper::upgrade::on(request).await {
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        // Either side may leave at any time.
        let _ = tokio::io::copy(&mut from, &mut to).await;
    }
}
