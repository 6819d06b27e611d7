//! A response body that is compressed on its way: what comes in goes through an encoder, and what it gives is sent on.
//!
//! Nothing stalls: where the app pauses, the encoder is flushed, so that each event of a stream arrives when it was sent. Levels
//! and windows are small: they bound the processor time of a byte and the memory of a response to about a megabyte.

use std::fmt;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use tidegate_core::request::compress;
use tidegate_core::route::spec::Coding;

use super::headers::values;

/// Compressed bytes that are sent on at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Bytes that are taken in before others get a turn.
const TURN_BYTES: usize = 128 * 1024;
/// Window of zstd and brotli, as a power of two: 128 KiB.
const WINDOW_LOG: u32 = 17;

/// See the module.
pub(crate) struct Coder {
    encoder: Encoder,
    /// Something was written that was not flushed.
    is_dirty: bool,
    taken: usize,
}

enum Encoder {
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Finished,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this on.
    Send(Bytes),
    /// Take more.
    More,
    /// Let others have a turn, then take more.
    Yield,
}

impl Coder {
    /// # Errors
    /// Where there is no memory for it.
    pub(crate) fn new(coding: Coding) -> io::Result<Self> {
        let encoder = match coding {
            Coding::Br => {
                let writer = brotli::CompressorWriter::new(Vec::new(), 4096, 4, WINDOW_LOG);
                Encoder::Br(Box::new(writer))
            }
            Coding::Gzip => Encoder::Gzip(GzEncoder::new(Vec::new(), Compression::new(5))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3)?;
                encoder.window_log(WINDOW_LOG)?;
                Encoder::Zstd(encoder)
            }
        };
        Ok(Coder {
            encoder,
            is_dirty: false,
            taken: 0,
        })
    }

    /// Takes a piece of the app's response.
    pub(crate) fn take(&mut self, piece: &[u8]) -> io::Result<Step> {
        self.writer()?.write_all(piece)?;
        self.is_dirty |= !piece.is_empty();
        self.taken += piece.len();
        if self.out().is_some_and(|out| out.len() >= PIECE_BYTES) {
            return Ok(Step::Send(self.emit()));
        }
        if self.taken >= TURN_BYTES {
            self.taken = 0;
            return Ok(Step::Yield);
        }
        Ok(Step::More)
    }

    /// The app pauses: what it sent so far, if that was not sent on.
    pub(crate) fn pause(&mut self) -> io::Result<Option<Bytes>> {
        if !std::mem::replace(&mut self.is_dirty, false) {
            return Ok(None);
        }
        self.writer()?.flush()?;
        let bytes = self.emit();
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// The response ended; the rest of it, once.
    pub(crate) fn finish(&mut self) -> io::Result<Option<Bytes>> {
        let rest = match std::mem::replace(&mut self.encoder, Encoder::Finished) {
            Encoder::Br(writer) => writer.into_inner(),
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Zstd(encoder) => encoder.finish()?,
            Encoder::Finished => Vec::new(),
        };
        Ok((!rest.is_empty()).then(|| Bytes::from(rest)))
    }

    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.encoder, Encoder::Finished)
    }

    fn emit(&mut self) -> Bytes {
        self.taken = 0;
        Bytes::from(self.out().map(std::mem::take).unwrap_or_default())
    }

    /// What the encoder has given and was not sent on yet.
    fn out(&mut self) -> Option<&mut Vec<u8>> {
        match &mut self.encoder {
            Encoder::Br(writer) => Some(writer.get_mut()),
            Encoder::Gzip(encoder) => Some(encoder.get_mut()),
            Encoder::Zstd(encoder) => Some(encoder.get_mut()),
            Encoder::Finished => None,
        }
    }

    fn writer(&mut self) -> io::Result<&mut dyn Write> {
        match &mut self.encoder {
            Encoder::Br(writer) => Ok(writer.as_mut()),
            Encoder::Gzip(encoder) => Ok(encoder),
            Encoder::Zstd(encoder) => Ok(encoder),
            Encoder::Finished => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// Fields that are about the bytes of the app, which the client does not get.
const OF_THE_APP: [HeaderName; 6] = [
    header::ACCEPT_RANGES,
    header::CONTENT_LENGTH,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// Makes the head of a response that of a compressed one, where it may be and `wanted` says how; `None`: it goes as it is.
pub(crate) fn prepare(head: &mut Parts, wanted: Option<Coding>) -> Option<Coder> {
    let headers = &mut head.headers;
    let has_fixed_form = headers.contains_key(header::CONTENT_ENCODING) || headers.contains_key(header::CONTENT_RANGE);
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let response = compress::Response {
        status: head.status.as_u16(),
        content_type: headers.get(header::CONTENT_TYPE).map_or(&[], HeaderValue::as_bytes),
        length: length.and_then(|length| length.parse().ok()),
        is_fixed: has_fixed_form || values(headers, &header::CACHE_CONTROL).any(compress::forbids),
    };
    if !response.may_be_compressed() {
        return None;
    }
    vary(headers);
    let coding = wanted?;
    let coder = Coder::new(coding).ok()?;
    for name in &OF_THE_APP {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    let etag = headers
        .get(header::ETAG)
        .and_then(|etag| compress::weak(etag.as_bytes()));
    if let Some(etag) = etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
        headers.insert(header::ETAG, etag);
    }
    Some(coder)
}

/// Caches must keep apart what clients take, also where this one takes nothing.
fn vary(headers: &mut HeaderMap) {
    let mut members = values(headers, &header::VARY).flat_map(|value| value.split(|byte| *byte == b','));
    let is_said = members.any(|member| {
        let member = member.trim_ascii();
        member == b"*" || member.eq_ignore_ascii_case(b"accept-encoding")
    });
    drop(members);
    if !is_said {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

impl fmt::Debug for Coder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coder").finish_non_exhaustive()
    }
}
