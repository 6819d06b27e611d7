//! Which path of a request is matched against prefixes.
//!
//! Prefixes are promises: what lies outside `/app` must not be reached through a rule for `/app`. Applications decode
//! and resolve paths in their own ways, so:
//!
//! - Matching happens on the path as RFC 3986 §6.2.2 normalises it: percent-encoded unreserved characters decoded
//!   once, hexadecimal digits in upper case, `.` and `..` segments removed. `/%61pp` is `/app`; `/app/../admin` and
//!   `/app/%2E%2e/admin` are `/admin`.
//! - A path that had dot segments is forwarded in its normalised form ([`strip`](super::strip)), so that nobody
//!   resolves it again to something else. Every other path is forwarded byte for byte.
//! - Some segments become dot segments only for an application that decodes `%2F` and `%5C`, takes `\` for `/`, or
//!   cuts parameters behind `;` (`/app/..%2Fadmin`, `/app/..;/admin`). There is no right answer, so such a path falls
//!   under rules for `/` alone, which nothing can escape. So does one whose decoding makes another encoding (`%2%45`).
//! - Slashes are not merged: `//app` is not `/app`.

use alloc::string::String;
use alloc::vec::Vec;

/// A request's path, as far as matching is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestPath<'a> {
    /// Changed by normalisation.
    Normalised {
        /// The normalised path.
        text: String,
        /// Whether dot segments were removed, so that the normalised path must be forwarded.
        had_dots: bool,
    },
    /// As it was sent.
    Plain(&'a str),
    /// Only a rule for `/` may serve it: ambiguous, or no path at all (`*` of `OPTIONS`).
    RootOnly,
}

/// Reads the path of a request target; a query is ignored.
pub fn read(target: &str) -> RequestPath<'_> {
    let path = target.split('?').next().unwrap_or("");
    if path.is_empty() {
        return RequestPath::Plain("/");
    }
    // RFC 9112 §3.2: a request target has no fragment, and who reads one ends the path there.
    if !path.starts_with('/') || path.contains('#') {
        return RequestPath::RootOnly;
    }
    if !needs_a_look(path) {
        return RequestPath::Plain(path);
    }
    let text = normalise_percent(path);
    // `%2%45` becomes `%2E`: who decodes twice, or otherwise than we do, sees another path.
    if normalise_percent(&text) != text || is_ambiguous(&text) {
        return RequestPath::RootOnly;
    }
    let had_dots = has_dot_segment(&text);
    if had_dots {
        RequestPath::Normalised {
            text: remove_dot_segments(&text),
            had_dots,
        }
    } else if text == path {
        RequestPath::Plain(path)
    } else {
        RequestPath::Normalised { text, had_dots }
    }
}

/// Whether the path may differ from its normalised form or be ambiguous.
fn needs_a_look(path: &str) -> bool {
    let mut before = 0;
    path.bytes().any(|byte| {
        let odd = matches!(byte, b'%' | b'\\') || (byte == b'.' && matches!(before, b'/' | b'\\'));
        before = byte;
        odd
    })
}

/// RFC 3986 §6.2.2.1 and §6.2.2.2: decodes percent-encoded unreserved characters, once, and writes other encodings in
/// upper case. A `%` without two hexadecimal digits stays.
pub(crate) fn normalise_percent(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let digits = rest
            .get(at + 1..at + 3)
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') => {
                out.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            Some(_) => {
                out.extend(rest[at..at + 3].chars().map(|c| c.to_ascii_uppercase()));
                rest = &rest[at + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Whether a whole segment of a path (after [`normalise_percent`]) is `.` or `..`.
pub(crate) fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Whether some applications would find a dot segment where RFC 3986 has none. `path` is after [`normalise_percent`].
pub(crate) fn is_ambiguous(path: &str) -> bool {
    path.split('/')
        .filter(|segment| segment.contains('.') && !matches!(*segment, "." | ".."))
        .any(|segment| {
            let mut parts = segment
                .split("%2F")
                .flat_map(|part| part.split("%5C"))
                .flat_map(|part| part.split('\\'));
            parts.any(|part| {
                let bare = part.split(';').next().unwrap_or("");
                let bare = bare.split("%3B").next().unwrap_or("");
                matches!(bare, "." | "..")
            })
        })
}

/// RFC 3986 §5.2.4, for a path that begins with `/`.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() {
        out.push('/');
    }
    out
}

/// Where the first `count` segments of an absolute path end.
pub(crate) fn end_of_segments(path: &str, count: usize) -> usize {
    path.bytes()
        .enumerate()
        .filter(|(_, byte)| *byte == b'/')
        .nth(count)
        .map_or(path.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(target: &str) -> String {
        match read(target) {
            RequestPath::Normalised { text, .. } => text,
            RequestPath::Plain(text) => text.into(),
            RequestPath::RootOnly => "root only".into(),
        }
    }

    #[test]
    fn decoding_that_makes_another_encoding_is_ambiguous() {
        for target in ["/app/%2%45%2E/admin", "/app/%%32e./x", "/%e%42e"] {
            assert_eq!(matched(target), "root only", "{target}");
        }
        // Alone, a `%` that encodes nothing harms nobody.
        assert_eq!(matched("/app/100%"), "/app/100%");
        assert_eq!(matched("/app/%zz"), "/app/%zz");
    }

    #[test]
    fn dot_segments_are_removed_as_rfc_3986_says() {
        for (target, expected) in [
            ("/app/../admin", "/admin"),
            ("/app/%2e%2E/admin", "/admin"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/../../x", "/x"),
            ("/a//../b", "/a/b"),
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/...", "/a/..."),
            ("/.well-known/x", "/.well-known/x"),
        ] {
            assert_eq!(matched(target), expected, "{target}");
        }
    }

    #[test]
    fn unreserved_characters_are_decoded_once() {
        for (target, expected) in [
            ("/%61pp", "/app"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%2fb", "/a%2Fb"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/100%", "/100%"),
            ("/a%2", "/a%2"),
            ("/a%zzb", "/a%zzb"),
            ("/%e", "/%e"),
            ("/%é", "/%é"),
        ] {
            assert_eq!(matched(target), expected, "{target}");
        }
    }

    #[test]
    fn what_applications_read_differently_falls_under_root_alone() {
        for target in [
            "/app/..%2fadmin",
            "/app/..%5Cadmin",
            "/app/..\\admin",
            "/app\\..\\admin",
            "/app/..;/admin",
            "/app/..;x=y/admin",
            "/app/%2e%2e%3bx/admin",
            "/app%2F..%2Fadmin",
            "/app/x%2f..",
            "/app#/../admin",
            "*",
            "app",
        ] {
            assert_eq!(read(target), RequestPath::RootOnly, "{target}");
        }
    }

    #[test]
    fn ordinary_paths_are_not_copied() {
        for target in [
            "/",
            "/app/x?y=%2e%2e",
            "/file.txt",
            "/a;v=1.2/b",
            "/~me/-_",
            "/%C3%A9",
            "",
        ] {
            assert!(matches!(read(target), RequestPath::Plain(_)), "{target}");
        }
    }

    #[test]
    fn segments_end_at_slashes() {
        assert_eq!(end_of_segments("/a/b/c", 1), 2);
        assert_eq!(end_of_segments("/a/b/c", 3), 6);
        assert_eq!(end_of_segments("/a/b/c", 9), 6);
        assert_eq!(end_of_segments("/a/b", 0), 0);
    }
}
