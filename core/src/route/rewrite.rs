//! The path that is forwarded: the client's bytes, but for a prefix that is taken away and dot segments that are
//! resolved.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use crate::route::path::{self, RequestPath};
use crate::route::rule::Rule;

/// The request target to forward for a request that fell under `rule`.
///
/// With `strip_path`, the rule's prefix goes away: `/app` and `/app/` become `/`, `/app/x?y` becomes `/x?y`. Slashes in
/// front of what remains are merged, since a target that begins with `//` names a host to some parsers. Without it, a
/// target is forwarded as it came, unless it has dot segments (see [`path`]).
pub fn strip<'a>(rule: &Rule, path_and_query: &'a str) -> Cow<'a, str> {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let resolved = match path::read(path) {
        RequestPath::Normalised { text, had_dots: true } => Some(text),
        RequestPath::Normalised { had_dots: false, .. } | RequestPath::Plain(_) => None,
        RequestPath::RootOnly => return Cow::Borrowed(path_and_query),
    };
    let strips = rule.strip_path && !rule.path.is_root();
    if !strips {
        return match resolved {
            None if path.is_empty() => with_query("/", query),
            None => Cow::Borrowed(path_and_query),
            Some(text) => with_query(&text, query),
        };
    }
    if let Some(rest) = beyond_letters(rule, path) {
        return with_query(&format!("/{rest}"), query);
    }
    // Decoding makes no slash, so the prefix has as many segments in the client's bytes as in its own.
    let segments = rule.path.as_str().bytes().filter(|byte| *byte == b'/').count();
    let whole = resolved.as_deref().unwrap_or(path);
    let end = path::end_of_segments(whole, segments);
    let rest = whole[end..].trim_start_matches('/');
    if resolved.is_none() && whole.len() - end == rest.len() + 1 {
        return Cow::Borrowed(&path_and_query[end..]);
    }
    with_query(&format!("/{rest}"), query)
}

/// Row 7: what follows the prefix of a path that it covers by its letters alone, as `/application` is covered by `/app`.
fn beyond_letters(rule: &Rule, path: &str) -> Option<String> {
    let normal = match path::read(path) {
        RequestPath::Normalised { text, .. } => Cow::Owned(text),
        RequestPath::Plain(text) => Cow::Borrowed(text),
        RequestPath::RootOnly => return None,
    };
    let rest = normal.strip_prefix(rule.path.as_str())?;
    (!rest.is_empty() && !rest.starts_with('/')).then(|| rest.into())
}

/// Row 8: where a request is redirected first, with `redirect_to_slash`: to its own path and a slash, relative to its host.
pub fn slash_redirect(rule: &Rule, path_and_query: &str) -> Option<String> {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let strips = rule.strip_path && !rule.path.is_root();
    // A path that begins otherwise could name another host to whoever reads the answer.
    let is_plain = path.starts_with('/') && !path.starts_with("//") && !path.contains('\\');
    let wants = strips && is_plain && !path.contains('.') && !path.ends_with('/');
    wants.then(|| with_query(&format!("{path}/"), query).into_owned())
}

fn with_query<'a>(path: &str, query: Option<&str>) -> Cow<'a, str> {
    Cow::Owned(match query {
        Some(query) => format!("{path}?{query}"),
        None => path.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::rule::{PoolKey, RuleHost};
    use crate::route::spec::PathPrefix;
    use alloc::sync::Arc;

    fn rule(path: &str, strip_path: bool) -> Rule {
        Rule {
            host: RuleHost::Default,
            path: PathPrefix::from_normalised(path.into()),
            strip_path,
            tls_only: false,
            pool: PoolKey::of(core::iter::empty()),
            services: Arc::new([]),
        }
    }

    #[test]
    fn row_08_the_prefix_itself_is_forwarded_as_slash() {
        let rule = rule("/app", true);
        for (target, expected) in [
            ("/app", "/"),
            ("/app/", "/"),
            ("/app?x=1", "/?x=1"),
            ("/app/?x=1", "/?x=1"),
            ("/app/a/b?x=/app", "/a/b?x=/app"),
            ("/%61pp/caf%c3%a9", "/caf%c3%a9"),
            ("/app//evil.example", "/evil.example"),
            ("/app/x/../y", "/y"),
            ("/app/x?..", "/x?.."),
        ] {
            assert_eq!(strip(&rule, target), expected, "{target}");
        }
    }

    #[test]
    fn row_07_a_prefix_of_letters_goes_away_as_such() {
        let rule = rule("/app", true);
        assert_eq!(strip(&rule, "/application/x?y"), "/lication/x?y");
        assert_eq!(strip(&rule, "/%61ppl%2Fe"), "/l%2Fe");
    }

    #[test]
    fn row_08_a_path_without_dot_and_slash_is_redirected_to_one() {
        let stripping = rule("/app", true);
        for (target, expected) in [
            ("/app", Some("/app/")),
            ("/app?x=1", Some("/app/?x=1")),
            ("/app/a", Some("/app/a/")),
            ("/app/", None),
            ("/app/a.css", None),
            ("//app", None),
            ("/app\\x", None),
        ] {
            assert_eq!(slash_redirect(&stripping, target).as_deref(), expected, "{target}");
        }
        assert_eq!(slash_redirect(&rule("/app", false), "/app"), None);
    }

    #[test]
    fn a_prefix_of_several_segments_goes_away_as_a_whole() {
        assert_eq!(strip(&rule("/a/b", true), "/a/b/c"), "/c");
        assert_eq!(strip(&rule("/a/b", true), "/x/../a/%62/c/"), "/c/");
    }

    #[test]
    fn without_strip_path_the_target_keeps_its_bytes() {
        let rule = rule("/app", false);
        for target in ["/app", "/app/%7Euser?a=%2e%2e", "/app//x", "/app/a%2fb", "*"] {
            assert_eq!(strip(&rule, target), target);
            assert!(matches!(strip(&rule, target), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn dot_segments_are_resolved_before_forwarding() {
        assert_eq!(strip(&rule("/admin", false), "/app/../admin?x"), "/admin?x");
        assert_eq!(strip(&rule("/", false), "/a/%2e%2e/b"), "/b");
        assert_eq!(strip(&rule("/", false), "?x"), "/?x");
    }

    #[test]
    fn stripping_the_common_case_allocates_nothing() {
        assert!(matches!(strip(&rule("/app", true), "/app/x?y"), Cow::Borrowed("/x?y")));
    }
}
