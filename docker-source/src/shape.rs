//! Between a service's spec and its [`ServiceShape`].
//!
//! Writing edits the spec that Docker has, as JSON, and touches nothing in which the new shape does not differ from the
//! present one: fields that Tidegate does not know, aliases of networks, options of mounts and so on stay as they are.
//! The networks are `TaskTemplate.Networks`; the service's own `Networks` are never written (facts §10).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidegate_core::id::SecretId;
use tidegate_core::reconcile::desired::{ServiceShape, UpdatePolicy};
use tidegate_core::swarm::model::{PublishMode, PublishedPort};

use crate::{convert, wire};

const NANOS_PER_MILLI: u64 = 1_000_000;
/// Probes of a health check that Tidegate adds. The first one decides how long a rolling update takes per proxy.
const HEALTH_INTERVAL_MS: u64 = 2_000;
const HEALTH_START_MS: u64 = 10_000;

/// The shape of a service as Docker has it.
pub fn read(spec: wire::ServiceSpec) -> ServiceShape {
    let container = spec.task_template.container;
    let networks = if spec.task_template.networks.is_empty() {
        spec.networks
    } else {
        spec.task_template.networks
    };
    let defaults = UpdatePolicy::default();
    let text = |text: String, default: String| if text.is_empty() { default } else { text };
    ServiceShape {
        name: spec.name,
        labels: spec.labels,
        container_labels: container.labels,
        image: container.image,
        args: container.args,
        env: container.env.into_iter().collect(),
        user: container.user,
        read_only: container.read_only,
        replicas: match spec.mode.global {
            Some(_) => None,
            None => Some(spec.mode.replicated.map_or(1, |replicated| replicated.replicas)),
        },
        constraints: spec.task_template.placement.constraints.into_iter().collect(),
        spread: spec
            .task_template
            .placement
            .preferences
            .into_iter()
            .map(|preference| preference.spread.descriptor)
            .collect(),
        ports: spec.endpoint_spec.ports.iter().filter_map(convert::port).collect(),
        dnsrr: spec.endpoint_spec.mode == "dnsrr",
        networks: networks.into_iter().map(|network| network.target).collect(),
        volumes: container
            .mounts
            .into_iter()
            .filter(|mount| mount.kind == "volume" && !mount.source.is_empty())
            .map(|mount| (mount.source, mount.target))
            .collect(),
        secrets: container
            .secrets
            .into_iter()
            .map(|secret| (secret.name, secret.file.name))
            .collect(),
        stop_signal: container.stop_signal,
        stop_grace_ms: container.stop_grace_period / NANOS_PER_MILLI,
        health_command: container.health_check.test,
        update: UpdatePolicy {
            parallelism: spec.update_config.parallelism.unwrap_or(defaults.parallelism),
            delay_ms: spec.update_config.delay / NANOS_PER_MILLI,
            start_first: spec.update_config.order == "start-first",
            failure_action: text(spec.update_config.failure_action, String::from("pause")),
            monitor_ms: match spec.update_config.monitor {
                0 => defaults.monitor_ms,
                monitor => monitor / NANOS_PER_MILLI,
            },
        },
    }
}

/// Secrets that are to be mounted and that Docker does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no secret named {name:?} for service {service}")]
pub struct MissingSecret {
    name: String,
    service: String,
}

/// The spec of a service of shape `shape`; `secrets` are the ids of the secrets that it mounts.
///
/// # Errors
/// If a secret is not among `secrets`.
pub fn create(shape: &ServiceShape, secrets: &BTreeMap<String, SecretId>) -> Result<Value, MissingSecret> {
    let mut spec = json!({
        "TaskTemplate": { "ContainerSpec": {}, "RestartPolicy": { "Condition": "any" } },
    });
    edit(&mut spec, None, shape, secrets)?;
    Ok(spec)
}

/// Edits `spec` so that its shape becomes `shape`.
///
/// # Errors
/// If a secret that is to be added is not among `secrets`. `spec` is unusable then.
pub fn update(
    spec: &mut Value,
    shape: &ServiceShape,
    secrets: &BTreeMap<String, SecretId>,
) -> Result<(), MissingSecret> {
    let present = serde_json::from_value(spec.clone()).map(read).unwrap_or_default();
    edit(spec, Some(&present), shape, secrets)
}

