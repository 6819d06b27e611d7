//! What went wrong, in the words of core. The status alone does not tell: a lost compare-and-swap is an HTTP 500, a
//! manager that is stopping says that it is none (facts §4, §6).

use bollard::errors::Error;
use tidegate_core::swarm::model::ApiError;

/// Longest text of an answer that is kept for the operator.
const TEXT_MAX: usize = 500;

/// An answer with a status other than success.
pub(crate) fn refused(status: u16, message: &str) -> ApiError {
    let text = shorten(message);
    if message.contains("update out of sequence") {
        return ApiError::Conflict(text);
    }
    if message.contains("not a swarm manager") {
        return ApiError::NotManager(text);
    }
    match status {
        404 => ApiError::NotFound(text),
        409 => ApiError::Exists(text),
        503 => ApiError::NotManager(text),
        // The engine was replaced by an older or newer one; the next call negotiates again.
        400 if is_version_mismatch(status, message) => ApiError::Server(text),
        // What Swarm cannot do for any service: rename, change the mode.
        501 => ApiError::Refused(text),
        500.. => ApiError::Server(text),
        _ => ApiError::Refused(text),
    }
}

/// Whether the engine speaks another range of API versions than the one that was asked with.
pub(crate) fn is_version_mismatch(status: u16, message: &str) -> bool {
    status == 400 && message.contains("client version") && message.contains("API version")
}

/// An error of bollard.
pub(crate) fn from_bollard(error: &Error) -> ApiError {
    if let Error::DockerResponseServerError { status_code, message } = error {
        return refused(*status_code, message);
    }
    let unreadable = matches!(
        error,
        Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::StrParseError { .. }
    );
    if unreadable { garbled(error) } else { unreachable(error) }
}

/// An answer that is not what the API promises.
pub(crate) fn garbled(error: impl std::fmt::Display) -> ApiError {
    ApiError::Garbled(shorten(&error.to_string()))
}

/// No answer, or not all of it.
pub(crate) fn unreachable(error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::Unreachable(text_of(error))
}

/// An error with its causes, which the libraries below keep to themselves.
pub(crate) fn text_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    shorten(&text)
}

fn shorten(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => String::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_compare_and_swap_is_known_by_its_text() {
        let text = "rpc error: code = Unknown desc = update out of sequence";
        assert_eq!(refused(500, text), ApiError::Conflict(String::from(text)));
    }

    #[test]
    fn each_status_has_its_meaning() {
        let not_manager = "This node is not a swarm manager. Use \"docker swarm init\"";
        assert!(matches!(refused(503, not_manager), ApiError::NotManager(_)));
        assert!(matches!(refused(406, not_manager), ApiError::NotManager(_)));
        assert!(matches!(refused(503, "code = Unavailable"), ApiError::NotManager(_)));
        assert!(matches!(refused(409, "service a already exists"), ApiError::Exists(_)));
        assert!(matches!(refused(404, "service x not found"), ApiError::NotFound(_)));
        assert!(matches!(
            refused(400, "port '80' is already in use"),
            ApiError::Refused(_)
        ));
        assert!(matches!(
            refused(403, "forbidden by a socket proxy"),
            ApiError::Refused(_)
        ));
        assert!(matches!(
            refused(501, "renaming services is not supported"),
            ApiError::Refused(_)
        ));
        assert!(matches!(
            refused(500, "The swarm does not have a leader."),
            ApiError::Server(_)
        ));
    }

    #[test]
    fn another_engine_version_is_no_refusal_for_good() {
        let text = "client version 1.52 is too new. Maximum supported API version is 1.41";
        assert!(is_version_mismatch(400, text));
        assert!(matches!(refused(400, text), ApiError::Server(_)));
        let text = "client version 1.41 is too old. Minimum supported API version is 1.44, please upgrade your client";
        assert!(is_version_mismatch(400, text));
    }

    #[test]
    fn long_answers_are_cut_between_characters() {
        let ApiError::Server(text) = refused(500, &"ä".repeat(5000)) else {
            panic!("not a server error")
        };
        assert_eq!(text.chars().count(), TEXT_MAX + 1);
    }
}
