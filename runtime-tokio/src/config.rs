//! Settings from file, environment and flags: reads what is there and lets core judge it.

use std::fmt::Write as _;

use tidegate_core::settings::{Layer, Settings, load};

use crate::cli::SettingsArgs;

/// Prefix of environment variables; `TIDEGATE_CLUSTERS__DEFAULT__HTTP_PORT` is `clusters.default.http_port`.
const SECTIONS: [&str; 2] = ["TIDEGATE_CONTROLLER__", "TIDEGATE_CLUSTERS__"];

/// Reads all layers. Words of advice are logged.
///
/// # Errors
/// All that is wrong, a line each, for the operator: the process should not start with half of its settings.
pub fn settings(args: &SettingsArgs, environment: impl Iterator<Item = (String, String)>) -> Result<Settings, String> {
    let file = match &args.config {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("error: {}: cannot be read: {error}; mend --config", path.display()))?;
            Some((path.display().to_string(), text))
        }
    };
    let variables = from_environment(environment);
    let mut flags = Vec::new();
    for text in &args.set {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("error: --set {text}: write KEY=VALUE, as in clusters.default.http_port=8080"))?;
        flags.push((key, value));
    }
    let mut layers = Vec::new();
    layers.extend(file.iter().map(|(name, text)| Layer::File(name, text)));
    layers.extend(variables.iter().map(|(name, key, value)| Layer::Key(name, key, value)));
    layers.extend(flags.iter().map(|(key, value)| Layer::Key("--set", key, value)));
    let (settings, findings) = load(&layers);
    let mut wrong = String::new();
    for finding in findings {
        if finding.is_error {
            writeln!(wrong, "{finding}").map_err(|error| error.to_string())?;
        } else {
            tracing::warn!("{finding}");
        }
    }
    if wrong.is_empty() {
        Ok(settings)
    } else {
        Err(wrong.trim_end().to_owned())
    }
}

/// Variables that are keys, sorted by name: the name, the dotted key, the value. Names are upper case, keys lower; a
/// dash in the name of a service cluster is written as it is.
fn from_environment(environment: impl Iterator<Item = (String, String)>) -> Vec<(String, String, String)> {
    let mut found: Vec<(String, String, String)> = environment
        .filter(|(name, _)| SECTIONS.iter().any(|section| name.starts_with(section)))
        .map(|(name, value)| {
            let key = name.trim_start_matches("TIDEGATE_").to_lowercase().replace("__", ".");
            (name, key, value)
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::id::ClusterName;

    fn args(set: &[&str]) -> SettingsArgs {
        SettingsArgs {
            config: None,
            set: set.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn flags_win_over_environment() {
        let environment = [
            ("TIDEGATE_CLUSTERS__DEFAULT__HTTP_PORT".to_owned(), "81".to_owned()),
            ("TIDEGATE_CLUSTERS__EAST-1__REPLICAS".to_owned(), "3".to_owned()),
            ("TIDEGATE_CONTROLLER".to_owned(), "not a section".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ];
        let read = settings(&args(&["clusters.default.http_port=82"]), environment.into_iter()).unwrap();
        assert_eq!(read.clusters[&ClusterName::from("default")].http_port, 82);
        assert_eq!(read.clusters[&ClusterName::from("east-1")].replicas, 3);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let error = settings(
            &args(&["clusters.default.http_port=x", "controller.listen=y"]),
            std::iter::empty(),
        )
        .unwrap_err();
        assert_eq!(error.lines().count(), 2, "{error}");
        assert!(
            settings(&args(&["nonsense"]), std::iter::empty())
                .unwrap_err()
                .contains("KEY=VALUE")
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let args = SettingsArgs {
            config: Some("/nowhere/tidegate.toml".into()),
            set: Vec::new(),
        };
        assert!(
            settings(&args, std::iter::empty())
                .unwrap_err()
                .contains("/nowhere/tidegate.toml")
        );
    }
}
