//! Recorded incidents: what each controller was told, and what it is to decide. `tidegate replay FILE --save-test
//! core/tests/incidents/NAME` adds one, see docs/flight-recorder.md.

use std::path::Path;

use tidegate_core::recording::{Recording, Replay};

#[test]
fn every_recorded_incident_is_decided_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incidents");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{}", folder.display());
    for path in paths {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let recording = Recording::read(&read(&path)).unwrap_or_else(|error| panic!("{name}.jsonl: {error}"));
        let (told, expected) = (Replay::story(recording), read(&path.with_extension("expected")));
        let first = told
            .lines()
            .map(Some)
            .chain(std::iter::repeat(None))
            .zip(expected.lines().map(Some).chain(std::iter::repeat(None)))
            .zip(1..)
            .take_while(|((a, b), _)| a.is_some() || b.is_some())
            .find(|((a, b), _)| a != b);
        if let Some(((now, before), line)) = first {
            panic!(
                "{name}: another decision at line {line} of {name}.expected:\n  expected {}\n  decided  {}\nIf that is meant: \
                 tidegate replay core/tests/incidents/{name}.jsonl --save-test core/tests/incidents/{name}",
                before.unwrap_or("nothing more"),
                now.unwrap_or("nothing more"),
            );
        }
    }
}
