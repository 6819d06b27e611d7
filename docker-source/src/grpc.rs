//! One gRPC call that is answered by a stream of messages, over HTTP/2 with prior knowledge. gRPC's protocol is a few lines on
//! top of HTTP/2; libraries for it insist on ALPN, which managers of many versions do not offer (facts §9).

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use crate::error::text_of;

/// Longest message that is read: one transaction of SwarmKit changes at most 200 tasks.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// One byte that says whether the message is compressed, four with its length.
const PREFIX: usize = 5;
/// Longest text of a status that is kept.
const TEXT_MAX: usize = 300;

/// Codes of gRPC that mean something here.
pub(crate) const CANCELLED: u32 = 1;
pub(crate) const UNKNOWN: u32 = 2;
pub(crate) const PERMISSION_DENIED: u32 = 7;
pub(crate) const UNIMPLEMENTED: u32 = 12;
pub(crate) const UNAVAILABLE: u32 = 14;
pub(crate) const UNAUTHENTICATED: u32 = 16;

/// Why no message comes any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum End {
    /// The connection or the protocol broke.
    #[error("{0}")]
    Broken(String),
    /// The server ended the call: `grpc-status` and `grpc-message`.
    #[error("{text} (gRPC status {code})")]
    Status { code: u32, text: String },
    /// A message is longer than is read, or compressed without having been asked for.
    #[error("{0}")]
    Unreadable(String),
}

/// Messages of a call, in order. Dropping it ends the call and closes the connection, also if the server hangs.
pub(crate) struct Messages {
    body: Incoming,
    buffer: BytesMut,
    _connection: Connection,
}

struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

/// Sends `message` to `path` of the server at the other end of `stream`, which is called `authority` there.
///
/// # Errors
/// As [`End`] says.
pub(crate) async fn call(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    authority: &str,
    path: &str,
    message: &[u8],
) -> Result<Messages, End> {
    let broken = |error: hyper::Error| End::Broken(text_of(&error));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let connection = Connection(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection to SwarmKit ended");
        }
    }));
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("https://{authority}{path}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(framed(message)))
        .map_err(|error| End::Broken(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    if let Some(end) = status_in(answer.headers()) {
        return Err(end);
    }
    if answer.status() != StatusCode::OK {
        return Err(End::Broken(format!("HTTP status {}", answer.status())));
    }
    Ok(Messages {
        body: answer.into_body(),
        buffer: BytesMut::new(),
        _connection: connection,
    })
}

impl Messages {
    /// The next message.
    ///
    /// # Errors
    /// As [`End`] says; no message comes after that.
    pub(crate) async fn next(&mut self) -> Result<Bytes, End> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(message);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return Err(status_in(&trailers).unwrap_or_else(no_status));
                    }
                },
                Some(Err(error)) => return Err(End::Broken(text_of(&error))),
                None => return Err(no_status()),
            }
        }
    }

    /// A message that has arrived as a whole.
    fn buffered(&mut self) -> Result<Option<Bytes>, End> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [is_compressed, length @ ..] = *prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if is_compressed != 0 {
            return Err(End::Unreadable(String::from("a message is compressed")));
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(End::Unreadable(format!(
                "a message has {length} bytes, {MESSAGE_BYTES_MAX} are read"
            )));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

fn no_status() -> End {
    End::Broken(String::from("the call ended without a status"))
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("requests are short");
    let mut framed = Vec::with_capacity(PREFIX + message.len());
    framed.push(0);
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    Bytes::from(framed)
}

fn status_in(headers: &HeaderMap) -> Option<End> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse();
    let text = headers.get("grpc-message").map_or(&b""[..], |text| text.as_bytes());
    let text = percent_encoding::percent_decode(text).decode_utf8_lossy();
    Some(End::Status {
        code: code.unwrap_or(UNKNOWN),
        text: text.chars().take(TEXT_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_with_its_text_and_an_odd_one_is_unknown() {
        let mut headers = HeaderMap::new();
        assert_eq!(status_in(&headers), None);
        headers.insert("grpc-status", "14".parse().expect("a value"));
        headers.insert("grpc-message", "no%20leader%3a 50%".parse().expect("a value"));
        let text = String::from("no leader: 50%");
        assert_eq!(status_in(&headers), Some(End::Status { code: 14, text }));
        headers.insert("grpc-status", "odd".parse().expect("a value"));
        assert!(matches!(status_in(&headers), Some(End::Status { code: UNKNOWN, .. })));
    }

    #[test]
    fn a_request_has_its_length_before_it() {
        assert_eq!(framed(b"abc"), &b"\0\0\0\0\x03abc"[..]);
    }
}
