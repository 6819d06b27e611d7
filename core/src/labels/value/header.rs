//! Header edits: `set Name value; add Name "value; with semicolon"; remove Name`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Wrong, quote, wrong};
use crate::route::edits::HeaderEdit;

/// Bytes of a field's name.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of its value.
const VALUE_BYTES_MAX: usize = 4096;

/// Fields that frame a message, end at this hop, say who is asked or are the proxy's own (RFC 9110 §7.6.1, RFC 9112 §6).
const KEPT: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The edits in a text, in order, each with what is wrong with it.
pub(crate) fn edits(text: &str) -> Vec<Result<HeaderEdit, Wrong>> {
    let mut found = Vec::new();
    let mut rest = text.trim_matches(is_between);
    while !rest.is_empty() {
        let (edit, after) = edit(rest);
        found.push(edit);
        rest = after.trim_start_matches(is_between);
    }
    found
}

fn is_between(c: char) -> bool {
    c == ';' || c.is_whitespace()
}

/// The first edit of `text`, and what follows it.
fn edit(text: &str) -> (Result<HeaderEdit, Wrong>, &str) {
    let (verb, rest) = word(text);
    let (name, rest) = word(rest);
    let plain_end = rest.find(';').unwrap_or(rest.len());
    let (value, after) = match rest.strip_prefix('"') {
        Some(inside) => match unquote(inside) {
            Some((value, after)) => {
                let (extra, after) = after.split_at(after.find(';').unwrap_or(after.len()));
                if extra.trim().is_empty() {
                    (Ok(value), after)
                } else {
                    let problem = format!("something follows the quotation mark of {}", quote(name));
                    (wrong(problem, "put the whole value between the quotation marks"), after)
                }
            }
            None => {
                let problem = format!("the quotation marks around the value of {} do not close", quote(name));
                (wrong(problem, "write \" at its end, and \\\" for one inside"), "")
            }
        },
        None => (Ok(String::from(rest[..plain_end].trim_end())), &rest[plain_end..]),
    };
    let edit = value.and_then(|value| {
        let value = String::from(value.trim());
        let name = field_name(name)?;
        let verb_is = |word: &str| verb.eq_ignore_ascii_case(word);
        if verb_is("remove") {
            return if value.is_empty() {
                Ok(HeaderEdit::Remove { name })
            } else {
                wrong(
                    format!("remove takes a name alone, and {} follows it", quote(&value)),
                    format!("write remove {name}"),
                )
            };
        }
        if !verb_is("set") && !verb_is("add") {
            return wrong(
                format!("{} is none of set, add and remove", quote(verb)),
                format!("write set {name} VALUE, add {name} VALUE or remove {name}"),
            );
        }
        check_value(&name, &value)?;
        Ok(if verb_is("set") {
            HeaderEdit::Set { name, value }
        } else {
            HeaderEdit::Add { name, value }
        })
    });
    (edit, after)
}

/// The first word, and what follows it without spaces in front.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(is_between).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start_matches([' ', '\t']))
}

/// What stands before the closing quotation mark, and what follows it; `\` keeps the next character.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

fn field_name(text: &str) -> Result<String, Wrong> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(is_token) {
        return wrong(
            format!("{} is no name of a header field", quote(text)),
            "write e.g. set X-Frame-Options DENY",
        );
    }
    let name = text.to_ascii_lowercase();
    if KEPT.contains(&name.as_str()) {
        return wrong(
            format!("{name} frames or addresses the message itself and cannot be changed"),
            "take this edit away",
        );
    }
    Ok(name)
}

fn check_value(name: &str, value: &str) -> Result<(), Wrong> {
    if value.len() > VALUE_BYTES_MAX {
        return wrong(
            format!("the value of {name} is longer than {VALUE_BYTES_MAX} bytes"),
            "write a shorter one",
        );
    }
    if let Some(odd) = value
        .chars()
        .find(|c| !(c.is_ascii_graphic() || matches!(c, ' ' | '\t')))
    {
        return wrong(
            format!("the value of {name} has {odd:?}, which no header field should have"),
            "write visible ASCII and spaces",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<String> {
        edits(text)
            .into_iter()
            .map(|edit| match edit {
                Ok(edit) => edit.to_string(),
                Err(wrong) => format!("wrong: {}", wrong.problem),
            })
            .collect()
    }

    #[test]
    fn edits_are_made_in_the_order_of_the_text() {
        assert_eq!(
            read(" SET X-Frame-Options DENY;add Link </a>; rel=x ; remove Server;; "),
            [
                "set x-frame-options DENY",
                "add link </a>",
                "wrong: \"\" is no name of a header field",
                "remove server"
            ]
        );
        assert_eq!(
            read(r#"set Strict-Transport-Security "max-age=1; includeSubDomains"; set X-A "say \"\\hi\"""#),
            [
                r#"set strict-transport-security "max-age=1; includeSubDomains""#,
                r#"set x-a "say \"\\hi\"""#
            ]
        );
        assert_eq!(read("set X-Empty"), ["set x-empty "]);
    }

    #[test]
    fn what_would_break_a_message_is_refused_and_the_rest_holds() {
        for name in KEPT {
            for text in [
                format!("set {name} 1; remove X-A"),
                format!("remove {}; remove X-A", name.to_uppercase()),
            ] {
                let found = read(&text);
                assert!(
                    found[0].contains("cannot be changed") && found[1] == "remove x-a",
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_edit_is_said() {
        for text in [
            "X-A: b",
            "put X-A b",
            "set",
            "set X:A b",
            "remove X-A b",
            "set X-A \"open",
            "set X-A \"a\" b",
            "set X-A é",
            "set X-A a\u{7}b",
            "set :path /",
        ] {
            assert!(read(text)[0].starts_with("wrong: "), "{text}");
        }
        assert!(read(&format!("set X-A {}", "a".repeat(VALUE_BYTES_MAX + 1)))[0].starts_with("wrong: "));
    }

    proptest! {
        #[test]
        fn whatever_is_written_reading_ends_and_what_is_taken_is_safe(text in "(set|add|remove|[a-z]{0,3})?[ -~\\n\\r;\"é]{0,60}") {
            for edit in edits(&text).into_iter().flatten() {
                let line = edit.to_string();
                prop_assert!(!line.contains(['\r', '\n']), "{line:?}");
                // What is shown can be written in a label.
                prop_assert_eq!(edits(&line), alloc::vec![Ok(edit)]);
            }
        }
    }
}
