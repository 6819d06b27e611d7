//! One request to the endpoint that answers it: pick, connect or reuse, send, and start again where that is harmless.

use std::net::IpAddr;
use std::rc::Rc;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tidegate_core::pool::{Outcome, Pick, Token};
use tidegate_core::request::fault::{Fault, UpstreamFault};
use tidegate_core::request::retry::{self, Failure};
use tidegate_core::time::Instant;
use tracing::debug;

use super::body::{RequestBody, SharedBody};
use super::elsewhere::{Unable, other};
use super::exchange::{Exchange, Hold, Upstream};
use super::first_byte::{SendError, first_byte};
use super::{hedge, upgrade};
use crate::net::Net;
use crate::upstream::connect::{self, Opened, Wants};
use crate::worker::pools::{Endpoint, Place, PoolHandle};
use crate::worker::serving::{Known, Serving};
use crate::worker::{Shared, Worker};

/// A request on its way out.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) pool: Rc<PoolHandle>,
    pub(crate) known: Known,
    /// The headers before the pool's edits, in case the request goes to another pool; `None` where there are no edits.
    pub(crate) unedited: Option<HeaderMap>,
    pub(crate) method: Method,
    /// As the client sent it.
    pub(crate) original: Uri,
    pub(crate) target: PathAndQuery,
    /// The host as the client wrote it.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) headers: HeaderMap,
    /// `Authorization` as the client sent it, which `headers` has only where the pool lets the app see it.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) body: Option<Rc<SharedBody>>,
    pub(crate) trailers: bool,
    pub(crate) upgrade: Option<upgrade::Wanted>,
    /// Whether it was sent to an endpoint of the pool, whatever came of that.
    pub(crate) is_sent: bool,
}

impl Outbound {
    /// The request goes to `pool`, and is made as that pool wants it.
    pub(crate) fn enter(&mut self, shared: &Shared, pool: Rc<PoolHandle>, client: IpAddr) {
        if let Some(headers) = self.unedited.take() {
            self.headers = headers;
        }
        let serving = pool.serving();
        if let Some(authorization) = &self.authorization {
            match serving.keeps_authorization() {
                true => self.headers.remove(header::AUTHORIZATION),
                false => self.headers.insert(header::AUTHORIZATION, authorization.clone()),
            };
        }
        self.known = serving.know(&self.headers, client, &shared.rng);
        if !serving.request_edits.is_empty() {
            self.unedited = Some(self.headers.clone());
            serving.request_edits.apply(&mut self.headers);
        }
        self.pool = pool;
        self.is_sent = false;
    }
}

/// A try that led to a response.
pub(super) struct Answered {
    response: Response<Incoming>,
    upstream: Upstream,
}

/// A response that began.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// What the pool serves by.
    pub(crate) serving: Rc<Serving>,
    /// `Set-Cookie` of ours.
    pub(crate) cookie: Option<HeaderValue>,
    pub(crate) response: Response<Incoming>,
    pub(crate) upgrade: Option<upgrade::Wanted>,
}

/// A try that did not lead to a response.
pub(super) struct Failed {
    failure: Failure,
    fault: Fault,
    /// Whether the head is still there for another try.
    head_kept: bool,
    /// Whether another endpoint is likely to do better.
    elsewhere: bool,
}

