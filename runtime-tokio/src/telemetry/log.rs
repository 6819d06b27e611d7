//! Access lines, and the set-up of structured logs.
//!
//! A worker formats a line into a buffer of its own and hands whole buffers to one writer thread through a bounded channel. A
//! full channel drops the buffer and counts its lines: a slow log never slows a request.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use http::{HeaderValue, Method, Uri, Version};
use tidegate_core::calendar::Civil;
use tidegate_core::settings::log_format::Piece;
use tidegate_core::time::Instant;

mod own;

/// Bytes after which a buffer is handed over, and time after which it is in any case.
const FLUSH_BYTES: usize = 16 * 1024;
const FLUSH_AFTER: Duration = Duration::from_millis(200);
/// Buffers that may wait for the writer.
const BUFFERS_MAX: usize = 64;
/// Characters of one client-supplied field that a line keeps.
const FIELD_CHARS_MAX: usize = 1024;

/// How an access line looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// NCSA combined log format, and `key="value"` pairs after it.
    #[default]
    Common,
    /// One JSON object per line.
    Json,
    /// As the operator wrote it.
    Own(Arc<[Piece]>),
}

/// What access lines leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// Query strings, here and in the referer.
    pub query: bool,
    /// The client's address: its last octet (IPv4) or all but the first 48 bits (IPv6) become zero.
    pub client: bool,
    /// Fields by name: `referer`, `user-agent`, `host`, `x-request-id`.
    pub headers: BTreeSet<String>,
}

/// Where a worker's access lines go. Clones write to the same place.
#[derive(Clone, Debug, Default)]
pub struct AccessLog {
    sink: Option<SyncSender<Vec<u8>>>,
    format: AccessFormat,
    redaction: Redaction,
}

impl AccessLog {
    /// No access lines.
    pub fn off() -> Self {
        Self::default()
    }

    /// Lines for `out`, written by a thread that ends when all clones are gone.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread.
    pub fn to_writer(
        format: AccessFormat,
        redaction: Redaction,
        out: impl io::Write + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (log, buffers) = Self::to_channel(format, redaction);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&buffers, out))?;
        Ok((log, thread))
    }

    /// Lines for whoever reads the channel, buffer by buffer.
    pub fn to_channel(format: AccessFormat, redaction: Redaction) -> (Self, Receiver<Vec<u8>>) {
        let (sink, buffers) = sync_channel(BUFFERS_MAX);
        let log = AccessLog {
            sink: Some(sink),
            format,
            redaction,
        };
        (log, buffers)
    }
}

fn write_all(buffers: &Receiver<Vec<u8>>, mut out: impl io::Write) {
    while let Ok(buffer) = buffers.recv() {
        if let Err(error) = out.write_all(&buffer).and_then(|()| out.flush()) {
            tracing::warn!(%error, "access lines cannot be written any more");
            return;
        }
    }
}

/// One request, for its access line.
#[derive(Debug)]
pub(crate) struct AccessRecord<'a> {
    /// Since 1970.
    pub(crate) wall: Duration,
    pub(crate) client: IpAddr,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) version: Version,
    pub(crate) host: Option<&'a HeaderValue>,
    pub(crate) referer: Option<&'a HeaderValue>,
    pub(crate) user_agent: Option<&'a HeaderValue>,
    /// `X-Forwarded-For` as the client sent it.
    pub(crate) forwarded_for: Option<&'a HeaderValue>,
    pub(crate) request_id: Option<&'a HeaderValue>,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    pub(crate) service: Option<&'a str>,
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) upstream_took: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) fault: Option<&'static str>,
}

/// A worker's end of the access log.
#[derive(Debug)]
pub(crate) struct AccessBuffer {
    log: AccessLog,
    buffer: RefCell<String>,
    lines: Cell<u64>,
    dropped: Cell<u64>,
    /// When the first line of the buffer was written, in wall time.
    flush_at: Cell<Option<Instant>>,
}

