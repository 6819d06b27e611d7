//! `${VARIABLES}` of stack files, as `docker stack deploy` fills them in.

/// Fills in `text`: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?words}`, `${NAME?words}`, `$$`.
///
/// # Errors
/// What is wrong and what to write instead.
pub(super) fn interpolate(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing(after).ok_or_else(|| format!("{text:?} has ${{ without }}; write $$ for a plain $"))?;
            out.push_str(&expression(&after[..end], variable)?);
            rest = &after[end + 1..];
        } else {
            let (name, after) = split_name(after);
            if name.is_empty() {
                return Err(format!("{text:?} has a $ without a name; write $$ for a plain $"));
            }
            out.push_str(&variable(name).unwrap_or_default());
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace that is open at the beginning of `text` is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn split_name(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return ("", text);
    }
    (name, rest)
}

fn expression(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, rest) = split_name(text);
    let value = variable(name);
    // One `-` or `?`: what follows are the words, whatever they begin with.
    let kinds = [":-", ":?", "-", "?"];
    let kind = kinds
        .into_iter()
        .find(|kind| rest.starts_with(kind))
        .unwrap_or_default();
    let words = &rest[kind.len()..];
    let value = if kind.starts_with(':') {
        value.filter(|value| !value.is_empty())
    } else {
        value
    };
    match (name, kind) {
        ("", _) => Err(format!(
            "${{{text}}} has no name; write ${{NAME:-default}}, or $$ for a plain $"
        )),
        (_, "") if words.is_empty() => Ok(value.unwrap_or_default()),
        (_, ":-" | "-") => value.map_or_else(|| interpolate(words, variable), Ok),
        (_, ":?" | "?") => {
            value.ok_or_else(|| format!("the variable {name} is missing: {words}; set it in the environment"))
        }
        _ => Err(format!(
            "${{{text}}} is not understood; write ${{NAME}}, ${{NAME:-default}} or ${{NAME:?words}}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::interpolate;

    #[test]
    fn variables_defaults_and_dollars() {
        let variable = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, wanted) in [
            ("x$A.y", "xa.y"),
            ("${A}${NONE}", "a"),
            ("${EMPTY:-d}${EMPTY-d}${NONE-e}", "de"),
            ("${NONE:-${A}b}", "ab"),
            ("${NONE:--q}${NONE-?}", "-q?"),
            ("$$A ^x$$", "$A ^x$"),
        ] {
            assert_eq!(interpolate(text, &variable).as_deref(), Ok(wanted), "{text}");
        }
        assert!(
            interpolate("${NONE:?say which}", &variable)
                .unwrap_err()
                .contains("say which")
        );
        for wrong in ["${A", "$", "${}", "${A%b}"] {
            assert!(interpolate(wrong, &variable).unwrap_err().contains("write"), "{wrong}");
        }
    }
}