/// Forwards a request; returns with the head of the response.
pub(crate) async fn forward<N: Net>(
    worker: &Rc<Worker<N>>,
    mut outbound: Outbound,
    exchange: &mut Exchange,
) -> Result<Forwarded, Fault> {
    let (retries_max, retry_on_500) = {
        let settings = worker.shared.serving();
        (settings.retries_max, settings.retry_on_500)
    };
    outbound.pool.handle_request();
    let mut tried = Vec::new();
    let mut tries = 0;
    let mut parked_since = None;
    let mut next = None;
    let mut unable: Option<Unable> = None;
    loop {
        let hold = match next.take() {
            Some(hold) => hold,
            None => pick(worker, &mut outbound, &mut tried, &mut parked_since, exchange).await?,
        };
        let (pool, token) = (Rc::clone(&hold.pool), hold.token);
        let serving = pool.serving();
        let addr = pool.endpoint(token).map(|endpoint| endpoint.target.addr);
        let begun = worker.shared.clock.now();
        let may_leave = tries < retries_max;
        let answered = match hedge::after(&serving, &outbound) {
            // Boxed, so that requests that are not hedged have no room for a second copy.
            Some(after) => Box::pin(hedge::send(worker, &serving, &mut outbound, hold, may_leave, after)).await,
            None => send(worker, &serving, &mut outbound, hold, may_leave).await,
        };
        let failed = match answered {
            Ok(Answered { response, upstream }) => {
                // A second copy may have been answered by another one.
                let token = upstream.hold.token;
                exchange.set_upstream(upstream);
                if retry::is_worth_another(response.status().as_u16(), retry_on_500) && tries < retries_max {
                    tried.push(token);
                    next = other(&outbound, &tried);
                    if next.is_some() && pool.withdraw_retry(Failure::Unable) {
                        debug!(status = %response.status(), "trying another endpoint");
                        tries += 1;
                        exchange.count_retry();
                        unable = exchange.take_upstream().map(|upstream| Unable {
                            response,
                            upstream,
                            serving,
                        });
                        continue;
                    }
                }
                if response.status() == StatusCode::SWITCHING_PROTOCOLS && outbound.upgrade.is_none() {
                    // RFC 9110 §15.2.2: nobody asked it to; what follows is no HTTP, and HTTP/2 has no such status.
                    exchange.take_upstream();
                    return Err(UpstreamFault::BadResponse.into());
                }
                exchange.set_body(outbound.body.take());
                return Ok(Forwarded {
                    serving,
                    cookie: outbound.known.cookie,
                    response,
                    upgrade: outbound.upgrade,
                });
            }
            Err(failed) => failed,
        };
        if let Some(addr) = addr {
            exchange.set_tried(addr, worker.shared.clock.now().since(begun));
        }
        if let Some(fault) = outbound.body.as_ref().and_then(|body| body.fault()) {
            return Err(fault.into());
        }
        if let Some(answer) = unable.take() {
            // Row 37: the last answer that there was is better than none.
            exchange.set_upstream(answer.upstream);
            exchange.set_body(outbound.body.take());
            return Ok(Forwarded {
                serving: answer.serving,
                cookie: outbound.known.cookie,
                response: answer.response,
                upgrade: outbound.upgrade,
            });
        }
        tries += 1;
        let sent = RequestBody::sent(outbound.body.as_ref());
        let harmless = failed.head_kept && retry::may_retry(outbound.method.as_str(), sent, failed.failure);
        if harmless && failed.failure == Failure::TimedOut {
            // It may be at work still: only another one is asked, and nobody waits for one.
            tried.push(token);
            next = other(&outbound, &tried);
            if next.is_none() {
                return Err(failed.fault);
            }
        }
        // Whoever leaves an endpoint that vanished has its leave to already.
        let is_granted = || failed.failure == Failure::Vanished || pool.withdraw_retry(failed.failure);
        if !harmless || tries > retries_max || !is_granted() {
            return Err(failed.fault);
        }
        debug!(failure = ?failed.failure, fault = %failed.fault, "trying again");
        exchange.count_retry();
        if failed.elsewhere {
            tried.push(token);
        }
    }
}

/// An endpoint, at once or after a wait.
async fn pick<N: Net>(
    worker: &Rc<Worker<N>>,
    outbound: &mut Outbound,
    tried: &mut Vec<Token>,
    parked_since: &mut Option<Instant>,
    exchange: &mut Exchange,
) -> Result<Hold, Fault> {
    let clock = worker.shared.clock;
    let mut place: Option<Place> = None;
    loop {
        if outbound.pool.is_retired() {
            place = None;
            // The table changed under the request: it goes where a new one would.
            let original = outbound.original.path_and_query().map_or("/", PathAndQuery::as_str);
            let host = outbound.host.as_ref().and_then(|host| host.to_str().ok());
            let (pool, target) = worker.route(host, original, exchange)?;
            if let Some(target) = target {
                outbound.target = target;
            }
            exchange.set_pool(&pool);
            let wanted = &pool.serving().basic_auth;
            let said = outbound.authorization.as_ref();
            worker.shared.auth.admit(wanted, said, outbound.host.as_ref()).await?;
            outbound.enter(&worker.shared, pool, exchange.origin().ip);
            outbound.pool.handle_request();
            tried.clear();
        }
        let pool = &outbound.pool;
        match pool.pick(outbound.known.key, tried, place.as_ref()) {
            Pick::Endpoint(picked) => {
                return Ok(Hold {
                    pool: Rc::clone(pool),
                    token: picked.token,
                });
            }
            Pick::Unavailable(why) => return Err(pool.why_none(Fault::Unavailable(why))),
            Pick::Park(ticket) => {
                let place = place.get_or_insert_with(|| pool.park(ticket));
                let since = *parked_since.get_or_insert_with(|| clock.now());
                let until = since + pool.park_max();
                let woken = tokio::select! { biased;
                    () = place.woken() => true,
                    () = clock.sleep_until(Some(until)) => false,
                };
                if !woken {
                    worker
                        .shared
                        .metrics
                        .park_timeouts
                        .set(worker.shared.metrics.park_timeouts.get() + 1);
                    let waited = until.since(since);
                    return Err(pool.why_waited(waited));
                }
                // Whoever failed before is worth another try now.
                tried.clear();
            }
        }
    }
}

