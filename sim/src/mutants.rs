//! Faults planted one at a time into a copy of the sources, to see whether the suite notices. What nobody notices is a
//! gap in the suite, not in the product.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use serde::Deserialize;

use crate::scenario::ALL;

/// For the first build, which may be of everything.
const FIRST_LIMIT: Duration = Duration::from_secs(7200);
/// For a build.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// For core's tests, which take half a minute, and which a fault may keep from ending.
const TESTS_LIMIT: Duration = Duration::from_secs(240);
/// For one simulation; they take a second or two.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// How the planted faults are looked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Only these, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seeds of each scenario before a fault counts as unnoticed.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Who looks: `all` asks the tests of core first and then simulations, `sim` simulations alone.
    #[arg(long, default_value = "all")]
    suite: Suite,
    /// Where the copy is built; a folder that holds an older build saves the first one.
    #[arg(long, default_value = "target/mutants")]
    scratch: PathBuf,
    /// Goes on with a hunt that was broken off: what it caught is not hunted again.
    #[arg(long = "continue")]
    go_on: bool,
    /// Says which faults there are.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    All,
    Sim,
}

/// One fault.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// What would go wrong, as an operator would see it.
    pub about: String,
    /// The file.
    pub file: String,
    /// A text that is there exactly once.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
    /// The scenario that is asked first.
    #[serde(default)]
    pub first: Option<String>,
}

#[derive(Deserialize)]
struct Catalogue {
    mutant: Vec<Mutant>,
}

/// All planted faults.
///
/// # Panics
/// If the list cannot be read; a test reads it.
pub fn all() -> Vec<Mutant> {
    let catalogue: Catalogue = toml::from_str(include_str!("../mutants.toml")).expect("a test reads it");
    catalogue.mutant
}

/// Plants faults; true if each was noticed.
///
/// # Errors
/// If there is no such fault, or the copy cannot be made or built.
#[expect(clippy::disallowed_methods, reason = "a person waits for this hunt")]
pub fn run(options: &Options) -> Result<bool, String> {
    let mutants: Vec<Mutant> = all()
        .into_iter()
        .filter(|mutant| options.only.is_empty() || options.only.contains(&mutant.name))
        .collect();
    if options.list || mutants.is_empty() {
        for mutant in all() {
            println!("{:<32} {}", mutant.name, mutant.about);
        }
        return Ok(options.list);
    }
    let tree = options.scratch.join("tree");
    copy_sources(&tree).map_err(|error| format!("cannot copy the sources to {}: {error}", tree.display()))?;
    let notes = options
        .scratch
        .join(format!("caught-{:?}", options.suite).to_lowercase());
    let before = match options.go_on {
        true => fs::read_to_string(&notes).unwrap_or_default(),
        false => String::new(),
    };
    let mut noted = before.clone();
    let (mut alive, mut broken) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    // A suite that fails without a fault would seem to catch every one.
    match hunt(None, options.seeds, options, &tree, FIRST_LIMIT)? {
        Found::Alive => println!("without a fault the suite holds, {} s", begun.elapsed().as_secs()),
        Found::Caught(by) => return Err(format!("the suite fails without any fault: {by}")),
        Found::Broken(text) => return Err(format!("without any fault: {text}")),
    }
    for (done, mutant) in mutants.iter().enumerate() {
        let place = format!("{}/{}", done + 1, mutants.len());
        if let Some(line) = caught_before(&before, &mutant.name) {
            println!("{place:>5} before  {line}");
            continue;
        }
        let started = Instant::now();
        let path = tree.join(&mutant.file);
        let whole = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", mutant.file))?;
        let planted = plant(mutant, &whole)?;
        fs::write(&path, planted).map_err(|error| format!("{}: {error}", mutant.file))?;
        let found = hunt(mutant.first.as_deref(), options.seeds, options, &tree, BUILD_LIMIT);
        fs::write(&path, whole).map_err(|error| format!("{}: {error}", mutant.file))?;
        let seconds = started.elapsed().as_secs();
        match found? {
            Found::Caught(by) => {
                let line = format!("caught  {:<32} {seconds:>4} s  {by}", mutant.name);
                println!("{place:>5} {line}");
                noted.push_str(&format!("{line}\n"));
                fs::write(&notes, &noted).map_err(|error| format!("{}: {error}", notes.display()))?;
            }
            Found::Alive => {
                println!(
                    "{place:>5} ALIVE   {:<32} {seconds:>4} s  {}",
                    mutant.name, mutant.about
                );
                alive.push(mutant.name.as_str());
            }
            Found::Broken(text) => {
                println!("{place:>5} BROKEN  {:<32} {seconds:>4} s  {text}", mutant.name);
                broken.push(mutant.name.as_str());
            }
        }
    }
    let named = |what: &str, names: &[&str]| match names {
        [] => String::new(),
        names => format!("; {what}: {}", names.join(", ")),
    };
    println!(
        "{} of {} planted faults were caught in {} s{}{}",
        mutants.len() - alive.len() - broken.len(),
        mutants.len(),
        begun.elapsed().as_secs(),
        named("alive", &alive),
        named("not built", &broken)
    );
    Ok(alive.is_empty() && broken.is_empty())
}

