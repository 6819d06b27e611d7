//! What an operator or a controller may ask of a Swarm, with the answers of its API (facts §6).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::address::Subnet;
use super::record::{self, Availability, NetworkRecord, NodeRecord, SecretRecord, ServiceRecord};
use super::{Due, Swarm};
use crate::id::{NetworkId, NodeId, SecretId, ServiceId, Version};
use crate::reconcile::desired::ServiceShape;
use crate::swarm::model::{
    ApiError, DesiredState, EventAction, EventKind, Network, NetworkAddress, Node, NodeState, PublishMode, Secret,
};
use crate::time::Instant;

impl Swarm {
    /// Adds a ready, active node.
    pub fn add_node(&mut self, hostname: &str, addr: Option<IpAddr>, manager: bool, now: Instant) -> NodeId {
        let id = NodeId::from(self.new_id());
        let version = self.next_version();
        let node = Node {
            id: id.clone(),
            hostname: hostname.to_string(),
            addr,
            manager,
            active: true,
            state: NodeState::Ready,
        };
        let record = NodeRecord {
            node,
            availability: Availability::Active,
            version,
            labels: BTreeMap::new(),
            loss: None,
            reports_from: now,
            untold: BTreeSet::new(),
            next_port: 32_768,
        };
        self.nodes.insert(id.clone(), record);
        self.emit(EventKind::Node, EventAction::Create, id.as_str(), now);
        self.fill_all(now);
        id
    }

    /// Sets a node label, for constraints `node.labels.KEY==VALUE`.
    pub fn label_node(&mut self, node: &NodeId, key: &str, value: &str, now: Instant) -> Result<(), ApiError> {
        self.has_leader()?;
        let version = self.next_version();
        let record = self
            .nodes
            .get_mut(node)
            .ok_or_else(|| not_found("node", node.as_str()))?;
        record.labels.insert(key.to_string(), value.to_string());
        record.version = version;
        self.emit(EventKind::Node, EventAction::Update, node.as_str(), now);
        self.fill_all(now);
        Ok(())
    }

    /// Creates an overlay network.
    pub fn create_network(&mut self, name: &str, internal: bool, now: Instant) -> Result<NetworkId, ApiError> {
        self.has_leader()?;
        if self.network_named(name).is_some() {
            return Err(ApiError::Exists(format!("network with name {name} already exists")));
        }
        let id = self.add_network(name, false, internal);
        self.emit(EventKind::Network, EventAction::Create, id.as_str(), now);
        self.after(Due::AllocateNetwork(id.clone()), self.delays.allocate, now);
        Ok(id)
    }

    pub(super) fn add_network(&mut self, name: &str, ingress: bool, internal: bool) -> NetworkId {
        let id = NetworkId::from(self.new_id());
        // Upwards, in steps of a /24: none comes twice.
        let [.., second, third] = self.networks_made.to_be_bytes();
        self.networks_made += 1;
        let mut labels = BTreeMap::new();
        if internal {
            labels.insert("internal".to_string(), "true".to_string());
        }
        let network = Network {
            id: id.clone(),
            name: name.to_string(),
            swarm_scope: true,
            driver: String::new(),
            attachable: false,
            ingress,
            labels,
        };
        let subnet = Subnet::new([10, second, third]);
        self.networks.insert(id.clone(), NetworkRecord { network, subnet });
        id
    }

    /// The allocator has seen a network: until then it is listed without a driver.
    pub(super) fn allocate_network(&mut self, id: &NetworkId, now: Instant) {
        if let Some(record) = self.networks.get_mut(id) {
            record.network.driver = "overlay".to_string();
            self.emit(EventKind::Network, EventAction::Update, id.as_str(), now);
        }
    }

    /// No registry has this image: nodes reject tasks that need it.
    pub fn lose_image(&mut self, image: &str) {
        self.missing_images.insert(image.to_string());
    }

    /// Removes a network that no service uses. Tasks that are on their way out keep it from nothing.
    pub fn remove_network(&mut self, id: &NetworkId, now: Instant) -> Result<(), ApiError> {
        self.has_leader()?;
        let name = match self.networks.get(id) {
            Some(record) => record.network.name.clone(),
            None => return Err(not_found("network", id.as_str())),
        };
        let user = self.services.values().find(|service| {
            let networks = &service.shape.networks;
            networks.contains(id.as_str()) || networks.contains(&name)
        });
        if let Some(service) = user {
            return Err(ApiError::Refused(format!(
                "network {id} is in use by service {}",
                service.id
            )));
        }
        self.networks.remove(id);
        self.clear(&Due::AllocateNetwork(id.clone()));
        self.emit(EventKind::Network, EventAction::Remove, id.as_str(), now);
        Ok(())
    }

