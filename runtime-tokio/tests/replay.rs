//! The flight recorder from outside: a controller of the demo records, and its recording is replayed, cut and made a test.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod program;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use program::{output, tidegate};

/// A running demo, ended when it is dropped.
struct Demo {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    admin: String,
}

impl Demo {
    fn start(more: &[&str]) -> Demo {
        let mut child = tidegate(&["demo", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--rate", "1"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let admin = lines.by_ref().map(Result::unwrap).find_map(|line| {
            let (before, _) = line.split_once("/routes")?;
            Some(before.rsplit('/').next()?.to_owned())
        });
        let admin = admin.expect("the demo says where its admin listener is");
        Demo { child, lines, admin }
    }

    /// Waits for a line of the demo's story that has these words.
    fn wait_for(&mut self, words: &str) {
        let found = self.lines.by_ref().map(Result::unwrap).any(|line| line.contains(words));
        assert!(found, "the demo ended before {words:?}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn replay(path: &Path, more: &[&str]) -> (i32, String, String) {
    output(&[&["replay", path.to_str().unwrap()], more].concat())
}

#[test]
fn what_a_controller_records_is_replayed_and_made_a_test() {
    let mut demo = Demo::start(&["--record", "10m"]);
    demo.wait_for("scale shop");
    let (code, recording, error) = output(&["recording", "--admin", &demo.admin]);
    assert_eq!(code, 0, "{error}");
    let folder = tempfile::tempdir().unwrap();
    let whole = file(&folder, "whole.jsonl", &recording);

    let (code, text, error) = replay(&whole, &[]);
    assert_eq!(code, 0, "{text}{error}");
    for word in [
        "publish r1 ",
        "+ rule shop.example.org/",
        "then wait until",
        "all as recorded",
    ] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    let (_, everything, _) = replay(&whole, &["--all"]);
    assert!(everything.contains("ask for services") && everything.len() > text.len());
    let (code, json, _) = replay(&whole, &["--json"]);
    assert_eq!(code, 0);
    for line in json.lines() {
        let step: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(step["at"].is_u64() && step["decided"].is_array(), "{line}");
    }

    // Another decision than the recorded one.
    let other = file(
        &folder,
        "other.jsonl",
        &recording.replacen("publish r1 ", "publish r9 ", 1),
    );
    let (code, text, _) = replay(&other, &[]);
    assert_eq!(code, 1);
    assert!(
        text.contains("! publish r1 ") && text.contains("!   publish r9 "),
        "{text}"
    );
    assert!(text.contains("1 step differs"), "{text}");

    // A regression test, from the middle of it on.
    let name = folder.path().join("incidents/cut").display().to_string();
    let lines: Vec<&str> = recording.lines().collect();
    let middle: serde_json::Value = serde_json::from_str(lines[lines.len() / 2]).unwrap();
    let nanos = middle["at"].as_u64().unwrap();
    let since = format!("{}.{:09}s", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (code, _, error) = replay(&whole, &["--since", &since, "--save-test", &name]);
    assert_eq!(code, 0, "{error}");
    let saved = folder.path().join("incidents/cut.jsonl");
    let expected = std::fs::read_to_string(folder.path().join("incidents/cut.expected")).unwrap();
    let (code, text, error) = replay(&saved, &[]);
    assert_eq!(code, 0, "{text}{error}");
    assert!(text.contains("the state that it was in"), "{text}");
    let told = text.lines().filter(|line| !line.starts_with('#'));
    // Digests change with every new field of a spec, so a test goes without them.
    let told = told.map(|line| line.split("; digest ").next().unwrap());
    assert_eq!(told.collect::<Vec<_>>(), expected.lines().collect::<Vec<_>>());
    let (code, _, error) = replay(&whole, &["--since", "1000000s"]);
    assert!(code == 2 && error.contains("the recording goes from"), "{error}");

    // Files that are no whole recordings.
    let cut = &recording[..recording.len() - 20];
    let mut swapped = lines.clone();
    swapped.swap(2, lines.len() - 1);
    for (name, text, words) in [
        ("empty", String::new(), "line 1: the file is empty"),
        ("other", "rule shop\n".to_owned(), "line 1: this is no recording"),
        ("cut", cut.to_owned(), "was cut off in the middle of this line"),
        ("cut", cut.to_owned(), &format!("line {}: ", lines.len())),
        ("order", swapped.join("\n"), "line 4: this is earlier"),
        (
            "line",
            format!("{}\nnonsense\n", lines[0]),
            "line 2: this is no line of a recording",
        ),
        (
            "format",
            recording.replacen("\"tidegate_recording\":1", "\"tidegate_recording\":99", 1),
            "line 1: the recording has format 99",
        ),
        (
            "state",
            std::fs::read_to_string(&saved)
                .unwrap()
                .lines()
                .enumerate()
                .filter(|(index, _)| *index != 1)
                .map(|(_, line)| format!("{line}\n"))
                .collect(),
            "line 2: the state that the recording begins with is missing",
        ),
    ] {
        let (code, _, error) = replay(&file(&folder, name, &text), &[]);
        assert!(
            code == 2 && error.contains(words),
            "{name}: {words:?} is not in {error}"
        );
    }
    let (code, _, error) = replay(&folder.path().join("nowhere"), &[]);
    assert!(code == 2 && error.contains("cannot be read"), "{error}");
}

#[test]
fn a_controller_that_does_not_record_says_how_to_make_it() {
    let demo = Demo::start(&[]);
    let (code, _, error) = output(&["recording", "--admin", &demo.admin]);
    assert_eq!(code, 1);
    assert!(error.contains("--record 10m"), "{error}");
}

#[test]
fn a_wrong_time_is_refused_with_an_example() {
    let (code, _, error) = output(&["demo", "--record", "10"]);
    assert!(code == 2 && error.contains("10m"), "{error}");
    let (code, _, error) = output(&["replay", "x", "--since", "noon"]);
    assert!(code == 2 && error.contains("754.2s"), "{error}");
}