/// One try.
pub(super) async fn send<N: Net>(
    worker: &Rc<Worker<N>>,
    serving: &Serving,
    outbound: &mut Outbound,
    hold: Hold,
    may_leave: bool,
) -> Result<Answered, Failed> {
    let pool = Rc::clone(&hold.pool);
    let Some(endpoint) = pool.endpoint(hold.token) else {
        return Err(Failed {
            failure: Failure::Connect,
            fault: UpstreamFault::ConnectFailed.into(),
            head_kept: true,
            elsewhere: false,
        });
    };
    let metrics = &worker.shared.metrics;
    let limit = serving.connect_timeout;
    let refused = |fault: UpstreamFault| {
        if fault.blames_endpoint() {
            pool.handle_connect(hold.token, Err(fault));
        }
        worker.shared.metrics.count_no_leg(fault);
        metrics.connect_failures.set(metrics.connect_failures.get() + 1);
        Failed {
            failure: Failure::Connect,
            fault: fault.into(),
            // Without trust no endpoint of the service is spoken to.
            head_kept: fault != UpstreamFault::NoTrust,
            elsewhere: fault.blames_endpoint(),
        }
    };
    let clock = worker.shared.clock;
    let wants = Wants::of(pool.protocol(), is_grpc(&outbound.headers));
    let connections = &endpoint.connections;
    let speaks_http1 = wants == Wants::Http1 || (wants == Wants::Either && connections.prefers_http1());
    let kept = if speaks_http1 {
        let waited_max = retry::waited_max(outbound.method.as_str());
        connections.take(waited_max, clock.now()).map(Opened::Http1)
    } else {
        connections.shared().map(Opened::Http2)
    };
    let (opened, reused) = match kept {
        Some(kept) => (kept, true),
        None => {
            let opened = connect::open(&worker.net, &endpoint, wants, limit)
                .await
                .map_err(refused)?;
            pool.handle_connect(hold.token, Ok(()));
            let opened = match opened {
                Opened::Http2(sender) => Opened::Http2(connections.share(sender)),
                Opened::Http1(sender) => {
                    if wants == Wants::Either {
                        connections.set_prefers_http1();
                    }
                    Opened::Http1(sender)
                }
            };
            (opened, false)
        }
    };
    metrics.count_connection(reused);
    if !std::mem::replace(&mut outbound.is_sent, true) {
        pool.handle_sent();
    }
    let scheme = match &endpoint.tls {
        Some(_) => Scheme::HTTPS,
        None => Scheme::HTTP,
    };
    let http2_scheme = matches!(opened, Opened::Http2(_)).then_some(scheme);
    let (request, kept) = request(outbound, http2_scheme, reused);
    let sent = clock.now();
    let may_leave = may_leave && kept;
    let addr = endpoint.target.addr;
    match opened {
        Opened::Http2(mut sender) => {
            let response = sender.try_send_request(request);
            match first_byte(worker, serving, response, outbound, &hold, &endpoint, may_leave).await {
                Ok(response) => Ok(answered(worker, response, hold, addr, sent, None)),
                Err(error) => {
                    if !matches!(error, SendError::TimedOut) {
                        connections.unshare();
                    }
                    Err(failed(&pool, hold.token, outbound, error, reused, kept))
                }
            }
        }
        Opened::Http1(mut sender) => {
            let response = sender.try_send_request(request);
            match first_byte(worker, serving, response, outbound, &hold, &endpoint, may_leave).await {
                Ok(response) => Ok(answered(worker, response, hold, addr, sent, Some((endpoint, sender)))),
                Err(error) => {
                    if reused {
                        // Its siblings are as old as it was.
                        connections.close_idle();
                    }
                    Err(failed(&pool, hold.token, outbound, error, reused, kept))
                }
            }
        }
    }
}

fn answered<N: Net>(
    worker: &Rc<Worker<N>>,
    response: Response<Incoming>,
    hold: Hold,
    addr: std::net::SocketAddr,
    sent: Instant,
    sender: Option<(Rc<Endpoint>, connect::Http1)>,
) -> Answered {
    hold.pool
        .handle_outcome(hold.token, Outcome::Responded(response.status().as_u16()));
    let upstream = Upstream {
        hold,
        addr,
        sent,
        responded: worker.shared.clock.now(),
        sender,
    };
    Answered { response, upstream }
}

