//! Stack files to Docker facts: the services, tasks, networks and nodes that Docker would tell of after
//! `docker stack deploy`, made of the files alone.
//!
//! Tasks are placeholders: one per replica, one per global service, each running, with made-up addresses that depend on
//! the names of stack, service and network and on the slot alone. Another service more changes nobody's address.

mod interpolate;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use tidegate_core::id::{NetworkId, NodeId, ServiceId, TaskId, Version};
use tidegate_core::swarm::model::{
    DesiredState, EndpointMode, Network, NetworkAddress, Node, NodeState, PublishedPort, STACK_LABEL, Service,
    ServiceMode, Task, TaskState,
};

pub(crate) use read::{Stack, read};

/// What Docker would say.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) services: Vec<Service>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) networks: Vec<Network>,
    pub(crate) nodes: Vec<Node>,
}

/// First of the ports that Docker chooses itself.
const FREE_PORT: u16 = 30_000;

impl Stack {
    /// The facts of the stack, deployed as `stack`.
    pub(crate) fn facts(&self, stack: &str) -> Facts {
        let mut facts = Facts::default();
        let mut nodes = BTreeSet::new();
        for (key, network) in &self.networks {
            let name = network.name_in(stack, key);
            let swarm_scope = !["bridge", "host", "none"].contains(&name.as_str());
            let labels = if network.external {
                None
            } else {
                Some((STACK_LABEL.to_owned(), stack.to_owned()))
            };
            facts.networks.push(Network {
                id: NetworkId::from(name.as_str()),
                driver: if swarm_scope {
                    "overlay".to_owned()
                } else {
                    name.clone()
                },
                name,
                swarm_scope,
                attachable: false,
                ingress: false,
                labels: labels.into_iter().collect(),
            });
        }
        for (key, part) in &self.services {
            let name = format!("{stack}_{key}");
            let networks: Vec<String> = part
                .networks
                .iter()
                .filter_map(|network| Some(self.networks.get(network)?.name_in(stack, network)))
                .collect();
            let address = |of: &str, networks: &[String]| {
                let mut addresses: Vec<NetworkAddress> = networks
                    .iter()
                    .map(|network| NetworkAddress {
                        network: NetworkId::from(network.as_str()),
                        addr: made_up(&format!("{of} {network}")),
                    })
                    .collect();
                addresses.sort();
                addresses
            };
            let mode = part.mode.unwrap_or(ServiceMode::Replicated { replicas: 1 });
            let mode = match (mode, part.replicas) {
                (ServiceMode::Replicated { .. }, Some(replicas)) => ServiceMode::Replicated { replicas },
                _ => mode,
            };
            let endpoint_mode = part.endpoint_mode.unwrap_or(EndpointMode::Vip);
            let mut labels = part.labels.clone();
            labels.insert(STACK_LABEL.to_owned(), stack.to_owned());
            let id = ServiceId::from(name.as_str());
            let slots = match mode {
                ServiceMode::Replicated { replicas } => replicas,
                ServiceMode::Global => 1,
                ServiceMode::Job => 0,
            };
            for slot in 1..=slots {
                let task = format!("{name}.{slot}");
                let node = format!("node-{slot}");
                nodes.insert((slot, node.clone()));
                facts.tasks.push(Task {
                    id: TaskId::from(task.as_str()),
                    service: id.clone(),
                    version: Version(1),
                    updated_at: None,
                    slot: (mode != ServiceMode::Global).then_some(slot),
                    node: Some(NodeId::from(node)),
                    state: TaskState::Running,
                    desired: DesiredState::Running,
                    addresses: address(&task, &networks),
                    ports: part
                        .ports
                        .iter()
                        .enumerate()
                        .map(|(at, port)| bound(port, at))
                        .collect(),
                    error: String::new(),
                });
            }
            facts.services.push(Service {
                id,
                virtual_ips: match endpoint_mode {
                    EndpointMode::Vip => address(&name, &networks),
                    EndpointMode::Dnsrr => Vec::new(),
                },
                name,
                version: Version(1),
                created_at: String::new(),
                updated_at: None,
                labels,
                mode,
                endpoint_mode,
                ports: part.ports.clone(),
                networks,
                has_health_check: part.has_health_check,
            });
        }
        for (slot, name) in nodes {
            let [.., high, low] = slot.to_be_bytes();
            facts.nodes.push(Node {
                id: NodeId::from(name.as_str()),
                hostname: name,
                addr: Some(IpAddr::from(Ipv4Addr::new(172, 31, high, low))),
                manager: slot == 1,
                active: true,
                state: NodeState::Ready,
            });
        }
        facts
    }
}

/// A port as a task got it.
fn bound(port: &PublishedPort, at: usize) -> PublishedPort {
    let free = FREE_PORT.saturating_add(u16::try_from(at).unwrap_or(u16::MAX));
    PublishedPort {
        published: port.published.or(Some(free)),
        ..port.clone()
    }
}

/// An address in 10.0.0.0/8 that depends on `name` alone (FNV-1a).
fn made_up(name: &str) -> IpAddr {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let [top, a, b, c] = hash.to_be_bytes();
    IpAddr::from(Ipv4Addr::new(10, a ^ top, b, c))
}

/// A part of a stack, by its key in the file.
pub(crate) type Parts<T> = BTreeMap<String, T>;