impl AccessBuffer {
    pub(crate) fn new(log: AccessLog) -> Self {
        AccessBuffer {
            log,
            buffer: RefCell::new(String::new()),
            lines: Cell::new(0),
            dropped: Cell::new(0),
            flush_at: Cell::new(None),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.log.sink.is_some()
    }

    /// Lines that were dropped because the writer was behind.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// When the buffer is to be handed over at the latest.
    pub(crate) fn flush_at(&self) -> Option<Instant> {
        self.flush_at.get()
    }

    /// Writes a line; true where the buffer has just begun to fill, so that somebody must flush it later.
    pub(crate) fn write(&self, record: &AccessRecord<'_>, now: Instant) -> bool {
        let mut buffer = self.buffer.borrow_mut();
        let redaction = &self.log.redaction;
        let written = match &self.log.format {
            AccessFormat::Common => write_common(&mut buffer, record, redaction),
            AccessFormat::Json => write_json(&mut buffer, record, redaction),
            AccessFormat::Own(pieces) => own::write(&mut buffer, pieces, record, redaction),
        };
        debug_assert!(written.is_ok(), "a String takes everything");
        self.lines.set(self.lines.get() + 1);
        let full = buffer.len() >= FLUSH_BYTES;
        drop(buffer);
        if full {
            self.flush();
            return false;
        }
        let begins = self.flush_at.get().is_none();
        if begins {
            self.flush_at.set(Some(now + FLUSH_AFTER));
        }
        begins
    }

    pub(crate) fn flush_if_due(&self, now: Instant) {
        if self.flush_at.get().is_some_and(|at| at <= now) {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub(crate) fn flush(&self) {
        self.flush_at.set(None);
        let (buffer, lines) = (self.buffer.take(), self.lines.replace(0));
        if let Some(sink) = &self.log.sink
            && lines > 0
            && sink.try_send(buffer.into_bytes()).is_err()
        {
            self.dropped.set(self.dropped.get() + lines);
        }
    }
}

fn write_common(out: &mut String, record: &AccessRecord<'_>, redaction: &Redaction) -> fmt::Result {
    write!(out, "{} - - [", client(record, redaction))?;
    write_local(out, record.wall)?;
    out.push_str("] \"");
    write!(out, "{} ", record.method)?;
    escape(out, &target(record.uri, redaction))?;
    write!(out, " {:?}\" {} {} \"", record.version, record.status, record.bytes)?;
    escape(out, &field(record.referer, "referer", redaction))?;
    out.push_str("\" \"");
    escape(out, &field(record.user_agent, "user-agent", redaction))?;
    out.push_str("\" host=\"");
    escape(out, &field(record.host, "host", redaction))?;
    out.push_str("\" id=\"");
    escape(out, &field(record.request_id, "x-request-id", redaction))?;
    write!(out, "\" took={:.3}", record.took.as_secs_f64())?;
    if let Some(service) = record.service {
        out.push_str(" service=\"");
        escape(out, service)?;
        out.push('"');
    }
    if let Some(upstream) = record.upstream {
        write!(out, " upstream={upstream}")?;
    }
    if let Some(took) = record.upstream_took {
        write!(out, " upstream_took={:.3}", took.as_secs_f64())?;
    }
    if record.retries > 0 {
        write!(out, " retries={}", record.retries)?;
    }
    if let Some(fault) = record.fault {
        write!(out, " fault={fault}")?;
    }
    out.push('\n');
    Ok(())
}

/// `31/Jan/2026:12:00:00 +0000`
fn write_local(out: &mut String, wall: Duration) -> fmt::Result {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let Civil {
        date: (year, month, day),
        time: (hour, minute, second),
    } = Civil::of(wall);
    let month = MONTHS[(month - 1) as usize];
    write!(out, "{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000")
}

fn write_json(out: &mut String, record: &AccessRecord<'_>, redaction: &Redaction) -> fmt::Result {
    let (civil, millis) = (Civil::of(record.wall), record.wall.subsec_millis());
    write!(out, "{{\"time\":\"{civil}.{millis:03}Z\"")?;
    write!(
        out,
        ",\"client\":\"{}\",\"method\":\"{}\"",
        client(record, redaction),
        record.method
    )?;
    for (key, text) in [
        ("target", target(record.uri, redaction)),
        ("host", field(record.host, "host", redaction)),
        ("referer", field(record.referer, "referer", redaction)),
        ("user_agent", field(record.user_agent, "user-agent", redaction)),
        ("id", field(record.request_id, "x-request-id", redaction)),
        ("service", record.service.unwrap_or_default().to_owned()),
        ("fault", record.fault.unwrap_or_default().to_owned()),
    ] {
        if !text.is_empty() {
            write!(out, ",\"{key}\":{}", serde_json::Value::from(text))?;
        }
    }
    write!(
        out,
        ",\"version\":\"{:?}\",\"status\":{},\"bytes\":{},\"took\":{:.3}",
        record.version,
        record.status,
        record.bytes,
        record.took.as_secs_f64()
    )?;
    if let Some(upstream) = record.upstream {
        write!(out, ",\"upstream\":\"{upstream}\"")?;
    }
    if let Some(took) = record.upstream_took {
        write!(out, ",\"upstream_took\":{:.3}", took.as_secs_f64())?;
    }
    writeln!(out, ",\"retries\":{}}}", record.retries)
}

fn client(record: &AccessRecord<'_>, redaction: &Redaction) -> std::net::IpAddr {
    let ip = record.client.to_canonical();
    if !redaction.client {
        return ip;
    }
    match ip {
        std::net::IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            std::net::Ipv4Addr::new(a, b, c, 0).into()
        }
        std::net::IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

fn target(uri: &Uri, redaction: &Redaction) -> String {
    match uri.query() {
        Some(query) if !redaction.query => format!("{}?{query}", uri.path()),
        Some(_) | None => uri.path().to_owned(),
    }
}

/// A client's field as text: `-` where it is missing, left out or too long a story.
fn field(value: Option<&HeaderValue>, name: &str, redaction: &Redaction) -> String {
    let Some(value) = value else { return "-".to_owned() };
    if redaction.headers.contains(name) {
        return "-".to_owned();
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    let text = match text.split_once('?') {
        Some((before, _)) if redaction.query && name == "referer" => before,
        Some(_) | None => &text,
    };
    text.chars().take(FIELD_CHARS_MAX).collect()
}

/// Nothing that a client sends ends a field or a line.
fn escape(out: &mut String, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => write!(out, "\\x{:02x}", u32::from(c))?,
            c => out.push(c),
        }
    }
    Ok(())
}

/// How the process's own log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// Sends structured logs to standard error. `filter` as `tracing` reads it, e.g. `info,tidegate=debug`.
///
/// # Errors
///
/// Where the filter cannot be read, or logs are set up already; says which.
pub fn init_tracing(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(filter).with_context(|| format!("the log filter {filter:?} cannot be read"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let result = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("logs are set up already: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: AccessFormat, redaction: &Redaction) -> String {
        let (method, uri) = (Method::GET, Uri::from_static("/a?secret=1"));
        let agent = HeaderValue::from_static("evil\" 200 \\");
        let record = AccessRecord {
            wall: Duration::from_millis(1_709_210_096_789), // a 29 February
            client: "::ffff:192.0.2.77".parse().expect("an address"),
            method: &method,
            uri: &uri,
            version: Version::HTTP_11,
            host: Some(&HeaderValue::from_static("shop.example")),
            referer: None,
            user_agent: Some(&agent),
            forwarded_for: None,
            request_id: Some(&HeaderValue::from_static("abc")),
            status: 502,
            bytes: 12,
            took: Duration::from_millis(1500),
            service: Some("shop"),
            upstream: Some(SocketAddr::from(([10, 0, 0, 1], 80))),
            upstream_took: Some(Duration::from_millis(7)),
            retries: 2,
            fault: Some("upstream_died"),
        };
        let mut out = String::new();
        match &format {
            AccessFormat::Common => write_common(&mut out, &record, redaction),
            AccessFormat::Json => write_json(&mut out, &record, redaction),
            AccessFormat::Own(pieces) => own::write(&mut out, pieces, &record, redaction),
        }
        .expect("a String takes everything");
        out
    }

    #[test]
    fn a_common_line_cannot_be_forged_by_its_fields() {
        insta::assert_snapshot!(line(AccessFormat::Common, &Redaction::default()), @r#"192.0.2.77 - - [29/Feb/2024:12:34:56 +0000] "GET /a?secret=1 HTTP/1.1" 502 12 "-" "evil\" 200 \\" host="shop.example" id="abc" took=1.500 service="shop" upstream=10.0.0.1:80 upstream_took=0.007 retries=2 fault=upstream_died"#);
    }

    #[test]
    fn option_main_log_format_is_written_with_its_variables_and_escaped() {
        let format = "$remote_addr [$time_local] \"$request\" $status ${body_bytes_sent}b \"$http_user_agent\" \
                      $http_x_forwarded_for $request_time $upstream_addr $service";
        let pieces = tidegate_core::settings::log_format::parse(format).expect("a format");
        let own = AccessFormat::Own(pieces.into());
        assert_eq!(
            line(own.clone(), &Redaction::default()),
            "192.0.2.77 [29/Feb/2024:12:34:56 +0000] \"GET /a?secret=1 HTTP/1.1\" 502 12b \"evil\\\" 200 \\\\\" - 1.500 \
             10.0.0.1:80 shop\n"
        );
        let redaction = Redaction {
            query: true,
            client: true,
            headers: ["user-agent".to_owned()].into(),
        };
        let line = line(own, &redaction);
        assert!(
            ["secret", "192.0.2.77", "evil"].iter().all(|word| !line.contains(word)),
            "{line}"
        );
    }

    #[test]
    fn a_json_line_is_json() {
        let line = line(AccessFormat::Json, &Redaction::default());
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["time"], "2024-02-29T12:34:56.789Z");
        assert_eq!(value["user_agent"], "evil\" 200 \\");
        assert_eq!(value["took"], 1.5);
    }

    #[test]
    fn what_is_redacted_is_in_no_line() {
        let redaction = Redaction {
            query: true,
            client: true,
            headers: ["user-agent".to_owned(), "x-request-id".to_owned()].into(),
        };
        for format in [AccessFormat::Common, AccessFormat::Json] {
            let line = line(format, &redaction);
            for secret in ["secret", "192.0.2.77", "evil", "abc"] {
                assert!(!line.contains(secret), "{secret} in {line}");
            }
            assert!(line.contains("192.0.2.0"));
        }
    }

    #[test]
    fn lines_that_nobody_takes_are_dropped_and_counted() {
        let (log, _buffers) = AccessLog::to_channel(AccessFormat::Common, Redaction::default());
        let access = AccessBuffer::new(log);
        let (method, uri) = (Method::GET, Uri::from_static("/"));
        let record = AccessRecord {
            wall: Duration::ZERO,
            client: IpAddr::from([10, 0, 0, 1]),
            method: &method,
            uri: &uri,
            version: Version::HTTP_11,
            host: None,
            referer: None,
            user_agent: None,
            forwarded_for: None,
            request_id: None,
            status: 200,
            bytes: 0,
            took: Duration::ZERO,
            service: None,
            upstream: None,
            upstream_took: None,
            retries: 0,
            fault: None,
        };
        for _ in 0..BUFFERS_MAX + 3 {
            access.write(&record, Instant::START);
            access.flush();
        }
        assert_eq!(access.dropped(), 3);
    }
}
