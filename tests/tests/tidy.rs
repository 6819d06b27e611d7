//! The repository keeps its own rules: what no compiler or linter checks, and what a reader would otherwise have to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use e2e::tidy::{self, SourceFile, licence};
use serde_json::Value as Json;

/// Files over the limit of lines, each with the reason why it stays whole.
const LONG_FILES: [(&str, &str); 0] = [];
const LINES_MAX: usize = 600;
/// Tests are read one by one, so a file of nothing else may be longer.
const TEST_LINES_MAX: usize = 800;

/// The only tests that may sleep.
const SLEEPERS: [(&str, &str); 3] = [
    ("tests/src/bin/app.rs", "an application that answers slowly on purpose"),
    (
        "tests/src/clock.rs",
        "polls a real Swarm, which tells nobody when it is ready",
    ),
    ("tests/tests/tidy.rs", "names the word"),
];

/// Rows of docs/interlock.md that no test shows yet.
const NOT_SHOWN_YET: &[&str] = &[];

/// What this project is built on; the manifest need not say why.
const GIVEN: [&str; 8] = [
    "bollard", "hyper", "insta", "proptest", "rustls", "tokio", "tracing", "turmoil",
];

#[test]
fn every_select_is_biased() {
    let opening = concat!("select", "! {");
    let mut bad = Vec::new();
    for file in tidy::rust_files() {
        let code = file.code().replace(concat!("select", "!{"), opening);
        for (at, _) in code.match_indices(opening) {
            if !code[at + opening.len()..].trim_start().starts_with("biased;") {
                bad.push(format!("{}: {}", file.path, snippet(&code[at..])));
            }
        }
    }
    refuse(
        bad,
        "write `biased;` first: random branches make simulations differ from run to run",
    );
}

#[test]
fn tests_never_sleep_and_no_thread_does() {
    let allowed: BTreeMap<_, _> = SLEEPERS.into();
    let files = tidy::rust_files();
    let files = files.iter().filter(|file| !allowed.contains_key(file.path.as_str()));
    // The shell of the product may wait between two looks, by tokio's clock, which simulations turn.
    let mut bad = lines(files.clone(), &["thread::sleep"]);
    bad.extend(lines(
        files.filter_map(tests_of).collect::<Vec<_>>().iter(),
        &["time::sleep", " sleep("],
    ));
    refuse(
        bad,
        "wait for the event itself; tests that sleep are slow on good days and fail on bad ones",
    );
}

/// The part of a file that is tests.
fn tests_of(file: &SourceFile) -> Option<SourceFile> {
    let whole = ["tests/", "sim/"].iter().any(|folder| file.path.starts_with(folder)) || file.path.contains("/tests");
    if whole {
        return Some(file.clone());
    }
    let (product, tests) = file.text.split_once("#[cfg(test)]\nmod ")?;
    // Line numbers stay right.
    let text = "\n".repeat(product.lines().count()) + tests;
    Some(SourceFile {
        path: file.path.clone(),
        text,
    })
}

#[test]
fn nothing_is_left_to_do() {
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    refuse(lines(tidy::rust_files().iter(), &words), "finish it, or open an issue");
}

#[test]
fn files_stay_short_enough_to_read() {
    let allowed: BTreeMap<_, _> = LONG_FILES.into();
    let bad = tidy::rust_files().into_iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > lines_max(&file.path) && !allowed.contains_key(file.path.as_str()))
            .then(|| format!("{}: {lines} lines", file.path))
    });
    refuse(
        bad.collect(),
        "split off a part with a vocabulary of its own, or tests into a file beside it",
    );
}

fn lines_max(path: &str) -> usize {
    if path.ends_with("tests.rs") {
        TEST_LINES_MAX
    } else {
        LINES_MAX
    }
}

#[test]
fn every_exception_gives_its_reason() {
    let mut bad = Vec::new();
    for file in tidy::rust_files() {
        for (number, line) in file.lines_with(&[concat!("#[ign", "ore]")]) {
            bad.push(format!("{}:{number}: {line}", file.path));
        }
        let code = file.code();
        for opening in [
            concat!("#[exp", "ect("),
            concat!("#[al", "low("),
            concat!("#![al", "low("),
        ] {
            for (at, _) in code.match_indices(opening) {
                let attribute = code[at..].split_once(")]").map_or(&code[at..], |(inside, _)| inside);
                if !attribute.contains("reason") {
                    bad.push(format!("{}: {}", file.path, snippet(attribute)));
                }
            }
        }
    }
    refuse(bad, "add `reason = \"…\"` (for a test: `= \"…\"`)");
}

#[test]
fn every_chosen_dependency_says_why() {
    let manifest = read("Cargo.toml");
    let table = manifest
        .split_once("[workspace.dependencies]")
        .expect("the workspace lists its dependencies")
        .1;
    let table = table.split_once("\n[").map_or(table, |(inside, _)| inside);
    // A comment above a line, or behind it, or a group's comment above the whole paragraph is for people; only the
    // first two are looked for, so that each choice has its own word.
    let mut bad = Vec::new();
    for line in table.lines() {
        let Some((name, rest)) = line.split_once(" = ") else {
            continue;
        };
        let ours = rest.contains("path = ");
        if !ours && !GIVEN.contains(&name) && !EXPLAINED_BY_NAME.contains(&name) && !rest.contains('#') {
            bad.push(line.to_string());
        }
    }
    refuse(bad, "say in a few words behind it what the dependency is for");
}

