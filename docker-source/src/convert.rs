//! Docker's JSON to facts. Pure. An answer that is not a list of objects with identities is refused as a whole, since
//! what it lacks would look like something that was removed; inside an object everything unknown is taken calmly.

use std::net::{IpAddr, SocketAddr};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_core::calendar::since_1970;
use tidegate_core::id::{NetworkId, NodeId, SecretId, ServiceId, TaskId, Version};
use tidegate_core::reconcile::desired::ManagedService;
use tidegate_core::swarm::model::{
    ApiError, DesiredState, EndpointMode, Event, EventAction, EventKind, Network, NetworkAddress, Node, NodeState,
    PublishMode, PublishedPort, Secret, Service, ServiceMode, Task, TaskState,
};

use crate::error::garbled;
use crate::{shape, wire};

fn list<W: DeserializeOwned>(what: &str, json: &[u8], id: impl Fn(&W) -> &str) -> Result<Vec<W>, ApiError> {
    let items: Vec<W> = serde_json::from_slice(json).map_err(|error| garbled(format!("{what}: {error}")))?;
    if items.iter().any(|item| id(item).is_empty()) {
        return Err(garbled(format!("{what}: an object without an ID")));
    }
    Ok(items)
}

/// `GET /services`
///
/// # Errors
/// [`ApiError::Garbled`] if this is no list of objects with an `ID`, as for each function below.
pub fn services(json: &[u8]) -> Result<Vec<Service>, ApiError> {
    let items = list("services", json, |item: &wire::Service| &item.id)?;
    Ok(items.into_iter().map(service).collect())
}

/// `GET /services`, as shapes.
pub fn managed(json: &[u8]) -> Result<Vec<ManagedService>, ApiError> {
    let items = list("services", json, |item: &wire::Service| &item.id)?;
    let whole: Vec<Value> = serde_json::from_slice(json).unwrap_or_default();
    Ok(items
        .into_iter()
        .map(|item| ManagedService {
            template: whole
                .iter()
                .find(|whole| whole["ID"] == *item.id)
                .map(template)
                .unwrap_or_default(),
            id: ServiceId::from(item.id),
            version: Version(item.version.index),
            update_state: Some(item.update_status.state).filter(|state| !state.is_empty()),
            shape: shape::read(item.spec),
        })
        .collect())
}

/// What the tasks of a service are made of. A change of it replaces them (facts §6); one of placement does not, and one of secrets
/// is made by the controllers themselves.
fn template(service: &Value) -> String {
    let mut template = service["Spec"]["TaskTemplate"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("Placement");
        if let Some(container) = fields.get_mut("ContainerSpec").and_then(Value::as_object_mut) {
            container.remove("Secrets");
        }
    }
    template.to_string()
}

/// `GET /tasks`. Tasks without a service are left out: plain containers on attachable networks.
pub fn tasks(json: &[u8]) -> Result<Vec<Task>, ApiError> {
    let items = list("tasks", json, |item: &wire::Task| &item.id)?;
    Ok(items
        .into_iter()
        .filter(|item| !item.service.is_empty())
        .map(task)
        .collect())
}

/// `GET /tasks`, with the exit codes of their containers.
pub fn tasks_and_exits(json: &[u8]) -> Result<Vec<(Task, i64)>, ApiError> {
    let items = list("tasks", json, |item: &wire::Task| &item.id)?;
    Ok(items
        .into_iter()
        .map(|item| (item.status.container.exit_code, item))
        .map(|(exit, item)| (task(item), exit))
        .collect())
}

/// `GET /networks`
pub fn networks(json: &[u8]) -> Result<Vec<Network>, ApiError> {
    let items = list("networks", json, |item: &wire::Network| &item.id)?;
    Ok(items
        .into_iter()
        .map(|item| Network {
            id: NetworkId::from(item.id),
            name: item.name,
            swarm_scope: item.scope == "swarm",
            driver: item.driver,
            attachable: item.attachable,
            ingress: item.ingress,
            labels: item.labels,
        })
        .collect())
}

