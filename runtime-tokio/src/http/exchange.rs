//! What one request and its response leave behind: counts, times and an access line, written when the response ended or
//! its client went away, whichever way that happened.

use std::net::SocketAddr;
use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use tidegate_core::pool::Token;
use tidegate_core::request::compress;
use tidegate_core::request::origin::Origin;
use tidegate_core::route::spec::Coding;
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::time::{Duration, Instant};

use super::body::{BodyError, SharedBody};
use super::client::{Client, Moving};
use super::headers;
use crate::telemetry::log::AccessRecord;
use crate::upstream::connect::Http1;
use crate::worker::Shared;
use crate::worker::pools::{Endpoint, PoolHandle};

/// One request of a client, from its head to the last byte of its response.
pub(crate) struct Exchange {
    worker: Rc<Shared>,
    client: Rc<Client>,
    begun: Instant,
    method: Method,
    uri: Uri,
    version: Version,
    pub(crate) host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    /// `X-Forwarded-For` as the client sent it, where an access line may want it.
    forwarded_for: Option<HeaderValue>,
    pub(crate) request_id: Option<HeaderValue>,
    origin: Origin,
    /// How the client wants its response compressed, of what its route offers.
    coding: Option<Coding>,
    /// Whether the client speaks TLS with us, or with a proxy in front that is trusted.
    is_https: bool,
    status: Option<StatusCode>,
    fault: Option<&'static str>,
    bytes: u64,
    retries: u32,
    pool: Option<Rc<PoolHandle>>,
    upstream: Option<Upstream>,
    /// For the access line, also after the upstream was handed on.
    answered_by: Option<(SocketAddr, Duration)>,
    moving: Option<Moving>,
    /// The request's body, which may outlast the response.
    body: Option<Rc<SharedBody>>,
    ended: bool,
}

/// The endpoint that answers, and the connection to it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) hold: Hold,
    pub(crate) addr: SocketAddr,
    /// When the request was sent and when the response began.
    pub(crate) sent: Instant,
    pub(crate) responded: Instant,
    /// To be kept once the response has ended, for what it was made for.
    pub(crate) sender: Option<(Rc<Endpoint>, Http1)>,
}

/// Counts as one request under way at an endpoint until dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) pool: Rc<PoolHandle>,
    pub(crate) token: Token,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.pool.release(self.token);
    }
}

