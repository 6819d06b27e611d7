//! Whether a request may be tried again.
//!
//! The rule (RFC 9110 §9.2.2): what cannot have been executed may always be sent again; what may have been executed only if
//! executing it twice does no harm, and only while its body is still whole. Row 37: an answer that says that the app could not
//! do it counts as such a failure, as long as none of it was passed on; when nobody answers better, the last one is.

use crate::time::Duration;

/// How far the body of a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySent {
    /// There is no body: the head is the whole request.
    Absent,
    /// None of it; it can still be sent elsewhere.
    Unsent,
    /// A part of it at least; that part is gone.
    Begun,
}

/// How a try failed, before any byte of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection was made, so nothing was sent.
    Connect,
    /// The connection ended before the request was written to it.
    NotSent,
    /// The connection ended, or the endpoint refused the stream, after something was sent.
    Died,
    /// The endpoint said that it did not look at the request (HTTP/2 `REFUSED_STREAM` or GOAWAY below its id,
    /// RFC 9113 §8.7).
    Refused,
    /// No response in time: the endpoint may be at work on it.
    TimedOut,
    /// What came is no HTTP.
    BadResponse,
    /// The app answered that it could not, see [`is_worth_another`].
    Unable,
    /// The endpoint cannot be reached any more, although its connection did not end: power or link lost.
    Vanished,
}

/// Row 37: whether another endpoint may do better than one that answered with this status.
pub fn is_worth_another(status: u16, retry_on_500: bool) -> bool {
    matches!(status, 502..=504) || (status == 500 && retry_on_500)
}

/// Whether the request may be sent again.
pub fn may_retry(method: &str, body: BodySent, failure: Failure) -> bool {
    match (failure, body) {
        (Failure::BadResponse, _) | (_, BodySent::Begun) => false,
        (Failure::Connect | Failure::NotSent | Failure::Refused, BodySent::Absent | BodySent::Unsent) => true,
        // Without its body, the request cannot have been executed.
        (Failure::Died | Failure::Vanished, BodySent::Unsent) => true,
        (Failure::Died | Failure::Vanished, BodySent::Absent) => is_idempotent(method),
        (Failure::TimedOut | Failure::Unable, _) => is_idempotent(method),
    }
}

/// Whether a second copy of the request may be sent elsewhere while the first is under way, the first answer to be used.
///
/// Safe methods alone (RFC 9110 §9.2.1): of two copies of a `DELETE`, the one that finds nothing any more might answer first.
pub fn may_hedge(method: &str, body: BodySent) -> bool {
    body == BodySent::Absent && matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// How long a connection may have waited to be used for a request of this method; `None`: as long as connections are kept.
///
/// Apps close connections that wait, and where that crosses a request on its way, only an idempotent one can be sent again. So
/// others go on connections that were in use a moment ago, which no server closes yet.
pub fn waited_max(method: &str) -> Option<Duration> {
    (!is_idempotent(method)).then_some(Duration::from_millis(1000))
}

/// RFC 9110 §9.2.2. Unknown methods are not.
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;

    use super::*;

    #[test]
    fn what_cannot_be_sent_again_goes_on_a_connection_that_was_in_use_just_now() {
        assert_eq!(waited_max("POST"), Some(Duration::from_secs(1)));
        assert_eq!(waited_max("GET"), None);
    }

    #[test]
    fn row_37_which_answers_another_endpoint_may_better() {
        let worth = |on_500| {
            (200..600)
                .filter(|status| is_worth_another(*status, on_500))
                .collect::<std::vec::Vec<_>>()
        };
        assert_eq!(worth(false), [502, 503, 504]);
        assert_eq!(worth(true), [500, 502, 503, 504]);
    }

    #[test]
    fn row_37_the_table_of_retries() {
        let mut table = String::new();
        for failure in [
            Failure::Connect,
            Failure::NotSent,
            Failure::Died,
            Failure::Refused,
            Failure::TimedOut,
            Failure::BadResponse,
            Failure::Unable,
            Failure::Vanished,
        ] {
            for method in ["GET", "POST"] {
                for body in [BodySent::Absent, BodySent::Unsent, BodySent::Begun] {
                    if may_retry(method, body, failure) {
                        table += &format!("{failure:?} {method} {body:?}\n");
                    }
                }
            }
        }
        insta::assert_snapshot!(table, @r"
        Connect GET Absent
        Connect GET Unsent
        Connect POST Absent
        Connect POST Unsent
        NotSent GET Absent
        NotSent GET Unsent
        NotSent POST Absent
        NotSent POST Unsent
        Died GET Absent
        Died GET Unsent
        Died POST Unsent
        Refused GET Absent
        Refused GET Unsent
        Refused POST Absent
        Refused POST Unsent
        TimedOut GET Absent
        TimedOut GET Unsent
        Unable GET Absent
        Unable GET Unsent
        Vanished GET Absent
        Vanished GET Unsent
        Vanished POST Unsent
        ");
    }

    #[test]
    fn only_what_is_safe_and_whole_is_sent_twice_at_once() {
        assert!(may_hedge("GET", BodySent::Absent) && may_hedge("HEAD", BodySent::Absent));
        for (method, body) in [
            ("GET", BodySent::Unsent),
            ("DELETE", BodySent::Absent),
            ("PUT", BodySent::Absent),
            ("POST", BodySent::Absent),
        ] {
            assert!(!may_hedge(method, body), "{method} {body:?}");
        }
    }
}
