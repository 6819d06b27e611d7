//! Redirects as Interlock writes them: `http://old.example.org,http://new.example.org/app;…`.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::{Wrong, host, port, quote, wrong};
use crate::route::path;
use crate::route::redirect::{Redirect, Scheme};

/// Bytes of a target.
const TARGET_BYTES_MAX: usize = 1024;
/// Steps that are followed in search of a loop.
const STEPS_MAX: usize = 10;

/// The pairs of a label, without empty ones.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|pair| !pair.is_empty())
}

/// A redirect, and whether its source named a port, which nobody looks at.
pub(crate) struct Pair {
    pub(crate) redirect: Redirect,
    pub(crate) had_port: bool,
}

/// One pair.
pub(crate) fn pair(text: &str) -> Result<Pair, Wrong> {
    let Some((source, target)) = text.split_once(',') else {
        return wrong(
            format!("{} is not a source and a target", quote(text)),
            "write both with a comma between them, e.g. http://old.example.org,http://new.example.org",
        );
    };
    let (scheme, rest) = url(source)?;
    let (authority, after) = split_authority(rest);
    if !matches!(after, "" | "/") {
        return wrong(
            format!(
                "the source {} has a path, and redirects apply to every path of a host",
                quote(source.trim())
            ),
            format!("write {scheme}://{authority}"),
        );
    }
    let source = host(authority)?;
    Ok(Pair {
        redirect: Redirect {
            host: source.pattern,
            scheme,
            target: self::target(target)?,
        },
        had_port: source.had_port,
    })
}

fn target(text: &str) -> Result<String, Wrong> {
    let shown = quote(text.trim());
    let (scheme, rest) = url(text)?;
    let (authority, after) = split_authority(rest);
    let named = host(authority)?.pattern;
    if named.wildcard_suffix().is_some() {
        return wrong(
            format!("the target {shown} is no single host"),
            "write the one host to which clients are sent",
        );
    }
    let port = match port_of(authority) {
        Some(text) => format!(":{}", port(text)?),
        None => String::new(),
    };
    if after.contains(['?', '#']) {
        return wrong(
            format!("the target {shown} has a query or fragment, and path and query of the request follow it"),
            "write scheme, host and perhaps a path",
        );
    }
    let is_odd = |byte: u8| !byte.is_ascii_graphic() || b"\\\"<>^`{|}".contains(&byte);
    if after.bytes().any(is_odd) || path::has_dot_segment(after) || path::is_ambiguous(after) {
        return wrong(
            format!("the path of the target {shown} has characters or segments that no URL should have"),
            "write a plain path, percent-encoded where need be",
        );
    }
    let target = format!("{scheme}://{named}{port}{}", after.trim_end_matches('/'));
    if target.len() > TARGET_BYTES_MAX {
        return wrong(
            format!("a target is longer than {TARGET_BYTES_MAX} bytes"),
            "write a shorter one",
        );
    }
    Ok(target)
}

fn url(text: &str) -> Result<(Scheme, &str), Wrong> {
    let text = text.trim();
    match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok((Scheme::Http, rest)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Ok((Scheme::Https, rest)),
        Some(_) => wrong(
            format!("{} is neither http nor https", quote(text)),
            "write a URL that begins with http:// or https://",
        ),
        None => wrong(
            format!("{} has no scheme", quote(text)),
            format!("write http://{text} or https://{text}"),
        ),
    }
}

fn split_authority(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()))
}

/// The port behind a host; an IPv6 address without brackets has none.
fn port_of(authority: &str) -> Option<&str> {
    let (before, port) = authority.rsplit_once(':')?;
    (before.ends_with(']') || !before.contains(':')).then_some(port)
}