/// Crates whose name says all: the parts of hyper's and serde's own families, and error derives.
const EXPLAINED_BY_NAME: [&str; 7] = [
    "http-body",
    "http-body-util",
    "serde",
    "serde_json",
    "tempfile",
    "thiserror",
    "tokio-rustls",
];

#[test]
fn dependency_arrows_point_to_core() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("tidegate-core", &[][..]),
        ("tidegate-docker", &["tidegate-core"][..]),
        ("tidegate", &["tidegate-core", "tidegate-docker"][..]),
        ("sim", &["tidegate-core", "tidegate"][..]),
        ("e2e", &[][..]), // it sees the product from outside, as a user does
    ]);
    let mut bad = Vec::new();
    for package in ours() {
        let name = text(&package, "name");
        let Some(may) = allowed.get(name.as_str()) else {
            bad.push(format!("{name} is a new package: draw its arrows here"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = text(dependency, "name");
            // Its tests hold Docker itself to what simulations rely on, through the product's own eyes.
            let is_contract = name == "e2e" && dependency["kind"] == "dev";
            if allowed.contains_key(to.as_str()) && to != name && !is_contract && !may.contains(&to.as_str()) {
                bad.push(format!("{name} depends on {to}"));
            }
        }
    }
    refuse(
        bad,
        "what decides goes to core, what waits to runtime-tokio, what speaks Docker to docker-source",
    );
}

#[test]
fn core_needs_no_operating_system() {
    let core = read("core/src/lib.rs");
    assert!(core.contains("#![no_std]"), "core/src/lib.rs has lost #![no_std]");
    let files = tidy::rust_files();
    let core = files.iter().filter(|file| file.path.starts_with("core/src/"));
    let outside_tests = core
        .filter(|file| !file.path.ends_with("tests.rs") && !file.path.contains("/testing/"))
        .map(|file| {
            let product = file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            SourceFile {
                path: file.path.clone(),
                text: product.to_string(),
            }
        });
    let outside_tests: Vec<SourceFile> = outside_tests.collect();
    refuse(
        lines(outside_tests.iter(), &["tokio::", "std::time::", "std::env::"]),
        "core decides and never waits: take what it needs as an argument",
    );
}

#[test]
fn no_path_of_a_machine_is_named() {
    let bad = tidy::files().into_iter().flat_map(|file| {
        let found = file.text.lines().enumerate().filter(|(_, line)| names_a_home(line));
        let named = found.map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim()));
        named.collect::<Vec<_>>()
    });
    refuse(bad.collect(), "a clone lies elsewhere on every machine");
}

/// The home of some user, standing at the start of a path.
fn names_a_home(line: &str) -> bool {
    ["home", "root", "Users", "work"].iter().any(|name| {
        let home = format!("/{name}/");
        line.match_indices(&home).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + home.len()..].chars().next();
            !before.is_some_and(|c| c.is_alphanumeric() || "-_.}*".contains(c))
                && after.is_some_and(char::is_alphabetic)
        })
    })
}

#[test]
fn the_readme_or_the_guides_name_every_role_of_the_command_line() {
    let cli = read("runtime-tokio/src/cli.rs");
    let roles = cli.split_once("pub enum Role {").expect("cli.rs lists the roles").1;
    let roles = roles.split_once("\n}").expect("the list ends").0.lines();
    let roles = roles
        .map(str::trim)
        .filter(|line| line.starts_with(char::is_uppercase)) // no comment, no attribute
        .filter_map(|line| line.split_once('('))
        .map(|(name, _)| name.to_lowercase());
    let written: String = tidy::files()
        .iter()
        .filter(|file| file.path.ends_with(".md"))
        .map(|file| &*file.text)
        .collect();
    let bad =
        roles.filter(|role| !written.contains(&format!("tidegate {role}")) && !written.contains(&format!("`{role}`")));
    refuse(bad.collect(), "a role that no page names is found by nobody");
}

#[test]
fn every_row_of_the_comparison_is_shown_by_a_test_that_exists() {
    let known: BTreeSet<String> = tidy::rust_files().iter().flat_map(tidy::functions).collect();
    let waiting: BTreeSet<&str> = NOT_SHOWN_YET.iter().copied().collect();
    let mut bad = Vec::new();
    let mut rows = 0;
    for page in ["docs/labels.md", "docs/interlock.md"] {
        for (row, shown) in tidy::shown_by(&read(page)) {
            rows += 1;
            let is_waiting = page == "docs/interlock.md" && waiting.contains(row.as_str());
            let missing: Vec<&String> = shown.iter().filter(|name| !known.contains(*name)).collect();
            match (shown.is_empty(), is_waiting) {
                (true, false) => bad.push(format!("{page}: {row}: no test is named")),
                (false, true) => bad.push(format!("{page}: {row}: has a test; take it out of NOT_SHOWN_YET")),
                (true, true) | (false, false) => {}
            }
            bad.extend(
                missing
                    .iter()
                    .map(|name| format!("{page}: {row}: there is no test {name}")),
            );
        }
    }
    assert!(rows > 100, "only {rows} rows were found");
    refuse(bad, "name the tests in core/src/labels/keys.rs or core/src/interlock/");
}

