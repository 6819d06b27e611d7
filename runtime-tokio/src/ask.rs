//! Asks the admin listener of another process: `healthcheck`, `status`, `routes`, `explain`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;

use crate::net::{Net, TokioNet};

/// Time for an answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The answer to `GET path`.
///
/// # Errors
/// If the process does not answer within 5 s.
pub async fn ask(admin: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let answer = async {
        let stream = TokioNet.connect(admin).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            connection.await.ok(); // the request reports what goes wrong
        });
        let request = Request::get(path)
            .header(http::header::HOST, admin.to_string())
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer is cut short: {error}"))?;
        Ok::<_, anyhow::Error>((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    tokio::time::timeout(LIMIT, answer)
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {} s", LIMIT.as_secs()))
        .and_then(|answer| answer)
        .with_context(|| {
            format!("nobody answers at {admin}: is Tidegate running here, and is --admin its admin address?")
        })
}

/// `text` as the value of a query.
pub fn query_value(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_escaped_for_a_query() {
        assert_eq!(query_value("http://a/b?c=d&e"), "http://a/b%3Fc%3Dd%26e");
    }
}
