//! Access lines in a form of the operator's own.

use std::fmt::{self, Write as _};
use std::time::Duration;

use tidegate_core::calendar::Civil;
use tidegate_core::settings::log_format::{Piece, Variable};

use super::{AccessRecord, Redaction, client, escape, field, target, write_local};

/// Writes one line. What a client sent is escaped, so it ends no field and no line.
pub(super) fn write(
    out: &mut String,
    pieces: &[Piece],
    record: &AccessRecord<'_>,
    redaction: &Redaction,
) -> fmt::Result {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Variable(variable) => write_variable(out, *variable, record, redaction)?,
        }
    }
    out.push('\n');
    Ok(())
}

fn write_variable(
    out: &mut String,
    variable: Variable,
    record: &AccessRecord<'_>,
    redaction: &Redaction,
) -> fmt::Result {
    match variable {
        Variable::Args => match record.uri.query() {
            Some(query) if !redaction.query => escape(out, query),
            Some(_) | None => out.write_char('-'),
        },
        Variable::BodyBytesSent => write!(out, "{}", record.bytes),
        Variable::Host => escape(out, &field(record.host, "host", redaction)),
        Variable::HttpReferer => escape(out, &field(record.referer, "referer", redaction)),
        Variable::HttpUserAgent => escape(out, &field(record.user_agent, "user-agent", redaction)),
        // Addresses of clients again, so they go the way of the client's.
        Variable::HttpXForwardedFor if redaction.client => out.write_char('-'),
        Variable::HttpXForwardedFor => escape(out, &field(record.forwarded_for, "x-forwarded-for", redaction)),
        Variable::Msec => seconds(out, record.wall),
        Variable::RemoteAddr => write!(out, "{}", client(record, redaction)),
        Variable::RemoteUser => out.write_char('-'),
        Variable::Request => {
            write!(out, "{} ", record.method)?;
            escape(out, &target(record.uri, redaction))?;
            write!(out, " {:?}", record.version)
        }
        Variable::RequestId => escape(out, &field(record.request_id, "x-request-id", redaction)),
        Variable::RequestMethod => write!(out, "{}", record.method),
        Variable::RequestTime => seconds(out, record.took),
        Variable::RequestUri => escape(out, &target(record.uri, redaction)),
        Variable::ServerProtocol => write!(out, "{:?}", record.version),
        Variable::Service => escape(out, record.service.unwrap_or("-")),
        Variable::Status => write!(out, "{}", record.status),
        Variable::TimeIso8601 => write!(out, "{}+00:00", Civil::of(record.wall)),
        Variable::TimeLocal => write_local(out, record.wall),
        Variable::UpstreamAddr => match record.upstream {
            Some(addr) => write!(out, "{addr}"),
            None => out.write_char('-'),
        },
        Variable::UpstreamResponseTime => match record.upstream_took {
            Some(took) => seconds(out, took),
            None => out.write_char('-'),
        },
        Variable::Uri => escape(out, record.uri.path()),
    }
}

fn seconds(out: &mut String, time: Duration) -> fmt::Result {
    write!(out, "{}.{:03}", time.as_secs(), time.subsec_millis())
}
