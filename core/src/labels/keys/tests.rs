//! The table of labels, its documentation, and what is no label.

use super::*;
use crate::labels::reference::reference_markdown;

#[test]
fn labels_are_sorted_and_documented() {
    assert!(LABELS.is_sorted_by_key(|label| label.name));
    for label in LABELS {
        assert!(
            !label.meaning.is_empty() && !label.when_wrong.is_empty(),
            "{}",
            label.name
        );
        assert!(
            label.support != Support::Honoured || !label.example.is_empty(),
            "{}",
            label.name
        );
        assert!(split(&format!("{PREFIX}{}", label.name)).is_some(), "{}", label.name);
        assert!(
            label.test.starts_with(&format!("label_{}_", label.name)),
            "{}: name the test that shows it, label_{0}_…",
            label.name
        );
    }
}

#[test]
fn labels_of_our_own_services_are_no_route_labels() {
    for key in [
        "tidegate.role",
        "tidegate.cluster",
        "tidegate.applied",
        "tidegate.identity",
        "tidegate.identity.ca",
    ] {
        assert_eq!(split(key), None, "{key}");
    }
    assert_eq!(split("com.example.hosts"), None);
    assert_eq!(split("tidegate.hosts"), Some((PREFIX, "hosts")));
}

#[test]
fn the_documentation_lists_every_label_as_the_code_has_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/labels.md");
    let written = std::fs::read_to_string(path).expect("docs/labels.md exists");
    let (begin, end) = ("<!-- labels: begin -->\n\n", "<!-- labels: end -->\n");
    let (before, rest) = written
        .split_once(begin)
        .expect("docs/labels.md has the mark of the begin");
    let (table, after) = rest.split_once(end).expect("docs/labels.md has the mark of the end");
    let expected = reference_markdown();
    if table != expected && std::env::var_os("INSTA_UPDATE").is_some() {
        std::fs::write(path, format!("{before}{begin}{expected}{end}{after}")).expect("docs/labels.md can be written");
        return;
    }
    assert!(
        table == expected,
        "docs/labels.md differs from LABELS; run INSTA_UPDATE=always cargo test -p tidegate-core"
    );
}
