//! `tidegate import interlock`: whole files as snapshots, and a test for each option, named after it.
//!
//! After a change that is meant, run `INSTA_UPDATE=always cargo test -p tidegate-core` and read the difference.

#[path = "interlock/config_option_tests.rs"]
mod config_option_tests;
#[path = "interlock/option_tests.rs"]
mod option_tests;

use std::fmt::Write as _;
use std::path::Path;

use tidegate_core::interlock::import;
use tidegate_core::settings::{Layer, load};

fn check(name: &str, is_broken: bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/interlock/{name}.toml"));
    let text = std::fs::read_to_string(&path).expect("the file exists");
    let imported = import(&text).expect("it is TOML");
    let mut out = String::new();
    for line in &imported.report {
        writeln!(out, "{name}.toml:{line}").expect("a String takes all");
    }
    write!(out, "\n{}", imported.settings).expect("a String takes all");
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, out) });
    assert_eq!(imported.loses(), is_broken);
    let (_, findings) = load(&[Layer::File("imported.toml", &imported.settings)]);
    let wrong = findings.iter().any(|finding| finding.is_error || !is_broken);
    assert!(!wrong, "our own file has findings: {findings:#?}");
    // Every line of the file that has a key is answered.
    let answered: Vec<usize> = imported.report.iter().map(|line| line.line).collect();
    for (number, line) in (1..).zip(text.lines()) {
        let is_option = line.trim().contains(" = ") && !line.trim_start().starts_with(['#', '"']);
        assert!(
            !is_option || answered.contains(&number),
            "{name}.toml:{number} is not answered: {line}"
        );
    }
}

#[test]
fn the_file_that_ucp_makes_is_carried_without_loss() {
    check("stock", false);
}

#[test]
fn the_file_of_ucp_3_2_3_is_carried_without_loss() {
    check("stock_3_2_3", false);
}

#[test]
fn each_extension_becomes_a_service_cluster() {
    check("two_clusters", false);
}

#[test]
fn what_cannot_be_carried_is_named_line_by_line() {
    check("broken", true);
}

#[test]
fn what_is_no_toml_says_where() {
    let error = import("ListenAddr = \":8080\"\n[Extensions\n").unwrap_err();
    assert!(error.starts_with("line 2: "), "{error}");
}

#[test]
fn row_40_directives_are_read_or_named_and_none_is_dropped() {
    let file = "[Extensions.default]\nTemplate = \"mine\"\n[Extensions.default.Config]\n\
                HTTPOptions = [\"client_max_body_size 8m; underscores_in_headers on;\", \"limit_req zone=a\"]\n\
                GlobalOptions = [\"worker_rlimit_nofile 1000;\"]\nTCPOptions = [\"mystery on;\"]\n";
    let imported = import(file).unwrap();
    for key in [
        "body_bytes_max = 8388608",
        "underscores_in_headers = true",
        "open_files_max = 1000",
    ] {
        assert!(imported.settings.contains(key), "{}", imported.settings);
    }
    let lost: Vec<String> = imported
        .report
        .iter()
        .map(ToString::to_string)
        .filter(|line| line.contains("LOST"))
        .collect();
    assert_eq!(lost.len(), 3, "{lost:#?}");
    assert!(
        lost[0].contains("Template") && lost[1].contains("`limit_req zone=a`") && lost[2].contains("`mystery on`"),
        "{lost:#?}"
    );
}

#[test]
fn row_41_unknown_keys_are_named_and_keys_have_no_case() {
    let imported =
        import("pOLLINTERVAL = \"5s\"\n[EXTENSIONS.default]\nproxyreplicas = 4\nProxyReplica = 1\n").unwrap();
    assert!(imported.settings.contains("poll_tasks_ms = 5000") && imported.settings.contains("replicas = 4"));
    let last = imported.report.last().unwrap();
    assert!(
        last.line == 4 && last.said.contains("did you mean ProxyReplicas?"),
        "{last}"
    );
}

#[test]
fn row_50_a_connect_timeout_of_the_file_is_kept_and_400_ms_hold_without_one() {
    let config = |text: &str| {
        import(&format!("[Extensions.default.Config]\n{text}\n"))
            .unwrap()
            .settings
    };
    assert!(config("ConnectTimeout = 5").contains("connect_timeout_ms = 5000"));
    assert!(config("ConnectTimeout = 600").contains("connect_timeout_ms = 600000"));
    let (settings, _) = load(&[Layer::File("imported.toml", &config(""))]);
    let default = settings.clusters.values().next().expect("one cluster");
    assert_eq!(default.proxy.connect_timeout_ms, 400);
}
