//! The form of access lines as NGINX's `log_format` writes it: text with `$variables`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::text::nearest;

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Stands as it is.
    Text(String),
    /// Differs from request to request.
    Variable(Variable),
}

/// What can be said about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The query, without `?`.
    Args,
    /// Bytes of the response's body.
    BodyBytesSent,
    /// The host that was asked for.
    Host,
    /// `Referer`
    HttpReferer,
    /// `User-Agent`
    HttpUserAgent,
    /// `X-Forwarded-For` as the client sent it.
    HttpXForwardedFor,
    /// Seconds since 1970, with milliseconds.
    Msec,
    /// The client's address.
    RemoteAddr,
    /// Nobody is known by name: `-`.
    RemoteUser,
    /// Method, target and version.
    Request,
    /// `x-request-id`
    RequestId,
    /// The method.
    RequestMethod,
    /// Seconds from the request's first byte to the response's last, with milliseconds.
    RequestTime,
    /// Path and query.
    RequestUri,
    /// The version of HTTP.
    ServerProtocol,
    /// The status.
    Status,
    /// The service that answered.
    Service,
    /// `2026-01-31T12:00:00+00:00`
    TimeIso8601,
    /// `31/Jan/2026:12:00:00 +0000`
    TimeLocal,
    /// The endpoint.
    UpstreamAddr,
    /// Seconds until the endpoint's response began, with milliseconds.
    UpstreamResponseTime,
    /// The path.
    Uri,
}

/// Every variable by name; several names may mean one.
pub const VARIABLES: &[(&str, Variable)] = &[
    ("args", Variable::Args),
    ("body_bytes_sent", Variable::BodyBytesSent),
    ("bytes_sent", Variable::BodyBytesSent),
    ("host", Variable::Host),
    ("http_host", Variable::Host),
    ("http_referer", Variable::HttpReferer),
    ("http_user_agent", Variable::HttpUserAgent),
    ("http_x_forwarded_for", Variable::HttpXForwardedFor),
    ("msec", Variable::Msec),
    ("query_string", Variable::Args),
    ("remote_addr", Variable::RemoteAddr),
    ("remote_user", Variable::RemoteUser),
    ("reqid", Variable::RequestId),
    ("request", Variable::Request),
    ("request_id", Variable::RequestId),
    ("request_method", Variable::RequestMethod),
    ("request_time", Variable::RequestTime),
    ("request_uri", Variable::RequestUri),
    ("server_protocol", Variable::ServerProtocol),
    ("service", Variable::Service),
    ("status", Variable::Status),
    ("time_iso8601", Variable::TimeIso8601),
    ("time_local", Variable::TimeLocal),
    ("upstream_addr", Variable::UpstreamAddr),
    ("upstream_header_time", Variable::UpstreamResponseTime),
    ("upstream_response_time", Variable::UpstreamResponseTime),
    ("uri", Variable::Uri),
];

/// Reads a format; `$name` and `${name}`.
///
/// # Errors
/// What is no variable, with the nearest that is.
pub fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        if at > 0 {
            pieces.push(Piece::Text(rest[..at].to_string()));
        }
        let after = &rest[at + 1..];
        let (inside, braces) = after.strip_prefix('{').map_or((after, 0), |inside| (inside, 2));
        let len = inside
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
            .count();
        let name = &inside[..len];
        if braces > 0 && !inside[len..].starts_with('}') {
            return Err(format!("${{{name} is not closed"));
        }
        let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
            let near = nearest(name, VARIABLES.iter().map(|(name, _)| *name));
            let hint = near.map_or_else(
                || "docs/settings.md lists them".to_string(),
                |near| format!("did you mean ${near}?"),
            );
            return Err(format!("there is no variable ${name}; {hint}"));
        };
        pieces.push(Piece::Variable(*variable));
        rest = &after[len + braces..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_string()));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_text_with_variables() {
        let pieces = parse("$remote_addr \"${request}\" $status").unwrap();
        let text = |text: &str| Piece::Text(text.into());
        assert_eq!(
            pieces,
            [
                Piece::Variable(Variable::RemoteAddr),
                text(" \""),
                Piece::Variable(Variable::Request),
                text("\" "),
                Piece::Variable(Variable::Status),
            ]
        );
        assert!(parse("$remote_adr").unwrap_err().contains("did you mean $remote_addr?"));
        assert!(parse("${status").unwrap_err().contains("not closed"));
        assert!(VARIABLES.is_sorted_by_key(|(name, _)| name));
    }
}