fn edit(
    spec: &mut Value,
    present: Option<&ServiceShape>,
    shape: &ServiceShape,
    secrets: &BTreeMap<String, SecretId>,
) -> Result<(), MissingSecret> {
    macro_rules! differs {
        ($field:ident) => {
            present.is_none_or(|present| present.$field != shape.$field)
        };
    }
    let root = object(spec);
    if differs!(name) {
        root.insert(String::from("Name"), json!(shape.name));
    }
    if differs!(labels) {
        root.insert(String::from("Labels"), json!(shape.labels));
    }
    if differs!(replicas) {
        let mode = match shape.replicas {
            Some(replicas) => json!({ "Replicated": { "Replicas": replicas } }),
            None => json!({ "Global": {} }),
        };
        root.insert(String::from("Mode"), mode);
    }
    if differs!(update) {
        edit_update(child(root, "UpdateConfig"), &shape.update);
    }
    let endpoint = child(root, "EndpointSpec");
    if differs!(dnsrr) {
        endpoint.insert(String::from("Mode"), json!(if shape.dnsrr { "dnsrr" } else { "vip" }));
    }
    if differs!(ports) {
        edit_ports(endpoint, shape);
    }
    let service_networks = root.remove("Networks");
    let template = child(root, "TaskTemplate");
    if differs!(networks) || service_networks.is_some() {
        let had = template.remove("Networks").or(service_networks);
        template.insert(String::from("Networks"), merged_networks(had, shape));
    }
    let placement = child(template, "Placement");
    if differs!(constraints) {
        placement.insert(String::from("Constraints"), json!(shape.constraints));
    }
    if differs!(spread) {
        let spread: Vec<Value> = shape
            .spread
            .iter()
            .map(|descriptor| json!({ "Spread": { "SpreadDescriptor": descriptor } }))
            .collect();
        placement.insert(String::from("Preferences"), Value::from(spread));
    }
    let container = child(template, "ContainerSpec");
    let mut set = |changed: bool, key: &str, value: Value| {
        if changed {
            container.insert(String::from(key), value);
        }
    };
    set(differs!(image), "Image", json!(shape.image));
    set(differs!(container_labels), "Labels", json!(shape.container_labels));
    set(differs!(args), "Args", json!(shape.args));
    set(differs!(env), "Env", json!(shape.env));
    set(differs!(user), "User", json!(shape.user));
    set(differs!(read_only), "ReadOnly", json!(shape.read_only));
    set(differs!(stop_signal), "StopSignal", json!(shape.stop_signal));
    set(
        differs!(stop_grace_ms),
        "StopGracePeriod",
        json!(shape.stop_grace_ms * NANOS_PER_MILLI),
    );
    if differs!(health_command) {
        edit_health(container, shape);
    }
    if differs!(volumes) {
        edit_volumes(container, shape);
    }
    if differs!(secrets) {
        edit_secrets(container, shape, secrets)?;
    }
    Ok(())
}

fn edit_update(config: &mut Map<String, Value>, update: &UpdatePolicy) {
    config.insert(String::from("Parallelism"), json!(update.parallelism));
    config.insert(String::from("Delay"), json!(update.delay_ms * NANOS_PER_MILLI));
    config.insert(String::from("Monitor"), json!(update.monitor_ms * NANOS_PER_MILLI));
    config.insert(String::from("FailureAction"), json!(update.failure_action));
    let order = if update.start_first {
        "start-first"
    } else {
        "stop-first"
    };
    config.insert(String::from("Order"), json!(order));
}

/// Ports that stay keep their object, e.g. its name.
fn edit_ports(endpoint: &mut Map<String, Value>, shape: &ServiceShape) {
    let read = |value: &Value| {
        serde_json::from_value(value.clone())
            .ok()
            .and_then(|port| convert::port(&port))
    };
    let mut ports = list(endpoint.remove("Ports"));
    ports.retain(|value| read(value).is_some_and(|port| shape.ports.contains(&port)));
    for port in &shape.ports {
        if !ports.iter().any(|value| read(value).as_ref() == Some(port)) {
            ports.push(port_json(port));
        }
    }
    endpoint.insert(String::from("Ports"), Value::from(ports));
}

fn port_json(port: &PublishedPort) -> Value {
    let mode = match port.mode {
        PublishMode::Host => "host",
        PublishMode::Ingress => "ingress",
    };
    let mut value = json!({
        "Protocol": if port.tcp { "tcp" } else { "udp" },
        "TargetPort": port.target,
        "PublishMode": mode,
    });
    if let Some(published) = port.published {
        object(&mut value).insert(String::from("PublishedPort"), json!(published));
    }
    value
}

/// Networks that stay keep their object, e.g. its aliases.
fn merged_networks(had: Option<Value>, shape: &ServiceShape) -> Value {
    let target = |value: &Value| value.get("Target").and_then(Value::as_str).map(String::from);
    let mut networks = list(had);
    networks.retain(|value| target(value).is_some_and(|target| shape.networks.contains(&target)));
    for network in &shape.networks {
        if !networks.iter().any(|value| target(value).as_ref() == Some(network)) {
            networks.push(json!({ "Target": network }));
        }
    }
    Value::from(networks)
}

