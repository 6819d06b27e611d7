//! What of a wanted shape is written: a three-way merge of what was written last (kept in the label [`APPLIED_LABEL`]),
//! what is wanted now, and what Docker has.
//!
//! A field that differs between the last and the present wish is written. Any other field stays as Docker has it, so an
//! operator's own edit (more replicas, one more environment variable, a log level) outlives our next write. Lists merge
//! item by item. Two things are always there, because nothing works without: the networks and secrets that are wanted,
//! and the labels by which controllers know their services. And a host-mode port is never combined with start-first.

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::desired::UpdatePolicy;
use super::desired::{APPLIED_LABEL, CLUSTER_LABEL, INSTALLATION_LABEL, ManagedService, ROLE_LABEL, ServiceShape};
use crate::swarm::model::{PublishMode, PublishedPort, STACK_LABEL};

/// Labels that are ours alone.
const OWN_LABELS: [&str; 4] = [ROLE_LABEL, CLUSTER_LABEL, INSTALLATION_LABEL, STACK_LABEL];

/// What to do about one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It is as wanted.
    Nothing,
    /// Docker cannot change replicated to global or back (facts §6): remove it, then make it anew.
    Recreate,
    /// Write this.
    Update(Box<ServiceShape>),
}

/// What to do so that `actual` becomes as `wanted`. `held` is a wish that Docker rolled back: fields that it had in common with
/// `wanted` are not written again.
pub fn plan(wanted: &ServiceShape, actual: &ManagedService, held: Option<&ServiceShape>) -> Plan {
    let applied = applied(&actual.shape);
    let base = applied.as_ref();
    let mut present = actual.shape.clone();
    present.labels.remove(APPLIED_LABEL);
    let mut merged = merge(base, wanted, &present);
    match held {
        Some(held) => leave(&mut merged, held, wanted, &present),
        None => require(&mut merged, wanted),
    }
    if merged.ports.iter().any(|port| port.mode == PublishMode::Host) {
        merged.update.start_first = false;
    }
    if merged.replicas.is_some() != actual.shape.replicas.is_some() {
        return Plan::Recreate;
    }
    if merged == present && (held.is_some() || base == Some(wanted)) {
        return Plan::Nothing;
    }
    Plan::Update(Box::new(stamped(merged, wanted)))
}

/// `shape` with `wanted` noted in its label as what was written.
pub fn stamped(mut shape: ServiceShape, wanted: &ServiceShape) -> ServiceShape {
    let text = serde_json::to_string(wanted).expect("a shape is plain data with text keys");
    shape.labels.insert(String::from(APPLIED_LABEL), text);
    shape
}

/// What was written last, if the label says so readably.
pub fn applied(actual: &ServiceShape) -> Option<ServiceShape> {
    serde_json::from_str(actual.labels.get(APPLIED_LABEL)?).ok()
}

/// Names of the fields in which `a` and `b` differ, for logs.
pub fn differences(a: &ServiceShape, b: &ServiceShape) -> Vec<&'static str> {
    let mut names = Vec::new();
    macro_rules! compare {
        ($($field:ident)*) => {$(
            if a.$field != b.$field {
                names.push(stringify!($field));
            }
        )*};
    }
    compare!(name container_labels image args env user read_only replicas constraints spread ports dnsrr networks);
    compare!(volumes secrets stop_signal stop_grace_ms health_command update);
    let others = |shape: &ServiceShape| {
        let mut labels = shape.labels.clone();
        labels.remove(APPLIED_LABEL);
        labels
    };
    if others(a) != others(b) {
        names.push("labels");
    }
    names
}

