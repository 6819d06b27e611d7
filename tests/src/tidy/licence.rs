//! SPDX licence expressions, as far as crates.io has them: `MIT OR (Apache-2.0 AND ISC)`, `X WITH exception`, and the
//! slash that older manifests write for `OR`.

use std::collections::BTreeSet;

/// Whether the expression can be met with the allowed licences alone.
///
/// # Errors
/// What is not an expression is described; nothing is assumed about it.
pub fn is_met(expression: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader {
        words: &words,
        at: 0,
        allowed,
    };
    let met = reader.alternatives()?;
    match reader.peek() {
        None => Ok(met),
        Some(word) => Err(format!("{word:?} is left over in licence {expression:?}")),
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    at: usize,
    allowed: &'a BTreeSet<String>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn take_if(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.at += usize::from(found);
        found
    }

    fn alternatives(&mut self) -> Result<bool, String> {
        let mut met = self.duties()?;
        while self.take_if("OR") {
            met |= self.duties()?;
        }
        Ok(met)
    }

    fn duties(&mut self) -> Result<bool, String> {
        let mut met = self.licence()?;
        while self.take_if("AND") {
            met &= self.licence()?;
        }
        Ok(met)
    }

    fn licence(&mut self) -> Result<bool, String> {
        if self.take_if("(") {
            let met = self.alternatives()?;
            return if self.take_if(")") {
                Ok(met)
            } else {
                Err("a bracket is not closed".into())
            };
        }
        let name = match self.peek() {
            None | Some("OR" | "AND" | "WITH" | ")") => return Err(format!("no licence at word {}", self.at + 1)),
            Some(name) => name,
        };
        self.at += 1;
        let full = if self.take_if("WITH") {
            let exception = self.peek().ok_or("WITH names no exception")?;
            self.at += 1;
            format!("{name} WITH {exception}")
        } else {
            name.to_string()
        };
        Ok(self.allowed.contains(&full))
    }
}

#[cfg(test)]
mod tests {
    use super::is_met;

    fn met(expression: &str) -> Result<bool, String> {
        is_met(
            expression,
            &["MIT", "ISC", "Apache-2.0 WITH x"].map(String::from).into(),
        )
    }

    #[test]
    fn one_of_several_alternatives_is_enough() {
        assert_eq!(met("GPL-3.0 OR MIT"), Ok(true));
        assert_eq!(met("GPL-3.0/MIT"), Ok(true));
        assert_eq!(met("GPL-3.0 OR AGPL-3.0"), Ok(false));
    }

    #[test]
    fn every_duty_must_be_met() {
        assert_eq!(met("MIT AND ISC"), Ok(true));
        assert_eq!(met("MIT AND GPL-3.0"), Ok(false));
        assert_eq!(met("ISC AND (GPL-3.0 OR MIT)"), Ok(true));
    }

    #[test]
    fn an_exception_is_another_licence() {
        assert_eq!(met("Apache-2.0 WITH x"), Ok(true));
        assert_eq!(met("Apache-2.0"), Ok(false));
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_yes() {
        for nonsense in ["", "MIT OR", "(MIT", "MIT ISC", "AND MIT", "MIT WITH"] {
            assert!(met(nonsense).is_err(), "{nonsense:?}");
        }
    }
}
