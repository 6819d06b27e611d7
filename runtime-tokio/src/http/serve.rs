//! From a request's head to its answer: checks, route, forward or say why not.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::Write as _;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tidegate_core::request::authority;
use tidegate_core::request::fault::{ClientFault, Fault};
use tidegate_core::request::framing;
use tidegate_core::time::Duration;

use super::body::{ResponseBody, SharedBody};
use super::client::Client;
use super::exchange::Exchange;
use super::forward::{self, Outbound};
use super::headers::{self, values};
use super::{coder, error_page, upgrade};
use crate::net::Net;
use crate::worker::serving::Known;
use crate::worker::{Phase, Worker, pools};

/// Answers one request; never fails.
pub(crate) async fn serve<N: Net>(
    worker: Rc<Worker<N>>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let ambiguous = client.pulse.handle_request();
    let mut exchange = Box::new(Exchange::new(Rc::clone(&worker.shared), Rc::clone(&client), &request));
    let checked = match ambiguous {
        true => Err(ClientFault::AmbiguousLength.into()),
        false => check(&worker, &client, request, &mut exchange),
    };
    let result = match checked {
        Ok(outbound) => match admit(&worker, &outbound).await {
            Ok(()) => forward::forward(&worker, outbound, &mut exchange).await,
            Err(fault) => Err(fault),
        },
        Err(fault) => Err(fault),
    };
    let is_http2 = exchange.is_http2();
    let mut response = match result {
        Ok(forwarded) => answer(&worker, forwarded, exchange),
        Err(fault) => error_page::answer(&fault, exchange),
    };
    // RFC 9112 §9.6: who reads it sends nothing more on this connection, so none is lost when it closes.
    let ends = worker.shared.phase() >= Phase::Draining && !is_http2;
    if ends && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Whether the client is one of those that the pool is for.
async fn admit<N: Net>(worker: &Worker<N>, outbound: &Outbound) -> Result<(), Fault> {
    let serving = outbound.pool.serving();
    if serving.basic_auth.is_empty() {
        return Ok(());
    }
    let said = outbound.authorization.as_ref();
    let auth = &worker.shared.auth;
    auth.admit(&serving.basic_auth, said, outbound.host.as_ref()).await
}

/// Makes sure that the request means one thing, and brings its head to the form in which it is forwarded.
fn check<N: Net>(
    worker: &Rc<Worker<N>>,
    client: &Client,
    request: Request<Incoming>,
    exchange: &mut Exchange,
) -> Result<Outbound, Fault> {
    let shared = &worker.shared;
    let settings = shared.serving();
    let (mut head, incoming) = request.into_parts();
    exchange.learn_origin(&head.headers, &settings);
    exchange.request_id = Some(headers::ensure_request_id(
        &mut head.headers,
        &mut shared.rng.borrow_mut(),
    ));
    let version = match head.version {
        Version::HTTP_2 => authority::Version::Http2,
        Version::HTTP_11 => authority::Version::Http11,
        _ => authority::Version::Http10,
    };
    framing::check(
        version,
        values(&head.headers, &header::TRANSFER_ENCODING),
        values(&head.headers, &header::CONTENT_LENGTH),
    )?;
    if head.method == Method::CONNECT {
        return Err(ClientFault::ConnectMethod.into());
    }
    let target = head.uri.authority().map(http::uri::Authority::as_str);
    let asked_host = authority::effective(version, target, values(&head.headers, &header::HOST))?;
    let host = match (&asked_host, target) {
        (None, _) => None,
        // RFC 9112 §3.2.2: the app sees the host that was decided by.
        (Some(asked), Some(_)) => {
            Some(HeaderValue::from_str(asked.text).map_err(|_| Fault::from(ClientFault::BadHost))?)
        }
        (Some(_), None) => head.headers.get(header::HOST).cloned(),
    };
    exchange.host = host.clone();
    let path = head.uri.path();
    if !(path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS)) {
        return Err(ClientFault::BadTarget.into());
    }
    let target = head
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let (pool, rewritten) = worker.route(asked_host.as_ref().map(|asked| &*asked.host), target.as_str(), exchange)?;
    let target = rewritten.unwrap_or(target);
    exchange.set_pool(&pool);
    let serving = pool.serving();
    client.pulse.allow_silence(serving.idle_timeout);
    exchange.choose_coding(&head.headers, &serving.compress);
    let length = http_body::Body::size_hint(&incoming);
    if serving.body_bytes_max > 0 && length.lower() > serving.body_bytes_max {
        let max = serving.body_bytes_max;
        return Err(ClientFault::BodyTooLarge { max }.into());
    }
    if !shared.serving().underscores_in_headers {
        headers::drop_underscores(&mut head.headers);
    }
    let asked = headers::strip(&mut head.headers);
    headers::add_forwarded(&mut head.headers, exchange, host.as_ref(), &settings);
    if version == authority::Version::Http2 {
        headers::join_cookies(&mut head.headers);
    }
    let upgrade = match (&asked.upgrade, version) {
        (Some(protocol), authority::Version::Http11) => Some(upgrade::Wanted {
            protocol: protocol.clone(),
            client: head.extensions.remove::<hyper::upgrade::OnUpgrade>(),
        }),
        (Some(_) | None, _) => None,
    };
    let body = SharedBody::new(incoming, serving.body_bytes_max, shared.clock, || {
        client.pulse.receiving()
    });
    let mut outbound = Outbound {
        pool: Rc::clone(&pool),
        known: Known::default(),
        unedited: None,
        method: head.method,
        original: head.uri,
        target,
        host,
        authorization: head.headers.get(header::AUTHORIZATION).cloned().map(|mut value| {
            value.set_sensitive(true);
            value
        }),
        headers: head.headers,
        body,
        trailers: asked.trailers,
        upgrade,
        is_sent: false,
    };
    outbound.enter(shared, pool, exchange.origin().ip);
    Ok(outbound)
}

