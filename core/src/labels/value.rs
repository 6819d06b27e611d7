//! Values of labels: text to typed values, or what is wrong with the text and what to write instead.
//!
//! Knows nothing of services and of which label it reads; accepts what Interlock's users write (spaces, upper case,
//! trailing dots) and refuses what could only be a mistake.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::net::Ipv6Addr;

use crate::id::ClusterName;
use crate::route::path;
use crate::route::spec::{HostPattern, PathPrefix};

pub(crate) mod header;
pub(crate) mod redirect;

/// Characters of a user's text that a message repeats.
const QUOTE_MAX: usize = 80;
/// Bytes of a host name (RFC 1035 §2.3.4, without the root's dot).
const HOST_BYTES_MAX: usize = 253;
/// Bytes of one label of a host name (RFC 1035 §2.3.4).
const HOST_LABEL_BYTES_MAX: usize = 63;
/// Bytes of a context root.
const PATH_BYTES_MAX: usize = 1024;
/// Bytes of a cookie's name.
const COOKIE_BYTES_MAX: usize = 128;
/// Bytes of a cluster's name.
const CLUSTER_BYTES_MAX: usize = 63;

/// Why a value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// What is wrong, in one sentence without a full stop.
    pub(crate) problem: String,
    /// What to write instead.
    pub(crate) remedy: String,
}

fn wrong<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        problem: problem.into(),
        remedy: remedy.into(),
    })
}

/// `text` as a quotation of bounded length.
pub(crate) fn quote(text: &str) -> String {
    if text.chars().count() <= QUOTE_MAX {
        format!("{text:?}")
    } else {
        let cut: String = text.chars().take(QUOTE_MAX).collect();
        format!("{cut:?}…")
    }
}

/// `true/1/yes/on` and `false/0/no/off/""`, in any case. Presence alone is not true.
pub(crate) fn boolean(text: &str) -> Result<bool, Wrong> {
    let text = text.trim();
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["true", "1", "yes", "on"]) {
        Ok(true)
    } else if is(&["", "false", "0", "no", "off"]) {
        Ok(false)
    } else {
        wrong("this is neither true nor false", "write true or false")
    }
}

/// Items between commas, trimmed, without empty ones; a trailing `;` is ignored.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.trim()
        .trim_end_matches(';')
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// A TCP port, 1 to 65535.
pub(crate) fn port(text: &str) -> Result<u16, Wrong> {
    let text = text.trim();
    match text.parse::<u64>() {
        Ok(0) => wrong(
            "port 0 cannot be connected to",
            "write the port on which the app listens, e.g. 8080",
        ),
        Ok(number) => match u16::try_from(number) {
            Ok(port) => Ok(port),
            Err(_) => wrong(
                "ports end at 65535",
                "write the port on which the app listens, e.g. 8080",
            ),
        },
        Err(_) if list(text).count() > 1 => wrong(
            "a route has one port and this names several",
            "write the one port on which the app answers HTTP, e.g. 8080",
        ),
        Err(_) => wrong(
            "this is not a port number",
            "write the port on which the app listens, as a number, e.g. 8080",
        ),
    }
}

/// Milliseconds of a time as NGINX writes it: numbers with the units `ms`, `s`, `m`, `h`, in a row (`1m30s`); a bare
/// number is in seconds.
pub(crate) fn duration_ms(text: &str) -> Result<u64, Wrong> {
    let text = text.trim();
    let not_a_time = || {
        wrong(
            "this is not a time",
            "write a number with a unit out of ms, s, m, h, e.g. 500ms or 10s",
        )
    };
    if text.is_empty() {
        return not_a_time();
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let Ok(number) = number.parse::<u64>() else {
            return not_a_time();
        };
        let after = after.trim_start();
        let unit_len = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(unit_len);
        let factor = match unit {
            "ms" => 1,
            "s" | "" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return not_a_time(),
        };
        let after = after.trim_start();
        if unit.is_empty() && !after.is_empty() {
            return not_a_time();
        }
        total = match number.checked_mul(factor).and_then(|ms| total.checked_add(ms)) {
            Some(total) => total,
            None => return wrong("this time is longer than any limit", "write a shorter time, e.g. 10s"),
        };
        rest = after;
    }
    Ok(total)
}

/// A host that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// The pattern, normalised.
    pub(crate) pattern: HostPattern,
    /// Whether a port was written behind the name, and ignored.
    pub(crate) had_port: bool,
}

