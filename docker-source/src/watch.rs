//! The event stream. It only carries events on: what they are worth, core decides.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tidegate_core::swarm::model::{ApiError, Event};

use crate::client::{Docker, with_filters};
use crate::convert;
use crate::error::unreachable;

/// Longest line that is read as an event; a longer one is skipped.
const LINE_BYTES_MAX: usize = 1 << 20;

impl Docker {
    /// `GET /events` of Swarm scope. The stream is open when this returns. It ends when the engine closes it, after an
    /// error if the connection broke; a line that cannot be read is skipped.
    ///
    /// # Errors
    /// As [`ApiError`] says.
    pub async fn events(&self) -> Result<impl Stream<Item = Result<Event, ApiError>> + use<>, ApiError> {
        // A new stream follows a lost one, after which another engine may answer.
        self.transport.forget_version();
        let kinds = vec!["service", "node", "network", "secret"];
        let path = with_filters("/events", &[("scope", vec!["swarm"]), ("type", kinds)]);
        let answer = self.open(Method::GET, &path, Bytes::new()).await?;
        Ok(lines(answer.into_body()))
    }
}

struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// The rest of a line that is too long is being skipped.
    skipping: bool,
    ended: bool,
}

fn lines(body: Incoming) -> impl Stream<Item = Result<Event, ApiError>> {
    let lines = Lines {
        body,
        buffer: BytesMut::new(),
        skipping: false,
        ended: false,
    };
    stream::unfold(lines, |mut lines| async move {
        let item = lines.next().await?;
        Some((item, lines))
    })
}

impl Lines {
    async fn next(&mut self) -> Option<Result<Event, ApiError>> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if std::mem::take(&mut self.skipping) || line.trim_ascii().is_empty() {
                    continue;
                }
                match convert::event(&line) {
                    Some(event) => return Some(Ok(event)),
                    None => tracing::debug!(bytes = line.len(), "skipped an event that cannot be read"),
                }
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                tracing::debug!(limit = LINE_BYTES_MAX, "skipping an event that is too long");
                self.buffer.clear();
                self.skipping = true;
            }
            if self.ended {
                return None;
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(unreachable(&error)));
                }
                None => return None,
            }
        }
    }
}
