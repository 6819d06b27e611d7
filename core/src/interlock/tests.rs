//! `docs/interlock.md`, made of the same tables as the code.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use super::decisions::DECISIONS;
use super::matrix::CELLS;
use super::options::{OPTIONS, Scope};
use crate::labels::keys::{LABELS, Support};

/// What a row without a test says; `tests/tests/tidy.rs` lists the rows that may.
const NOT_SHOWN: &str = "not yet";

fn shown_by(tests: &[&str]) -> String {
    if tests.is_empty() {
        return NOT_SHOWN.into();
    }
    let names: Vec<String> = tests.iter().map(|name| format!("`{name}`")).collect();
    names.join(" ")
}

fn labels() -> String {
    let mut out = String::from("| label | Tidegate | shown by |\n|---|---|---|\n");
    for label in LABELS.iter().filter(|label| label.interlock) {
        let how = match label.support {
            Support::Hint => "accepted; what it asks for is always so",
            Support::Honoured => "honoured",
        };
        let name = label.name;
        writeln!(out, "| [`{name}`](labels.md#{name}) | {how} | `{}` |", label.test).expect("a String takes all");
    }
    out
}

fn options() -> String {
    let mut out = String::new();
    for (scope, title) in [
        (Scope::Core, "Core"),
        (Scope::Extension, "`[Extensions.NAME]`"),
        (Scope::Nginx, "`[Extensions.NAME.Config]`, NGINX"),
        (Scope::Haproxy, "`[Extensions.NAME.Config]`, HAProxy alone"),
    ] {
        writeln!(out, "### {title}\n\n| option | Tidegate | shown by |\n|---|---|---|").expect("a String takes all");
        for row in OPTIONS.iter().filter(|row| row.scope == scope) {
            writeln!(out, "| `{}` | {} | `{}` |", row.name, row.ours, row.test).expect("a String takes all");
        }
        out.push('\n');
    }
    out.pop();
    out
}

fn matrix() -> String {
    let mut out = String::from("| together | Interlock | Tidegate | shown by |\n|---|---|---|---|\n");
    for cell in CELLS {
        let (first, second) = (cell.first, cell.second);
        let shown = shown_by(cell.tests);
        writeln!(
            out,
            "| {first} + {second} | {} | {} | {shown} |",
            cell.interlock, cell.tidegate
        )
        .expect("a String takes all");
    }
    out
}

fn decisions() -> String {
    let mut out = String::from("| row | question | Tidegate | shown by |\n|---|---|---|---|\n");
    for row in DECISIONS {
        let shown = shown_by(row.tests);
        writeln!(out, "| {} | {} | {} | {shown} |", row.row, row.question, row.answer).expect("a String takes all");
    }
    out
}

#[test]
fn the_page_says_what_the_tables_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/interlock.md");
    let written = std::fs::read_to_string(path).expect("docs/interlock.md exists");
    let mut expected = written.clone();
    for (name, table) in [
        ("labels", labels()),
        ("options", options()),
        ("matrix", matrix()),
        ("decisions", decisions()),
    ] {
        let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
        let from = expected
            .find(&begin)
            .unwrap_or_else(|| panic!("docs/interlock.md has {begin:?}"))
            + begin.len();
        let to = expected
            .find(&end)
            .unwrap_or_else(|| panic!("docs/interlock.md has {end:?}"));
        expected.replace_range(from..to, &format!("\n{table}\n"));
    }
    if written != expected && std::env::var_os("INSTA_UPDATE").is_some() {
        std::fs::write(path, expected).expect("docs/interlock.md can be written");
        return;
    }
    assert!(
        written == expected,
        "docs/interlock.md differs from the tables; run INSTA_UPDATE=always cargo test -p tidegate-core"
    );
}

#[test]
fn rows_are_in_order_and_their_tests_bear_their_names() {
    let rows: Vec<u8> = DECISIONS.iter().map(|row| row.row).collect();
    assert_eq!(rows, (1..=51).collect::<Vec<u8>>());
    for row in DECISIONS {
        for test in row.tests {
            assert!(test.starts_with(&format!("row_{:02}_", row.row)), "{test}");
        }
    }
    let cells: BTreeSet<(&str, &str)> = CELLS.iter().map(|cell| (cell.first, cell.second)).collect();
    assert_eq!(cells.len(), CELLS.len());
    for cell in CELLS {
        for test in cell.tests {
            assert!(
                test.starts_with(&format!("matrix_{}_{}_", cell.first, cell.second)),
                "{test}"
            );
        }
    }
}

#[test]
fn options_are_named_once_and_their_tests_after_them() {
    let mut names = BTreeSet::new();
    for row in OPTIONS {
        let snake = snake(row.name);
        assert!(
            row.test.starts_with(&format!("option_{snake}_")),
            "{}: {} is not option_{snake}_…",
            row.name,
            row.test
        );
        assert!(names.insert((
            row.scope >= Scope::Nginx,
            row.scope == Scope::Extension,
            row.name.to_ascii_lowercase()
        )));
    }
}

/// `ProxyStopSignal` as `proxy_stop_signal`, `TLSCACert` as `tls_ca_cert`.
fn snake(name: &str) -> String {
    let known = [
        ("TLSCACert", "tls_ca_cert"),
        ("HTTPVersion", "http_version"),
        ("RLimitNoFile", "r_limit_no_file"),
    ];
    if let Some((_, snake)) = known.iter().find(|(known, _)| *known == name) {
        return (*snake).into();
    }
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, c) in letters.iter().enumerate() {
        let after_lower = at > 0 && letters[at - 1].is_ascii_lowercase();
        let ends_word =
            at > 0 && letters[at - 1].is_ascii_uppercase() && letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        if c.is_ascii_uppercase() && (after_lower || ends_word) {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
