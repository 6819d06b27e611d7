//! SwarmKit's watch against a manager that misbehaves: a scripted one behind real unix sockets, with real TLS.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tidegate_core::id::{ServiceId, TaskId, Version};
use tidegate_core::swarm::model::{ApiError, DesiredState, EventAction, FeedEnd, TaskEvent, TaskState};
use tidegate_docker::Docker;
use tokio::net::UnixListener;
use tokio_rustls::TlsAcceptor;

/// `{events {action: update, object {task {id: "t1", meta {version {index: 42}}, service_id: "s1", status {state: 512},
/// desired_state: 640}}}}`
const STOPS: &[u8] =
    b"\x0a\x1c\x08\x02\x12\x18\x22\x16\x0a\x02t1\x12\x04\x0a\x02\x08\x2a\x22\x02s1\x4a\x03\x10\x80\x04\x50\x80\x05";
/// The longest message that is read, and one byte more.
const TOO_LONG: u32 = (16 << 20) + 1;

fn stops() -> TaskEvent {
    TaskEvent {
        action: EventAction::Update,
        task: TaskId::from("t1"),
        service: ServiceId::from("s1"),
        version: Version(42),
        state: TaskState::Running,
        desired: DesiredState::Shutdown,
    }
}

/// What the manager does with one call.
#[derive(Clone, Debug)]
struct Script {
    /// Pieces of the body, each a frame of its own.
    pieces: Vec<Vec<u8>>,
    /// Status and text in the trailers; none = the stream just ends.
    status: Option<(&'static str, &'static str)>,
    /// They are in the head, and there is no body.
    refuses: bool,
    http_status: u16,
    alpn: bool,
    /// Its certificate comes from an authority that the API does not name.
    is_stranger: bool,
    /// What its certificate says it is.
    role: &'static str,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            pieces: vec![message(b"")],
            status: Some(("2", "context%20canceled")),
            refuses: false,
            http_status: 200,
            alpn: true,
            is_stranger: false,
            role: "swarm-manager",
        }
    }
}

fn message(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short");
    [&[0][..], &length.to_be_bytes(), content].concat()
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        Authority { pem, issuer }
    }

    fn server(&self, alpn: bool, role: &str) -> ServerConfig {
        let names = vec![String::from("node-id"), String::from(role)];
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("they fit");
        if alpn {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        config
    }
}

/// Path and headers of a call, and its message.
type Call = (Request<()>, Bytes);

struct Manager {
    docker: Docker,
    calls: Arc<Mutex<Vec<Call>>>,
    control: PathBuf,
    _directory: TempDir,
}

impl Manager {
    fn start(script: Script) -> Manager {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (api, control) = (
            directory.path().join("docker.sock"),
            directory.path().join("control.sock"),
        );
        let (ours, theirs) = (Authority::new(), Authority::new());
        let trusted = ours.pem.clone();
        tokio::spawn(serve_api(UnixListener::bind(&api).expect("a socket"), trusted));
        let signer = if script.is_stranger { theirs } else { ours };
        let tls = TlsAcceptor::from(Arc::new(signer.server(script.alpn, script.role)));
        let calls = Arc::default();
        let listener = UnixListener::bind(&control).expect("a socket");
        tokio::spawn(serve_control(listener, tls, script, Arc::clone(&calls)));
        let docker = Docker::connect(&format!("unix://{}", api.display())).expect("a good URL");
        Manager {
            docker: docker.with_control_socket(&control),
            calls,
            control,
            _directory: directory,
        }
    }

    /// Everything that is told, up to the end.
    async fn hear(&self, from: Option<u64>) -> (Vec<TaskEvent>, FeedEnd) {
        let mut heard = Vec::new();
        let told = match self.docker.task_changes(from.map(Version)).await {
            Ok(told) => told,
            Err(end) => return (heard, end),
        };
        let mut told = pin!(told);
        loop {
            match told.next().await.expect("it ends with a reason") {
                Ok(events) => heard.extend(events),
                Err(end) => {
                    assert!(told.next().await.is_none(), "nothing comes after the end");
                    return (heard, end);
                }
            }
        }
    }
}

