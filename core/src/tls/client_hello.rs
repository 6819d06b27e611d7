//! The first message of a TLS client (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2), read from the bytes that came so far.
//!
//! Decides which name and protocols the client asks for; never answers and never waits. Bounded: at most
//! [`INPUT_BYTES_MAX`] bytes are looked at. The answer is the same however the bytes were split, into TLS records or
//! into reads: it is [`Parsed::NeedMore`] until it is final, and then more bytes never change it. Never panics.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use thiserror::Error;

/// Bytes of the longest message that is read. Browsers with post-quantum keys send about 2 KiB.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;
/// Bytes that are looked at, record headers included: room for the longest message in records of 16 bytes.
pub const INPUT_BYTES_MAX: usize = 24 * 1024;

/// RFC 8446 §5.1: a record's type, version and length, and the longest fragment.
const RECORD_HEADER: usize = 5;
const FRAGMENT_BYTES_MAX: usize = 1 << 14;
const HANDSHAKE: u8 = 22;
/// RFC 8446 §4: a message's type and length.
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;
/// Extensions (IANA TLS ExtensionType Values).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// Bytes of the longest name (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// What the bytes so far say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The message is not complete.
    NeedMore,
    /// What the client asks for.
    Hello(Hello),
    /// These are no TLS records, or another message comes first.
    NotTls,
    /// The message is longer than what is read here.
    TooLong,
    /// It is TLS and wrong.
    Reject(Reason),
}

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The name (SNI, RFC 6066 §3), in lower case and without trailing dot; `None` where there is none, or an IP address
    /// in its place, which is no name.
    pub server_name: Option<String>,
    /// The protocols that it offers (RFC 7301), as sent, values that mean nothing (GREASE, RFC 8701) included.
    pub alpn: Vec<Vec<u8>>,
    /// Whether it hides another name (encrypted client hello); [`Hello::server_name`] is then the outer one.
    pub has_ech: bool,
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Reason {
    /// A record without content, with more than a record may have, or of another type in between.
    #[error("the TLS records are malformed")]
    BadRecord,
    /// Lengths that do not fit into each other.
    #[error("the ClientHello is malformed")]
    Malformed,
    /// One extension twice.
    #[error("the ClientHello has an extension twice")]
    DuplicateExtension,
    /// Two host names.
    #[error("the ClientHello names several hosts")]
    SeveralNames,
    /// No host name at all: other characters, empty, or too long.
    #[error("the ClientHello names a host that is none")]
    BadName,
}

/// Reads what came so far, from the connection's first byte on.
pub fn parse(input: &[u8]) -> Parsed {
    let bounded = &input[..input.len().min(INPUT_BYTES_MAX)];
    match message(bounded) {
        Ok(Some(body)) => match hello(&body) {
            Ok(hello) => Parsed::Hello(hello),
            Err(reason) => Parsed::Reject(reason),
        },
        Ok(None) if input.len() >= INPUT_BYTES_MAX => Parsed::TooLong,
        Ok(None) => Parsed::NeedMore,
        Err(end) => end,
    }
}

/// The body of the message, joined from its records; `None` while bytes are missing.
fn message(input: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Parsed> {
    let mut head: Vec<u8> = Vec::with_capacity(MESSAGE_HEADER);
    let mut joined = Fragments::default();
    let mut rest = input;
    let mut is_first = true;
    loop {
        // Each header is judged byte by byte, so that a prefix never says less than it could and never more.
        let wrong = if is_first {
            Parsed::NotTls
        } else {
            Parsed::Reject(Reason::BadRecord)
        };
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE) || rest.get(1).is_some_and(|major| *major != 3) {
            return Err(wrong);
        }
        let Some((header, after)) = rest.split_at_checked(RECORD_HEADER) else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > FRAGMENT_BYTES_MAX {
            return Err(Parsed::Reject(Reason::BadRecord));
        }
        let present = &after[..length.min(after.len())];
        let wants = MESSAGE_HEADER.saturating_sub(head.len()).min(present.len());
        head.extend_from_slice(&present[..wants]);
        if head.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Parsed::NotTls);
        }
        joined.add(&present[wants..]);
        if let [_, a, b, c] = head[..] {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > HELLO_BYTES_MAX {
                return Err(Parsed::TooLong);
            }
            if joined.len >= length {
                return Ok(Some(joined.take(length)));
            }
        }
        if present.len() < length {
            return Ok(None);
        }
        rest = &after[length..];
        is_first = false;
    }
}

