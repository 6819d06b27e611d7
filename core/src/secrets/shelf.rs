//! What a process has of the secrets that its table names. Decides what is kept: the last content that there was, until
//! neither the table wants it nor whoever brought it lists it. Versions let users read again only what changed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::{Secret, SecretProblem, SecretText};

/// See the module.
#[derive(Debug, Default)]
pub struct Shelf {
    /// What the table names.
    wanted: BTreeSet<String>,
    /// What whoever brings secrets lists: a table and the secrets for it come by ways of their own, in either order.
    listed: BTreeSet<String>,
    secrets: BTreeMap<String, Secret>,
    last_version: u64,
}

impl Shelf {
    /// Takes the names that the table wants now; whether something was dropped or is new.
    pub fn want(&mut self, names: BTreeSet<String>) -> bool {
        self.wanted = names;
        let mut changed = self.tidy();
        let new: Vec<String> = self
            .wanted
            .iter()
            .filter(|name| !self.secrets.contains_key(*name))
            .cloned()
            .collect();
        for name in new {
            changed |= self.put(&name, None, Some(SecretProblem::Waiting));
        }
        changed
    }

    /// Takes the whole list of what is brought; whether something was dropped.
    pub fn list(&mut self, names: BTreeSet<String>) -> bool {
        self.listed = names;
        self.tidy()
    }

    /// Takes what became of a secret: its present content, or why there is none. Whether that is news. What nobody wants or
    /// lists is passed over.
    pub fn put(&mut self, name: &str, content: Option<SecretText>, problem: Option<SecretProblem>) -> bool {
        if !self.wanted.contains(name) && !self.listed.contains(name) {
            return false;
        }
        let before = self.secrets.get(name);
        let content = content.or_else(|| before.and_then(|secret| secret.content.clone()));
        // Who has a content does not wait for one.
        let problem = problem.filter(|problem| content.is_none() || *problem != SecretProblem::Waiting);
        if before.is_some_and(|secret| secret.content == content && secret.problem == problem) {
            return false;
        }
        self.last_version += 1;
        let secret = Secret {
            version: self.last_version,
            content,
            problem,
        };
        self.secrets.insert(String::from(name), secret);
        true
    }

    /// What there is of the secret `name`; `None` where no table wants it.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name)
    }

    /// The names that the table wants.
    pub fn wanted(&self) -> &BTreeSet<String> {
        &self.wanted
    }

    /// What is wrong with secrets that the table wants.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &SecretProblem)> {
        let wanted = self.secrets.iter().filter(|(name, _)| self.wanted.contains(*name));
        wanted.filter_map(|(name, secret)| Some((name.as_str(), secret.problem.as_ref()?)))
    }

    fn tidy(&mut self) -> bool {
        let before = self.secrets.len();
        let (wanted, listed) = (&self.wanted, &self.listed);
        self.secrets
            .retain(|name, _| wanted.contains(name) || listed.contains(name));
        self.secrets.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample::names;

    fn text(content: &str) -> Option<SecretText> {
        Some(SecretText::new(content))
    }

    fn content<'a>(shelf: &'a Shelf, name: &str) -> Option<&'a str> {
        Some(shelf.get(name)?.content.as_ref()?.expose())
    }

    #[test]
    fn what_is_wanted_waits_until_it_is_there() {
        let mut shelf = Shelf::default();
        assert!(shelf.want(names(["a"])));
        assert_eq!(shelf.get("a").unwrap().last_good(), Err(SecretProblem::Waiting));
        assert!(shelf.put("a", text("1"), None));
        assert_eq!(content(&shelf, "a"), Some("1"));
        assert_eq!(shelf.problems().count(), 0);
        assert!(!shelf.want(names(["a"])));
    }

    #[test]
    fn the_last_content_stays_when_the_secret_goes_and_the_reason_is_known() {
        let mut shelf = Shelf::default();
        shelf.want(names(["a"]));
        shelf.put("a", text("1"), None);
        assert!(shelf.put("a", None, Some(SecretProblem::Missing)));
        assert_eq!(content(&shelf, "a"), Some("1"));
        let problems: Vec<_> = shelf.problems().collect();
        assert_eq!(problems, [("a", &SecretProblem::Missing)]);
        assert!(shelf.put("a", text("1"), None));
        assert_eq!(shelf.problems().count(), 0);
    }

    #[test]
    fn who_has_a_content_does_not_wait() {
        let mut shelf = Shelf::default();
        shelf.want(names(["a"]));
        shelf.put("a", text("1"), None);
        assert!(!shelf.put("a", None, Some(SecretProblem::Waiting)));
        assert_eq!(shelf.problems().count(), 0);
    }

    #[test]
    fn a_version_is_new_with_each_change_and_stays_without() {
        let mut shelf = Shelf::default();
        shelf.want(names(["a"]));
        let mut versions = Vec::from([shelf.get("a").unwrap().version]);
        for (content, is_news) in [("1", true), ("1", false), ("2", true), ("1", true)] {
            assert_eq!(shelf.put("a", text(content), None), is_news);
            let version = shelf.get("a").unwrap().version;
            assert_eq!(versions.contains(&version), !is_news);
            versions.push(version);
        }
        shelf.want(BTreeSet::new());
        shelf.want(names(["a"]));
        assert!(!versions.contains(&shelf.get("a").unwrap().version));
    }

    #[test]
    fn table_and_secrets_may_come_and_go_in_either_order() {
        let mut shelf = Shelf::default();
        assert!(!shelf.put("a", text("1"), None), "nobody asked");
        shelf.list(names(["a"]));
        shelf.put("a", text("1"), None);
        shelf.want(names(["a"]));
        assert_eq!(content(&shelf, "a"), Some("1"));
        // The next table does not name it yet, and then does again.
        shelf.want(BTreeSet::new());
        shelf.want(names(["a"]));
        assert_eq!(content(&shelf, "a"), Some("1"));
        // Listed no more, and still in use.
        shelf.list(BTreeSet::new());
        assert_eq!(content(&shelf, "a"), Some("1"));
        assert!(shelf.want(BTreeSet::new()));
        assert_eq!(shelf.get("a"), None);
    }
}