/// `GET /nodes`
pub fn nodes(json: &[u8]) -> Result<Vec<Node>, ApiError> {
    let items = list("nodes", json, |item: &wire::Node| &item.id)?;
    Ok(items
        .into_iter()
        .map(|item| Node {
            id: NodeId::from(item.id),
            hostname: item.description.hostname,
            addr: address(&item.status.addr).or_else(|| manager_address(&item.manager_status.addr)),
            manager: item.spec.role == "manager",
            active: item.spec.availability == "active",
            state: match item.status.state.as_str() {
                "ready" => NodeState::Ready,
                "down" => NodeState::Down,
                _ => NodeState::Unknown,
            },
        })
        .collect())
}

/// `GET /secrets`
pub fn secrets(json: &[u8]) -> Result<Vec<Secret>, ApiError> {
    let items = list("secrets", json, |item: &wire::Secret| &item.id)?;
    Ok(items
        .into_iter()
        .map(|item| Secret {
            id: SecretId::from(item.id),
            name: item.spec.name,
            labels: item.spec.labels,
        })
        .collect())
}

/// One line of `GET /events`; none if it cannot be read.
pub fn event(line: &[u8]) -> Option<Event> {
    let event: wire::Event = serde_json::from_slice(line).ok()?;
    if event.kind.is_empty() {
        return None;
    }
    Some(Event {
        kind: match event.kind.as_str() {
            "service" => EventKind::Service,
            "node" => EventKind::Node,
            "network" => EventKind::Network,
            "secret" => EventKind::Secret,
            _ => EventKind::Other,
        },
        action: match event.action.as_str() {
            "create" => EventAction::Create,
            "update" => EventAction::Update,
            "remove" => EventAction::Remove,
            _ => EventAction::Other,
        },
        id: event.actor.id,
    })
}

