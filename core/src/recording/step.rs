//! One step of a replay, as text.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::Serialize;

use super::Told;
use super::decision::{ASK, asked};
use super::lists::ListLine;
use crate::controller::ControllerFact;
use crate::swarm::model::{ApiError, TaskEvent};
use crate::swarm::world::{Answer, WorldFact};
use crate::time::Instant;

/// What one mutation came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When, in nanoseconds since the process started.
    pub at: Instant,
    /// What the controller was told.
    pub told: String,
    /// What it decided.
    pub decided: Vec<String>,
    /// Lines of tables that came (`+`) and went (`-`).
    pub table: Vec<String>,
    /// What it waits for after that.
    pub next: Option<(Instant, String)>,
    /// What was recorded in place of it, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

/// What the program that was recorded decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// What it decided.
    pub decided: Vec<String>,
    /// What it waited for after that.
    pub next: Option<(Instant, String)>,
}

impl Step {
    /// Whether nothing was decided, as recorded, but to look again.
    pub fn is_silent(&self) -> bool {
        let mut decided = self.decided.iter();
        decided.all(|line| line.starts_with(ASK)) && self.table.is_empty() && self.recorded.is_none()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.to_string();
        writeln!(f, "{at:>10} {}", self.told)?;
        let waits = |next: &Option<(Instant, String)>| match next {
            Some((at, why)) => format!("then wait until {at}: {why}"),
            None => "then wait for news".to_string(),
        };
        let before = self.recorded.as_ref().map(|recorded| &recorded.decided);
        for line in &self.decided {
            let is_new = before.is_some_and(|before| !before.contains(line));
            writeln!(f, "{:>10} {} {line}", "", if is_new { '!' } else { ' ' })?;
        }
        for line in &self.table {
            writeln!(f, "{:>14} {line}", "")?;
        }
        let Some(recorded) = &self.recorded else {
            return writeln!(f, "{:>12} {}", "", waits(&self.next));
        };
        let moved = recorded.next.as_ref().map(|next| next.0) != self.next.as_ref().map(|next| next.0);
        writeln!(f, "{:>10} {} {}", "", if moved { '!' } else { ' ' }, waits(&self.next))?;
        writeln!(f, "{:>10} ! recorded instead:", "")?;
        for line in recorded.decided.iter().filter(|line| !self.decided.contains(line)) {
            writeln!(f, "{:>10} !   {line}", "")?;
        }
        if moved {
            writeln!(f, "{:>10} !   {}", "", waits(&recorded.next))?;
        }
        if recorded.decided.iter().all(|line| self.decided.contains(line)) && !moved {
            writeln!(
                f,
                "{:>10} !   {} of these {}",
                "",
                recorded.decided.len(),
                self.decided.len()
            )?;
        }
        Ok(())
    }
}

/// What was told, in words.
pub(super) fn told(told: &Told) -> String {
    match told {
        Told::Timeout => "what it waited for is due".to_string(),
        Told::Failed { fetch, error, .. } => format!("Docker gave no {}: {error}", asked(fetch)),
        Told::List(line) => list(line),
        Told::Fact(fact) => self::fact(fact),
    }
}

fn list(line: &ListLine) -> String {
    fn of<T>(list: &[T], name: impl Fn(&T) -> &str) -> Vec<String> {
        list.iter().map(|object| name(object).to_string()).collect()
    }
    let (what, put) = match &line.put {
        Answer::Managed(list) => ("managed services", of(list, |o| &o.shape.name)),
        Answer::Networks(list) => ("networks", of(list, |o| &o.name)),
        Answer::Nodes(list) => ("nodes", of(list, |o| &o.hostname)),
        Answer::Secrets(list) => ("secrets", of(list, |o| &o.name)),
        Answer::Services(list) => ("services", of(list, |o| &o.name)),
        Answer::Tasks(list) => {
            let task = |task: &crate::swarm::model::Task| format!("{} {:?}/{:?}", task.id, task.state, task.desired);
            ("tasks", list.iter().map(task).collect())
        }
    };
    let of: Vec<&str> = line.of.iter().map(|id| id.as_str()).collect();
    let of = if of.is_empty() {
        String::new()
    } else {
        format!(" of {}", of.join(", "))
    };
    let gone: Vec<&str> = line.gone.iter().map(String::as_str).collect();
    let news = match (put.is_empty(), gone.is_empty()) {
        (true, true) => "as before".to_string(),
        (false, true) => short(&put),
        (true, false) => format!("gone {}", gone.join(", ")),
        (false, false) => format!("{}; gone {}", short(&put), gone.join(", ")),
    };
    format!("{what}{of}: {news}")
}

