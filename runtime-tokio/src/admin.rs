//! The admin listener: what a process knows about itself, over HTTP/1.1 on loopback or the control network only.
//!
//! `/healthz` 200 while the process answers · `/readyz` 200 when it can do its work, else 503 and why · `/metrics`
//! Prometheus text · `/status` JSON · `/routes` the table and findings · `/explain?url=` why a URL is answered as it is ·
//! `/recording` what a controller was told and decided lately, as JSON lines for `tidegate replay`.
//! With `format=json` in the query, routes and explanations are JSON. Nothing here changes anything.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tidegate_core::labels::Diagnostic;
use tidegate_core::route::explain::Explanation;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::net::Net;

/// Time for a request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;

/// What a role can tell about itself.
pub trait Admin: Clone + 'static {
    /// Why it is not ready, if it is not.
    fn unready(&self) -> impl Future<Output = Option<String>>;
    /// Prometheus text.
    fn metrics(&self) -> impl Future<Output = String>;
    /// Everything about its state.
    fn status(&self) -> impl Future<Output = serde_json::Value>;
    /// The tables, by service cluster.
    fn routes(&self) -> impl Future<Output = Routes>;
    /// What was recorded, as the lines of a file, or why there is nothing.
    fn recording(&self) -> impl Future<Output = Result<String, String>> {
        std::future::ready(Err(
            "nothing is recorded here: it is controllers that keep recordings".to_owned()
        ))
    }
    /// Why `url` is answered as it is, by service cluster.
    fn explain(&self, url: &str) -> impl Future<Output = Vec<(String, Explanation)>>;
}

/// Tables and what is wrong with labels.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Routes {
    /// Canonical text of each service cluster's table.
    pub tables: Vec<(String, String)>,
    /// Findings about labels, where this role knows them.
    pub diagnostics: Vec<Diagnostic>,
}

impl Routes {
    /// As people read it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (cluster, table) in &self.tables {
            if self.tables.len() > 1 {
                text.push_str(&format!("# service cluster {cluster}\n"));
            }
            text.push_str(table);
        }
        if self.tables.iter().all(|(_, table)| table.is_empty()) {
            text.push_str("# no routes\n");
        }
        for diagnostic in &self.diagnostics {
            text.push_str(&format!("{diagnostic}\n"));
        }
        text
    }
}

/// Answers until `stop`.
pub async fn serve<N: Net, A: Admin>(net: N, clock: Clock, listener: N::Listener, admin: A, stop: CancellationToken) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! { biased;
            () = stop.cancelled() => return,
            accepted = net.accept(&listener) => accepted,
        };
        let Ok((stream, _)) = accepted else {
            clock.pause(Duration::from_millis(50)).await; // out of file descriptors: let some close
            continue;
        };
        let admin = admin.clone();
        tokio::task::spawn_local(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(answer(&request, &admin).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .auto_date_header(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "an admin connection ended");
            }
        });
    }
}

async fn answer<A: Admin>(request: &Request<Incoming>, admin: &A) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
    }
    let query = request.uri().query().unwrap_or_default();
    let value = |key: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    };
    let as_json = value("format") == Some("json");
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match admin.unready().await {
            None => text(StatusCode::OK, "ready\n".to_owned()),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/metrics" => {
            let mut response = text(StatusCode::OK, admin.metrics().await);
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/status" => json(&admin.status().await),
        "/routes" => {
            let routes = admin.routes().await;
            if as_json {
                json(&routes)
            } else {
                text(StatusCode::OK, routes.to_text())
            }
        }
        "/recording" => match admin.recording().await {
            Ok(lines) => {
                let mut response = text(StatusCode::OK, lines);
                let kind = HeaderValue::from_static("application/jsonl");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Err(why) => text(StatusCode::NOT_FOUND, format!("{why}\n")),
        },
        "/explain" => {
            let Some(url) = value("url").map(percent_decoded).filter(|url| !url.is_empty()) else {
                return text(
                    StatusCode::BAD_REQUEST,
                    "ask as in /explain?url=http://shop.example.org/path\n".to_owned(),
                );
            };
            let found = admin.explain(&url).await;
            if as_json {
                return json(&found);
            }
            let mut all = String::new();
            for (cluster, explanation) in &found {
                if found.len() > 1 {
                    all.push_str(&format!("# service cluster {cluster}\n"));
                }
                all.push_str(&format!("{explanation}\n"));
            }
            text(StatusCode::OK, all)
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /healthz /readyz /metrics /status /routes /explain?url= /recording\n".to_owned(),
        ),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json<T: Serialize>(value: &T) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(value) {
        Ok(body) => {
            let mut response = text(StatusCode::OK, body + "\n");
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// RFC 3986 §2.1; what is no escape stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escape = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match escape {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_in_a_query_is_decoded() {
        assert_eq!(percent_decoded("http%3A%2F%2Fa%2Fb%3Fc%3Dd"), "http://a/b?c=d");
        assert_eq!(percent_decoded("100%zz%4"), "100%zz%4");
    }
}