fn edit_health(container: &mut Map<String, Value>, shape: &ServiceShape) {
    if shape.health_command.is_empty() {
        container.remove("Healthcheck");
        return;
    }
    let is_new = !container.contains_key("Healthcheck");
    let check = child(container, "Healthcheck");
    check.insert(String::from("Test"), json!(shape.health_command));
    if is_new {
        check.insert(String::from("Interval"), json!(HEALTH_INTERVAL_MS * NANOS_PER_MILLI));
        check.insert(String::from("Timeout"), json!(HEALTH_INTERVAL_MS * NANOS_PER_MILLI));
        check.insert(String::from("Retries"), json!(3));
        check.insert(String::from("StartPeriod"), json!(HEALTH_START_MS * NANOS_PER_MILLI));
    }
}

/// Volumes that stay keep their object; other kinds of mounts are none of our business.
fn edit_volumes(container: &mut Map<String, Value>, shape: &ServiceShape) {
    let mut mounts = list(container.remove("Mounts"));
    let read = |value: &Value| serde_json::from_value::<wire::Mount>(value.clone()).unwrap_or_default();
    mounts.retain(|value| {
        let mount = read(value);
        mount.kind != "volume" || mount.source.is_empty() || shape.volumes.get(&mount.source) == Some(&mount.target)
    });
    for (source, target) in &shape.volumes {
        if !mounts.iter().any(|value| read(value).source == *source) {
            mounts.push(json!({ "Type": "volume", "Source": source, "Target": target }));
        }
    }
    container.insert(String::from("Mounts"), Value::from(mounts));
}

fn edit_secrets(
    container: &mut Map<String, Value>,
    shape: &ServiceShape,
    ids: &BTreeMap<String, SecretId>,
) -> Result<(), MissingSecret> {
    let mut mounts = list(container.remove("Secrets"));
    let read = |value: &Value| serde_json::from_value::<wire::SecretMount>(value.clone()).unwrap_or_default();
    mounts.retain(|value| {
        let mount = read(value);
        shape.secrets.get(&mount.name) == Some(&mount.file.name)
    });
    let (uid, gid) = match shape.user.split_once(':') {
        Some((uid, gid)) if is_number(uid) && is_number(gid) => (uid, gid),
        _ => ("0", "0"),
    };
    for (name, file) in &shape.secrets {
        if mounts.iter().any(|value| read(value).name == *name) {
            continue;
        }
        let id = ids.get(name).ok_or_else(|| MissingSecret {
            name: name.clone(),
            service: shape.name.clone(),
        })?;
        mounts.push(json!({
            "SecretID": id.as_str(),
            "SecretName": name,
            "File": { "Name": file, "UID": uid, "GID": gid, "Mode": 0o400 },
        }));
    }
    container.insert(String::from("Secrets"), Value::from(mounts));
    Ok(())
}

fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

fn list(value: Option<Value>) -> Vec<Value> {
    if let Some(Value::Array(items)) = value {
        items
    } else {
        Vec::new()
    }
}

/// `value` as an object, made one if it is anything else.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("was made an object just now")
}