/// The endpoint's response as the client gets it.
fn answer<N: Net>(
    worker: &Rc<Worker<N>>,
    forwarded: forward::Forwarded,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let (mut head, incoming) = forwarded.response.into_parts();
    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = switched.then(|| head.headers.get(header::UPGRADE).cloned()).flatten();
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112 §6.3: the coding overrides a length, which must not be passed on; it may be a lie.
        head.headers.remove(header::CONTENT_LENGTH);
    }
    headers::strip(&mut head.headers);
    exchange.handle_response(head.status);
    forwarded.serving.response_edits.apply(&mut head.headers);
    if let Some(cookie) = forwarded.cookie {
        head.headers.append(header::SET_COOKIE, cookie);
    }
    if let Some(protocol) = protocol {
        head.headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
    }
    add_info(&mut head.headers, &exchange);
    let idle_max = forwarded.serving.idle_timeout;
    let offered = &forwarded.serving.compress;
    let coder = if switched || offered.is_empty() {
        None
    } else {
        let wanted = exchange.coding().filter(|coding| offered.contains(coding));
        coder::prepare(&mut head, wanted)
    };
    if switched {
        let upstream = head.extensions.remove::<hyper::upgrade::OnUpgrade>();
        upgrade::run(&worker.shared, forwarded.upgrade, upstream, idle_max, &mut exchange);
        let mut response = Response::new(ResponseBody::own(Bytes::new(), exchange));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        return response;
    }
    let body = ResponseBody::endpoint(incoming, coder, idle_max, worker.shared.clock, exchange);
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// Adds `Date` where it is missing, and who served the request, unless that is to be hidden.
pub(crate) fn add_info(headers: &mut HeaderMap, exchange: &Exchange) {
    let worker = exchange.worker();
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, worker.date());
    }
    if worker.serving().hide_info_headers {
        return;
    }
    if let Some(id) = &exchange.request_id {
        headers.insert(headers::X_REQUEST_ID, id.clone());
    }
    headers.insert(headers::X_PROXY_ID, worker.proxy_id.clone());
    headers.insert(headers::X_SERVER_INFO, worker.server_info.clone());
    // Row 39: also where the proxy answers itself, because nobody it asked did.
    if let Some((addr, took)) = exchange.answered_by() {
        let value = match exchange.upstream() {
            Some(upstream) => upstream.hold.pool.addr_value(upstream.hold.token, addr),
            None => pools::addr_value(addr),
        };
        headers.insert(headers::X_UPSTREAM_ADDR, value);
        // Row 38: real seconds.
        headers.insert(headers::X_UPSTREAM_RESPONSE_TIME, seconds(took));
    }
}

/// `0.012`: seconds with milliseconds.
fn seconds(took: Duration) -> HeaderValue {
    let mut text = [0_u8; 24];
    let mut rest = &mut text[..];
    let written = write!(rest, "{}.{:03}", took.as_secs(), took.subsec_millis()).map(|()| rest.len());
    let end = text.len() - written.unwrap_or(text.len());
    HeaderValue::from_bytes(&text[..end]).unwrap_or_else(|_| HeaderValue::from_static("0.000"))
}

/// A date that is formatted once a second.
#[derive(Debug, Default)]
pub(crate) struct DateCache(RefCell<Option<(u64, HeaderValue)>>);

impl DateCache {
    /// The date as `Date` has it (RFC 9110 §5.6.7), `wall` being the time since 1970.
    pub(crate) fn at(&self, wall: Duration) -> HeaderValue {
        let second = wall.as_secs();
        let mut cached = self.0.borrow_mut();
        match &*cached {
            Some((of, value)) if *of == second => value.clone(),
            Some(_) | None => {
                let text = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(second));
                let value = HeaderValue::from_str(&text).expect("dates are visible ASCII");
                *cached = Some((second, value.clone()));
                value
            }
        }
    }
}
