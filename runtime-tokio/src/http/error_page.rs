//! Answers of the proxy itself.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use tidegate_core::request::basic;
use tidegate_core::request::fault::Fault;

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::serve;

/// Says in plain text what is wrong, and for whom to look: the request id finds the log line.
pub(crate) fn answer(fault: &Fault, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let location = match fault {
        Fault::Redirect { location } | Fault::ToSlash { location } => HeaderValue::from_str(location).ok(),
        Fault::BusyTimedOut { .. }
        | Fault::Client(_)
        | Fault::NotAllowed
        | Fault::ParkTimedOut { .. }
        | Fault::TlsAlone { .. }
        | Fault::Unauthorized { .. }
        | Fault::Unavailable(_)
        | Fault::UnknownHost { .. }
        | Fault::UnknownPath { .. }
        | Fault::Upstream(_)
        | Fault::UsersUnknown => None,
    };
    if location.is_none() {
        exchange.set_fault(fault.name());
    }
    exchange.handle_response(status);
    let mut text = format!("{status}\n\n{fault}.\n");
    if let Some(id) = exchange.request_id.as_ref().and_then(|id| id.to_str().ok())
        && !exchange.worker().serving().hide_info_headers
    {
        text += &format!("Request {id}\n");
    }
    let length = text.len();
    let mut head = Response::new(());
    *head.status_mut() = status;
    let headers = head.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(location) = location {
        headers.insert(header::LOCATION, location);
    }
    if let Fault::Unauthorized { realm } = fault
        && let Ok(value) = HeaderValue::try_from(basic::challenge(realm))
    {
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
    if let Some(seconds) = fault.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if fault.closes_connection() && !exchange.is_http2() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    serve::add_info(headers, &exchange);
    let text = if exchange.is_head() {
        Bytes::new()
    } else {
        Bytes::from(text)
    };
    head.map(|()| ResponseBody::own(text, exchange))
}
