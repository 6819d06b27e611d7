//! What courier, controller and proxy say to each other about secrets: one JSON object a line, over the mutual TLS of the
//! control network. The only place where a content becomes part of a text.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Finding, SecretProblem, SecretText};
use crate::id::ProxyId;

/// One secret on its way: from a courier to a controller, and from there to proxies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// Its name.
    pub name: String,
    /// The last content that there was.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write",
        deserialize_with = "read"
    )]
    pub content: Option<SecretText>,
    /// Why there is none, or why it is not the present one. A reason that only a later version knows is read as
    /// [`SecretProblem::Unreadable`]: it concerns this secret and none of the others.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "read_problem")]
    pub problem: Option<SecretProblem>,
}

/// A line from a controller to a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The names of all secrets that the proxy's service cluster uses now, if they changed; the first line has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<BTreeSet<String>>,
    /// Secrets that are new or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Parcel>,
}

/// What a proxy found wrong with its secrets; the whole list each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who says so.
    pub proxy: ProxyId,
    /// What is wrong.
    pub findings: BTreeSet<Finding>,
}

fn write<S: Serializer>(content: &Option<SecretText>, serializer: S) -> Result<S::Ok, S::Error> {
    content.as_ref().map(SecretText::expose).serialize(serializer)
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretText>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretText::new))
}

fn read_problem<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretProblem>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(raw.map(|raw| {
        let known = serde_json::from_str(raw.get());
        known
            .unwrap_or_else(|_| SecretProblem::Unreadable(String::from("for a reason that only a later version knows")))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample::names;

    #[test]
    fn a_delivery_is_read_as_it_was_written_and_shows_no_content() {
        let delivery = Delivery {
            names: Some(names(["a", "b"])),
            secrets: Vec::from([
                Parcel {
                    name: String::from("a"),
                    content: Some(SecretText::new("hush\n\"")),
                    problem: Some(SecretProblem::Missing),
                },
                Parcel {
                    name: String::from("b"),
                    content: None,
                    problem: Some(SecretProblem::Unreadable(String::from("why"))),
                },
            ]),
        };
        let line = serde_json::to_string(&delivery).unwrap();
        insta::assert_snapshot!(line, @r#"{"names":["a","b"],"secrets":[{"name":"a","content":"hush\n\"","problem":"missing"},{"name":"b","problem":{"unreadable":"why"}}]}"#);
        assert_eq!(serde_json::from_str::<Delivery>(&line).unwrap(), delivery);
        assert!(!alloc::format!("{delivery:?}").contains("hush"));
    }

    #[test]
    fn what_a_later_version_says_of_one_secret_costs_no_other_one() {
        let line = r#"{"names":["a","b","c"],"weather":{"sky":"clear"},"secrets":[
            {"name":"a","content":"x","problem":{"too_old":{"days":3}},"seen":1},
            {"name":"b","problem":"sealed"},
            {"name":"c","content":"y","problem":null}]}"#;
        let delivery: Delivery = serde_json::from_str(line).unwrap();
        let later = || {
            Some(SecretProblem::Unreadable(String::from(
                "for a reason that only a later version knows",
            )))
        };
        let told = delivery.secrets.into_iter().map(|parcel| {
            let content = parcel.content.map(|content| String::from(content.expose()));
            (parcel.name, content, parcel.problem)
        });
        let expected = [("a", Some("x"), later()), ("b", None, later()), ("c", Some("y"), None)];
        let expected =
            expected.map(|(name, content, problem)| (String::from(name), content.map(String::from), problem));
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_report_of_a_later_version_is_read() {
        let report = r#"{"proxy":"p","weather":1,"findings":[{"secret":"a","problem":"x","remedy":"y","since":7}]}"#;
        let report: Report = serde_json::from_str(report).unwrap();
        assert_eq!(
            report.findings.into_iter().collect::<Vec<_>>(),
            [Finding::new("a", "x", "y")]
        );
    }
}
