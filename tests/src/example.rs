//! The stack files of `deploy/examples/`, whose headers are commands to try: tests run them as they stand there.
//!
//! A line `#   curl …   # A … B` is a command and what its output has: A, further on B, whatever the case. A command
//! without such an answer is not run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::clock::{Look, wait_for};
use crate::command::command;
use crate::tidy;

/// For a command to have its answer, from the deployment of its stack on.
const LIMIT: Duration = Duration::from_secs(120);
/// Begins a line that is a command to try.
const COMMAND: &str = "#   curl ";
/// Between such a command and its answer.
const ANSWER: &str = "  # ";
/// Between two parts of an answer.
const FURTHER_ON: &str = " … ";

/// A stack file with its commands.
#[derive(Clone, Debug)]
pub struct Example {
    /// Its file.
    pub file: PathBuf,
    /// The commands of its header.
    pub tries: Vec<Try>,
}

/// A command to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// As one types it.
    pub command: String,
    /// What its output has, in this order.
    pub answer: Vec<String>,
}

impl Example {
    /// Reads `deploy/examples/NAME.yml`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(name: &str) -> Result<Example> {
        let file = folder().join(format!("{name}.yml"));
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let tries = tries(&text);
        Ok(Example { file, tries })
    }

    /// Runs each command in `folder`, with words of it replaced, e.g. `ANY-NODE` by an address, until it has its answer.
    ///
    /// # Errors
    /// If it never has.
    pub fn try_all(&self, folder: &Path, replace: &[(&str, &str)]) -> Result<()> {
        if self.tries.is_empty() {
            bail!("{} has no command to try", self.file.display());
        }
        for Try { command: line, answer } in &self.tries {
            let line = replace
                .iter()
                .fold(line.clone(), |line, (word, by)| line.replace(word, by));
            wait_for(&line, LIMIT, || {
                let output = command("sh").current_dir(folder).args(["-c", &line]).output();
                let text = match output {
                    Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
                    Err(error) => error.to_string(),
                };
                if has(&text, answer) {
                    Look::Holds(())
                } else {
                    Look::NotYet(format!("{text:?} instead of {answer:?}"))
                }
            })?;
        }
        Ok(())
    }
}

/// Where the examples are.
pub fn folder() -> PathBuf {
    tidy::root().join("deploy/examples")
}

fn tries(text: &str) -> Vec<Try> {
    let header = text.lines().take_while(|line| line.starts_with('#'));
    let lines = header.filter(|line| line.starts_with(COMMAND));
    lines
        .filter_map(|line| {
            let (command, answer) = line.trim_start_matches(['#', ' ']).split_once(ANSWER)?;
            Some(Try {
                command: command.trim().to_string(),
                answer: answer.trim().split(FURTHER_ON).map(String::from).collect(),
            })
        })
        .collect()
}

/// Whether the text has all parts in this order.
fn has(text: &str, parts: &[String]) -> bool {
    let text = text.to_lowercase();
    let mut rest = text.as_str();
    parts.iter().all(|part| {
        let found = rest.split_once(&part.to_lowercase());
        rest = found.map_or("", |(_, after)| after);
        found.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_with_an_answer_are_read_from_the_header_alone() {
        let text = "# What it is\n#\n#   docker stack deploy\n#   curl -H 'Host: a' http://X/#b   # 302 … location: /b\n\
                    #   curl http://later/\nversion: \"3.8\"\n#   curl http://body/   # no\n";
        let expected = Try {
            command: "curl -H 'Host: a' http://X/#b".into(),
            answer: vec!["302".into(), "location: /b".into()],
        };
        assert_eq!(tries(text), [expected]);
    }

    #[test]
    fn parts_of_an_answer_come_in_their_order() {
        let parts = ["302".to_string(), "Location: /b".to_string()];
        assert!(has("HTTP/1.1 302 Found\r\nlocation: /b\r\n", &parts));
        assert!(!has("location: /b\r\nHTTP/1.1 302 Found\r\n", &parts));
        assert!(has("", &[]));
    }

    #[test]
    fn every_example_says_how_to_deploy_it_and_is_in_the_docs() {
        let docs = fs::read_to_string(tidy::root().join("docs/use-cases.md")).unwrap();
        let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> = files
            .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        for name in &names {
            let text = fs::read_to_string(folder().join(name)).unwrap();
            let header: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
            let deploys = format!("examples/{name} ");
            assert!(
                header
                    .iter()
                    .any(|line| line.contains("docker stack deploy") && line.contains(&deploys)),
                "the header of {name} does not deploy it"
            );
            assert!(
                docs.contains(&format!("deploy/examples/{name}")),
                "docs/use-cases.md does not link {name}"
            );
        }
        assert!(names.len() > 10, "{names:?}");
    }
}
