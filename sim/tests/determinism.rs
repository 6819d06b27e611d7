//! The same seed of every scenario, twice, in processes of their own: the whole product with TLS, HTTP/2 and connection
//! reuse must live the same life, or no failing seed could be replayed. `SIM_SCENARIO` takes one of them alone.

use std::path::Path;
use std::process::{Command, Stdio};

use sim::{scenario, seed};

const SEED: u64 = 8;
/// Where a child leaves its trace.
const OUT: &str = "SIM_TRACE_FILE";

#[test]
fn the_same_seed_gives_the_same_trace_in_another_process() {
    if let Some(out) = std::env::var_os(OUT) {
        let mut text = String::new();
        let chosen = std::env::var("SIM_SCENARIO").ok();
        let is_chosen = |scenario: &&scenario::Scenario| chosen.as_deref().is_none_or(|name| name == scenario.name);
        assert!(
            scenario::ALL.iter().any(|scenario| is_chosen(&scenario)),
            "SIM_SCENARIO names none: {chosen:?}"
        );
        for scenario in scenario::ALL.iter().filter(is_chosen) {
            let report = seed::run(SEED, scenario.run).unwrap_or_else(|failure| panic!("{}", seed::describe(&failure)));
            let name = scenario.name;
            for line in report.lines {
                text.push_str(&format!("{name} {line}\n"));
            }
            text.push_str(&format!("{name} digest {:#x}\n", report.digest));
        }
        std::fs::write(out, text).unwrap();
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [first, second] = ["first", "second"]
        .map(|name| {
            let out = folder.join(format!("trace-{name}"));
            let this_test = [
                "the_same_seed_gives_the_same_trace_in_another_process",
                "--exact",
                "--nocapture",
            ];
            let child = Command::new(std::env::current_exe().unwrap())
                .args(this_test)
                .env(OUT, &out)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            (child, out)
        })
        .map(|(child, out)| {
            let ended = child.wait_with_output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            std::fs::read_to_string(out).unwrap()
        });
    let differing = first.lines().zip(second.lines()).enumerate().find(|(_, (a, b))| a != b);
    if let Some((number, (a, b))) = differing {
        panic!("the traces part at line {}:\n  {a}\n  {b}", number + 1);
    }
    assert_eq!(
        first.lines().count(),
        second.lines().count(),
        "one trace ends before the other"
    );
    assert!(first.lines().count() > 100, "there was something to compare");
}
