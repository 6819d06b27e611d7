//! Which host a request is for.

use alloc::borrow::Cow;

use super::fault::ClientFault;

/// The protocol that a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0 or older: may lack a host.
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

/// Host and port of a request, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As the client wrote it, port included.
    pub text: &'a str,
    /// Lower case, without port and trailing dot: what routes compare.
    pub host: Cow<'a, str>,
    /// The port, where one was written.
    pub port: Option<u16>,
}

/// The host of a request: of its target where that has one (RFC 9112 §3.2.2: absolute-form wins over `Host`, RFC 9113
/// §8.3.1: `:authority`), else of its only `Host` header. `None` where there rightly is none.
pub fn effective<'a>(
    version: Version,
    target: Option<&'a str>,
    mut hosts: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<Authority<'a>>, ClientFault> {
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(ClientFault::SeveralHosts);
    }
    let header = match header {
        Some(value) => Some(core::str::from_utf8(value).map_err(|_| ClientFault::BadHost)?),
        None if version == Version::Http11 => return Err(ClientFault::MissingHost),
        None => None,
    };
    let header = header.map(str::trim_ascii);
    match (target, header) {
        // RFC 9113 §8.3.1: a Host that differs from :authority is malformed.
        (Some(target), Some(header)) if version == Version::Http2 && !target.eq_ignore_ascii_case(header) => {
            Err(ClientFault::SeveralHosts)
        }
        // RFC 9112 §3.2: an invalid Host is answered 400, even where the target decides.
        (Some(target), Some(header)) if !header.is_empty() => parse(header).and_then(|_| parse(target)).map(Some),
        (Some(text), _) | (None, Some(text)) if !text.is_empty() => parse(text).map(Some),
        (Some(_) | None, _) => Ok(None),
    }
}

/// Reads `host`, `host:port` or `[v6]:port`.
pub fn parse(text: &str) -> Result<Authority<'_>, ClientFault> {
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or(ClientFault::BadHost)?;
        let (host, rest) = text.split_at(end + 1);
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(ClientFault::BadHost),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    // RFC 3986 §3.2.3: an empty port is allowed and means the default.
    let port = match port {
        None | Some("") => None,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().map_err(|_| ClientFault::BadHost)?),
        Some(_) => return Err(ClientFault::BadHost),
    };
    let is_literal = host.starts_with('[');
    let valid = |b: u8| match is_literal {
        true => b.is_ascii_hexdigit() || matches!(b, b'[' | b']' | b':' | b'.' | b'%' | b'v' | b'V'),
        // RFC 3986 §3.2.2 reg-name. Refuses `@`: user information in a request is a trap (RFC 9110 §4.2.4).
        false => b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&b),
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() || !name.bytes().all(valid) {
        return Err(ClientFault::BadHost);
    }
    let host = if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    };
    Ok(Authority { text, host, port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host_of(
        version: Version,
        target: Option<&str>,
        hosts: &[&str],
    ) -> Result<Option<std::string::String>, ClientFault> {
        effective(version, target, hosts.iter().map(|host| host.as_bytes()))
            .map(|authority| authority.map(|authority| authority.host.into_owned()))
    }

    #[test]
    fn the_host_is_compared_in_lower_case_without_port_and_dot() {
        for text in [
            "Shop.Example.ORG",
            "shop.example.org:8080",
            "shop.example.org.",
            "shop.example.org.:80",
        ] {
            assert_eq!(
                host_of(Version::Http11, None, &[text]),
                Ok(Some("shop.example.org".into())),
                "{text}"
            );
        }
        assert_eq!(
            host_of(Version::Http11, None, &["[2001:DB8::1]:80"]),
            Ok(Some("[2001:db8::1]".into()))
        );
    }

    #[test]
    fn an_absolute_target_wins_over_the_host_header() {
        let host = host_of(Version::Http11, Some("a.example"), &["b.example"]);
        assert_eq!(host, Ok(Some("a.example".into())));
    }

    #[test]
    fn http_1_1_needs_exactly_one_host() {
        assert_eq!(host_of(Version::Http11, None, &[]), Err(ClientFault::MissingHost));
        assert_eq!(
            host_of(Version::Http11, Some("a.example"), &[]),
            Err(ClientFault::MissingHost)
        );
        assert_eq!(
            host_of(Version::Http11, None, &["a", "a"]),
            Err(ClientFault::SeveralHosts)
        );
        assert_eq!(host_of(Version::Http10, None, &[]), Ok(None));
        assert_eq!(host_of(Version::Http11, None, &[""]), Ok(None));
    }

    #[test]
    fn http_2_refuses_a_host_that_differs_from_its_authority() {
        assert_eq!(
            host_of(Version::Http2, Some("a.example"), &["b.example"]),
            Err(ClientFault::SeveralHosts)
        );
        assert_eq!(
            host_of(Version::Http2, Some("a.example"), &["A.example"]),
            Ok(Some("a.example".into()))
        );
        assert_eq!(
            host_of(Version::Http2, Some("a.example"), &[]),
            Ok(Some("a.example".into()))
        );
    }

    #[test]
    fn malformed_hosts_are_refused() {
        for text in [
            "a b",
            "user@host",
            "a/b",
            "a:port",
            "a:99999",
            "a:1:2",
            "[::1",
            "[::1]x",
            ":80",
            ".",
            "a\\b",
            "a?b",
            "a#b",
            "ä.example",
        ] {
            assert_eq!(
                host_of(Version::Http11, None, &[text]),
                Err(ClientFault::BadHost),
                "{text}"
            );
        }
        assert_eq!(
            host_of(Version::Http11, Some("a.example"), &["a b"]),
            Err(ClientFault::BadHost)
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_a_host_without_port_or_an_error(text in "\\PC{0,40}") {
            if let Ok(authority) = parse(&text) {
                prop_assert!(!authority.host.is_empty());
                prop_assert!(!authority.host.bytes().any(|b| b.is_ascii_uppercase() || b" /@\\\r\n\0".contains(&b)));
            }
        }
    }
}