/// What an earlier hunt noted of a fault that it caught.
fn caught_before<'a>(notes: &'a str, name: &str) -> Option<&'a str> {
    notes.lines().find(|line| line.split_whitespace().nth(1) == Some(name))
}

fn plant(mutant: &Mutant, whole: &str) -> Result<String, String> {
    match whole.matches(mutant.find.as_str()).count() {
        1 => Ok(whole.replacen(&mutant.find, &mutant.replace, 1)),
        count => Err(format!(
            "{}: its text is {count} times in {}, and must be there once",
            mutant.name, mutant.file
        )),
    }
}

/// Who notices: the cheapest first.
fn hunt(first: Option<&str>, seeds: u64, options: &Options, tree: &Path, limit: Duration) -> Result<Found, String> {
    let target = std::path::absolute(options.scratch.join("target")).map_err(|error| error.to_string())?;
    let cargo = |arguments: &[&str], limit| {
        let command = [&["cargo"], arguments].concat();
        ended(&command, tree, limit, &[("CARGO_TARGET_DIR", &target)])
    };
    if options.suite == Suite::All {
        let tests = ["test", "-q", "-p", "tidegate-core"];
        let (end, text) = cargo(&[&tests[..], &["--no-run"]].concat(), limit)?;
        if end != End::Held {
            return Ok(Found::Broken(not_built(end, &text, limit)));
        }
        let (end, text) = cargo(&tests, TESTS_LIMIT)?;
        let test = text.lines().find_map(|line| line.strip_suffix(" --- FAILED"));
        match end {
            End::Held => {}
            End::Failed => return Ok(Found::Caught(format!("core's test {}", test.unwrap_or("suite")))),
            End::Never => {
                let limit = TESTS_LIMIT.as_secs();
                return Ok(Found::Caught(format!("core's tests: not over after {limit} s")));
            }
        }
    }
    let build = [
        "build",
        "--profile",
        "sim",
        "-p",
        "sim",
        "--message-format",
        "json-render-diagnostics",
    ];
    let (end, text) = cargo(&build, limit)?;
    let Some(program) = executable(&text).filter(|_| end == End::Held) else {
        return Ok(Found::Broken(not_built(end, &text, limit)));
    };
    // The scenario that should notice, seed by seed, and then all of them; as many at once as there are processors.
    let others = ALL.iter().map(|scenario| scenario.name);
    let first = first
        .iter()
        .flat_map(|first| (1..=seeds).map(move |seed| (*first, seed)));
    let all = (1..=seeds).flat_map(|seed| others.clone().map(move |name| (name, seed)));
    let runs: Vec<(&str, u64)> = first.chain(all).collect();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    for (chunk, runs) in runs.chunks(processors).enumerate() {
        let simulate = |(scenario, seed): &(&str, u64)| {
            let seed = seed.to_string();
            ended(
                &[&program, "run", "--scenario", scenario, "--seed", &seed],
                tree,
                RUN_LIMIT,
                &[],
            )
        };
        let results: Vec<_> = thread::scope(|scope| {
            let started: Vec<_> = runs.iter().map(|run| scope.spawn(move || simulate(run))).collect();
            let ended = started.into_iter().map(|thread| thread.join());
            ended
                .map(|result| result.expect("it only waits for a program"))
                .collect()
        });
        for (number, ((scenario, seed), result)) in runs.iter().zip(results).enumerate() {
            let (end, text) = result?;
            let why = match end {
                End::Held => continue,
                End::Never => format!("not over after {} s", RUN_LIMIT.as_secs()),
                End::Failed => {
                    let broken = text.lines().find_map(|line| line.strip_prefix("  broken: "));
                    broken.unwrap_or("it ends").chars().take(90).collect()
                }
            };
            let run = chunk * processors + number + 1;
            return Ok(Found::Caught(format!("{scenario}, seed {seed}, run {run}: {why}")));
        }
    }
    Ok(Found::Alive)
}