#[test]
fn every_licence_is_one_that_deny_toml_allows() {
    let deny = deny();
    let allowed: BTreeSet<String> = strings(&deny["licenses"]["allow"]).into_iter().collect();
    let mut bad = Vec::new();
    for package in foreign() {
        let (name, licence) = (text(&package, "name"), text(&package, "license"));
        match licence::is_met(&licence, &allowed) {
            Ok(true) => {}
            Ok(false) => bad.push(format!("{name}: {licence}")),
            Err(why) => bad.push(format!("{name}: {why}")),
        }
    }
    refuse(bad, "see [licenses] of deny.toml");
}

#[test]
fn no_dependency_is_one_that_deny_toml_bans() {
    let deny = deny();
    let banned: BTreeMap<String, String> = (deny["bans"]["deny"].as_array().expect("bans.deny is a list").iter())
        .map(|entry| {
            let field = |key: &str| {
                entry[key]
                    .as_str()
                    .unwrap_or_else(|| panic!("bans.deny has no {key}"))
                    .to_string()
            };
            (field("crate"), field("reason"))
        })
        .collect();
    let bad = foreign().into_iter().filter_map(|package| {
        let name = text(&package, "name");
        banned.get(&name).map(|why| format!("{name}: {why}"))
    });
    refuse(bad.collect(), "see [bans] of deny.toml");
}

#[test]
fn every_dependency_comes_from_crates_io() {
    let allowed = strings(&deny()["sources"]["allow-registry"]);
    let bad = foreign().into_iter().filter_map(|package| {
        let source = text(&package, "source");
        let known = allowed.iter().any(|registry| source == format!("registry+{registry}"));
        (!known).then(|| format!("{} from {source}", text(&package, "name")))
    });
    refuse(bad.collect(), "see [sources] of deny.toml");
}

// ---- reading ----------------------------------------------------------------------------------

fn refuse(bad: Vec<String>, remedy: &str) {
    assert!(bad.is_empty(), "{remedy}:\n  {}", bad.join("\n  "));
}

fn lines<'a>(files: impl Iterator<Item = &'a SourceFile>, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let with = file.lines_with(words).into_iter();
        found.extend(with.map(|(number, line)| format!("{}:{number}: {line}", file.path)));
    }
    found
}

fn snippet(text: &str) -> String {
    text.split_whitespace().take(8).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(tidy::root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

fn deny() -> toml::Table {
    read("deny.toml").parse().expect("deny.toml is TOML")
}

fn strings(list: &toml::Value) -> Vec<String> {
    let items = list.as_array().expect("this key of deny.toml is a list").iter();
    items
        .map(|item| item.as_str().expect("its items are texts").to_string())
        .collect()
}

#[test]
fn the_aliases_of_cargo_know_which_program_to_run() {
    for name in ["e2e", "sim"] {
        let package = ours().into_iter().find(|package| package["name"] == name);
        let package = package.expect("an alias names a package of ours");
        let is_program = |target: &&Json| target["kind"][0] == "bin";
        let programs = package["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(is_program)
            .count();
        assert!(
            programs == 1 || package["default_run"] == name,
            "cargo {name} has {programs} programs to choose from"
        );
    }
}

/// `cargo metadata` of the whole tree, for the platform that runs the tests.
fn metadata() -> &'static Json {
    static METADATA: OnceLock<Json> = OnceLock::new();
    METADATA.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--filter-platform", &platform])
            .current_dir(tidy::root())
            .output()
            .expect("cargo runs the tests, so it can be run");
        assert!(
            output.status.success(),
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("cargo metadata answers in JSON")
    })
}

fn packages() -> impl Iterator<Item = Json> {
    metadata()["packages"]
        .as_array()
        .cloned()
        .unwrap_or_default()
        .into_iter()
}

fn ours() -> Vec<Json> {
    let ours: Vec<Json> = packages().filter(|package| package["source"].is_null()).collect();
    assert!(ours.len() >= 5, "cargo metadata lost our own packages");
    ours
}

/// The packages of others that are built here.
fn foreign() -> Vec<Json> {
    let nodes = metadata()["resolve"]["nodes"].as_array().cloned().unwrap_or_default();
    let built: BTreeSet<String> = nodes.iter().map(|node| text(node, "id")).collect();
    let foreign = packages().filter(|package| !package["source"].is_null() && built.contains(&text(package, "id")));
    let foreign: Vec<Json> = foreign.collect();
    assert!(foreign.len() >= 20, "cargo metadata lost the dependencies");
    foreign
}

fn text(json: &Json, key: &str) -> String {
    json[key].as_str().unwrap_or_default().to_string()
}
