//! `tidegate demo`: its command line, and that its story loses nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::TcpListener;
use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("demo")
        .args(arguments)
        .output()
        .unwrap();
    let Output { status, stdout, stderr } = output;
    let said = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    (status.code(), said.concat())
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let (code, said) = demo(&["--http", &taken, "--admin", "127.0.0.1:0"]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains(&taken) && said.contains("choose another with --http"),
        "{said}"
    );
    let (code, said) = demo(&["--http", "127.0.0.1:0", "--admin", &taken]);
    assert_eq!(code, Some(2));
    assert!(said.contains("choose another with --admin"), "{said}");
}

#[test]
fn the_story_is_told_once_without_a_lost_request() {
    let (code, said) = demo(&["--once", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(code, Some(0), "{said}");
    let figure = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse::<u64>().ok())
            .unwrap_or_else(|| panic!("no {name} in\n{said}"))
    };
    assert_eq!(figure("failed"), 0, "{said}");
    assert!(figure("requests") > 1_000, "{said}");
}

#[test]
fn one_port_for_both_listeners_is_refused() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let (code, said) = demo(&["--http", &free, "--admin", &free]);
    assert_eq!(code, Some(2));
    assert!(said.contains("--http and --admin both say port"), "{said}");
}