    /// Creates a secret.
    pub fn create_secret(
        &mut self,
        name: &str,
        labels: &[(String, String)],
        data: &[u8],
        now: Instant,
    ) -> Result<SecretId, ApiError> {
        self.has_leader()?;
        if self.secrets.values().any(|record| record.secret.name == name) {
            return Err(ApiError::Exists(format!("secret {name} already exists")));
        }
        if data.is_empty() || data.len() > 511_999 {
            return Err(ApiError::Refused(
                "secret data must be larger than 0 and less than 512000 bytes".to_string(),
            ));
        }
        let id = SecretId::from(self.new_id());
        let secret = Secret {
            id: id.clone(),
            name: name.to_string(),
            labels: labels.iter().cloned().collect(),
        };
        let data = data.to_vec();
        self.secrets.insert(id.clone(), SecretRecord { secret, data });
        self.emit(EventKind::Secret, EventAction::Create, id.as_str(), now);
        Ok(id)
    }

    /// Removes a secret that nobody mounts.
    pub fn remove_secret(&mut self, id: &SecretId, now: Instant) -> Result<(), ApiError> {
        self.has_leader()?;
        let name = match self.secrets.get(id) {
            Some(record) => record.secret.name.clone(),
            None => return Err(not_found("secret", id.as_str())),
        };
        if let Some(user) = self
            .services
            .values()
            .find(|service| service.shape.secrets.contains_key(&name))
        {
            let user = &user.shape.name;
            return Err(ApiError::Refused(format!(
                "secret '{name}' is in use by the following service: {user}"
            )));
        }
        self.secrets.remove(id);
        self.emit(EventKind::Secret, EventAction::Remove, id.as_str(), now);
        Ok(())
    }

    /// Creates a config. Its content matters to nobody here.
    pub fn create_config(&mut self, name: &str, now: Instant) -> Result<(), ApiError> {
        self.has_leader()?;
        if !self.configs.insert(name.to_string()) {
            return Err(ApiError::Exists(format!("config {name} already exists")));
        }
        self.emit(EventKind::Other, EventAction::Create, name, now);
        Ok(())
    }

    /// Removes a config that nobody mounts.
    pub fn remove_config(&mut self, name: &str, now: Instant) -> Result<(), ApiError> {
        self.has_leader()?;
        if let Some(user) = self.services.values().find(|service| service.configs.contains(name)) {
            let user = &user.shape.name;
            return Err(ApiError::Refused(format!(
                "config '{name}' is in use by the following service: {user}"
            )));
        }
        if !self.configs.remove(name) {
            return Err(not_found("config", name));
        }
        self.emit(EventKind::Other, EventAction::Remove, name, now);
        Ok(())
    }

    /// `docker service update --config-rm … --config-add …`: `id` mounts these configs and no others.
    pub fn mount_configs(&mut self, id: &ServiceId, names: &[&str], now: Instant) -> Result<(), ApiError> {
        self.has_leader()?;
        if let Some(unknown) = names.iter().find(|name| !self.configs.contains(**name)) {
            return Err(ApiError::Refused(format!("config not found: {unknown}")));
        }
        let version = self.next_version();
        let service = self
            .services
            .get_mut(id)
            .ok_or_else(|| not_found("service", id.as_str()))?;
        service.version = version;
        let configs = names.iter().map(|name| name.to_string()).collect();
        service.change((service.shape.clone(), configs));
        service.begin_update();
        self.updates(id, now);
        Ok(())
    }

    /// An update that replaces tasks was asked for.
    fn updates(&mut self, id: &ServiceId, now: Instant) {
        self.emit(EventKind::Service, EventAction::Update, id.as_str(), now);
        self.clear(&Due::Monitored(id.clone()));
        self.after(Due::AdvanceUpdate(id.clone()), self.delays.orchestrate, now);
    }

