//! What an app learns about its client: `X-Forwarded-*`, `Forwarded`, `X-Real-IP`, `X-Request-Id`.
//!
//! What a peer says about its clients is kept and added to if the settings trust the peer, else it is replaced: an app may
//! believe these fields without knowing who stands before the proxy. A request id says nothing about anybody, so a sane one
//! is kept whoever sent it.

use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

use crate::rng::Rng;

/// The longest `X-Request-Id` that is kept, in bytes.
pub const REQUEST_ID_LEN_MAX: usize = 128;
/// The longest list of `X-Forwarded-For` that is appended to, in bytes; a longer one starts anew.
pub const FORWARDED_FOR_LEN_MAX: usize = 4096;

/// `X-Forwarded-For` for the app: what came, and `peer` at its end.
pub fn append_for<'a>(came: impl Iterator<Item = &'a [u8]>, peer: &str) -> String {
    let mut list = String::new();
    for value in came.filter_map(|value| core::str::from_utf8(value).ok()) {
        let value = value.trim_ascii();
        if !value.is_empty() && list.len() + value.len() <= FORWARDED_FOR_LEN_MAX {
            list.push_str(value);
            list.push_str(", ");
        }
    }
    list.push_str(peer);
    list
}

/// The proxy's element of `Forwarded` (RFC 7239 §4): who connected, over what, for which host.
pub fn element(peer: IpAddr, https: bool, host: Option<&str>) -> String {
    let proto = if https { "https" } else { "http" };
    let node = match peer.to_canonical() {
        IpAddr::V4(ip) => format!("{ip}"),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    };
    // The host was checked to be one: nothing in it ends a quoted string.
    match host {
        Some(host) => format!("for={node};host=\"{host}\";proto={proto}"),
        None => format!("for={node};proto={proto}"),
    }
}

/// Whether a field is one that some apps take for a field of ours: CGI and its heirs make `_` of `-`.
pub fn is_lookalike(name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let name = name
        .as_bytes()
        .iter()
        .map(|byte| if *byte == b'_' { b'-' } else { *byte });
    OURS.iter().any(|ours| name.clone().eq(ours.bytes()))
}

/// What apps believe about their clients, in lower case.
const OURS: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// Whether an `X-Request-Id` that a client sent is kept: short and of characters that no log or header can trip over.
pub fn keeps_request_id(came: &[u8]) -> bool {
    (1..=REQUEST_ID_LEN_MAX).contains(&came.len())
        && came
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b))
}

/// A new request id: 32 hexadecimal digits.
pub fn new_request_id(rng: &mut Rng) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut id = [b'0'; 32];
    for half in id.chunks_exact_mut(16) {
        let mut bits = rng.next_u64();
        for digit in half {
            *digit = DIGITS[(bits & 15) as usize];
            bits >>= 4;
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_member_of_forwarded_for_is_who_connected() {
        let list = append_for(
            ["1.2.3.4, 5.6.7.8", "9.9.9.9"].iter().map(|text| text.as_bytes()),
            "10.0.0.1",
        );
        assert_eq!(list, "1.2.3.4, 5.6.7.8, 9.9.9.9, 10.0.0.1");
        assert_eq!(append_for(core::iter::empty(), "10.0.0.1"), "10.0.0.1");
    }

    #[test]
    fn an_element_of_forwarded_names_client_host_and_scheme() {
        let element = |ip: &str, https, host| element(ip.parse().unwrap(), https, host);
        assert_eq!(
            element("192.0.2.7", false, Some("shop.example:8080")),
            "for=192.0.2.7;host=\"shop.example:8080\";proto=http"
        );
        assert_eq!(element("2001:db8::7", true, None), "for=\"[2001:db8::7]\";proto=https");
        assert_eq!(element("::ffff:192.0.2.7", true, None), "for=192.0.2.7;proto=https");
    }

    #[test]
    fn a_field_that_cgi_takes_for_ours_is_found() {
        for name in ["x_forwarded_for", "x-forwarded_for", "x_real-ip", "x_request_id"] {
            assert!(is_lookalike(name), "{name}");
        }
        for name in ["x-forwarded-for", "x_forwarded", "x_tenant", "forwarded"] {
            assert!(!is_lookalike(name), "{name}");
        }
    }

    #[test]
    fn an_endless_forwarded_for_starts_anew() {
        let long = std::vec![b'1'; FORWARDED_FOR_LEN_MAX + 1];
        assert_eq!(append_for([&long[..]].into_iter(), "10.0.0.1"), "10.0.0.1");
    }

    #[test]
    fn a_sane_request_id_is_kept_and_others_are_not() {
        assert!(keeps_request_id(b"8f14e45f-ceea-467f"));
        assert!(!keeps_request_id(b""));
        assert!(!keeps_request_id(b"a b"));
        assert!(!keeps_request_id(b"a\"b"));
        assert!(!keeps_request_id(&[b'a'; 129]));
    }

    #[test]
    fn a_new_request_id_is_32_hex_digits_and_not_the_last_one() {
        let mut rng = Rng::new(1);
        let (first, second) = (new_request_id(&mut rng), new_request_id(&mut rng));
        assert!(first.iter().all(u8::is_ascii_hexdigit));
        assert_ne!(first, second);
    }
}
