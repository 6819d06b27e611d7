//! Header fields on their way through: what ends at this hop goes, what the app is to know is added.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use tidegate_core::request::{forwarded, hop};
use tidegate_core::rng::Rng;
use tidegate_core::settings::proxy::ProxySettings;

use super::exchange::Exchange;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_PROXY_ID: HeaderName = HeaderName::from_static("x-proxy-id");
pub(crate) const X_SERVER_INFO: HeaderName = HeaderName::from_static("x-server-info");
pub(crate) const X_UPSTREAM_ADDR: HeaderName = HeaderName::from_static("x-upstream-addr");
pub(crate) const X_UPSTREAM_RESPONSE_TIME: HeaderName = HeaderName::from_static("x-upstream-response-time");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// All values of a field, as bytes.
pub(crate) fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().map(HeaderValue::as_bytes)
}

/// What a request that is to be forwarded asked of its connection.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The protocol it wants to switch to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// It takes trailers.
    pub(crate) trailers: bool,
}

/// Takes away what ends here (RFC 9110 §7.6.1); what it said is returned.
pub(crate) fn strip(headers: &mut HeaderMap) -> Asked {
    let mut asked = Asked::default();
    if headers.contains_key(header::CONNECTION) {
        let options = hop::options(values(headers, &header::CONNECTION));
        if options.upgrade {
            asked.upgrade = headers
                .get(header::UPGRADE)
                .filter(|protocol| hop::may_upgrade_to(protocol.as_bytes()))
                .cloned();
        }
        if options.names_fields {
            let named: Vec<HeaderName> = hop::named_fields(values(headers, &header::CONNECTION))
                .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                .collect();
            for name in named {
                if name == header::TE {
                    continue; // looked at below
                }
                headers.remove(name);
            }
        }
        headers.remove(header::CONNECTION);
        headers.remove(KEEP_ALIVE);
        headers.remove(header::UPGRADE);
        headers.remove(HTTP2_SETTINGS);
    }
    if headers.contains_key(header::TE) {
        asked.trailers = hop::wants_trailers(values(headers, &header::TE));
        headers.remove(header::TE);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    asked
}

/// Takes away fields with `_` in their names: apps that read fields as environment variables take `X_Real_IP` for
/// `X-Real-IP`, which is ours to say.
pub(crate) fn drop_underscores(headers: &mut HeaderMap) {
    let has_underscore = |name: &&HeaderName| name.as_str().contains('_');
    if headers.keys().any(|name| has_underscore(&name)) {
        let names: Vec<HeaderName> = headers.keys().filter(has_underscore).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Tells the app about its client; `host` as the client wrote it. What a peer says that is not trusted is replaced.
pub(crate) fn add_forwarded(
    headers: &mut HeaderMap,
    exchange: &Exchange,
    host: Option<&HeaderValue>,
    settings: &ProxySettings,
) {
    let (client, origin) = (exchange.client(), exchange.origin());
    if headers.keys().any(|name| forwarded::is_lookalike(name.as_str())) {
        let names: Vec<HeaderName> = headers.keys().cloned().collect();
        for name in names.iter().filter(|name| forwarded::is_lookalike(name.as_str())) {
            headers.remove(name);
        }
    }
    if !origin.is_trusted {
        for name in [
            X_FORWARDED_FOR,
            X_FORWARDED_PROTO,
            X_FORWARDED_PORT,
            X_FORWARDED_HOST,
            header::FORWARDED,
        ] {
            headers.remove(name);
        }
    }
    match headers.entry(X_FORWARDED_FOR) {
        Entry::Vacant(vacant) => {
            vacant.insert(client.ip.clone());
        }
        Entry::Occupied(mut occupied) => {
            let ip = client.ip.to_str().unwrap_or_default();
            let list = forwarded::append_for(occupied.iter().map(HeaderValue::as_bytes), ip);
            let value = HeaderValue::from_maybe_shared(Bytes::from(list)).unwrap_or_else(|_| client.ip.clone());
            occupied.insert(value);
        }
    }
    let is_peer = origin.ip == client.peer.addr.ip();
    headers.insert(
        X_REAL_IP,
        if is_peer {
            client.ip.clone()
        } else {
            ip_value(origin.ip)
        },
    );
    if let Entry::Vacant(vacant) = headers.entry(X_FORWARDED_PROTO) {
        vacant.insert(HeaderValue::from_static(if client.tls { "https" } else { "http" }));
    }
    if let Entry::Vacant(vacant) = headers.entry(X_FORWARDED_PORT) {
        vacant.insert(client.local_port.clone());
    }
    if let (Some(host), Entry::Vacant(vacant)) = (host, headers.entry(X_FORWARDED_HOST)) {
        vacant.insert(host.clone());
    }
    if settings.forwarded {
        let host = host.and_then(|host| host.to_str().ok());
        let element = forwarded::element(client.peer.addr.ip(), client.tls, host);
        if let Ok(element) = HeaderValue::try_from(element) {
            headers.append(header::FORWARDED, element);
        }
    }
}

/// Keeps a sane request id or makes one; returns it.
pub(crate) fn ensure_request_id(headers: &mut HeaderMap, rng: &mut Rng) -> HeaderValue {
    if let Some(id) = headers.get(X_REQUEST_ID)
        && forwarded::keeps_request_id(id.as_bytes())
    {
        let id = id.clone();
        headers.insert(X_REQUEST_ID, id.clone());
        return id;
    }
    let id = HeaderValue::from_bytes(&forwarded::new_request_id(rng)).expect("hexadecimal digits");
    headers.insert(X_REQUEST_ID, id.clone());
    id
}

/// RFC 9113 §8.2.3: cookies that HTTP/2 split into crumbs become one field for HTTP/1.1.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let joined = values(headers, &header::COOKIE).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}

/// An address without port as a header value; IPv4 in IPv6 as IPv4.
pub(crate) fn ip_value(ip: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&ip.to_canonical().to_string()).expect("addresses are visible ASCII")
}
