//! Which headers end at this hop (RFC 9110 §7.6.1).

/// What a request or response says about its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `close`
    pub close: bool,
    /// `upgrade`
    pub upgrade: bool,
    /// Fields were named that end here.
    pub names_fields: bool,
}

/// Whether a field of this name (lower case) ends at this hop whatever `Connection` says.
pub fn ends_here(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade" | "http2-settings"
    )
}

/// The fields that `Connection` values name, in lower or mixed case, without the options `close`, `keep-alive`, `upgrade`.
///
/// Fields that must reach the app are not among them, whoever names them: stripping `Host` or a length changes what the
/// message is, and stripping who asks (`X-Forwarded-…`, set here afterwards) or `Cookie`, `Authorization` is an old trick.
pub fn named_fields<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
    tokens(values).filter(|name| !is_option(name) && !is_protected(name))
}

/// What `Connection` values say.
pub fn options<'a>(values: impl Iterator<Item = &'a [u8]>) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    for token in tokens(values) {
        options.close |= token.eq_ignore_ascii_case("close");
        options.upgrade |= token.eq_ignore_ascii_case("upgrade");
        options.names_fields |= !is_option(token);
    }
    options
}

/// Whether `TE` values list `trailers`, the only one of their members that may be forwarded (RFC 9110 §10.1.4).
pub fn wants_trailers<'a>(values: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut tokens = tokens(values);
    tokens.any(|token| {
        token
            .split(';')
            .next()
            .is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case("trailers"))
    })
}

/// Whether a protocol that a client wants to switch to may be passed on. `h2c` may not: behind it, requests would pass that
/// no rule saw (RFC 9113 §3.1 has removed it).
pub fn may_upgrade_to(protocol: &[u8]) -> bool {
    !protocol.is_empty()
        && !protocol
            .split(|b| *b == b',')
            .any(|name| name.trim_ascii().to_ascii_lowercase().starts_with(b"h2"))
}

fn tokens<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
    values
        .flat_map(|value| value.split(|b| *b == b','))
        .filter_map(|token| core::str::from_utf8(token.trim_ascii()).ok())
        .filter(|token| !token.is_empty())
}

fn is_option(token: &str) -> bool {
    ["close", "keep-alive", "upgrade"]
        .iter()
        .any(|option| token.eq_ignore_ascii_case(option))
}

fn is_protected(name: &str) -> bool {
    [
        "host",
        "content-length",
        "content-type",
        "authorization",
        "cookie",
        "expect",
    ]
    .iter()
    .any(|field| name.eq_ignore_ascii_case(field))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn bytes<'a>(values: &'a [&'a str]) -> impl Iterator<Item = &'a [u8]> {
        values.iter().map(|text| text.as_bytes())
    }

    #[test]
    fn fields_that_connection_names_end_here() {
        let named: Vec<_> = named_fields(bytes(&["keep-alive, X-Private", "Close,x-other"])).collect();
        assert_eq!(named, ["X-Private", "x-other"]);
    }

    #[test]
    fn fields_that_make_the_message_cannot_be_stripped() {
        assert_eq!(
            named_fields(bytes(&["Host, Content-Length, Cookie, authorization"])).count(),
            0
        );
    }

    #[test]
    fn options_are_read_from_all_values_in_any_case() {
        let options = options(bytes(&["Keep-Alive", "UPGRADE, x-a"]));
        assert_eq!(
            options,
            ConnectionOptions {
                close: false,
                upgrade: true,
                names_fields: true
            }
        );
    }

    #[test]
    fn of_te_only_trailers_is_forwarded() {
        assert!(wants_trailers(bytes(&["gzip;q=0.5, Trailers"])));
        assert!(!wants_trailers(bytes(&["gzip"])));
    }

    #[test]
    fn an_upgrade_to_h2c_is_not_passed_on() {
        assert!(may_upgrade_to(b"websocket"));
        assert!(!may_upgrade_to(b"h2c"));
        assert!(!may_upgrade_to(b"websocket, H2C"));
        assert!(!may_upgrade_to(b""));
    }
}