/// The text of an answer that is no success.
pub fn message(body: &[u8]) -> String {
    match serde_json::from_slice::<wire::Message>(body) {
        Ok(answer) if !answer.message.is_empty() => answer.message,
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}

fn service(item: wire::Service) -> Service {
    let spec = item.spec;
    let template = spec.task_template;
    // Engines before 1.25 wrote the networks here; no engine from 29 on reads them.
    let networks = if template.networks.is_empty() {
        spec.networks
    } else {
        template.networks
    };
    let mut virtual_ips: Vec<NetworkAddress> = item
        .endpoint
        .virtual_ips
        .into_iter()
        .filter_map(|vip| {
            Some(NetworkAddress {
                network: NetworkId::from(vip.network),
                addr: address(&vip.addr)?,
            })
        })
        .collect();
    virtual_ips.sort();
    Service {
        id: ServiceId::from(item.id),
        name: spec.name,
        version: Version(item.version.index),
        created_at: item.created_at,
        updated_at: since_1970(&item.updated_at),
        labels: spec.labels,
        mode: mode(&spec.mode),
        endpoint_mode: if spec.endpoint_spec.mode == "dnsrr" {
            EndpointMode::Dnsrr
        } else {
            EndpointMode::Vip
        },
        virtual_ips,
        ports: spec.endpoint_spec.ports.iter().filter_map(port).collect(),
        networks: networks.into_iter().map(|network| network.target).collect(),
        has_health_check: match template.container.health_check.test.first().map(String::as_str) {
            None | Some("" | "NONE") => false,
            Some(_) => true,
        },
    }
}

fn mode(mode: &wire::Mode) -> ServiceMode {
    if mode.global_job.is_some() || mode.replicated_job.is_some() {
        ServiceMode::Job
    } else if mode.global.is_some() {
        ServiceMode::Global
    } else {
        ServiceMode::Replicated {
            replicas: mode.replicated.as_ref().map_or(1, |replicated| replicated.replicas),
        }
    }
}

/// A port; none if its number is impossible.
pub(crate) fn port(port: &wire::Port) -> Option<PublishedPort> {
    Some(PublishedPort {
        tcp: matches!(port.protocol.as_str(), "" | "tcp"),
        target: u16::try_from(port.target).ok().filter(|target| *target > 0)?,
        published: u16::try_from(port.published).ok().filter(|published| *published > 0),
        mode: if port.mode == "host" {
            PublishMode::Host
        } else {
            PublishMode::Ingress
        },
    })
}

fn task(item: wire::Task) -> Task {
    let mut addresses: Vec<NetworkAddress> = item
        .attachments
        .into_iter()
        .filter_map(|attachment| {
            Some(NetworkAddress {
                network: NetworkId::from(attachment.network.id),
                addr: attachment.addresses.iter().find_map(|text| address(text))?,
            })
        })
        .collect();
    addresses.sort();
    let mut ports: Vec<PublishedPort> = Vec::new();
    for port in item.status.ports.ports.iter().filter_map(port) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    Task {
        id: TaskId::from(item.id),
        service: ServiceId::from(item.service),
        version: Version(item.version.index),
        updated_at: since_1970(&item.updated_at),
        slot: item.slot.filter(|slot| *slot > 0),
        node: Some(item.node).filter(|node| !node.is_empty()).map(NodeId::from),
        state: task_state(&item.status.state),
        desired: desired_state(&item.desired),
        addresses,
        ports,
        error: item.status.error,
    }
}

pub(crate) fn task_state(text: &str) -> TaskState {
    match text {
        "new" | "allocated" => TaskState::New,
        "pending" => TaskState::Pending,
        "assigned" => TaskState::Assigned,
        "accepted" => TaskState::Accepted,
        "preparing" => TaskState::Preparing,
        "ready" => TaskState::Ready,
        "starting" => TaskState::Starting,
        "running" => TaskState::Running,
        "complete" => TaskState::Complete,
        "shutdown" => TaskState::Shutdown,
        "failed" => TaskState::Failed,
        "rejected" => TaskState::Rejected,
        "remove" => TaskState::Remove,
        "orphaned" => TaskState::Orphaned,
        _ => TaskState::Other,
    }
}

pub(crate) fn desired_state(text: &str) -> DesiredState {
    match text {
        "new" | "allocated" | "pending" | "assigned" | "accepted" | "preparing" => DesiredState::New,
        "ready" | "starting" => DesiredState::Ready,
        "running" => DesiredState::Running,
        "complete" => DesiredState::Complete,
        "shutdown" | "failed" | "rejected" | "orphaned" => DesiredState::Shutdown,
        "remove" => DesiredState::Remove,
        _ => DesiredState::Other,
    }
}

/// An address with or without a prefix length; none for an empty or impossible one.
fn address(text: &str) -> Option<IpAddr> {
    let addr: IpAddr = text.split('/').next()?.parse().ok()?;
    (!addr.is_unspecified()).then_some(addr)
}

/// The address of `host:port`. Leaders of some Engine versions call their own `Status.Addr` 0.0.0.0.
fn manager_address(text: &str) -> Option<IpAddr> {
    let addr = text.parse::<SocketAddr>().ok()?.ip();
    (!addr.is_unspecified()).then_some(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_and_missing_fields_are_taken_calmly() {
        let json = br#"[{"ID":"t","ServiceID":"s","Status":{"State":"levitating"},"DesiredState":"dreaming"},
                        {"ID":"u","ServiceID":"s","Status":null,"NetworksAttachments":null,"New":{"Field":[1]}}]"#;
        let tasks = tasks(json).expect("a list");
        assert_eq!(
            (tasks[0].state, tasks[0].desired),
            (TaskState::Other, DesiredState::Other)
        );
        assert!(!tasks[0].is_serving() && !tasks[0].is_leaving());
        assert_eq!((tasks[1].slot, tasks[1].version), (None, Version(0)));
        let nodes = nodes(br#"[{"ID":"n","Status":{"State":"disconnected"}}]"#).expect("a list");
        assert_eq!((nodes[0].state, nodes[0].addr), (NodeState::Unknown, None));
    }

    #[test]
    fn ports_that_are_listed_twice_are_one() {
        let port = r#"{"Protocol":"tcp","TargetPort":8080,"PublishedPort":18080,"PublishMode":"host"}"#;
        let json = format!(r#"[{{"ID":"t","ServiceID":"s","Status":{{"PortStatus":{{"Ports":[{port},{port}]}}}}}}]"#);
        let tasks = tasks(json.as_bytes()).expect("a list");
        let expected = PublishedPort {
            tcp: true,
            target: 8080,
            published: Some(18080),
            mode: PublishMode::Host,
        };
        assert_eq!(tasks[0].ports, [expected]);
    }

    #[test]
    fn tasks_of_plain_containers_are_left_out() {
        assert_eq!(tasks(br#"[{"ID":"attachment"}]"#), Ok(Vec::new()));
    }

    #[test]
    fn addresses_come_with_or_without_a_prefix_or_not_at_all() {
        assert_eq!(address("10.0.5.7/24"), Some([10, 0, 5, 7].into()));
        assert_eq!(address("10.0.5.7"), Some([10, 0, 5, 7].into()));
        for none in ["", "/24", "0.0.0.0", "nowhere"] {
            assert_eq!(address(none), None);
        }
    }

    #[test]
    fn a_leader_that_does_not_name_its_address_has_that_of_its_managers_port() {
        let with = |status: &str, manager: &str| {
            let json =
                format!(r#"[{{"ID":"n","Status":{{"Addr":"{status}"}},"ManagerStatus":{{"Addr":"{manager}"}}}}]"#);
            nodes(json.as_bytes()).expect("a list")[0].addr
        };
        assert_eq!(with("0.0.0.0", "10.1.0.1:2377"), Some([10, 1, 0, 1].into()));
        assert_eq!(with("10.1.0.2", "10.1.0.1:2377"), Some([10, 1, 0, 2].into()));
        assert_eq!(with("", "[fd00::1]:2377"), "fd00::1".parse().ok());
        assert_eq!((with("0.0.0.0", "0.0.0.0:2377"), with("", "x")), (None, None));
    }

    #[test]
    fn what_tasks_are_made_of_is_all_of_the_template_but_placement_and_secrets() {
        let with = |template: &str| {
            let json = format!(r#"[{{"ID":"s","Version":{{"Index":7}},"Spec":{{"TaskTemplate":{template}}}}}]"#);
            managed(json.as_bytes()).expect("a list")[0].template.clone()
        };
        let here = with(r#"{"ContainerSpec":{"Image":"a","Configs":[1]},"Placement":{"Constraints":["a"]}}"#);
        assert_eq!(
            here,
            with(r#"{"Placement":null,"ContainerSpec":{"Configs":[1],"Image":"a","Secrets":[{"SecretName":"s"}]}}"#)
        );
        assert_ne!(here, with(r#"{"ContainerSpec":{"Image":"a","Configs":[2]}}"#));
        assert_ne!(
            here,
            with(r#"{"ContainerSpec":{"Image":"a","Configs":[1]},"ForceUpdate":1}"#)
        );
    }

    #[test]
    fn each_mode_is_known_and_jobs_are_jobs() {
        let mode = |text: &str| super::mode(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(mode(r#"{"Global":{}}"#), ServiceMode::Global);
        assert_eq!(
            mode(r#"{"Replicated":{"Replicas":0}}"#),
            ServiceMode::Replicated { replicas: 0 }
        );
        assert_eq!(mode(r#"{"ReplicatedJob":{"TotalCompletions":3}}"#), ServiceMode::Job);
        assert_eq!(mode(r#"{"GlobalJob":{}}"#), ServiceMode::Job);
    }

    #[test]
    fn a_health_check_that_is_none_is_none() {
        let with = |test: &str| {
            let spec = format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{"Healthcheck":{{"Test":{test}}}}}}}}}"#);
            let json = format!(r#"[{{"ID":"s","Spec":{spec}}}]"#);
            services(json.as_bytes()).expect("a list")[0].has_health_check
        };
        assert!(with(r#"["CMD","/tidegate","healthcheck"]"#));
        assert!(!with(r#"["NONE"]"#) && !with("[]") && !with("null"));
    }

    #[test]
    fn networks_of_old_services_are_read_where_they_are() {
        let json = br#"[{"ID":"s","Spec":{"Networks":[{"Target":"old"}]}}]"#;
        assert_eq!(services(json).expect("a list")[0].networks, ["old"]);
    }
}
