//! Faults planted one at a time into a copy of the sources, to see whether the suite notices. What nobody notices is a
//! gap in the suite, not in the product.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use serde::Deserialize;

use crate::scenario::ALL;

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
    let mut alive = Vec::new();
    for mutant in &mutants {
        let path = tree.join(&mutant.file);
        let whole = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", mutant.file))?;
        let planted = plant(mutant, &whole)?;
        fs::write(&path, planted).map_err(|error| format!("{}: {error}", mutant.file))?;
        let caught = hunt(mutant, options, &tree);
        fs::write(&path, whole).map_err(|error| format!("{}: {error}", mutant.file))?;
        match caught? {
            Some(by) => println!("caught  {:<32} {by}", mutant.name),
            None => {
                println!("ALIVE   {:<32} {}", mutant.name, mutant.about);
                alive.push(mutant.name.as_str());
            }
        }
    }
    println!(
        "{} of {} planted faults were caught",
        mutants.len() - alive.len(),
        mutants.len()
    );
    Ok(alive.is_empty())
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
fn hunt(mutant: &Mutant, options: &Options, tree: &Path) -> Result<Option<String>, String> {
    let target = std::path::absolute(options.scratch.join("target")).map_err(|error| error.to_string())?;
    let cargo = |arguments: &[&str]| -> Result<(bool, String), String> {
        let output = Command::new("cargo")
            .args(arguments)
            .current_dir(tree)
            .env("CARGO_TARGET_DIR", &target)
            .env("RUST_BACKTRACE", "0")
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), text))
    };
    if options.suite == Suite::All {
        let (passed, text) = cargo(&["test", "-q", "-p", "tidegate-core", "--lib"])?;
        if text.contains("could not compile") {
            return Err(format!("{} does not compile:\n{text}", mutant.name));
        }
        if !passed {
            let test = text.lines().find_map(|line| line.strip_suffix(" --- FAILED"));
            return Ok(Some(format!("core's test {}", test.unwrap_or("suite"))));
        }
    }
    let (built, text) = cargo(&["build", "-q", "--profile", "sim", "-p", "sim"])?;
    if !built {
        return Err(format!("{} does not compile:\n{text}", mutant.name));
    }
    let mut scenarios: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
    scenarios.sort_by_key(|name| mutant.first.as_deref() != Some(name));
    for seed in 1..=options.seeds {
        for scenario in &scenarios {
            let seed = seed.to_string();
            let run = ["run", "-q", "--profile", "sim", "-p", "sim", "--", "run", "--scenario"];
            let (held, text) = cargo(&[&run[..], &[*scenario, "--seed", &seed]].concat())?;
            if !held {
                let broken = text.lines().find_map(|line| line.trim().strip_prefix("broken: "));
                let broken: String = broken.unwrap_or("it ends").chars().take(90).collect();
                return Ok(Some(format!("{scenario}, seed {seed}: {broken}")));
            }
        }
    }
    Ok(None)
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
