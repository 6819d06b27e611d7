//! The command line of `tidegate demo`. That `demo --once` loses nothing is a stage of `.ci/run`, on a release build.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::TcpListener;
use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("demo")
        .args(arguments)
        .output()
        .unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
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
