//! `tidegate table`: the table that files would give, without Docker. Facts made of stack files go the way that Docker's
//! go in a controller.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use tidegate_core::controller::routes::{OwnedClaim, RouteBook};
use tidegate_core::id::ClusterName;
use tidegate_core::labels::{Diagnostic, Severity};
use tidegate_core::machine::Machine as _;
use tidegate_core::route::RouteTable;
use tidegate_core::route::explain::{Claim, Surroundings, explain};
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::settings::{Layer, Settings, load};
use tidegate_core::snapshot::Publisher;
use tidegate_core::snapshot::model::Snapshot;
use tidegate_core::swarm::world::{Answer, Fetch, World, WorldAction, WorldFact, WorldSettings};
use tidegate_core::time::Instant;
use tidegate_core::{interlock, source_file};

use super::Failure;
use crate::admin::Routes;
use crate::app::file;
use crate::cli::{EXIT_FINDING, TableArgs};
use crate::stack::{self, Facts};

/// What files come to.
struct Tables {
    tables: BTreeMap<ClusterName, RouteTable>,
    diagnostics: Vec<Diagnostic>,
    claims: Vec<OwnedClaim>,
}

pub(super) fn run(args: &TableArgs) -> Result<ExitCode, Failure> {
    let tables = read(args)?;
    let routes = Routes {
        tables: tables
            .tables
            .iter()
            .map(|(name, table)| (name.to_string(), table.canonical_text()))
            .collect(),
        diagnostics: tables.diagnostics.clone(),
    };
    let mut text = routes.to_text();
    let claims: Vec<Claim<'_>> = tables.claims.iter().map(OwnedClaim::as_claim).collect();
    for url in &args.explain {
        for (name, table) in &tables.tables {
            let surroundings = Surroundings {
                claims: &claims,
                ..Surroundings::NONE
            };
            let explanation = explain(table, url, &surroundings);
            let of = if tables.tables.len() > 1 {
                format!(" in {name}")
            } else {
                String::new()
            };
            writeln!(text, "\n# {url}{of}\n{explanation}").map_err(|error| Failure::usage(error.to_string()))?;
        }
    }
    let refused = tables
        .diagnostics
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    let mut differs = false;
    match (&args.check, &args.write) {
        (Some(path), _) => {
            let before = if path.exists() { content(path)? } else { String::new() };
            differs = before != text || !path.exists();
            if differs {
                let place = path.display().to_string();
                let diff = similar::TextDiff::from_lines(&before, &text);
                print!("{}", diff.unified_diff().header(&place, "these files"));
                eprintln!(
                    "error: the table differs from {place}; if that is meant, run again with --write {place} in place of --check"
                );
            }
        }
        (None, Some(path)) => std::fs::write(path, &text)
            .map_err(|error| Failure::usage(format!("error: --write {}: {error}", path.display())))?,
        (None, None) => print!("{text}"),
    }
    if refused && (args.write.is_some() || args.check.is_some()) {
        tables.diagnostics.iter().for_each(|finding| eprintln!("{finding}"));
    }
    Ok(if refused || differs {
        ExitCode::from(EXIT_FINDING)
    } else {
        ExitCode::SUCCESS
    })
}

fn content(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("error: {}: cannot be read: {error}", path.display())))
}

/// Tells the files apart by what they hold.
fn read(args: &TableArgs) -> Result<Tables, Failure> {
    let mut stacks = Vec::new();
    let mut settings = Vec::new();
    for path in &args.files {
        let (place, text) = (path.display().to_string(), content(path)?);
        if path.extension().is_none_or(|extension| extension != "toml") {
            stacks.push((place, text));
        } else if text.contains("[services") {
            if args.files.len() > 1 {
                return Err(Failure::usage(format!(
                    "error: {place}: a file of routes has endpoints of its own; give it alone, without other files"
                )));
            }
            return of_routes(&place, &text);
        } else if text.contains("Extensions") {
            let imported = interlock::import(&text);
            let imported = imported.map_err(|error| Failure::usage(format!("error: {place}: {error}")))?;
            settings.push((place, imported.settings));
        } else {
            settings.push((place, text));
        }
    }
    let layers: Vec<Layer<'_>> = settings.iter().map(|(place, text)| Layer::File(place, text)).collect();
    let (settings, findings) = load(&layers);
    if let Some(finding) = findings.iter().find(|finding| finding.is_error) {
        return Err(Failure::usage(finding.to_string()));
    }
    let stack = stack::read(&stacks, &|name| std::env::var(name).ok());
    let stack = stack.map_err(|error| Failure::usage(format!("error: {error}")))?;
    Ok(of_facts(&stack.facts(&args.stack), &settings))
}

fn of_routes(place: &str, text: &str) -> Result<Tables, Failure> {
    let read = source_file::read(text).map_err(|error| Failure::usage(format!("error: {place}: {error}")))?;
    let snapshot = file::snapshot(&read, &ProxySettings::default(), &BTreeMap::new());
    Ok(Tables {
        tables: BTreeMap::from([(ClusterName::default_cluster(), RouteTable::compile(&snapshot))]),
        claims: read.claims(),
        diagnostics: read.diagnostics,
    })
}

/// As a controller does once it has listed everything.
fn of_facts(facts: &Facts, settings: &Settings) -> Tables {
    let mut world = World::new(WorldSettings::default());
    world.handle_timeout(Instant::START);
    while let Some(action) = world.poll_action() {
        let (id, fetch) = match action {
            WorldAction::Fetch { id, fetch } => (id, fetch),
            // Lists are asked for once what happens meanwhile would be heard.
            WorldAction::OpenEvents(stream) => {
                world.handle(WorldFact::EventStreamOpened(stream), Instant::START);
                world.handle_timeout(Instant::START);
                continue;
            }
            WorldAction::Changed(_) | WorldAction::Synced => continue,
        };
        let answer = match fetch {
            Fetch::Services => Answer::Services(facts.services.clone()),
            Fetch::Tasks(_) => Answer::Tasks(facts.tasks.clone()),
            Fetch::Networks => Answer::Networks(facts.networks.clone()),
            Fetch::Nodes => Answer::Nodes(facts.nodes.clone()),
            // Secrets are made elsewhere: which there are is not known here, and nothing is said of them.
            Fetch::Managed | Fetch::Secrets => continue,
        };
        let result = Ok(answer);
        world.handle(WorldFact::Answer { id, result }, Instant::START);
    }
    let mut book = RouteBook::default();
    book.refresh(&world, settings, &world.services().keys().cloned().collect());
    let mut changes = book.take_changes();
    let mut tables = BTreeMap::new();
    let mut publishers = BTreeMap::new();
    for (name, cluster) in &settings.clusters {
        let specs = changes.remove(name).unwrap_or_default();
        let snapshot = Snapshot {
            settings: cluster.serving(),
            routes: specs.into_iter().filter_map(|(id, spec)| Some((id, spec?))).collect(),
        };
        tables.insert(name.clone(), RouteTable::compile(&snapshot));
        publishers.insert(name.clone(), Publisher::new("table", env!("CARGO_PKG_VERSION")));
    }
    Tables {
        tables,
        diagnostics: book.take_new_diagnostics(&publishers),
        claims: book.claims(),
    }
}