impl Exchange {
    pub(crate) fn new<B>(worker: Rc<Shared>, client: Rc<Client>, request: &http::Request<B>) -> Self {
        let logs = worker.access.is_on();
        let header = |name| logs.then(|| request.headers().get(name).cloned()).flatten();
        worker.metrics.requests_open.set(worker.metrics.requests_open.get() + 1);
        Exchange {
            begun: worker.clock.now(),
            method: request.method().clone(),
            uri: if logs { request.uri().clone() } else { Uri::default() },
            version: request.version(),
            host: None,
            referer: header(http::header::REFERER),
            user_agent: header(http::header::USER_AGENT),
            forwarded_for: header(super::headers::X_FORWARDED_FOR),
            request_id: None,
            coding: None,
            origin: client.peer.origin(&worker.serving()),
            is_https: client.tls,
            status: None,
            fault: None,
            bytes: 0,
            retries: 0,
            pool: None,
            upstream: None,
            answered_by: None,
            moving: None,
            body: None,
            ended: false,
            worker,
            client,
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Who asks.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// The client's address, and what is known about it.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether the client asks over TLS, as far as is known.
    pub(crate) fn is_https(&self) -> bool {
        self.is_https
    }

    /// How the response is compressed, if it may be.
    pub(crate) fn coding(&self) -> Option<Coding> {
        self.coding
    }

    /// Chooses how.
    pub(crate) fn choose_coding(&mut self, fields: &HeaderMap, offered: &[Coding]) {
        if !offered.is_empty() && !self.is_head() {
            let accepted: Vec<&[u8]> = headers::values(fields, &http::header::ACCEPT_ENCODING).collect();
            self.coding = compress::choose(&accepted, offered);
        }
    }

    /// Takes in what a proxy in front that is trusted says about the client.
    pub(crate) fn learn_origin(&mut self, headers: &HeaderMap, settings: &ProxySettings) {
        if !self.origin.is_trusted {
            return;
        }
        let fields = headers.get_all(headers::X_FORWARDED_FOR).into_iter();
        self.origin = self.origin.forwarded(fields.map(HeaderValue::as_bytes), settings);
        if let Some(proto) = headers.get(headers::X_FORWARDED_PROTO) {
            self.is_https |= proto.as_bytes().eq_ignore_ascii_case(b"https");
        }
    }

    pub(crate) fn worker(&self) -> &Rc<Shared> {
        &self.worker
    }

    pub(crate) fn set_pool(&mut self, pool: &Rc<PoolHandle>) {
        self.pool = Some(Rc::clone(pool));
    }

    pub(crate) fn count_retry(&mut self) {
        self.retries += 1;
    }

    pub(crate) fn set_fault(&mut self, fault: &'static str) {
        self.fault = Some(fault);
    }

    pub(crate) fn set_upstream(&mut self, upstream: Upstream) {
        self.answered_by = Some((upstream.addr, upstream.responded.since(upstream.sent)));
        self.upstream = Some(upstream);
    }

    /// A try came to nothing: it stands in the access line and the answer, unless another one does better.
    pub(crate) fn set_tried(&mut self, addr: SocketAddr, took: Duration) {
        self.answered_by = Some((addr, took));
    }

    /// Who answered or was tried last, and how long that took.
    pub(crate) fn answered_by(&self) -> Option<(SocketAddr, Duration)> {
        self.answered_by
    }

    pub(crate) fn set_body(&mut self, body: Option<Rc<SharedBody>>) {
        self.body = body;
    }

    pub(crate) fn upstream(&self) -> Option<&Upstream> {
        self.upstream.as_ref()
    }

    /// The endpoint's hold, for a connection that outlives the response.
    pub(crate) fn take_upstream(&mut self) -> Option<Upstream> {
        self.upstream.take()
    }

    /// A response begins.
    pub(crate) fn handle_response(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.moving = Some(self.client.pulse.moving());
    }

    pub(crate) fn count_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The response broke off in the middle.
    pub(crate) fn handle_broken(&mut self, error: BodyError) {
        self.fault = Some(match error {
            BodyError::ResponseIdle(_) => "response_idle",
            BodyError::Client(_) | BodyError::ResponseBroken | BodyError::TryOver => "response_broken",
        });
        if let Some(upstream) = &mut self.upstream {
            upstream.sender = None;
        }
        self.end();
    }

    /// The response ended as it should: the connection may serve the next request.
    pub(crate) fn finish(mut self: Box<Self>) {
        if let Some(upstream) = &mut self.upstream
            && let Some((endpoint, sender)) = upstream.sender.take()
        {
            let now = self.worker.clock.now();
            upstream.hold.pool.keep(upstream.hold.token, &endpoint, sender, now);
        }
        self.end();
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let now = self.worker.clock.now();
        self.moving = None;
        if let Some(body) = self.body.take() {
            body.handle_response_end();
        }
        self.client.pulse.handle_end(now);
        let metrics = &self.worker.metrics;
        metrics.requests_open.set(metrics.requests_open.get().saturating_sub(1));
        // The status that nginx made a habit: the client left before there was an answer.
        let status = self.status.map_or(499, |status| status.as_u16());
        let took = now.since(self.begun);
        metrics.durations.observe(took);
        match &self.pool {
            Some(pool) => pool.count_response(status),
            None => metrics.unrouted.count(status),
        }
        if let Some(fault) = self.fault {
            metrics.count_fault(fault);
        }
        if self.worker.access.is_on() {
            let service = self.pool.as_ref().map(|pool| pool.name());
            let record = AccessRecord {
                wall: self.worker.clock.wall(),
                client: self.origin.ip,
                method: &self.method,
                uri: &self.uri,
                version: self.version,
                host: self.host.as_ref(),
                referer: self.referer.as_ref(),
                user_agent: self.user_agent.as_ref(),
                forwarded_for: self.forwarded_for.as_ref(),
                request_id: self.request_id.as_ref(),
                status,
                bytes: self.bytes,
                took,
                service: service.as_deref(),
                upstream: self.answered_by.map(|(addr, _)| addr),
                upstream_took: self.answered_by.map(|(_, took)| took),
                retries: self.retries,
                fault: self.fault,
            };
            if self.worker.access.write(&record, now) {
                self.worker.rearm();
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.ended && self.fault.is_none() {
            self.fault = Some("client_left");
        }
        self.end();
    }
}