async fn serve_api(listener: UnixListener, trust_root: String) {
    while let Ok((socket, _)) = listener.accept().await {
        let body = serde_json::json!({"ID": "x", "TLSInfo": {"TrustRoot": trust_root, "CertIssuerSubject": ""}});
        let service = service_fn(move |_: Request<Incoming>| {
            let answer = Response::builder().header("Api-Version", "1.41");
            let answer = answer.body(Full::new(Bytes::from(body.to_string())));
            async move { answer }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

async fn serve_control(listener: UnixListener, tls: TlsAcceptor, script: Script, calls: Arc<Mutex<Vec<Call>>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let Ok(stream) = tls.accept(socket).await else { continue };
        let (script, calls) = (script.clone(), Arc::clone(&calls));
        let service = service_fn(move |request: Request<Incoming>| {
            let (script, calls) = (script.clone(), Arc::clone(&calls));
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a whole request").to_bytes();
                calls
                    .lock()
                    .expect("no panic")
                    .push((Request::from_parts(head, ()), body));
                Ok::<_, Infallible>(answer(script))
            }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

fn answer(script: Script) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    if let Some((status, text)) = script.status {
        trailers.insert("grpc-status", status.parse().expect("a value"));
        trailers.insert("grpc-message", text.parse().expect("a value"));
    }
    let answer = Response::builder().status(script.http_status);
    if script.refuses {
        let mut answer = answer.body(Full::default().boxed()).expect("a response");
        *answer.headers_mut() = trailers;
        return answer;
    }
    let mut frames: Vec<_> = script
        .pieces
        .into_iter()
        .map(|piece| Frame::data(Bytes::from(piece)))
        .collect();
    if script.status.is_some() {
        frames.push(Frame::trailers(trailers));
    }
    let body = StreamBody::new(stream::iter(frames.into_iter().map(Ok)));
    answer.body(BodyExt::boxed(body)).expect("a response")
}

#[tokio::test]
async fn changes_are_told_in_order_however_messages_are_cut() {
    let whole = [message(b""), message(STOPS), message(b""), message(STOPS)].concat();
    let cuts: [Vec<Vec<u8>>; 3] = [
        vec![whole.clone()],
        whole.iter().map(|byte| vec![*byte]).collect(),
        whole.chunks(7).map(<[u8]>::to_vec).collect(),
    ];
    for pieces in cuts {
        let manager = Manager::start(Script {
            pieces,
            ..Script::default()
        });
        let (heard, end) = manager.hear(None).await;
        assert_eq!(heard, [stops(), stops()]);
        assert!(
            matches!(&end, FeedEnd::Broken(error) if error.to_string().contains("context canceled")),
            "{end}"
        );
    }
}

#[tokio::test]
async fn the_call_asks_for_tasks_alone_from_the_version_that_is_named() {
    let manager = Manager::start(Script::default());
    manager.hear(Some(300)).await;
    manager.hear(None).await;
    let calls = manager.calls.lock().expect("no panic");
    let [(head, resumed), (_, fresh)] = &calls[..] else {
        panic!("two calls: {calls:?}");
    };
    assert_eq!(head.uri().path(), "/docker.swarmkit.v1.Watch/Watch");
    assert_eq!(head.uri().host(), Some("swarm-manager"));
    assert_eq!(head.headers()["content-type"], "application/grpc");
    assert_eq!(head.headers()["te"], "trailers");
    assert_eq!(
        &resumed[..],
        message(b"\x0a\x08\x0a\x04task\x10\x07\x12\x03\x08\xac\x02")
    );
    assert_eq!(&fresh[..], message(b"\x0a\x08\x0a\x04task\x10\x07"));
}

#[tokio::test]
async fn a_manager_that_names_no_protocol_is_spoken_to_all_the_same() {
    let manager = Manager::start(Script {
        alpn: false,
        pieces: vec![message(b""), message(STOPS)],
        ..Script::default()
    });
    assert_eq!(manager.hear(None).await.0, [stops()]);
}

#[tokio::test]
async fn a_version_that_is_refused_is_a_gap() {
    for refuses in [true, false] {
        let manager = Manager::start(Script {
            pieces: Vec::new(),
            status: Some(("2", "versions are out of order")),
            refuses,
            ..Script::default()
        });
        let (_, end) = manager.hear(Some(1 << 40)).await;
        assert!(
            matches!(&end, FeedEnd::Gap(text) if text.contains("versions are out of order")),
            "{end}"
        );
        let (_, end) = manager.hear(None).await;
        assert!(matches!(&end, FeedEnd::Broken(_)), "{end}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_a_gap_and_no_reason_to_take_much_memory() {
    let too_long = [&[0][..], &TOO_LONG.to_be_bytes(), b"..."].concat();
    let compressed = [&[1][..], &3_u32.to_be_bytes(), b"..."].concat();
    for (bad, why) in [
        (too_long, "16777217 bytes"),
        (compressed, "compressed"),
        (message(b"\x0a\xff"), "cannot be read"),
    ] {
        let manager = Manager::start(Script {
            pieces: vec![message(b""), message(STOPS), bad],
            ..Script::default()
        });
        let (heard, end) = manager.hear(Some(1)).await;
        assert_eq!(heard, [stops()]);
        assert!(matches!(&end, FeedEnd::Gap(text) if text.contains(why)), "{end}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_without_a_status_broke() {
    let half = message(STOPS)[..9].to_vec();
    for pieces in [vec![message(b"")], vec![message(b""), half], Vec::new()] {
        let manager = Manager::start(Script {
            pieces,
            status: None,
            ..Script::default()
        });
        let (_, end) = manager.hear(None).await;
        assert!(
            matches!(&end, FeedEnd::Broken(error) if error.to_string().contains("without a status")),
            "{end}"
        );
    }
}

#[tokio::test]
async fn another_api_is_no_watch() {
    let manager = Manager::start(Script {
        refuses: true,
        status: Some(("12", "unknown service docker.swarmkit.v1.Watch")),
        ..Script::default()
    });
    let (_, end) = manager.hear(Some(1)).await;
    assert!(
        matches!(&end, FeedEnd::NotThere(text) if text.contains("unknown service")),
        "{end}"
    );
    let manager = Manager::start(Script {
        http_status: 502,
        ..Script::default()
    });
    let (_, end) = manager.hear(None).await;
    assert!(
        matches!(&end, FeedEnd::Broken(error) if error.to_string().contains("502")),
        "{end}"
    );
}

#[tokio::test]
async fn who_is_no_manager_of_this_swarm_is_told_nothing() {
    let stranger = Script {
        is_stranger: true,
        ..Script::default()
    };
    let worker = Script {
        role: "swarm-worker",
        ..Script::default()
    };
    for script in [stranger, worker] {
        let manager = Manager::start(script);
        let (_, end) = manager.hear(None).await;
        assert!(
            matches!(&end, FeedEnd::Broken(error) if error.to_string().contains("certificate")),
            "{end}"
        );
        assert!(manager.calls.lock().expect("no panic").is_empty());
    }
}

#[tokio::test]
async fn a_missing_socket_says_what_to_mount_and_one_without_a_listener_broke() {
    let manager = Manager::start(Script::default());
    let docker = manager
        .docker
        .clone()
        .with_control_socket(manager.control.with_file_name("none"));
    let end = docker.task_changes(None).await.err();
    assert!(
        matches!(&end, Some(FeedEnd::NotThere(text)) if text.contains("/var/run/docker/swarm")),
        "{end:?}"
    );
    let stale = manager.control.with_file_name("stale.sock");
    drop(UnixListener::bind(&stale).expect("a socket"));
    let end = manager
        .docker
        .clone()
        .with_control_socket(stale)
        .task_changes(None)
        .await
        .err();
    assert!(
        matches!(&end, Some(FeedEnd::Broken(ApiError::Unreachable(_)))),
        "{end:?}"
    );
    let plain = Docker::connect("unix:///nowhere").expect("a good URL");
    let end = plain.task_changes(None).await.err();
    assert!(matches!(end, Some(FeedEnd::NotThere(_))), "{end:?}");
}