/// A host name, `*.` before a host name, or an IP address (IPv6 in brackets). Case, a trailing dot and a port do not
/// matter.
pub(crate) fn host(text: &str) -> Result<Host, Wrong> {
    let written = text.trim();
    if written.contains("://") {
        let name = written.split_once("://").map_or("", |(_, rest)| rest);
        let name = name.split(['/', '?', '#']).next().unwrap_or("");
        return wrong(
            format!("{} is a URL, not a host name", quote(written)),
            format!(
                "write the host name alone, e.g. {}",
                quote(if name.is_empty() { "shop.example.org" } else { name })
            ),
        );
    }
    if written.contains('/') {
        return wrong(
            format!("{} has a path behind the host name", quote(written)),
            "write the host name alone, and the path in the label context_root",
        );
    }
    if let Some(found) = ipv6(written) {
        return found;
    }
    let (name, had_port) = match written.split_once(':') {
        None => (written, false),
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, true),
        Some(_) => {
            return wrong(
                format!("{} is neither a host name nor an IP address", quote(written)),
                "write a name such as shop.example.org, or an IPv6 address in brackets",
            );
        }
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name == "*" {
        return wrong(
            "* alone would claim every host",
            "set default_backend=true to serve every host that nobody claims, or write *.example.org",
        );
    }
    let (is_wildcard, base) = match name.strip_prefix("*.") {
        Some(base) => (true, base),
        None => (false, name),
    };
    check_name(base, written)?;
    let base = base.to_ascii_lowercase();
    let pattern = if is_wildcard { format!("*.{base}") } else { base };
    Ok(Host {
        pattern: HostPattern::from_normalised(pattern),
        had_port,
    })
}

/// `[::1]`, `[::1]:8080` or `::1`, if it is one of these.
fn ipv6(written: &str) -> Option<Result<Host, Wrong>> {
    let done = |address: Ipv6Addr, had_port| {
        Ok(Host {
            pattern: HostPattern::from_normalised(format!("[{address}]")),
            had_port,
        })
    };
    if let Ok(address) = written.parse::<Ipv6Addr>() {
        return Some(done(address, false));
    }
    let (inside, after) = written.strip_prefix('[')?.split_once(']').unwrap_or(("", ""));
    let is_port = |text: &str| {
        text.strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
    };
    Some(match inside.parse::<Ipv6Addr>() {
        Ok(address) if after.is_empty() || is_port(after) => done(address, !after.is_empty()),
        _ => wrong(
            format!("{} is not an IPv6 address in brackets", quote(written)),
            "write it as [2001:db8::1]",
        ),
    })
}

/// Letters, digits, `-` and `_` in labels of 1 to 63 bytes, 253 bytes together. `_` is no letter of RFC 1123 names, and
/// in use all the same.
fn check_name(name: &str, written: &str) -> Result<(), Wrong> {
    let shown = quote(written);
    if !name.is_ascii() {
        return wrong(
            format!("{shown} has letters outside ASCII, and clients send such names in punycode"),
            "write the name in punycode (it begins with xn--)",
        );
    }
    if name.len() > HOST_BYTES_MAX {
        return wrong(
            format!("{shown} is longer than {HOST_BYTES_MAX} characters, the limit of DNS"),
            "write a shorter host name",
        );
    }
    if name.is_empty() {
        return wrong(
            format!("{shown} has no name in it"),
            "write a name such as shop.example.org",
        );
    }
    for label in name.split('.') {
        if label.is_empty() {
            return wrong(
                format!("{shown} has nothing between two dots"),
                "take the extra dot away",
            );
        }
        if label.len() > HOST_LABEL_BYTES_MAX {
            return wrong(
                format!("{shown} has a part longer than {HOST_LABEL_BYTES_MAX} characters, the limit of DNS"),
                "write shorter parts between the dots",
            );
        }
        if label.contains('*') {
            return wrong(
                format!("{shown} has a * that is not the whole first part"),
                "write *.example.org, which covers every name below example.org, or list the names",
            );
        }
        if label.bytes().any(|byte| byte.is_ascii_whitespace()) {
            return wrong(format!("{shown} has a space in it"), "separate host names with commas");
        }
        if let Some(odd) = label
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_')
        {
            return wrong(
                format!("{shown} has {odd:?}, which no host name has"),
                "write letters, digits, - and dots only",
            );
        }
        if label.starts_with('-') || label.ends_with('-') {
            return wrong(
                format!("{shown} has a part that begins or ends with -"),
                "take the - away, or move it between letters",
            );
        }
    }
    Ok(())
}