/// The first few of many.
fn short(names: &[String]) -> String {
    const SHOWN: usize = 8;
    match names.get(..SHOWN) {
        Some(first) if names.len() > SHOWN => format!("{} and {} more", first.join(", "), names.len() - SHOWN),
        Some(_) | None => names.join(", "),
    }
}

fn fact(fact: &ControllerFact) -> String {
    match fact {
        ControllerFact::Ack { cluster, ack } => {
            let refused = if ack.refused.is_empty() { "" } else { ", with refusals" };
            format!("proxy {} of {cluster} serves {}{refused}", ack.proxy, ack.revision)
        }
        ControllerFact::Connected {
            connection,
            cluster,
            proxy,
            ..
        } => format!("proxy {proxy} of {cluster} connected as connection {}", connection.0),
        ControllerFact::CourierConnected {
            connection,
            task,
            parcels,
        } => {
            let names: Vec<&str> = parcels.iter().map(|parcel| parcel.name.as_str()).collect();
            format!(
                "courier {task} handed over on connection {}: {}",
                connection.0,
                names.join(", ")
            )
        }
        ControllerFact::Disconnected { cluster, connection } => {
            format!("connection {} of a proxy of {cluster} ended", connection.0)
        }
        ControllerFact::Done { what, result } => {
            format!("{what}: {}", outcome(result))
        }
        ControllerFact::OwnNetworks(on) => {
            let on: Vec<String> = on.iter().map(ToString::to_string).collect();
            format!("own networks: {}", on.join(", "))
        }
        ControllerFact::Report { cluster, report } => {
            format!(
                "proxy {} of {cluster} finds {} things about secrets",
                report.proxy,
                report.findings.len()
            )
        }
        ControllerFact::SecretsEnded(connection) => format!("connection {} for secrets ended", connection.0),
        ControllerFact::SecretsWanted {
            connection,
            cluster,
            proxy,
        } => format!(
            "proxy {proxy} of {cluster} asks for secrets on connection {}",
            connection.0
        ),
        ControllerFact::World(fact) => match fact {
            WorldFact::Answer { .. } => "an answer of Docker that came too late".to_string(),
            WorldFact::Event(event) => format!("event: {:?} {:?} {}", event.kind, event.action, event.id),
            WorldFact::EventStreamClosed { error, .. } => {
                let why = error.as_ref().map_or("in order".to_string(), ToString::to_string);
                format!("the event stream ended: {why}")
            }
            WorldFact::EventStreamOpened(_) => "the event stream is open".to_string(),
            WorldFact::FeedClosed { end, .. } => end.to_string(),
            WorldFact::FeedEvents(events) => {
                let told: Vec<String> = events.iter().map(task_event).collect();
                format!("the SwarmKit watch tells: {}", told.join("; "))
            }
            WorldFact::FeedOpened(_) => "the SwarmKit watch is open".to_string(),
            WorldFact::Look(lane) => format!("somebody wants {} looked at", lane.name()),
        },
        ControllerFact::Written { result, .. } => format!("the write: {}", outcome(result)),
    }
}

fn task_event(event: &TaskEvent) -> String {
    let (action, state, desired) = (event.action, event.state, event.desired);
    format!(
        "{action:?} task {} of {}: {state:?}, should be {desired:?}",
        event.task, event.service
    )
}

fn outcome(result: &Result<(), ApiError>) -> String {
    match result {
        Ok(()) => "done".to_string(),
        Err(error) => error.to_string(),
    }
}