/// The redirects that lead back to themselves: a client would turn round in them until it gives up.
pub(crate) fn loops(redirects: &[Redirect]) -> Vec<usize> {
    let next = |target: &str| -> Option<usize> {
        let (scheme, rest) = url(target).ok()?;
        let (authority, _) = split_authority(rest);
        let usual = match scheme {
            Scheme::Http => "80",
            Scheme::Https => "443",
        };
        // Another port may be another server.
        if port_of(authority).is_some_and(|port| port != usual) {
            return None;
        }
        let named = host(authority).ok()?.pattern.to_string();
        let covering = |redirect: &&Redirect| match redirect.host.wildcard_suffix() {
            None => redirect.host.as_str() == named,
            Some(suffix) => named
                .strip_suffix(suffix)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        };
        let candidates = redirects
            .iter()
            .filter(|redirect| redirect.scheme == scheme)
            .filter(covering);
        // An exact name beats a wildcard, a longer wildcard a shorter one.
        let best = candidates.max_by_key(|redirect| {
            let is_exact = redirect.host.wildcard_suffix().is_none();
            (is_exact, redirect.host.as_str().len())
        })?;
        redirects.iter().position(|redirect| redirect == best)
    };
    let following: Vec<Option<usize>> = redirects.iter().map(|redirect| next(&redirect.target)).collect();
    let is_loop = |start: &usize| {
        let mut at = *start;
        for _ in 0..STEPS_MAX {
            match following[at] {
                Some(following) if following == *start => return true,
                Some(following) => at = following,
                None => return false,
            }
        }
        false
    };
    (0..redirects.len()).filter(is_loop).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Redirect {
        pair(text).unwrap_or_else(|wrong| panic!("{wrong:?}")).redirect
    }

    #[test]
    fn pairs_are_separated_by_semicolons_and_the_last_one_does_not_matter() {
        let items: Vec<&str> = pairs(" http://a,http://b ;; http://c,http://d; ").collect();
        assert_eq!(items, ["http://a,http://b", "http://c,http://d"]);
    }

    #[test]
    fn a_pair_is_a_host_and_where_its_requests_go() {
        for (text, expected) in [
            (
                "http://old.example,http://new.example",
                "http://old.example -> http://new.example",
            ),
            (
                "HTTP://OLD.example/ , https://New.example:8443/A/",
                "http://old.example -> https://new.example:8443/A",
            ),
            (
                "https://*.old.example,https://new.example",
                "https://*.old.example -> https://new.example",
            ),
            (
                "http://old.example:8080,http://[2001:db8::1]:80/x",
                "http://old.example -> http://[2001:db8::1]:80/x",
            ),
        ] {
            assert_eq!(read(text).to_string(), expected);
        }
        assert!(pair("http://old.example:8080,http://new.example").is_ok_and(|pair| pair.had_port));
    }

    #[test]
    fn what_is_no_pair_is_refused_with_a_remedy() {
        for text in [
            "http://old.example",
            "old.example,http://new.example",
            "ftp://old.example,http://new.example",
            "http://old.example/path,http://new.example",
            "http://old.example,http://*.new.example",
            "http://old.example,http://new.example?x=1",
            "http://old.example,http://new.example/#x",
            "http://old.example,http://user@new.example",
            "http://old.example,http://new.example\\@evil.example",
            "http://old.example,http://new.example/a b",
            "http://old.example,http://new.example/a\r\nSet-Cookie: x",
            "http://old.example,http://new.example/a/../b",
            "http://old.example,http://new.example:0",
            "http://old.example,http://new.example:port",
            "http://old.example,javascript://new.example",
            "http://old.example,//new.example",
            "http://old.example,",
            "http://a,http://b,http://c",
            ",",
        ] {
            let problem = pair(text).err().unwrap_or_else(|| panic!("{text:?} was taken"));
            assert!(!problem.problem.is_empty() && !problem.remedy.is_empty());
        }
    }

    #[test]
    fn redirects_that_lead_back_are_found() {
        let found = |texts: &[&str]| loops(&texts.iter().map(|text| read(text)).collect::<Vec<_>>());
        assert_eq!(found(&["http://a.example,http://a.example/new"]), [0]);
        assert_eq!(found(&["http://*.a.example,http://x.a.example"]), [0]);
        assert_eq!(
            found(&[
                "http://a.example,http://b.example",
                "http://b.example,https://c.example",
                "https://c.example,http://a.example:80",
                "http://d.example,http://a.example",
            ]),
            [0, 1, 2]
        );
        assert!(found(&["http://a.example,https://a.example"]).is_empty());
        assert!(found(&["http://a.example,http://a.example:8080"]).is_empty());
    }
}