/// A path prefix: begins with `/`; a trailing `/` does not matter. Percent-encoding is normalised as in requests.
pub(crate) fn path_prefix(text: &str) -> Result<PathPrefix, Wrong> {
    let text = text.trim();
    if text.contains("://") {
        return wrong("this is a URL, not a path", "write the path alone, e.g. /app");
    }
    if !text.starts_with('/') {
        return wrong(
            "a path begins with /",
            format!(
                "write {}",
                quote(&format!("/{}", text.split([',', '?', '#']).next().unwrap_or("").trim()))
            ),
        );
    }
    if text.len() > PATH_BYTES_MAX {
        return wrong(
            format!("this path is longer than {PATH_BYTES_MAX} bytes"),
            "write a shorter path",
        );
    }
    if text.contains(['?', '#']) {
        return wrong(
            "a context root has no query and no fragment",
            "write the path alone, e.g. /app",
        );
    }
    if text.contains(',') {
        return wrong(
            "a service has one context root and this looks like several",
            "write one path, and publish a second service for the other",
        );
    }
    if !text.is_ascii()
        || text
            .bytes()
            .any(|byte| byte.is_ascii_control() || byte == b' ' || byte == b'\\')
    {
        return wrong(
            "this path has characters that no request path has",
            "write them percent-encoded, e.g. %C3%A9 for é",
        );
    }
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%'
            && !(bytes.next().is_some_and(|b| b.is_ascii_hexdigit())
                && bytes.next().is_some_and(|b| b.is_ascii_hexdigit()))
        {
            return wrong(
                "a % without two hexadecimal digits behind it",
                "write %25 for a percent sign",
            );
        }
    }
    let text = path::normalise_percent(text);
    let text = text.trim_end_matches('/');
    if text.is_empty() {
        return Ok(PathPrefix::default());
    }
    if text.contains("//") {
        return wrong(
            "nothing stands between two slashes of this path",
            "take the extra slash away",
        );
    }
    if path::has_dot_segment(text) || path::is_ambiguous(text) {
        return wrong(
            "this path has a . or .. segment, and no request path is matched with these in it",
            "write the path that is meant, without . and ..",
        );
    }
    Ok(PathPrefix::from_normalised(text.to_owned()))
}

/// Bytes as NGINX writes them: a number, perhaps with `k`, `m` or `g` (1024 each) behind it; 0 is no limit.
pub(crate) fn size(text: &str) -> Result<u64, Wrong> {
    let text = text.trim().to_ascii_lowercase();
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g') => (&text[..text.len() - 1], 1 << 30),
        Some(_) | None => (text.as_str(), 1),
    };
    let digits = digits.trim_end();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match bytes.filter(|_| is_number) {
        Some(bytes) => Ok(bytes),
        None if is_number => wrong("this is more than any limit", "write e.g. 32m, or 0 for no limit"),
        None => wrong(
            "this is no size",
            "write bytes, or a number with k, m or g behind it, e.g. 32m; 0 for no limit",
        ),
    }
}

/// A cookie's name (RFC 6265 §4.1.1). `is_ours`: the proxy will set it, over plain HTTP too.
pub(crate) fn cookie_name(text: &str, is_ours: bool) -> Result<String, Wrong> {
    let text = text.trim();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > COOKIE_BYTES_MAX || !text.bytes().all(is_token) {
        return wrong("this is no name of a cookie", "write the name alone, e.g. session");
    }
    let has_prefix = ["__host-", "__secure-"]
        .iter()
        .any(|prefix| text.to_ascii_lowercase().starts_with(prefix));
    if is_ours && has_prefix {
        return wrong(
            "browsers take cookies with such a name over TLS alone",
            "write a name without __Host- and __Secure-",
        );
    }
    Ok(text.to_owned())
}

/// A service cluster's name: letters, digits, `-`, `_` and `.`, 1 to 63 of them.
pub(crate) fn cluster(text: &str) -> Result<ClusterName, Wrong> {
    let text = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() > CLUSTER_BYTES_MAX || !text.chars().all(fits) {
        return wrong(
            "this cannot be the name of a service cluster",
            format!("write letters, digits, -, _ and ., at most {CLUSTER_BYTES_MAX} of them"),
        );
    }
    Ok(ClusterName::from(text))
}

#[cfg(test)]
mod tests;
