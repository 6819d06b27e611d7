//! The loop around the active checks (`core::pool::prober`): sends the requests, and tells all workers of the process which
//! endpoints fail them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version};
use tidegate_core::machine::{Input, step};
use tidegate_core::pool::EndpointKey;
use tidegate_core::pool::prober::{Action, Fact, Probe, Prober, Unfit};
use tidegate_core::request::fault::UpstreamFault;
use tidegate_core::rng::Rng;
use tidegate_core::route::RouteTable;
use tidegate_core::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::pools::{Endpoint, addr_value};
use crate::clock::Clock;
use crate::http::body::RequestBody;
use crate::net::Net;
use crate::secrets::Secrets;
use crate::upstream::connect::{self, Opened, Target, Wants};
use crate::upstream::trust::Trusts;

/// Answers that wait for the loop; whoever has one waits meanwhile.
const ANSWERS_WAITING_MAX: usize = 64;
const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"), " (probe)");

/// What the prober of a process is made of.
#[derive(Debug)]
pub struct ProberDeps<N: Net> {
    /// Sockets.
    pub net: N,
    /// Time.
    pub clock: Clock,
    /// Chance, so that proxies do not probe at one moment.
    pub rng: Rng,
    /// The table that the workers serve by, and every new one.
    pub tables: watch::Receiver<Arc<RouteTable>>,
    /// For `ssl_backend_ca`.
    pub secrets: Secrets,
    /// Cancelled when it is to end; what it said last holds on.
    pub stop: CancellationToken,
}

/// Starts the prober of a process on this thread, within a `LocalSet`. What it says is for
/// [`WorkerConfig::unfit`](super::WorkerConfig::unfit) of all its workers.
pub fn start_prober<N: Net>(deps: ProberDeps<N>) -> watch::Receiver<Arc<Unfit>> {
    let (told, unfit) = watch::channel(Arc::default());
    spawn_local(run(deps, told));
    unfit
}

async fn run<N: Net>(deps: ProberDeps<N>, told: watch::Sender<Arc<Unfit>>) {
    let ProberDeps {
        net,
        clock,
        mut rng,
        mut tables,
        secrets,
        stop,
    } = deps;
    let (answers, mut incoming) = mpsc::channel(ANSWERS_WAITING_MAX);
    let shell = Rc::new(Shell {
        net,
        trusts: Trusts::new(clock, secrets),
        endpoints: RefCell::default(),
        answers,
    });
    let mut machine = Prober::new(rng.next_u64());
    let mut input = Input::Fact(Fact::Table(Arc::clone(&tables.borrow_and_update())));
    loop {
        let next = step(&mut machine, input, clock.now(), |action| match action {
            Action::Probe(probe) => {
                spawn_local(Rc::clone(&shell).ask(probe));
            }
            Action::Tell(unfit) => {
                tell_people(&told.borrow(), &unfit);
                told.send_replace(unfit);
            }
        });
        input = tokio::select! { biased;
            () = stop.cancelled() => return,
            changed = tables.changed() => {
                if changed.is_err() {
                    return; // there are no workers any more
                }
                shell.endpoints.borrow_mut().clear();
                Input::Fact(Fact::Table(Arc::clone(&tables.borrow_and_update())))
            }
            Some(answer) = incoming.recv() => Input::Fact(answer),
            () = clock.sleep_until(next.map(|deadline| deadline.at)) => Input::Timeout,
        };
    }
}

fn tell_people(before: &Unfit, now: &Unfit) {
    for (endpoint, addr, _) in now.difference(before) {
        info!(%endpoint, %addr, "an endpoint fails its active checks");
    }
    for (endpoint, addr, _) in before.difference(now) {
        info!(%endpoint, %addr, "an endpoint fails its active checks no more");
    }
}

struct Shell<N> {
    net: N,
    trusts: Trusts,
    /// As they were spoken to last, so that a handshake that fails is told once and not at each probe.
    endpoints: RefCell<BTreeMap<EndpointKey, Rc<Endpoint>>>,
    answers: mpsc::Sender<Fact>,
}

impl<N: Net> Shell<N> {
    async fn ask(self: Rc<Self>, probe: Probe) {
        let addr = probe.endpoint.1;
        let limit = Duration::from_millis(probe.checks.timeout_ms.into());
        let passed = match timeout(limit, self.status(&probe, limit)).await {
            Ok(Ok(status)) => {
                debug!(%addr, status, "an active check was answered");
                Some(probe.checks.accepts(status))
            }
            Ok(Err(fault)) => {
                debug!(%addr, %fault, "an active check failed");
                // What we lack says nothing about the endpoint.
                (fault.blames_endpoint() && fault != UpstreamFault::NoLeg).then_some(false)
            }
            Err(_) => {
                debug!(%addr, ?limit, "an active check was not answered in time");
                Some(false)
            }
        };
        let endpoint = probe.endpoint;
        self.answers.send(Fact::Answer { endpoint, passed }).await.ok(); // the prober has ended
    }

    /// The status that the endpoint answers with. Its connection serves nothing else: what is kept open for users says little
    /// about whether new ones are taken.
    async fn status(&self, probe: &Probe, limit: Duration) -> Result<u16, UpstreamFault> {
        let endpoint = self.endpoint(probe);
        let wants = Wants::of(probe.protocol, false);
        let opened = connect::open(&self.net, &endpoint, wants, limit).await?;
        let is_http2 = matches!(opened, Opened::Http2(_));
        let request = request(probe, is_http2).ok_or(UpstreamFault::BadResponse)?;
        let answered = match opened {
            Opened::Http1(mut sender) => sender.try_send_request(request).await,
            Opened::Http2(mut sender) => sender.try_send_request(request).await,
        };
        match answered {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) if error.error().is_parse() => Err(UpstreamFault::BadResponse),
            Err(_) => Err(UpstreamFault::Died),
        }
    }

    fn endpoint(&self, probe: &Probe) -> Rc<Endpoint> {
        let (_, addr, via) = &probe.endpoint;
        let tls = probe.tls.as_deref().map(|tls| self.trusts.endpoint(tls, *addr));
        let mut endpoints = self.endpoints.borrow_mut();
        let known = endpoints.get(&probe.endpoint).filter(|known| known.tls == tls);
        if let Some(known) = known {
            return Rc::clone(known);
        }
        let target = Target {
            addr: *addr,
            via: via.clone(),
        };
        let made = Endpoint::new(target, tls);
        endpoints.insert(probe.endpoint.clone(), Rc::clone(&made));
        made
    }
}

/// `None` where the path or the host is none that can be sent: labels are checked, a newer controller may allow more.
fn request(probe: &Probe, is_http2: bool) -> Option<Request<RequestBody>> {
    let addr = probe.endpoint.1;
    let path = PathAndQuery::try_from(probe.checks.path.as_str()).ok()?;
    let host = match &probe.checks.host {
        Some(host) => HeaderValue::from_str(host).ok()?,
        None => addr_value(addr),
    };
    let mut request = Request::new(RequestBody::for_try(None));
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    if is_http2 {
        // RFC 9113 §8.3.1: the host travels as `:authority`.
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if probe.tls.is_some() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        });
        parts.authority = Some(Authority::try_from(host.as_bytes()).ok()?);
        parts.path_and_query = Some(path);
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        *request.version_mut() = Version::HTTP_2;
    } else {
        headers.insert(header::HOST, host);
        *request.uri_mut() = Uri::from(path);
    }
    Some(request)
}
