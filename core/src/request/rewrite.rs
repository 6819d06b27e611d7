//! The target that the app sees.

use alloc::borrow::Cow;
use alloc::string::String;

use crate::route::spec::PathPrefix;

/// Takes `prefix` away from `path` (which may carry a query); `/app` becomes `/`, `/app/x?y` becomes `/x?y`. A path that is
/// not below the prefix stays as it is.
pub fn strip_prefix<'a>(path: &'a str, prefix: &PathPrefix) -> Cow<'a, str> {
    if prefix.is_root() {
        return Cow::Borrowed(path);
    }
    match path.strip_prefix(prefix.as_str()) {
        Some("") => Cow::Borrowed("/"),
        Some(rest) if rest.starts_with('/') => Cow::Borrowed(rest),
        Some(rest) if rest.starts_with('?') => {
            let mut target = String::with_capacity(rest.len() + 1);
            target.push('/');
            target.push_str(rest);
            Cow::Owned(target)
        }
        Some(_) | None => Cow::Borrowed(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_away_by_whole_segments() {
        let prefix = PathPrefix::from_normalised("/app".into());
        for (path, expected) in [
            ("/app", "/"),
            ("/app/", "/"),
            ("/app/x?y=1", "/x?y=1"),
            ("/app?y=1", "/?y=1"),
            ("/application", "/application"),
            ("/", "/"),
        ] {
            assert_eq!(strip_prefix(path, &prefix), expected, "{path}");
        }
        assert_eq!(strip_prefix("/x", &PathPrefix::default()), "/x");
    }
}
