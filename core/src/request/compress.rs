//! Whether and how a response is compressed on its way to the client (`tidegate.compress`).

use crate::route::spec::Coding;

/// Bytes below which compressing costs more than it saves.
pub const BYTES_MIN: u64 = 1024;

/// What of a response says whether it may be compressed.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Its status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'a [u8],
    /// `Content-Length`, where it says one.
    pub length: Option<u64>,
    /// Whether the app has coded it (`Content-Encoding`), sends a part of it (`Content-Range`), or forbids it
    /// (`Cache-Control: no-transform`, see [`forbids`]).
    pub is_fixed: bool,
}

impl Response<'_> {
    /// Whether it may be compressed for a client that takes it. If so, it varies by `Accept-Encoding`.
    pub fn may_be_compressed(&self) -> bool {
        let has_content = !matches!(self.status, 100..=199 | 204 | 205 | 206 | 304);
        let is_worth_it = self.length.is_none_or(|length| length >= BYTES_MIN);
        has_content && is_worth_it && !self.is_fixed && is_compressible(self.content_type)
    }
}

/// Whether a value of `Cache-Control` forbids to change the content (RFC 9111 §5.2.2.6).
pub fn forbids(cache_control: &[u8]) -> bool {
    let mut directives = cache_control.split(|byte| *byte == b',');
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Text, and what is text in other clothes. What is compressed by its own format is not.
fn is_compressible(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let Ok(essence) = core::str::from_utf8(essence.trim_ascii()) else {
        return false;
    };
    let ends = |suffix: &str| {
        let at = essence.len().checked_sub(suffix.len());
        at.and_then(|at| essence.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    let begins = |prefix: &str| {
        essence
            .get(..prefix.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
    };
    begins("text/") || ends("+json") || ends("+xml") || OTHERS.iter().any(|other| essence.eq_ignore_ascii_case(other))
}

const OTHERS: [&str; 10] = [
    "application/javascript",
    "application/json",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/bmp",
];

/// The best of `offered` that the client takes (RFC 9110 §12.5.3): by its own weights, and between equal ones the first that is
/// offered.
pub fn choose(accepted: &[&[u8]], offered: &[Coding]) -> Option<Coding> {
    let mut best = None;
    for coding in offered {
        let weight = weight(accepted, coding.name());
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((*coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// In thousandths. `*` stands for what is not named.
fn weight(accepted: &[&[u8]], name: &str) -> u32 {
    let mut of_any = 0;
    for member in accepted.iter().flat_map(|value| value.split(|byte| *byte == b',')) {
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
        let weight = weight.map_or(1000, thousandths);
        let is_old_name = name == "gzip" && coding.eq_ignore_ascii_case(b"x-gzip");
        if coding.eq_ignore_ascii_case(name.as_bytes()) || is_old_name {
            return weight;
        }
        if coding == b"*" {
            of_any = weight;
        }
    }
    of_any
}

/// `0.5` and the like; what is no weight counts as none (RFC 9110 §12.4.2).
fn thousandths(text: &[u8]) -> u32 {
    let (whole, rest) = match text {
        [whole @ (b'0' | b'1')] => (*whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', rest @ ..] if rest.len() <= 3 && rest.iter().all(u8::is_ascii_digit) => {
            (*whole, rest)
        }
        _ => return 0,
    };
    let mut value = u32::from(whole - b'0') * 1000;
    for (digit, unit) in rest.iter().zip([100, 10, 1]) {
        value += u32::from(digit - b'0') * unit;
    }
    value.min(1000)
}

/// A validator for content that was compressed here: `"x"` is `W/"x"` then, since its bytes are others (RFC 9110 §8.8.3).
pub fn weak(etag: &[u8]) -> Option<alloc::vec::Vec<u8>> {
    (!etag.starts_with(b"W/")).then(|| [b"W/", etag].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn chosen(accepted: &[&str], offered: &[Coding]) -> Option<Coding> {
        let accepted: Vec<&[u8]> = accepted.iter().map(|text| text.as_bytes()).collect();
        choose(&accepted, offered)
    }

    #[test]
    fn the_client_weighs_and_the_label_breaks_ties() {
        use Coding::{Br, Gzip, Zstd};
        let all = [Zstd, Br, Gzip];
        for (accepted, expected) in [
            (&["gzip, deflate, br, zstd"][..], Some(Zstd)),
            (&["gzip", "br"], Some(Br)),
            (&["br;q=0.5, gzip;q=0.8"], Some(Gzip)),
            (&["br; q=0.801 , GZIP;Q=0.8"], Some(Br)),
            (&["*"], Some(Zstd)),
            (&["*;q=0.1, zstd;q=0, br;q=0.05"], Some(Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=nan, br;q=2"], None),
            (&["identity"], None),
            (&["x-gzip"], Some(Gzip)),
            (&["gzipped, bro"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(chosen(accepted, &all), expected, "{accepted:?}");
        }
        assert_eq!(
            chosen(&["gzip, br, zstd"], &[Gzip, Br]),
            Some(Gzip),
            "the label's order"
        );
        assert_eq!(chosen(&["br"], &[Gzip]), None);
    }

    #[test]
    fn text_that_is_long_enough_and_free_to_change_may_be_compressed() {
        let page = Response {
            status: 200,
            content_type: b"text/html; charset=utf-8",
            length: None,
            is_fixed: false,
        };
        assert!(page.may_be_compressed());
        let of_length = |length| {
            Response {
                length: Some(length),
                ..page
            }
            .may_be_compressed()
        };
        assert!(of_length(1024) && !of_length(1023));
        assert!(!Response { is_fixed: true, ..page }.may_be_compressed());
        let with_status = |status| Response { status, ..page }.may_be_compressed();
        let never: Vec<u16> = (100..600).filter(|status| !with_status(*status)).collect();
        assert_eq!(never, (100..200).chain([204, 205, 206, 304]).collect::<Vec<_>>());
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/Problem+JSON", true),
            ("image/svg+xml", true),
            ("text/event-stream", true),
            ("image/png", false),
            ("application/grpc", false),
            ("application/octet-stream", false),
            ("multipart/form-data; boundary=text/", false),
            ("", false),
            ("+", false),
        ] {
            let content_type = content_type.as_bytes();
            assert_eq!(
                Response { content_type, ..page }.may_be_compressed(),
                expected,
                "{content_type:?}"
            );
        }
        assert!(forbids(b"max-age=5, No-Transform") && !forbids(b"max-age=5, x-no-transform"));
    }

    #[test]
    fn a_strong_validator_becomes_a_weak_one() {
        assert_eq!(weak(b"\"x\"").as_deref(), Some(&b"W/\"x\""[..]));
        assert_eq!(weak(b"W/\"x\""), None);
    }
}
