//! The table that files would give, without Docker: for teams that keep a snapshot of their routes under review, see
//! docs/route-tests.md. Facts made of stack files go the way that Docker's go in a controller.
//!
//! ```
//! let stack = "services: {web: {deploy: {labels: {tidegate.hosts: shop.example.org, tidegate.port: 80}}}}";
//! let tables = tidegate::table::compile(&[("shop.yml".into(), stack.into())], "shop", &|_| None)?;
//! assert!(tables.to_text().starts_with("rule shop.example.org/ -> shop_web"));
//! # Ok::<(), String>(())
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tidegate_core::controller::routes::{OwnedClaim, RouteBook};
use tidegate_core::id::ClusterName;
use tidegate_core::interlock::{self, Verdict};
use tidegate_core::labels::{Diagnostic, Severity};
use tidegate_core::machine::Machine as _;
use tidegate_core::route::RouteTable;
use tidegate_core::route::explain::{Claim, Surroundings, explain};
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::settings::{Layer, Settings, load};
use tidegate_core::snapshot::Publisher;
use tidegate_core::snapshot::model::Snapshot;
use tidegate_core::source_file;
use tidegate_core::swarm::world::{Answer, Fetch, World, WorldAction, WorldFact, WorldSettings};
use tidegate_core::time::Instant;

use crate::admin::Routes;
use crate::app::file;
use crate::stack::{self, Facts};

/// What files come to.
#[derive(Debug)]
pub struct Tables {
    /// One table for each service cluster of the settings.
    pub tables: BTreeMap<ClusterName, RouteTable>,
    /// What is wrong with labels, sorted.
    pub diagnostics: Vec<Diagnostic>,
    /// Words of advice about settings files, and what an Interlock file says that is changed or lost here.
    pub notes: Vec<String>,
    claims: Vec<OwnedClaim>,
}

impl Tables {
    /// The tables and the findings as canonical text: the same labels in any order give the same bytes.
    pub fn to_text(&self) -> String {
        let tables = self.tables.iter();
        let routes = Routes {
            tables: tables
                .map(|(name, table)| (name.to_string(), table.canonical_text()))
                .collect(),
            diagnostics: self.diagnostics.clone(),
        };
        routes.to_text()
    }

    /// What becomes of a request for this URL, in each service cluster.
    pub fn explain(&self, url: &str) -> String {
        let claims: Vec<Claim<'_>> = self.claims.iter().map(OwnedClaim::as_claim).collect();
        let mut text = String::new();
        for (name, table) in &self.tables {
            let surroundings = Surroundings {
                claims: &claims,
                ..Surroundings::NONE
            };
            let explanation = explain(table, url, &surroundings);
            let of = match self.tables.len() {
                0 | 1 => String::new(),
                _ => format!(" in {name}"),
            };
            writeln!(text, "\n# {url}{of}\n{explanation}").expect("a String takes any text");
        }
        text
    }

    /// Whether the labels of any service are refused.
    pub fn refuses(&self) -> bool {
        let mut findings = self.diagnostics.iter();
        findings.any(|finding| finding.severity == Severity::Error)
    }
}

/// What a TOML file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Interlock,
    Routes,
    Settings,
}

/// By its keys: Interlock's begin with capitals, a file of routes has services, and our settings neither.
fn kind(text: &str) -> Result<Kind, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let is_interlocks = |key: &String| key.starts_with(|first: char| first.is_ascii_uppercase());
    Ok(if table.contains_key("services") {
        Kind::Routes
    } else if table.keys().any(is_interlocks) {
        Kind::Interlock
    } else {
        Kind::Settings
    })
}

/// Compiles files, each with the name that findings call it by: stack files, laid one over the other as by
/// `docker stack deploy -c A -c B STACK`, beside settings or Interlock's `config.toml` (names that end in `.toml`); or one
/// file of routes alone. `variable` gives what `${NAME}` stands for in stack files.
///
/// # Errors
/// A file that cannot be read: its name, the place in it, and what to write. Wrong labels are no error but
/// [`Tables::diagnostics`].
pub fn compile(
    files: &[(String, String)],
    stack: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Tables, String> {
    let mut stacks = Vec::new();
    let mut settings = Vec::new();
    let mut notes = Vec::new();
    for (place, text) in files {
        if !place.ends_with(".toml") {
            stacks.push((place.clone(), text.clone()));
            continue;
        }
        match kind(text).map_err(|error| format!("{place}: {error}"))? {
            Kind::Routes if files.len() > 1 => {
                return Err(format!(
                    "{place}: a file of routes has endpoints of its own; give it alone, without other files"
                ));
            }
            Kind::Routes => return of_routes(place, text),
            Kind::Interlock => {
                let imported = interlock::import(text).map_err(|error| format!("{place}: {error}"))?;
                let lines = imported.report.iter();
                let told = lines.filter(|line| matches!(line.verdict, Verdict::Changed | Verdict::Lost));
                notes.extend(told.map(|line| format!("{place}:{line}")));
                settings.push((place, imported.settings));
            }
            Kind::Settings => settings.push((place, text.clone())),
        }
    }
    let layers: Vec<Layer<'_>> = settings.iter().map(|(place, text)| Layer::File(place, text)).collect();
    let (settings, findings) = load(&layers);
    if let Some(finding) = findings.iter().find(|finding| finding.is_error) {
        return Err(format!("{}: {}", finding.place, finding.message));
    }
    notes.extend(findings.iter().map(ToString::to_string));
    let facts = stack::read(&stacks, variable)?.facts(stack);
    let tables = of_facts(&facts, &settings);
    Ok(Tables { notes, ..tables })
}

fn of_routes(place: &str, text: &str) -> Result<Tables, String> {
    let read = source_file::read(text).map_err(|error| format!("{place}: {error}"))?;
    let snapshot = file::snapshot(&read, &ProxySettings::default(), &BTreeMap::new());
    Ok(Tables {
        tables: BTreeMap::from([(ClusterName::default_cluster(), RouteTable::compile(&snapshot))]),
        claims: read.claims(),
        diagnostics: read.diagnostics,
        notes: Vec::new(),
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
            // Nothing ever changes here.
            WorldAction::Changed(_) | WorldAction::OpenFeed { .. } | WorldAction::Synced => continue,
        };
        let answer = match fetch {
            Fetch::Services(_) => Answer::Services(facts.services.clone()),
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
        notes: Vec::new(),
        claims: book.claims(),
    }
}

#[cfg(test)]
mod tests;
