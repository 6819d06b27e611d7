//! Redirects of whole hosts: where a request is sent instead of being served.
//!
//! The client's target follows the redirect's, which ends with its authority or a path: so whatever the client sends,
//! the host of the answer is the one that the label names.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::fmt::Write as _;
use serde::{Deserialize, Serialize};

use crate::route::path::{self, RequestPath};
use crate::route::rule::ServiceRef;
use crate::route::spec::HostPattern;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// Over TLS that ended here.
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

/// One redirect of one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Redirect {
    /// The hosts whose requests are redirected.
    pub host: HostPattern,
    /// The requests of which scheme (row 20).
    pub scheme: Scheme,
    /// Scheme, authority and perhaps a path, without a `/` at its end: `https://new.example.org/app`.
    pub target: String,
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{} -> {}", self.scheme, self.host, self.target)
    }
}

/// A redirect of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectRule {
    /// What it does.
    pub redirect: Redirect,
    /// Who wants it.
    pub service: ServiceRef,
}

impl RedirectRule {
    /// The status of the answer, as Interlock has it.
    pub const STATUS: u16 = 302;

    /// The `Location` for a request: the target, then path and query of the request (row 19). Dot segments are resolved, so
    /// that they do not lead out of the target's path; what no URL has is percent-encoded.
    pub fn location(&self, path_and_query: &str) -> String {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        let path: Cow<'_, str> = match path::read(path) {
            RequestPath::Normalised { text, had_dots: true } => text.into(),
            RequestPath::Normalised { had_dots: false, .. } | RequestPath::Plain(_) | RequestPath::RootOnly => {
                path.into()
            }
        };
        let mut location = self.redirect.target.clone();
        // Only a slash ends an authority: `@evil.example` must not become part of it.
        if !path.starts_with('/') {
            location.push('/');
        }
        if path != "*" {
            push_encoded(&mut location, &path);
        }
        if let Some(query) = query {
            location.push('?');
            push_encoded(&mut location, query);
        }
        location
    }
}

impl fmt::Display for RedirectRule {
    /// Unique within a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.redirect, self.service.name)
    }
}

/// Appends `text`; bytes that RFC 3986 has in no URL are percent-encoded.
fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.write_str(&format!("%{byte:02X}"))
                .expect("writing to a String cannot fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn location(target: &str, path_and_query: &str) -> String {
        let rule = RedirectRule {
            redirect: Redirect {
                host: HostPattern::from_normalised("old.example".into()),
                scheme: Scheme::Http,
                target: target.into(),
            },
            service: ServiceRef {
                id: "shop".into(),
                name: "shop".into(),
            },
        };
        rule.location(path_and_query)
    }

    #[test]
    fn row_19_path_and_query_follow_the_target() {
        for (target, asked, expected) in [
            ("http://new.example", "/", "http://new.example/"),
            ("http://new.example", "/a/b?c=/d&e", "http://new.example/a/b?c=/d&e"),
            (
                "https://new.example:8443/app",
                "/a%2fb?",
                "https://new.example:8443/app/a%2fb?",
            ),
            ("https://new.example/app", "/?x", "https://new.example/app/?x"),
            ("http://new.example", "?x=1", "http://new.example/?x=1"),
            ("http://new.example", "*", "http://new.example/"),
            ("https://new.example/app", "/a/../b", "https://new.example/app/b"),
            (
                "https://new.example/app",
                "/../../admin",
                "https://new.example/app/admin",
            ),
        ] {
            assert_eq!(location(target, asked), expected, "{asked}");
        }
    }

    #[test]
    fn no_crafted_path_leads_to_another_host() {
        for (asked, expected) in [
            ("//evil.example", "http://new.example//evil.example"),
            ("@evil.example", "http://new.example/@evil.example"),
            (".evil.example/x", "http://new.example/.evil.example/x"),
            (":80@evil.example", "http://new.example/:80@evil.example"),
            ("/\\evil.example", "http://new.example/%5Cevil.example"),
            ("/a\r\nSet-Cookie: x=1", "http://new.example/a%0D%0ASet-Cookie:%20x=1"),
            ("/?a\r\nb", "http://new.example/?a%0D%0Ab"),
            ("/é#x", "http://new.example/%C3%A9%23x"),
        ] {
            assert_eq!(location("http://new.example", asked), expected, "{asked}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_target_is_kept_and_the_line_is_one(asked in any::<String>()) {
            let location = location("https://new.example/app", &asked);
            prop_assert!(location.starts_with("https://new.example/app/"), "{location}");
            prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#'), "{location}");
        }
    }
}