/// The request as the endpoint gets it, and whether its head is kept for another try. `http2`: the scheme, where that is spoken.
fn request(outbound: &mut Outbound, http2: Option<Scheme>, reused: bool) -> (Request<RequestBody>, bool) {
    let kept = reused || retry::is_idempotent(outbound.method.as_str());
    let mut headers = if kept {
        outbound.headers.clone()
    } else {
        std::mem::take(&mut outbound.headers)
    };
    let mut uri = Uri::from(outbound.target.clone());
    let is_http2 = http2.is_some();
    if is_http2 {
        headers.remove(header::HOST);
        // RFC 9113 §8.3.1: the host travels as `:authority`.
        let authority = outbound
            .host
            .as_ref()
            .and_then(|host| Authority::try_from(host.as_bytes()).ok());
        if let Some(authority) = authority {
            let mut parts = http::uri::Parts::default();
            parts.scheme = http2;
            parts.authority = Some(authority);
            parts.path_and_query = Some(outbound.target.clone());
            uri = Uri::from_parts(parts).unwrap_or(uri);
        }
        if outbound.trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    } else {
        if let Some(host) = &outbound.host {
            headers.insert(header::HOST, host.clone());
        }
        if let Some(wanted) = &outbound.upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, wanted.protocol.clone());
        } else if outbound.trailers {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        if outbound.trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    let mut request = Request::new(RequestBody::for_try(outbound.body.as_ref()));
    *request.method_mut() = outbound.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let expects = headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    *request.headers_mut() = headers;
    if let (Some(body), true, false) = (&outbound.body, expects, is_http2) {
        let gate = body.expect();
        hyper::ext::on_informational(&mut request, move |informational| {
            if informational.status() == StatusCode::CONTINUE {
                gate.open();
            }
        });
    }
    (request, kept)
}

/// What a failed try means for the endpoint and for the request.
fn failed(
    pool: &Rc<PoolHandle>,
    token: Token,
    outbound: &mut Outbound,
    error: SendError,
    reused: bool,
    kept: bool,
) -> Failed {
    let (outcome, failed) = match error {
        SendError::Body(fault) => (
            None,
            Failed {
                failure: Failure::TimedOut,
                fault: fault.into(),
                head_kept: kept,
                elsewhere: false,
            },
        ),
        SendError::TimedOut => (
            Some(Outcome::Failed),
            Failed {
                failure: Failure::TimedOut,
                fault: UpstreamFault::FirstByteTimedOut.into(),
                head_kept: kept,
                elsewhere: true,
            },
        ),
        SendError::Vanished => (
            None,
            Failed {
                failure: Failure::Vanished,
                fault: UpstreamFault::FirstByteTimedOut.into(),
                head_kept: kept,
                elsewhere: true,
            },
        ),
        SendError::Send(mut error) => {
            let message = error.take_message();
            let not_sent = message.is_some();
            if let (Some(message), false) = (message, kept) {
                outbound.headers = message.into_parts().0.headers;
            }
            let error = error.into_error();
            debug!(%error, reused, not_sent, "a try failed");
            let failure = match () {
                () if not_sent => Failure::NotSent,
                () if error.is_parse() => Failure::BadResponse,
                () if was_refused(&error) => Failure::Refused,
                () => Failure::Died,
            };
            let fault = match failure {
                Failure::BadResponse => UpstreamFault::BadResponse,
                Failure::Connect
                | Failure::Died
                | Failure::NotSent
                | Failure::Refused
                | Failure::TimedOut
                | Failure::Unable
                | Failure::Vanished => UpstreamFault::Died,
            };
            // The body's own errors are the client's fault, not the endpoint's.
            let by_client = error.is_user() || outbound.body.as_ref().is_some_and(|body| body.fault().is_some());
            let says_nothing = failure == Failure::Refused || (reused && failure != Failure::BadResponse);
            let outcome = match (by_client, says_nothing) {
                (true, _) => None,
                (false, true) => Some(Outcome::Stale),
                (false, false) => Some(Outcome::Failed),
            };
            (
                outcome,
                Failed {
                    failure,
                    fault: fault.into(),
                    head_kept: kept || not_sent,
                    elsewhere: !reused,
                },
            )
        }
    };
    if let Some(outcome) = outcome {
        pool.handle_outcome(token, outcome);
    }
    failed
}

/// RFC 9113 §8.7: a refused stream, or one above the last that a GOAWAY names, was not looked at.
fn was_refused(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR))
    })
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