/// What became of a planted fault.
enum Found {
    /// Nobody noticed.
    Alive,
    /// There is no program to ask, so it says nothing of the suite.
    Broken(String),
    /// Who noticed.
    Caught(String),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Held,
    Failed,
    /// It had to be ended.
    Never,
}

/// Runs a command to its end, or to the limit; with everything that it printed.
fn ended(
    command: &[&str],
    folder: &Path,
    limit: Duration,
    variables: &[(&str, &Path)],
) -> Result<(End, String), String> {
    let output = Command::new("timeout")
        .arg(limit.as_secs().to_string())
        .args(command)
        .current_dir(folder)
        .env("RUST_BACKTRACE", "0")
        .envs(variables.iter().copied())
        .output()
        .map_err(|error| format!("timeout (of coreutils): {error}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let end = match output.status.code() {
        Some(0) => End::Held,
        Some(124) => End::Never,
        Some(_) | None => End::Failed,
    };
    Ok((end, text))
}

/// Why there is no program, without cargo's messages for machines.
fn not_built(end: End, text: &str, limit: Duration) -> String {
    if end == End::Never {
        return format!("it is not built after {} s", limit.as_secs());
    }
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('{')).collect();
    format!("it does not compile:\n{}", lines.join("\n"))
}

/// The program in cargo's messages.
fn executable(messages: &str) -> Option<String> {
    let mut found = messages.lines().filter_map(|line| {
        let rest = &line[line.find("\"executable\":\"")? + 14..];
        Some(rest.split('"').next()?.to_owned())
    });
    found.next_back()
}

/// The files that git knows, as they are now; only those that differ are written, so cargo builds only what must be.
fn copy_sources(tree: &Path) -> io::Result<()> {
    let listed = Command::new("git").args(["ls-files", "-z"]).output()?;
    for file in String::from_utf8_lossy(&listed.stdout)
        .split('\0')
        .filter(|file| !file.is_empty())
    {
        let to = tree.join(file);
        let Ok(content) = fs::read(file) else { continue };
        if fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(to, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_hunt_goes_on_after_what_it_caught() {
        let notes =
            "caught  lost-ack   12 s  core's test a\ncaught  empty-list  3 s  routing, seed 1, run 1: lost-answer\n";
        let line = |name| caught_before(notes, name);
        assert_eq!(line("lost-ack"), Some("caught  lost-ack   12 s  core's test a"));
        assert_eq!(line("lost"), None);
        assert_eq!(line("lost-answer"), None, "only the name counts");
    }

    #[test]
    fn a_slow_build_is_not_called_a_broken_one() {
        let text = "{\"reason\":\"compiler-artifact\"}\nerror[E0308]: mismatched types";
        let why = |end| not_built(end, text, Duration::from_secs(900));
        assert_eq!(why(End::Never), "it is not built after 900 s");
        assert_eq!(why(End::Failed), "it does not compile:\nerror[E0308]: mismatched types");
    }

    #[test]
    fn every_planted_fault_still_finds_its_place() {
        let mutants = all();
        assert!(mutants.len() >= 25, "{}", mutants.len());
        let names: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.name.as_str()).collect();
        assert_eq!(names.len(), mutants.len(), "names are unique");
        for mutant in &mutants {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&mutant.file);
            let whole = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", mutant.file));
            let planted = plant(mutant, &whole).unwrap_or_else(|error| panic!("{error}"));
            assert_ne!(planted, whole, "{}", mutant.name);
            if let Some(first) = &mutant.first {
                assert!(ALL.iter().any(|scenario| scenario.name == first), "{first}");
            }
        }
    }
}
