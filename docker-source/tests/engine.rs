//! The client against an engine that misbehaves: a scripted one behind a real unix socket.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use tempfile::TempDir;
use tidegate_core::id::{SecretId, ServiceId, Version};
use tidegate_core::reconcile::desired::ServiceShape;
use tidegate_core::swarm::model::{ApiError, Event, EventAction, EventKind};
use tidegate_docker::Docker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::LocalSet;

/// What the engine does with one request.
#[derive(Clone, Debug)]
enum Reply {
    /// Answers with this status and body.
    Answer(u16, String),
    /// Announces a longer body than it sends, and closes.
    CutShort(String),
    /// Reads the request and never answers.
    Hang,
    /// Sends lines of the event stream, then closes in order.
    LinesThenEnd(Vec<String>),
    /// Sends lines of the event stream, then breaks off in the middle of one.
    LinesThenBreak(Vec<String>),
}

fn ok(body: impl Into<String>) -> Reply {
    Reply::Answer(200, body.into())
}

fn message(status: u16, text: &str) -> Reply {
    Reply::Answer(status, serde_json::json!({ "message": text }).to_string())
}

/// A scripted engine: `/_ping` is answered by itself, everything else by the next reply.
#[derive(Clone)]
struct Engine {
    path: PathBuf,
    api_version: Rc<RefCell<String>>,
    replies: Rc<RefCell<VecDeque<Reply>>>,
    /// Request lines with bodies, without pings.
    requests: Rc<RefCell<Vec<(String, String)>>>,
    _directory: Rc<TempDir>,
}

impl Engine {
    /// Needs a `LocalSet` around it.
    fn start(replies: Vec<Reply>) -> Engine {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let engine = Engine {
            path: directory.path().join("docker.sock"),
            api_version: Rc::new(RefCell::new(String::from("1.41"))),
            replies: Rc::new(RefCell::new(replies.into())),
            requests: Rc::default(),
            _directory: Rc::new(directory),
        };
        let listener = UnixListener::bind(&engine.path).expect("a socket");
        let server = engine.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::task::spawn_local(async move { server.serve(stream).await });
            }
        });
        engine
    }

    fn client(&self) -> Docker {
        Docker::connect(&format!("unix://{}", self.path.display())).expect("a good URL")
    }

    fn lines(&self) -> Vec<String> {
        self.requests.borrow().iter().map(|(line, _)| line.clone()).collect()
    }

    async fn serve(&self, mut stream: UnixStream) {
        let Some((line, body)) = request(&mut stream).await else {
            return;
        };
        if line == "GET /_ping" {
            let version = self.api_version.borrow().clone();
            let head = format!("HTTP/1.1 200 OK\r\nApi-Version: {version}\r\nContent-Length: 2\r\n\r\nOK");
            let _ = stream.write_all(head.as_bytes()).await;
            return;
        }
        self.requests.borrow_mut().push((line, body));
        let reply = self.replies.borrow_mut().pop_front().expect("the script has a reply");
        match reply {
            Reply::Answer(status, body) => {
                let length = body.len();
                let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
                let _ = stream.write_all(text.as_bytes()).await;
            }
            Reply::CutShort(body) => {
                let length = body.len() + 100;
                let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                let _ = stream.write_all(text.as_bytes()).await;
            }
            Reply::Hang => std::future::pending().await,
            Reply::LinesThenEnd(lines) => {
                chunks(&mut stream, &lines).await;
                let _ = stream.write_all(b"0\r\n\r\n").await;
            }
            Reply::LinesThenBreak(lines) => {
                chunks(&mut stream, &lines).await;
                let _ = stream.write_all(b"40\r\n{\"Type\":\"serv").await;
            }
        }
    }
}

async fn request(stream: &mut UnixStream) -> Option<(String, String)> {
    let mut text = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        text.extend_from_slice(&buffer[..count]);
        let all = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = all.split_once("\r\n\r\n") else {
            continue;
        };
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        };
        if body.len() >= head.lines().find_map(header).unwrap_or(0) {
            let line = head.lines().next()?.strip_suffix(" HTTP/1.1")?;
            return Some((String::from(line), String::from(body)));
        }
    }
}

