//! The apps of the demo: real HTTP servers on 127.0.0.1, one per task, on ports that the system chooses.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tidegate_core::simulated::{Fact, Start};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::engine::{Engine, Process};

/// How a service's app behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Behaviour {
    /// Time that an answer takes.
    pub(super) work: Duration,
    /// How long it serves on after SIGTERM; zero = exits at once, with whatever is under way.
    pub(super) drain: Duration,
}

/// A port of its own.
pub(super) fn bind() -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Serves until SIGTERM or SIGKILL.
pub(super) async fn run(engine: Engine, listener: TcpListener, start: Start, behaviour: Behaviour, process: Process) {
    let who = Rc::new(Who::new(&start));
    let mut connections = JoinSet::new();
    let code = {
        let terminated = async {
            process.term.cancelled().await;
            engine.wait(behaviour.drain).await;
        };
        tokio::pin!(terminated);
        loop {
            tokio::select! { biased;
                () = process.kill.cancelled() => break 137,
                () = &mut terminated => break 0,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn_local(serve(engine.clone(), stream, who.clone(), behaviour));
                    }
                }
            }
        }
    };
    drop(listener);
    connections.shutdown().await;
    let task = start.task;
    engine.tell(Fact::Exited { task, code });
}

/// What an app says about itself.
struct Who {
    service: String,
    image: String,
    task: String,
}

impl Who {
    fn new(start: &Start) -> Self {
        let short: String = start.task.as_str().chars().take(6).collect();
        let slot = start.slot.map(|slot| format!(".{slot}")).unwrap_or_default();
        Who {
            service: start.name.clone(),
            image: start.shape.image.clone(),
            task: format!("{}{slot}.{short}", start.name),
        }
    }
}

async fn serve(engine: Engine, stream: TcpStream, who: Rc<Who>, behaviour: Behaviour) {
    stream.set_nodelay(true).ok(); // only slower without
    let answer = |request: Request<Incoming>| {
        let (engine, who) = (engine.clone(), who.clone());
        async move {
            if behaviour.work > Duration::ZERO {
                engine.wait(behaviour.work).await;
            }
            let Who { service, image, task } = &*who;
            let path = request.uri().path();
            let text = format!("{service} ({image}), task {task}, answers {path}\n");
            let response = Response::builder().header("x-service", service).header("x-task", task);
            let response = response.body(Full::new(Bytes::from(text)));
            Ok::<_, Infallible>(response.expect("names of services and tasks are header values"))
        }
    };
    let server = hyper::server::conn::http1::Builder::new();
    // A proxy that goes away in the middle is no news.
    server
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await
        .ok();
}