fn child<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    object(parent.entry(key).or_insert_with(|| Value::Object(Map::new())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidegate_core::reconcile::desired::published_tcp;

    use super::*;

    fn shape_of(spec: &Value) -> ServiceShape {
        read(serde_json::from_value(spec.clone()).expect("a spec"))
    }

    fn full() -> ServiceShape {
        let set = |items: &[&str]| items.iter().map(|item| String::from(*item)).collect::<BTreeSet<_>>();
        let map = |key: &str, value: &str| BTreeMap::from([(String::from(key), String::from(value))]);
        ServiceShape {
            name: String::from("tidegate_proxy"),
            labels: map("tidegate.role", "proxy"),
            container_labels: map("team", "edge"),
            image: String::from("tidegate:1"),
            args: vec![String::from("proxy")],
            env: set(&["A=1", "B=2"]),
            user: String::from("65532:65532"),
            read_only: true,
            replicas: Some(2),
            constraints: set(&["node.role==worker"]),
            spread: vec![String::from("node.labels.zone")],
            ports: [published_tcp(80, 8080, PublishMode::Host)].into(),
            dnsrr: true,
            networks: set(&["control", "shop"]),
            volumes: map("state", "/var/lib/tidegate"),
            secrets: map("identity", "identity.pem"),
            stop_signal: String::from("SIGTERM"),
            stop_grace_ms: 30_000,
            health_command: vec![
                String::from("CMD"),
                String::from("/tidegate"),
                String::from("healthcheck"),
            ],
            update: UpdatePolicy {
                parallelism: 0,
                delay_ms: 1_500,
                start_first: true,
                failure_action: String::from("pause"),
                monitor_ms: 7_000,
            },
        }
    }

    fn ids() -> BTreeMap<String, SecretId> {
        BTreeMap::from([(String::from("identity"), SecretId::from("s1"))])
    }

    #[test]
    fn what_is_written_is_read_back() {
        let spec = create(&full(), &ids()).expect("the secret is known");
        assert_eq!(shape_of(&spec), full());
        let global = ServiceShape {
            replicas: None,
            ..full()
        };
        assert_eq!(shape_of(&create(&global, &ids()).expect("the secret is known")), global);
    }

    #[test]
    fn the_spec_as_it_is_sent() {
        let spec = create(&full(), &ids()).expect("the secret is known");
        insta::assert_snapshot!(serde_json::to_string_pretty(&spec).expect("JSON"));
    }

    #[test]
    fn an_update_without_a_difference_changes_no_byte() {
        let mut spec = create(&full(), &ids()).expect("the secret is known");
        let before = spec.clone();
        update(&mut spec, &full(), &BTreeMap::new()).expect("no secret is added");
        assert_eq!(spec, before);
    }

    /// A spec with much that a shape does not know.
    fn operators() -> Value {
        json!({
            "Name": "tidegate_proxy",
            "Labels": {},
            "FutureField": { "x": 1 },
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "tidegate:1",
                    "Healthcheck": { "Test": ["CMD", "old"], "Interval": 9 },
                    "Mounts": [
                        { "Type": "bind", "Source": "/etc/hosts", "Target": "/etc/hosts" },
                        { "Type": "volume", "Source": "state", "Target": "/var/lib/tidegate", "VolumeOptions": { "NoCopy": true } },
                        { "Type": "volume", "Source": "old", "Target": "/old" },
                    ],
                    "CapabilityDrop": ["ALL"],
                },
                "Networks": [{ "Target": "shop", "Aliases": ["gate"] }, { "Target": "left" }],
                "Placement": { "MaxReplicas": 1 },
                "Resources": { "Limits": { "MemoryBytes": 1 } },
                "ForceUpdate": 3,
            },
            "Mode": { "Replicated": { "Replicas": 2 } },
            "UpdateConfig": { "Parallelism": 1, "MaxFailureRatio": 0.5 },
            "EndpointSpec": { "Ports": [{ "Name": "http", "Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 80, "PublishMode": "host" }] },
        })
    }

    #[test]
    fn an_update_keeps_everything_that_a_shape_does_not_know() {
        let mut spec = operators();
        update(&mut spec, &full(), &ids()).expect("the secret is known");
        assert_eq!(shape_of(&spec), full());
        let expected = [
            ("/FutureField/x", json!(1)),
            ("/TaskTemplate/ContainerSpec/CapabilityDrop", json!(["ALL"])),
            ("/TaskTemplate/ContainerSpec/Healthcheck/Interval", json!(9)),
            ("/TaskTemplate/ContainerSpec/Mounts/0/Type", json!("bind")),
            ("/TaskTemplate/ContainerSpec/Mounts/1/VolumeOptions/NoCopy", json!(true)),
            ("/TaskTemplate/Networks/0/Aliases", json!(["gate"])),
            ("/TaskTemplate/Placement/MaxReplicas", json!(1)),
            ("/TaskTemplate/Resources/Limits/MemoryBytes", json!(1)),
            ("/TaskTemplate/ForceUpdate", json!(3)),
            ("/UpdateConfig/MaxFailureRatio", json!(0.5)),
            ("/EndpointSpec/Ports/0/Name", json!("http")),
        ];
        for (path, value) in expected {
            assert_eq!(spec.pointer(path), Some(&value), "{path}");
        }
    }

    #[test]
    fn networks_of_the_service_itself_move_to_its_tasks() {
        let mut spec = json!({ "Name": "a", "Networks": [{ "Target": "shop" }] });
        let mut shape = shape_of(&spec);
        shape.networks.insert(String::from("control"));
        update(&mut spec, &shape, &BTreeMap::new()).expect("no secrets");
        assert_eq!(spec.get("Networks"), None);
        assert_eq!(
            spec["TaskTemplate"]["Networks"],
            json!([{ "Target": "shop" }, { "Target": "control" }])
        );
    }

    #[test]
    fn a_secret_that_does_not_exist_is_named() {
        let error = create(&full(), &BTreeMap::new()).expect_err("no such secret");
        assert_eq!(
            error.to_string(),
            "there is no secret named \"identity\" for service tidegate_proxy"
        );
    }
}