async fn chunks(stream: &mut UnixStream, lines: &[String]) {
    let mut text = String::from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for line in lines {
        text.push_str(&format!("{:x}\r\n{line}\r\n", line.len()));
    }
    let _ = stream.write_all(text.as_bytes()).await;
}

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, test);
}

const SOON: Duration = Duration::from_millis(50);

/// A call with a limit, as the controller's loop puts around each.
async fn limited<T>(limit: Duration, call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(ApiError::Unreachable(String::from("no answer in time"))))
}

#[test]
fn a_missing_socket_is_an_engine_that_cannot_be_reached() {
    local(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("unix://{}/docker.sock", directory.path().display());
        let error = Docker::connect(&url)
            .expect("a good URL")
            .services(&[])
            .await
            .expect_err("nobody listens");
        assert!(
            matches!(&error, ApiError::Unreachable(text) if text.contains("No such file")),
            "{error}"
        );
    });
}

#[test]
fn a_socket_that_refuses_is_an_engine_that_cannot_be_reached() {
    local(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("docker.sock");
        drop(UnixListener::bind(&path).expect("a socket"));
        let client = Docker::connect(&format!("unix://{}", path.display())).expect("a good URL");
        let error = client.services(&[]).await.expect_err("nobody listens");
        assert!(
            matches!(&error, ApiError::Unreachable(text) if text.contains("refused")),
            "{error}"
        );
    });
}

#[test]
fn an_engine_that_comes_up_later_is_reached_then() {
    local(async {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("docker.sock");
        let client = Docker::connect(&format!("unix://{}", path.display())).expect("a good URL");
        client.nodes().await.expect_err("nobody listens yet");
        let engine = Engine::start(vec![ok("[]")]);
        std::fs::rename(&engine.path, &path).expect("the socket appears");
        assert_eq!(client.nodes().await, Ok(Vec::new()));
    });
}

#[test]
fn a_call_that_hangs_ends_with_its_limit() {
    local(async {
        let engine = Engine::start(vec![Reply::Hang, ok("[]"), Reply::Hang]);
        let client = engine.client();
        let error = limited(SOON, client.tasks(&[])).await.expect_err("the engine hangs");
        assert!(matches!(error, ApiError::Unreachable(_)), "{error}");
        assert_eq!(
            limited(Duration::from_secs(10), client.tasks(&[])).await,
            Ok(Vec::new())
        );
        let opened = limited(SOON, client.events()).await.map(|_| ());
        assert!(matches!(opened, Err(ApiError::Unreachable(_))));
    });
}

