//! Host names of requests, brought to the form that patterns have: lower case, no port, no trailing dot, IPv6
//! addresses in brackets and in their shortest form (RFC 5952). Allocates nothing.

use core::fmt::Write as _;
use core::net::Ipv6Addr;

/// Bytes of the longest name that a pattern can have (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// A host as patterns are written.
#[derive(Debug)]
pub struct NormalHost<'a>(Form<'a>);

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one lookup; a box would allocate"
)]
enum Form<'a> {
    Borrowed(&'a str),
    Copied(Buffer),
}

impl NormalHost<'_> {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Form::Borrowed(text) => text,
            Form::Copied(buffer) => buffer.as_str(),
        }
    }
}

/// Normalises a `Host` header or an `:authority`; `None` for what no pattern can cover (empty, too long, malformed).
pub fn normalise(host: &str) -> Option<NormalHost<'_>> {
    let host = host.trim_ascii();
    if let Some(rest) = host.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        if !(after.is_empty() || is_port(after.strip_prefix(':')?)) {
            return None;
        }
        return ipv6(inside);
    }
    let name = match host.split_once(':') {
        None => host,
        Some((name, port)) if is_port(port) => name,
        Some(_) => return ipv6(host),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    // One dot at the end is the root's (RFC 1035 §3.1); two are a mistake, and so is white space.
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.ends_with('.') {
        return None;
    }
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(NormalHost(Form::Borrowed(name)));
    }
    let mut buffer = Buffer::default();
    buffer.write_str(name).ok()?;
    buffer.bytes[..buffer.len].make_ascii_lowercase();
    Some(NormalHost(Form::Copied(buffer)))
}

/// RFC 3986 §3.2.3: a port is any number of digits, even none.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn ipv6(inside: &str) -> Option<NormalHost<'static>> {
    let address: Ipv6Addr = inside.parse().ok()?;
    let mut buffer = Buffer::default();
    write!(buffer, "[{address}]").ok()?;
    Some(NormalHost(Form::Copied(buffer)))
}

/// Text of at most [`NAME_BYTES_MAX`] bytes, on the stack.
struct Buffer {
    bytes: [u8; NAME_BYTES_MAX],
    len: usize,
}

impl core::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer {
            bytes: [0; NAME_BYTES_MAX],
            len: 0,
        }
    }
}

impl Buffer {
    fn as_str(&self) -> &str {
        // Only whole texts are written, and lower-casing ASCII keeps UTF-8 valid; an empty name covers nothing.
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

impl core::fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.len + text.len();
        let space = self.bytes.get_mut(self.len..end).ok_or(core::fmt::Error)?;
        space.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};

    fn normal(text: &str) -> Option<String> {
        normalise(text).map(|host| host.as_str().to_string())
    }

    #[test]
    fn row_03_case_port_and_trailing_dot_do_not_matter() {
        for text in [
            "shop.example.org",
            "SHOP.example.ORG",
            "shop.example.org.",
            "shop.example.org:8080",
            "Shop.Example.org.:",
            " shop.example.org ",
        ] {
            assert_eq!(normal(text).as_deref(), Some("shop.example.org"), "{text}");
        }
    }

    #[test]
    fn ipv6_literals_have_one_form() {
        for text in ["[2001:DB8::0:1]", "[2001:db8::1]:80", "2001:db8:0:0::1"] {
            assert_eq!(normal(text).as_deref(), Some("[2001:db8::1]"), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_nothing() {
        for text in [
            "",
            ".",
            "shop..",
            "shop .",
            "shöp",
            ":80",
            "[::1",
            "[::1]x",
            "[zz]",
            "a:b",
            "a:80:90",
            &"a".repeat(254),
        ] {
            assert_eq!(normal(text), None, "{text}");
        }
    }

    #[test]
    fn the_common_case_borrows() {
        assert!(matches!(
            normalise("shop.example.org:8080"),
            Some(NormalHost(Form::Borrowed("shop.example.org")))
        ));
    }
}