    /// Creates a service; its networks are named by id or name.
    pub fn create_service(&mut self, shape: ServiceShape, now: Instant) -> Result<ServiceId, ApiError> {
        self.has_leader()?;
        if self.services.values().any(|service| service.shape.name == shape.name) {
            return Err(ApiError::Exists(format!("service {} already exists", shape.name)));
        }
        self.check_shape(&shape, None)?;
        let id = ServiceId::from(self.new_id());
        let version = self.next_version();
        let shape = Arc::new(shape);
        let virtual_ips = self.virtual_ips(&shape, Vec::new());
        let has_virtual_ips = !virtual_ips.is_empty();
        let record = ServiceRecord {
            id: id.clone(),
            version,
            created_at: timestamp(now),
            shape,
            configs: BTreeSet::new(),
            previous: None,
            virtual_ips,
            update: None,
            update_state: None,
        };
        self.services.insert(id.clone(), record);
        self.emit(EventKind::Service, EventAction::Create, id.as_str(), now);
        if has_virtual_ips {
            self.emit(EventKind::Service, EventAction::Update, id.as_str(), now);
        }
        self.after(Due::Fill(id.clone()), self.delays.orchestrate, now);
        Ok(id)
    }

    /// Changes a service by compare-and-swap on its version. Everything is as it was where this fails.
    pub fn update_service(
        &mut self,
        id: &ServiceId,
        version: Version,
        shape: ServiceShape,
        now: Instant,
    ) -> Result<(), ApiError> {
        self.has_leader()?;
        let service = self.services.get(id).ok_or_else(|| not_found("service", id.as_str()))?;
        if service.version != version {
            return Err(ApiError::Conflict(
                "rpc error: code = Unknown desc = update out of sequence".to_string(),
            ));
        }
        if service.shape.name != shape.name {
            return Err(ApiError::Server("renaming services is not supported".to_string()));
        }
        if service.shape.replicas.is_some() != shape.replicas.is_some() {
            return Err(ApiError::Server("service mode change is not allowed".to_string()));
        }
        self.check_shape(&shape, Some(id))?;
        let (old, old_ips) = (service.shape.clone(), service.virtual_ips.clone());
        let (shape, version) = (Arc::new(shape), self.next_version());
        let virtual_ips = if old.networks == shape.networks && old.dnsrr == shape.dnsrr && old.ports == shape.ports {
            old_ips
        } else {
            self.virtual_ips(&shape, old_ips)
        };
        let replaces = record::replaces_tasks(&old, &shape);
        let refills = old.replicas != shape.replicas || old.constraints != shape.constraints;
        let is_same = old == shape;
        let Some(service) = self.services.get_mut(id) else {
            return Ok(());
        };
        service.version = version;
        service.virtual_ips = virtual_ips;
        let configs = service.configs.clone();
        service.change((shape, configs));
        // Any change wipes the status, even in the middle of an update (facts §5).
        service.update_state = None;
        if replaces {
            service.begin_update();
            self.updates(id, now);
        } else {
            self.emit(EventKind::Service, EventAction::Update, id.as_str(), now);
            // An updater that works towards this spec goes on, and one that was paused stays so (measured on 20.10).
            if !is_same {
                self.restart_update(id, now);
            }
        }
        if refills {
            self.after(Due::Fill(id.clone()), self.delays.orchestrate, now);
        }
        Ok(())
    }

    /// `docker service update`: reads, changes and writes in one go.
    pub fn edit_service(
        &mut self,
        id: &ServiceId,
        now: Instant,
        edit: impl FnOnce(&mut ServiceShape),
    ) -> Result<(), ApiError> {
        let service = self.services.get(id).ok_or_else(|| not_found("service", id.as_str()))?;
        let (version, mut shape) = (service.version, ServiceShape::clone(&service.shape));
        edit(&mut shape);
        self.update_service(id, version, shape, now)
    }

    /// `docker service scale`
    pub fn scale(&mut self, id: &ServiceId, replicas: u64, now: Instant) -> Result<(), ApiError> {
        self.edit_service(id, now, |shape| shape.replicas = Some(replicas))
    }

    /// `docker service rollback`: the shape before the last change that is remembered, as an update that is a rollback.
    pub fn rollback_service(&mut self, id: &ServiceId, now: Instant) -> Result<(), ApiError> {
        self.has_leader()?;
        let version = self.next_version();
        let service = self
            .services
            .get_mut(id)
            .ok_or_else(|| not_found("service", id.as_str()))?;
        if service.previous.is_none() {
            return Err(ApiError::Refused("service does not have a previous spec".to_string()));
        }
        service.roll_back();
        service.version = version;
        self.clear(&Due::Monitored(id.clone()));
        self.emit(EventKind::Service, EventAction::Update, id.as_str(), now);
        self.after(Due::AdvanceUpdate(id.clone()), self.delays.orchestrate, now);
        self.after(Due::Fill(id.clone()), self.delays.orchestrate, now);
        Ok(())
    }

