//! Sample services, tasks, networks and nodes, as ordinary as can be; tests change what they are about.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use crate::id::{NetworkId, NodeId, ServiceId, TaskId, Version};
use crate::swarm::model::{
    DesiredState, EndpointMode, Network, NetworkAddress, Node, NodeState, PublishMode, PublishedPort, Service,
    ServiceMode, Task, TaskState,
};

/// Texts as a set.
pub fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(String::from).into()
}

/// A replicated service with id `<name>-id` and virtual IP `10.0.9.1` on each of `networks`, which are names of [`network`].
pub fn service(name: &str, labels: &[(&str, &str)], networks: &[&str]) -> Service {
    let virtual_ips = networks.iter().map(|name| NetworkAddress {
        network: NetworkId::from(format!("{name}-id")),
        addr: IpAddr::V4(Ipv4Addr::new(10, 0, 9, 1)),
    });
    Service {
        id: ServiceId::from(format!("{name}-id")),
        name: name.to_string(),
        version: Version(10),
        created_at: String::from("2026-01-01T00:00:00.000000000Z"),
        updated_at: None,
        labels: labels
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        mode: ServiceMode::Replicated { replicas: 1 },
        endpoint_mode: EndpointMode::Vip,
        virtual_ips: virtual_ips.collect(),
        ports: Vec::new(),
        networks: networks.iter().map(|name| format!("{name}-id")).collect(),
        has_health_check: false,
    }
}

/// A running task `<service>.<slot>` on node `w<slot>`, with the address `10.0.<position>.<slot>` on each of `networks`.
pub fn task(service: &Service, slot: u8, networks: &[&str]) -> Task {
    let addresses = (1..).zip(networks).map(|(position, name)| NetworkAddress {
        network: NetworkId::from(format!("{name}-id")),
        addr: IpAddr::V4(Ipv4Addr::new(10, 0, position, slot)),
    });
    Task {
        id: TaskId::from(format!("{}.{slot}", service.name)),
        service: service.id.clone(),
        version: Version(10),
        updated_at: None,
        slot: Some(slot.into()),
        node: Some(NodeId::from(format!("w{slot}"))),
        state: TaskState::Running,
        desired: DesiredState::Running,
        addresses: addresses.collect(),
        ports: Vec::new(),
        error: String::new(),
    }
}

/// An overlay network with id `<name>-id`; the one called `ingress` is the routing mesh's.
pub fn network(name: &str) -> Network {
    Network {
        id: NetworkId::from(format!("{name}-id")),
        name: name.to_string(),
        swarm_scope: true,
        driver: String::from("overlay"),
        attachable: false,
        ingress: name == "ingress",
        labels: BTreeMap::new(),
    }
}

/// Several of them, by id.
pub fn networks(names: &[&str]) -> BTreeMap<NetworkId, Network> {
    let all = names.iter().map(|name| network(name));
    all.map(|network| (network.id.clone(), network)).collect()
}

/// Ready workers `w1` to `w<count>` with addresses `192.168.0.1` and up.
pub fn nodes(count: u8) -> BTreeMap<NodeId, Node> {
    let all = (1..=count).map(|number| Node {
        id: NodeId::from(format!("w{number}")),
        hostname: format!("worker-{number}"),
        addr: Some(IpAddr::V4(Ipv4Addr::new(192, 168, 0, number))),
        manager: false,
        active: true,
        state: NodeState::Ready,
    });
    all.map(|node| (node.id.clone(), node)).collect()
}

/// A TCP port published in host mode.
pub fn host_port(target: u16, published: Option<u16>) -> PublishedPort {
    PublishedPort {
        tcp: true,
        target,
        published,
        mode: PublishMode::Host,
    }
}
