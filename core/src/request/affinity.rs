//! By what a client is known again: the value of a cookie, or its address, hashed to the key that `balance::rendezvous`
//! takes. Never remembers a client.

use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

use crate::balance::rendezvous::hash;
use crate::request::forwarded::new_request_id;
use crate::rng::Rng;

/// Digits of the value of a cookie of ours.
const ID_LEN: usize = 32;

/// The value of the cookie `name` in the `Cookie` fields of a request (RFC 6265 §5.4); the first one, `None` where it is
/// missing or empty.
pub fn cookie<'a>(fields: impl Iterator<Item = &'a [u8]>, name: &str) -> Option<&'a [u8]> {
    let pairs = fields.flat_map(|field| field.split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (pair[..at].trim_ascii() == name.as_bytes()).then(|| pair[at + 1..].trim_ascii())
    });
    values.find(|value| !value.is_empty())
}

/// The key of a cookie's value.
pub fn key_of_value(value: &[u8]) -> u64 {
    hash(value)
}

/// The key of a client's address; an IPv4 address in IPv6 form is that IPv4 address.
pub fn key_of_address(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    }
}

/// Whether a value is one that [`new_cookie`] makes.
pub fn is_ours(value: &[u8]) -> bool {
    value.len() == ID_LEN && value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A new cookie of ours: its key, and the `Set-Cookie` field. The value is drawn by chance and says nothing; any proxy
/// finds the same endpoint by it.
pub fn new_cookie(name: &str, rng: &mut Rng) -> (u64, String) {
    let id = new_request_id(rng);
    let text = core::str::from_utf8(&id).unwrap_or_default();
    (
        key_of_value(&id),
        format!("{name}={text}; Path=/; HttpOnly; SameSite=Lax"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(fields: &[&str], name: &str) -> Option<String> {
        let fields = fields.iter().map(|field| field.as_bytes());
        cookie(fields, name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        for (fields, expected) in [
            (&["session=a"][..], Some("a")),
            (&["x=1; session=a=b; y=2"], Some("a=b")),
            (&["x=1", "y=2;session=a"], Some("a")),
            (&["session=; session=b"], Some("b")),
            (&["session=a; session=b"], Some("a")),
            (&["mysession=a; sessions=b; Session=c"], None),
            (&["session"], None),
            (&["session="], None),
            (&["", ";;=;"], None),
            (&[], None),
        ] {
            assert_eq!(found(fields, "session").as_deref(), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_cookie_of_ours_is_known_again_and_says_nothing() {
        let (key, line) = new_cookie("lb", &mut Rng::new(1));
        let (pair, attributes) = line.split_once("; ").unwrap();
        let value = pair.strip_prefix("lb=").unwrap();
        assert!(is_ours(value.as_bytes()));
        assert_eq!(key_of_value(value.as_bytes()), key);
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        for other in [
            "",
            "x",
            &value[1..],
            &value.to_uppercase().replace(char::is_numeric, "A"),
            "10.0.0.1:80",
        ] {
            assert!(!is_ours(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn an_address_is_one_in_either_form() {
        let key = |text: &str| key_of_address(text.parse().unwrap());
        assert_eq!(key("10.0.0.1"), key("::ffff:10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    }
}
