//! Decisions as text: one line each, the same for the same decision. Numbers that only connect a question with its answer are
//! not in it, nor are signs of life.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use sha2::{Digest as _, Sha256};

use super::Hide;
use crate::controller::{Controller, ControllerAction};
use crate::id::{ClusterName, ServiceId, Version};
use crate::reconcile::desired::ServiceShape;
use crate::reconcile::machine::Write;
use crate::reconcile::plan::differences;
use crate::swarm::world::{Fetch, Lane};

/// Begins what is nothing but a question to Docker.
pub(super) const ASK: &str = "ask for ";

/// Stands before a digest: which bytes exactly.
const EXACTLY: &str = "; ";

/// A decision without its digest, which any new field of a spec changes.
pub(super) fn without_digest(text: &str) -> &str {
    let at = ["digest ", "shape "].iter().filter_map(|what| {
        let at = text.rfind(EXACTLY)?;
        text.get(at + EXACTLY.len()..)?.starts_with(what).then_some(at)
    });
    at.min().and_then(|at| text.get(..at)).unwrap_or(text)
}

/// A decision, as far as it can be told before the machine has come to rest.
pub(super) enum Noted {
    Published {
        cluster: ClusterName,
        cause: String,
    },
    Text(String),
    Update {
        id: ServiceId,
        version: Version,
        shape: Box<ServiceShape>,
    },
}

/// What `action` says; nothing for what is no decision.
pub(super) fn note(action: &ControllerAction) -> Option<Noted> {
    Some(Noted::Text(match action {
        ControllerAction::Acked {
            cluster,
            is_present,
            served,
        } => {
            let table = if *is_present {
                "the present table"
            } else {
                "a past table"
            };
            let took = served.last().map(|served| served.took.as_millis());
            let took = took.map(|took| format!(" after {took} ms")).unwrap_or_default();
            format!("note that a proxy of {cluster} serves {table}{took}")
        }
        ControllerAction::CreateNetwork(name) => format!("make the network {name}"),
        ControllerAction::CreateSecret(new) => format!("make the secret {}", new.name),
        ControllerAction::Deliver(deliver) => {
            let parcels = deliver.delivery.secrets.iter();
            let parcels: Vec<String> = parcels
                .map(|parcel| match (&parcel.content, &parcel.problem) {
                    (Some(_), None) => parcel.name.clone(),
                    (_, problem) => {
                        let why = problem.as_ref().map(|problem| problem.finding(&parcel.name).problem);
                        format!("{} ({})", parcel.name, why.unwrap_or_default())
                    }
                })
                .collect();
            let names = deliver.delivery.names.iter().flatten();
            let names: Vec<&str> = names.map(String::as_str).collect();
            format!(
                "hand secrets to connection {}: {}; in use: {}",
                deliver.to.0,
                parcels.join(", "),
                names.join(", ")
            )
        }
        ControllerAction::Diagnosed(diagnostic) => format!("find {diagnostic}"),
        ControllerAction::Fetch { fetch, .. } => format!("{ASK}{}", asked(fetch)),
        ControllerAction::Notice(text) => format!("tell the operator: {text}"),
        ControllerAction::OpenEvents(_) => "open the event stream".to_string(),
        ControllerAction::OpenFeed { resume_from, .. } => match resume_from {
            Some(version) => format!("open the SwarmKit watch from version {}", version.0),
            None => "open the SwarmKit watch".to_string(),
        },
        ControllerAction::Published { cluster, cause } => {
            return Some(Noted::Published {
                cluster: cluster.clone(),
                cause: cause.clone(),
            });
        }
        ControllerAction::RemoveSecret { name, .. } => format!("remove the secret {name}"),
        ControllerAction::Send(send) => {
            let kind = ["full", "delta"].into_iter().find(|kind| {
                let begin = send.line.strip_prefix("{\"");
                begin.is_some_and(|line| line.starts_with(kind))
            });
            match kind {
                Some("full") => format!("send the whole table to connection {}", send.to.0),
                Some(_) => format!("send the change to connection {}", send.to.0),
                None => return None,
            }
        }
        ControllerAction::Write { write, .. } => match write {
            Write::Create(shape) => format!("create the service {}", shape.name),
            Write::Remove { name, .. } => format!("remove the service {name}"),
            Write::Update { id, version, shape } => {
                return Some(update(id, *version, shape));
            }
        },
        ControllerAction::WriteOwnService { id, version, shape } => return Some(update(id, *version, shape)),
    }))
}

fn update(id: &ServiceId, version: Version, shape: &ServiceShape) -> Noted {
    Noted::Update {
        id: id.clone(),
        version,
        shape: Box::new(shape.clone()),
    }
}

/// The text, now that the machine is at rest.
pub(super) fn text(noted: Noted, machine: &Controller, hide: &Hide) -> String {
    match noted {
        Noted::Text(text) => text,
        Noted::Published { cluster, cause } => {
            let publisher = machine.publishers().get(&cluster);
            let (revision, digest) = publisher
                .map(|publisher| (publisher.revision(), publisher.digest()))
                .unwrap_or_default();
            let digest = digest.to_string();
            format!(
                "publish {revision} for {cluster}, because of {cause}{EXACTLY}digest {}",
                digest.get(..16).unwrap_or(&digest)
            )
        }
        Noted::Update { id, version, mut shape } => {
            hide.shape(&mut shape);
            let mut fields = "something".to_string();
            if let Some(known) = machine.world().managed().get(&id) {
                let mut known = known.shape.clone();
                hide.shape(&mut known);
                let differing = differences(&known, &shape);
                fields = if differing.is_empty() {
                    "labels".to_string()
                } else {
                    differing.join(", ")
                };
            }
            let written = serde_json::to_string(&shape).unwrap_or_default();
            let digest = Sha256::digest(written.as_bytes());
            let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            format!(
                "update {fields} of the service {} at version {}{EXACTLY}shape {digest}",
                shape.name, version.0
            )
        }
    }
}

/// A question, in words.
pub(super) fn asked(fetch: &Fetch) -> String {
    if !fetch.is_partial() {
        return fetch.lane().name().to_string();
    }
    let of: Vec<&str> = fetch.of().iter().map(ServiceId::as_str).collect();
    let kind = if fetch.lane() == Lane::Tasks {
        "tasks of"
    } else {
        "services"
    };
    format!("{kind} {}", of.join(", "))
}