#[test]
fn an_answer_that_is_cut_short_or_alien_is_no_answer() {
    local(async {
        let whole = r#"[{"ID":"a","Spec":{"Name":"shop"}}]"#;
        let engine = Engine::start(vec![
            Reply::CutShort(String::from(&whole[..20])),
            ok(&whole[..20]),
            ok("<html>a proxy's error page</html>"),
            ok(r#"{"services":[]}"#),
            ok(r#"[{"Spec":{"Name":"without an ID"}}]"#),
            ok("null"),
            ok(whole),
        ]);
        let client = engine.client();
        assert!(matches!(client.services(&[]).await, Err(ApiError::Unreachable(_))));
        for _ in 0..5 {
            let answer = client.services(&[]).await;
            assert!(
                matches!(&answer, Err(ApiError::Garbled(text)) if text.starts_with("services: ")),
                "{answer:?}"
            );
        }
        assert_eq!(client.services(&[]).await.expect("a good answer").len(), 1);
    });
}

#[test]
fn a_manager_that_says_it_is_none_is_asked_again_and_is_one() {
    local(async {
        let text = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\".";
        let engine = Engine::start(vec![message(503, text), message(503, text), ok("[]")]);
        let client = engine.client();
        for _ in 0..2 {
            assert_eq!(
                client.services(&[]).await,
                Err(ApiError::NotManager(String::from(text)))
            );
        }
        assert_eq!(client.services(&[]).await, Ok(Vec::new()));
    });
}

#[test]
fn calls_carry_the_version_of_the_engine_and_follow_its_upgrade() {
    local(async {
        let too_old = "client version 1.41 is too old. Minimum supported API version is 1.44, please upgrade";
        let replies = vec![
            ok("[]"),
            message(400, too_old),
            ok("[]"),
            ok("[]"),
            Reply::Answer(204, String::new()),
        ];
        let engine = Engine::start(replies);
        let client = engine.client();
        assert_eq!(client.api_version(), None);
        client.nodes().await.expect("an answer");
        assert_eq!(client.api_version().as_deref(), Some("1.41"));
        // The engine is upgraded beyond what we know.
        *engine.api_version.borrow_mut() = String::from("1.99");
        assert!(matches!(client.nodes().await, Err(ApiError::Server(_))));
        client.nodes().await.expect("an answer");
        client.tasks(&[ServiceId::from("a")]).await.expect("an answer");
        // bollard's own calls are versioned too.
        client.remove_secret(&SecretId::from("s")).await.expect("removed");
        assert_eq!(
            engine.lines(),
            [
                "GET /v1.41/nodes",
                "GET /v1.41/nodes",
                "GET /v1.53/nodes",
                "GET /v1.53/tasks?filters=%7B%22service%22%3A%5B%22a%22%5D%7D",
                "DELETE /v1.53/secrets/s",
            ]
        );
    });
}

#[test]
fn an_engine_that_names_no_version_is_reported() {
    local(async {
        let engine = Engine::start(Vec::new());
        *engine.api_version.borrow_mut() = String::from("new");
        let error = engine.client().services(&[]).await.expect_err("no version to speak");
        assert!(
            matches!(&error, ApiError::Unreachable(text) if text.contains("version")),
            "{error}"
        );
    });
}

fn event(kind: &str, action: &str, id: &str) -> String {
    format!(
        "{}\n",
        serde_json::json!({ "Type": kind, "Action": action, "Actor": { "ID": id }, "scope": "swarm" })
    )
}

#[test]
fn events_come_in_order_and_unreadable_lines_are_skipped() {
    local(async {
        let split = event("node", "update", "n1");
        let (first, second) = split.split_at(13);
        let lines = vec![
            event("service", "create", "a"),
            String::from("this is no JSON\n"),
            String::from("[]\n\n"),
            event("starship", "launch", "x"),
            String::from(first),
            String::from(second) + &event("service", "remove", "gone"),
            // Without a line end, and cut off.
            String::from("{\"Type\":\"service\""),
        ];
        let engine = Engine::start(vec![Reply::LinesThenEnd(lines)]);
        let events: Vec<_> = engine.client().events().await.expect("a stream").collect().await;
        let of = |kind, action, id: &str| {
            Ok(Event {
                kind,
                action,
                id: String::from(id),
            })
        };
        assert_eq!(
            events,
            [
                of(EventKind::Service, EventAction::Create, "a"),
                of(EventKind::Other, EventAction::Other, "x"),
                of(EventKind::Node, EventAction::Update, "n1"),
                of(EventKind::Service, EventAction::Remove, "gone"),
            ]
        );
        assert!(engine.lines()[0].starts_with("GET /v1.41/events?filters=%7B%22scope%22%3A%5B%22swarm%22%5D"));
    });
}

#[test]
fn a_stream_that_breaks_ends_with_an_error() {
    local(async {
        let engine = Engine::start(vec![Reply::LinesThenBreak(vec![event("service", "update", "a")])]);
        let events: Vec<_> = engine.client().events().await.expect("a stream").collect().await;
        assert_eq!(events.len(), 2);
        assert!(matches!(events[1], Err(ApiError::Unreachable(_))));
    });
}

#[test]
fn replayed_history_passes_as_it_is() {
    local(async {
        let lines: Vec<String> = (0..2_000)
            .map(|n| event("service", "remove", &format!("old-{n}")))
            .collect();
        let engine = Engine::start(vec![Reply::LinesThenEnd(lines)]);
        assert_eq!(engine.client().events().await.expect("a stream").count().await, 2_000);
    });
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    local(async {
        let long = "x".repeat(1 << 20);
        let mut lines = vec![long.clone(), long.clone(), long];
        lines.push(String::from("\n"));
        lines.push(event("service", "update", "a"));
        let engine = Engine::start(vec![Reply::LinesThenEnd(lines)]);
        let events: Vec<_> = engine.client().events().await.expect("a stream").collect().await;
        assert_eq!(events.len(), 1);
    });
}

fn current(version: u64) -> Reply {
    ok(serde_json::json!({
        "ID": "id",
        "Version": { "Index": version },
        "Spec": {
            "Name": "tidegate_proxy",
            "Labels": {},
            "TaskTemplate": { "ContainerSpec": { "Image": "tidegate:1", "CapabilityDrop": ["ALL"] } },
            "Mode": { "Replicated": { "Replicas": 2 } },
        },
    })
    .to_string())
}

fn wanted() -> ServiceShape {
    ServiceShape {
        name: String::from("tidegate_proxy"),
        image: String::from("tidegate:2"),
        replicas: Some(2),
        ..ServiceShape::default()
    }
}

#[test]
fn an_update_changes_what_differs_and_keeps_the_rest() {
    local(async {
        let engine = Engine::start(vec![current(7), ok("{\"Warnings\":null}")]);
        let updated = engine
            .client()
            .update_service(&ServiceId::from("id"), Version(7), &wanted())
            .await;
        assert_eq!(updated, Ok(()));
        assert_eq!(
            engine.lines(),
            ["GET /v1.41/services/id", "POST /v1.41/services/id/update?version=7"]
        );
        let body: serde_json::Value = serde_json::from_str(&engine.requests.borrow()[1].1).expect("JSON");
        let container = &body["TaskTemplate"]["ContainerSpec"];
        assert_eq!(container["Image"], "tidegate:2");
        assert_eq!(container["CapabilityDrop"], serde_json::json!(["ALL"]));
    });
}

#[test]
fn an_update_of_what_changed_meanwhile_is_a_conflict() {
    local(async {
        let lost = "rpc error: code = Unknown desc = update out of sequence";
        let engine = Engine::start(vec![
            current(8),
            current(7),
            message(500, lost),
            message(404, "service id not found"),
        ]);
        let client = engine.client();
        let id = ServiceId::from("id");
        // Seen before it is written, and seen by Docker.
        assert!(matches!(
            client.update_service(&id, Version(7), &wanted()).await,
            Err(ApiError::Conflict(_))
        ));
        assert_eq!(
            client.update_service(&id, Version(7), &wanted()).await,
            Err(ApiError::Conflict(String::from(lost)))
        );
        assert!(matches!(
            client.update_service(&id, Version(7), &wanted()).await,
            Err(ApiError::NotFound(_))
        ));
    });
}

#[test]
fn a_service_whose_secret_does_not_exist_is_refused_by_name() {
    local(async {
        let engine = Engine::start(vec![
            ok("[]"),
            ok(r#"[{"ID":"s1","Spec":{"Name":"identity"}}]"#),
            ok(r#"{"ID":"new"}"#),
        ]);
        let client = engine.client();
        let mut shape = wanted();
        shape
            .secrets
            .insert(String::from("identity"), String::from("identity.pem"));
        let error = client.create_service(&shape).await.expect_err("no such secret");
        assert!(
            matches!(&error, ApiError::Refused(text) if text.contains("\"identity\"")),
            "{error}"
        );
        assert_eq!(client.create_service(&shape).await, Ok(ServiceId::from("new")));
    });
}

#[test]
fn names_that_are_taken_are_said_to_be() {
    local(async {
        let engine = Engine::start(vec![
            message(409, "secret ca already exists"),
            message(409, "network with name control already exists"),
            Reply::Answer(201, String::from(r#"{"ID":"s1"}"#)),
        ]);
        let client = engine.client();
        assert!(matches!(
            client.create_secret("ca", &[], b"x").await,
            Err(ApiError::Exists(_))
        ));
        assert!(matches!(
            client.create_network("control", true).await,
            Err(ApiError::Exists(_))
        ));
        assert_eq!(
            client.create_secret("ca", &[], b"hello").await,
            Ok(SecretId::from("s1"))
        );
        let requests = engine.requests.borrow();
        let network: serde_json::Value = serde_json::from_str(&requests[1].1).expect("JSON");
        assert_eq!(
            (&network["Driver"], &network["Internal"]),
            (&"overlay".into(), &true.into())
        );
        assert_eq!(network["Attachable"], false);
        let secret: serde_json::Value = serde_json::from_str(&requests[2].1).expect("JSON");
        assert_eq!(secret["Data"], "aGVsbG8=");
    });
}
