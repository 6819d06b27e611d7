//! Where a request's body ends.

use super::authority::Version;
use super::fault::ClientFault;

/// Refuses a head from which two readers could take two lengths.
///
/// HTTP/2 has its own framing, and connection-specific fields are malformed there (RFC 9113 §8.2.2).
pub fn check<'a>(
    version: Version,
    transfer_encodings: impl Iterator<Item = &'a [u8]>,
    mut content_lengths: impl Iterator<Item = &'a [u8]>,
) -> Result<(), ClientFault> {
    let mut codings = 0;
    for value in transfer_encodings {
        if version != Version::Http11 {
            return Err(ClientFault::AmbiguousLength);
        }
        for coding in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            codings += 1;
            // RFC 9112 §6.1: a coding that is not understood is answered 501. `chunked` twice is malformed.
            if !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(ClientFault::UnknownTransferCoding);
            }
        }
    }
    let length = content_lengths.next();
    if codings > 1 || content_lengths.next().is_some() || (codings > 0 && length.is_some()) {
        return Err(ClientFault::AmbiguousLength);
    }
    // RFC 9110 §8.6: digits only; no sign, list or blank.
    if length.is_some_and(|text| text.is_empty() || !text.iter().all(u8::is_ascii_digit)) {
        return Err(ClientFault::AmbiguousLength);
    }
    Ok(())
}

/// Finds `Content-Length` beside `Transfer-Encoding` in the raw bytes of a head.
///
/// hyper drops the length where both are there (which RFC 9112 §6.3 allows), before anybody can see that there were two:
/// so the bytes are looked at as well. They may be cut anywhere; feed each piece once. It sees the first head after
/// [`Sniff::default`]; what follows in the same piece (a pipelined request) is left to hyper's rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sniff {
    line: Line,
    seen_length: bool,
    seen_coding: bool,
    begun: bool,
    ended: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Bytes of the present line; the name itself is matched on the fly.
    len: usize,
    /// Whether only line ends came so far.
    blank: bool,
    length_matches: bool,
    coding_matches: bool,
}

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

impl Sniff {
    /// Takes the next piece; true as soon as both fields were seen in the head.
    pub fn feed(&mut self, mut piece: &[u8]) -> bool {
        while !self.ended && !piece.is_empty() {
            let end = piece.iter().position(|b| *b == b'\n');
            let (line, rest) = piece.split_at(end.map_or(piece.len(), |end| end + 1));
            self.feed_line(line, end.is_some());
            piece = rest;
        }
        self.seen_length && self.seen_coding
    }

    fn feed_line(&mut self, part: &[u8], complete: bool) {
        let line = &mut self.line;
        if line.len == 0 {
            (line.length_matches, line.coding_matches, line.blank) = (true, true, true);
        }
        line.blank &= part.iter().all(|b| matches!(b, b'\r' | b'\n'));
        let matches = |name: &[u8]| {
            let wanted = name.get(line.len..).unwrap_or_default();
            let shared = wanted.len().min(part.len());
            part[..shared].eq_ignore_ascii_case(&wanted[..shared])
        };
        line.length_matches = line.length_matches && matches(LENGTH);
        line.coding_matches = line.coding_matches && matches(CODING);
        line.len += part.len();
        self.seen_length |= line.length_matches && line.len >= LENGTH.len();
        self.seen_coding |= line.coding_matches && line.len >= CODING.len();
        if complete {
            self.ended = line.blank && self.begun;
            self.begun |= !line.blank; // RFC 9112 §2.2: empty lines before the request line are skipped.
            *line = Line::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framing(version: Version, codings: &[&str], lengths: &[&str]) -> Result<(), ClientFault> {
        check(
            version,
            codings.iter().map(|text| text.as_bytes()),
            lengths.iter().map(|text| text.as_bytes()),
        )
    }

    #[test]
    fn one_length_or_one_coding_is_clear() {
        assert_eq!(framing(Version::Http11, &[], &[]), Ok(()));
        assert_eq!(framing(Version::Http11, &[], &["5"]), Ok(()));
        assert_eq!(framing(Version::Http11, &["Chunked"], &[]), Ok(()));
    }

    #[test]
    fn whatever_gives_two_lengths_is_refused() {
        use ClientFault::AmbiguousLength;
        assert_eq!(framing(Version::Http11, &["chunked"], &["5"]), Err(AmbiguousLength));
        assert_eq!(
            framing(Version::Http11, &["chunked", "chunked"], &[]),
            Err(AmbiguousLength)
        );
        assert_eq!(framing(Version::Http11, &[], &["5", "5"]), Err(AmbiguousLength));
        assert_eq!(framing(Version::Http11, &[], &["+5"]), Err(AmbiguousLength));
        assert_eq!(framing(Version::Http11, &[], &["5, 5"]), Err(AmbiguousLength));
        assert_eq!(framing(Version::Http11, &[], &[""]), Err(AmbiguousLength));
        assert_eq!(framing(Version::Http2, &["chunked"], &[]), Err(AmbiguousLength));
        assert_eq!(framing(Version::Http10, &["chunked"], &[]), Err(AmbiguousLength));
    }

    #[test]
    fn a_coding_that_would_be_lost_is_refused() {
        let fault = framing(Version::Http11, &["gzip, chunked"], &[]);
        assert_eq!(fault, Err(ClientFault::UnknownTransferCoding));
    }

    #[test]
    fn both_fields_are_found_in_either_order_and_case() {
        for head in [
            "POST / HTTP/1.1\r\ncontent-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\nhost: a\r\nContent-Length: 5\r\n\r\n",
        ] {
            assert!(Sniff::default().feed(head.as_bytes()), "{head}");
        }
    }

    #[test]
    fn a_body_that_looks_like_fields_is_not_read() {
        let message = "POST / HTTP/1.1\r\ncontent-length: 30\r\n\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(!Sniff::default().feed(message.as_bytes()));
        assert!(
            !Sniff::default().feed(b"POST / HTTP/1.1\r\nx-content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n")
        );
    }

    proptest! {
        #[test]
        fn the_answer_is_the_same_however_the_head_is_cut(
            fields in prop::collection::vec(
                prop::sample::select(std::vec!["content-length: 1", "Transfer-Encoding: x", "host: a", "content-lengthy: 2", ""]),
                0..6,
            ),
            cuts in prop::collection::vec(0_usize..120, 0..8),
        ) {
            let mut text = std::string::String::from("GET / HTTP/1.1\r\n");
            for field in &fields {
                text += field;
                text += "\r\n";
            }
            text += "\r\n";
            let head = fields.split(|field| field.is_empty()).next().unwrap_or_default();
            let expected = head.contains(&"content-length: 1") && head.contains(&"Transfer-Encoding: x");
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (mut sniff, mut from, mut found) = (Sniff::default(), 0, false);
            for to in cuts.into_iter().chain([text.len()]) {
                let to = to.min(text.len());
                found = sniff.feed(&text.as_bytes()[from..to]);
                from = to;
            }
            prop_assert_eq!(found, expected);
        }
    }
}