fn merge(base: Option<&ServiceShape>, wanted: &ServiceShape, actual: &ServiceShape) -> ServiceShape {
    let nothing = ServiceShape::default();
    let before = base.unwrap_or(&nothing);
    macro_rules! scalar {
        ($($field:ident).+) => {
            if base.is_some_and(|base| base.$($field).+ == wanted.$($field).+) {
                actual.$($field).+.clone()
            } else {
                wanted.$($field).+.clone()
            }
        };
    }
    ServiceShape {
        name: actual.name.clone(),
        labels: merge_map(&before.labels, &wanted.labels, &actual.labels),
        container_labels: merge_map(
            &before.container_labels,
            &wanted.container_labels,
            &actual.container_labels,
        ),
        image: scalar!(image),
        args: scalar!(args),
        env: merge_env(&before.env, &wanted.env, &actual.env),
        user: scalar!(user),
        read_only: scalar!(read_only),
        replicas: scalar!(replicas),
        constraints: merge_set(&before.constraints, &wanted.constraints, &actual.constraints),
        spread: scalar!(spread),
        ports: merge_ports(&before.ports, &wanted.ports, &actual.ports),
        dnsrr: scalar!(dnsrr),
        networks: merge_set(&before.networks, &wanted.networks, &actual.networks),
        volumes: merge_map(&before.volumes, &wanted.volumes, &actual.volumes),
        secrets: merge_map(&before.secrets, &wanted.secrets, &actual.secrets),
        stop_signal: scalar!(stop_signal),
        stop_grace_ms: scalar!(stop_grace_ms),
        health_command: scalar!(health_command),
        update: UpdatePolicy {
            parallelism: scalar!(update.parallelism),
            delay_ms: scalar!(update.delay_ms),
            start_first: scalar!(update.start_first),
            failure_action: scalar!(update.failure_action),
            monitor_ms: scalar!(update.monitor_ms),
        },
    }
}

/// Fields that `held` and `wanted` have in common stay as they are.
fn leave(merged: &mut ServiceShape, held: &ServiceShape, wanted: &ServiceShape, actual: &ServiceShape) {
    macro_rules! leave {
        ($($field:ident)*) => {$(
            if held.$field == wanted.$field {
                merged.$field.clone_from(&actual.$field);
            }
        )*};
    }
    leave!(labels container_labels image args env user read_only replicas constraints spread ports dnsrr networks);
    leave!(volumes secrets stop_signal stop_grace_ms health_command update);
}

/// What must be there, whoever took it away.
fn require(merged: &mut ServiceShape, wanted: &ServiceShape) {
    merged.networks.extend(wanted.networks.iter().cloned());
    for (name, file) in &wanted.secrets {
        merged.secrets.insert(name.clone(), file.clone());
    }
    for label in OWN_LABELS {
        if let Some(value) = wanted.labels.get(label) {
            merged.labels.insert(String::from(label), value.clone());
        }
    }
}

type Map = BTreeMap<String, String>;

fn merge_map(base: &Map, wanted: &Map, actual: &Map) -> Map {
    let mut merged = actual.clone();
    merged.retain(|key, _| wanted.contains_key(key) || !base.contains_key(key));
    for (key, value) in wanted {
        if base.get(key) != Some(value) {
            merged.insert(key.clone(), value.clone());
        }
    }
    merged
}

fn merge_set<T: Ord + Clone>(base: &BTreeSet<T>, wanted: &BTreeSet<T>, actual: &BTreeSet<T>) -> BTreeSet<T> {
    let mut merged = actual.clone();
    merged.retain(|item| wanted.contains(item) || !base.contains(item));
    merged.extend(wanted.difference(base).cloned());
    merged
}

/// `KEY=value`: one value per key.
fn merge_env(base: &BTreeSet<String>, wanted: &BTreeSet<String>, actual: &BTreeSet<String>) -> BTreeSet<String> {
    fn key(item: &str) -> &str {
        item.split_once('=').map_or(item, |(key, _)| key)
    }
    let mut merged = merge_set(base, wanted, actual);
    for item in wanted.difference(base) {
        merged.retain(|other| other == item || key(other) != key(item));
    }
    merged
}

/// A port that is newly wanted takes the place of others to the same target.
fn merge_ports(
    base: &BTreeSet<PublishedPort>,
    wanted: &BTreeSet<PublishedPort>,
    actual: &BTreeSet<PublishedPort>,
) -> BTreeSet<PublishedPort> {
    let mut merged = merge_set(base, wanted, actual);
    for port in wanted.difference(base) {
        merged.retain(|other| wanted.contains(other) || other.target != port.target);
    }
    merged
}