    /// Removes a service at once; its tasks follow, without an event.
    pub fn remove_service(&mut self, id: &ServiceId, now: Instant) -> Result<(), ApiError> {
        self.has_leader()?;
        let service = self
            .services
            .remove(id)
            .ok_or_else(|| not_found("service", id.as_str()))?;
        for vip in &service.virtual_ips {
            self.release(vip);
        }
        for due in [
            Due::Fill(id.clone()),
            Due::AdvanceUpdate(id.clone()),
            Due::Monitored(id.clone()),
        ] {
            self.clear(&due);
        }
        self.emit(EventKind::Service, EventAction::Remove, id.as_str(), now);
        let tasks: Vec<_> = self.ids_of(id);
        for task in tasks {
            self.stop(&task, DesiredState::Remove, now);
        }
        Ok(())
    }

    fn check_shape(&self, shape: &ServiceShape, own: Option<&ServiceId>) -> Result<(), ApiError> {
        for network in &shape.networks {
            if self.network_named(network).is_none() {
                return Err(ApiError::Server(format!("network {network} not found")));
            }
        }
        for secret in shape.secrets.keys() {
            if !self.secrets.values().any(|record| &record.secret.name == secret) {
                return Err(ApiError::Refused(format!("secret not found: {secret}")));
            }
        }
        let ingress = |shape: &ServiceShape| -> Vec<u16> {
            let ports = shape.ports.iter().filter(|port| port.mode == PublishMode::Ingress);
            ports.filter_map(|port| port.published).collect()
        };
        for port in ingress(shape) {
            let taken = |service: &&ServiceRecord| Some(&service.id) != own && ingress(&service.shape).contains(&port);
            if let Some(other) = self.services.values().find(taken) {
                return Err(ApiError::Refused(format!(
                    "port '{port}' is already in use by service '{}' ({}) as an ingress port",
                    other.shape.name, other.id
                )));
            }
        }
        Ok(())
    }

    /// One virtual IP per network; those that the service has already stay.
    fn virtual_ips(&mut self, shape: &ServiceShape, old: Vec<NetworkAddress>) -> Vec<NetworkAddress> {
        let networks = if shape.dnsrr {
            Vec::new()
        } else {
            self.networks_of(shape)
        };
        let (mut kept, gone): (Vec<_>, Vec<_>) = old.into_iter().partition(|vip| networks.contains(&vip.network));
        for vip in &gone {
            self.release(vip);
        }
        for network in networks {
            if !kept.iter().any(|vip| vip.network == network) {
                kept.extend(self.take_address(&network));
            }
        }
        kept.sort();
        kept
    }

    /// The networks that a task of `shape` joins: those it names, and the mesh's for ingress ports.
    pub(super) fn networks_of(&self, shape: &ServiceShape) -> Vec<NetworkId> {
        let named = shape.networks.iter().filter_map(|name| self.network_named(name));
        let mut networks: Vec<NetworkId> = named.collect();
        if shape.ports.iter().any(|port| port.mode == PublishMode::Ingress) {
            networks.extend(self.network_named("ingress"));
        }
        networks.sort();
        networks.dedup();
        networks
    }

    pub(super) fn take_address(&mut self, network: &NetworkId) -> Option<NetworkAddress> {
        let addr = self.networks.get_mut(network)?.subnet.take()?;
        let network = network.clone();
        Some(NetworkAddress { network, addr })
    }

    pub(super) fn release(&mut self, held: &NetworkAddress) {
        if let Some(record) = self.networks.get_mut(&held.network) {
            record.subnet.release(held.addr);
        }
    }

    pub(super) fn has_leader(&self) -> Result<(), ApiError> {
        match &self.leaderless {
            None => Ok(()),
            Some(_) => Err(ApiError::Server(
                "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few \
                 managers are online. Make sure more than half of the managers are online."
                    .to_string(),
            )),
        }
    }
}

fn not_found(kind: &str, id: &str) -> ApiError {
    ApiError::NotFound(format!("{kind} {id} not found"))
}

/// `now` as Docker writes it, on a day that every simulation shares.
fn timestamp(now: Instant) -> String {
    let since = now.since_start();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let seconds = seconds % 60;
    format!(
        "2026-01-{:02}T{hours:02}:{minutes:02}:{seconds:02}.{nanos:09}Z",
        1 + days % 31
    )
}