/// Pieces of one message; copied only if there are several.
#[derive(Default)]
struct Fragments<'a> {
    pieces: Vec<&'a [u8]>,
    len: usize,
}

impl<'a> Fragments<'a> {
    fn add(&mut self, piece: &'a [u8]) {
        if !piece.is_empty() {
            self.pieces.push(piece);
            self.len += piece.len();
        }
    }

    /// The first `length` bytes; there are as many.
    fn take(self, length: usize) -> Cow<'a, [u8]> {
        match self.pieces[..] {
            [] => Cow::Borrowed(&[]),
            [only] => Cow::Borrowed(&only[..length]),
            [..] => {
                let mut whole = self.pieces.concat();
                whole.truncate(length);
                Cow::Owned(whole)
            }
        }
    }
}

/// RFC 8446 §4.1.2, RFC 5246 §7.4.1.2; extensions may be missing altogether.
fn hello(body: &[u8]) -> Result<Hello, Reason> {
    let mut body = Reader(body);
    body.bytes(2)?; // legacy_version
    body.bytes(32)?; // random
    let session = body.vector8()?;
    let suites = body.vector16()?;
    let compressions = body.vector8()?;
    if session.0.len() > 32 || suites.0.is_empty() || suites.0.len() % 2 != 0 || compressions.0.is_empty() {
        return Err(Reason::Malformed);
    }
    let mut hello = Hello::default();
    if body.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = body.vector16()?;
    body.end()?;
    let mut seen: Vec<u16> = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let content = extensions.vector16()?;
        seen.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = server_name(content)?,
            ALPN => hello.alpn = alpn(content)?,
            ENCRYPTED_CLIENT_HELLO => hello.has_ech = true,
            _ => {} // unknown ones and GREASE are passed over (RFC 8701 §3.1)
        }
    }
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Reason::DuplicateExtension);
    }
    Ok(hello)
}

/// RFC 6066 §3: one name per type, and only the type `host_name` was ever defined.
fn server_name(mut content: Reader<'_>) -> Result<Option<String>, Reason> {
    let mut list = content.vector16()?;
    content.end()?;
    if list.0.is_empty() {
        return Err(Reason::Malformed);
    }
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.number8()?;
        let name = list.vector16()?;
        if kind == 0 && found.replace(name.0).is_some() {
            return Err(Reason::SeveralNames);
        }
    }
    found.map_or(Ok(None), host_name)
}

fn host_name(name: &[u8]) -> Result<Option<String>, Reason> {
    let text = core::str::from_utf8(name).map_err(|_| Reason::BadName)?;
    // Not allowed (RFC 6066 §3), but sent: it says no more than the address that was connected to.
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if inside.unwrap_or(text).parse::<core::net::IpAddr>().is_ok() {
        return Ok(None);
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if text.len() > NAME_BYTES_MAX || !text.split('.').all(is_label) {
        return Err(Reason::BadName);
    }
    Ok(Some(text.to_ascii_lowercase()))
}

/// RFC 7301 §3.1.
fn alpn(mut content: Reader<'_>) -> Result<Vec<Vec<u8>>, Reason> {
    let mut list = content.vector16()?;
    content.end()?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.vector8()?;
        if protocol.0.is_empty() {
            return Err(Reason::Malformed);
        }
        protocols.push(protocol.0.to_vec());
    }
    if protocols.is_empty() {
        return Err(Reason::Malformed);
    }
    Ok(protocols)
}

/// What is left of a structure.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Reason> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Reason::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number8(&mut self) -> Result<u8, Reason> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn number16(&mut self) -> Result<u16, Reason> {
        self.bytes(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Result<Reader<'a>, Reason> {
        let length = self.number8()?;
        self.bytes(length.into()).map(Reader)
    }

    fn vector16(&mut self) -> Result<Reader<'a>, Reason> {
        let length = self.number16()?;
        self.bytes(length.into()).map(Reader)
    }

    fn end(&self) -> Result<(), Reason> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Reason::Malformed)
        }
    }
}

#[cfg(test)]
mod tests;
