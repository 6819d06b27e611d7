//! What the API of a manager answers, in the types that Tidegate decides by.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::Swarm;
use super::record::{Process, ServiceRecord, TaskRecord, template};
use crate::id::{NetworkId, NodeId, SecretId, ServiceId, TaskId, Version};
use crate::reconcile::desired::{ManagedService, ROLE_LABEL, ServiceShape};
use crate::swarm::model::{ApiError, EndpointMode, Network, NetworkAddress, Node, Secret, Service, ServiceMode, Task};

impl Swarm {
    /// `GET /services`
    pub fn services(&self, of: &[ServiceId]) -> Vec<Service> {
        let asked = |record: &&ServiceRecord| of.is_empty() || of.contains(&record.id);
        self.services.values().filter(asked).map(service).collect()
    }

    /// `GET /tasks`; of the named services alone unless `of` is empty. A service that is unknown is an error.
    pub fn tasks(&self, of: &[ServiceId]) -> Result<Vec<Task>, ApiError> {
        if let Some(unknown) = of.iter().find(|id| !self.services.contains_key(*id)) {
            return Err(ApiError::NotFound(alloc::format!("service {unknown} not found")));
        }
        let asked = |record: &&TaskRecord| of.is_empty() || of.contains(&record.task.service);
        Ok(self
            .tasks
            .values()
            .filter(asked)
            .map(|record| record.task.clone())
            .collect())
    }

    /// `GET /networks`
    pub fn networks(&self) -> Vec<Network> {
        self.networks.values().map(|record| record.network.clone()).collect()
    }

    /// `GET /networks` of a manager without quorum: 200, and without the networks that have no task on its node.
    pub fn networks_without_quorum(&self, node: &NodeId) -> Vec<Network> {
        let here: BTreeSet<&NetworkId> = self
            .tasks
            .values()
            .filter(|record| record.task.node.as_ref() == Some(node) && record.process == Process::Running)
            .flat_map(|record| record.task.addresses.iter().map(|held| &held.network))
            .collect();
        let known = self.networks.values().map(|record| &record.network);
        known.filter(|network| here.contains(&network.id)).cloned().collect()
    }

    /// The index of the newest change: while it stays, every answer stays.
    pub fn index(&self) -> Version {
        Version(self.raft)
    }

    /// Whether a node cannot be heard. What no API tells at once.
    pub fn is_lost(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|record| record.loss.is_some())
    }

    /// Whether a task can really answer: it should run, says so, and its process and node are there. What no API tells.
    pub fn can_answer(&self, id: &TaskId) -> bool {
        self.tasks.get(id).is_some_and(|record| {
            let home = record.task.node.as_ref().and_then(|node| self.nodes.get(node));
            record.task.is_serving()
                && record.process == Process::Running
                && home.is_some_and(|home| home.loss.is_none())
        })
    }

    /// `GET /nodes`
    pub fn nodes(&self) -> Vec<Node> {
        self.nodes.values().map(|record| record.node.clone()).collect()
    }

    /// `GET /secrets`
    pub fn secrets(&self) -> Vec<Secret> {
        self.secrets.values().map(|record| record.secret.clone()).collect()
    }

    /// `GET /services`, those that Tidegate manages, with their whole shape.
    pub fn managed(&self) -> Vec<ManagedService> {
        let managed = self
            .services
            .values()
            .filter(|service| service.shape.labels.contains_key(ROLE_LABEL));
        managed
            .map(|service| ManagedService {
                id: service.id.clone(),
                version: service.version,
                template: settings_of(&service.shape),
                shape: ServiceShape::clone(&service.shape),
                update_state: service.update_state.map(String::from),
            })
            .collect()
    }

    /// What a service should be, as its owner wrote it.
    pub fn shape(&self, id: &ServiceId) -> Option<&ServiceShape> {
        self.services.get(id).map(|service| &*service.shape)
    }

    /// The version of a service: the key of a compare-and-swap.
    pub fn version(&self, id: &ServiceId) -> Option<Version> {
        self.services.get(id).map(|service| service.version)
    }

    /// Whether a rolling update of a service is under way or still being watched.
    pub fn is_updating(&self, id: &ServiceId) -> bool {
        self.services.get(id).is_some_and(|service| service.update.is_some())
    }

    /// Whether every service has the tasks that it wants and no other that lives, and no update is under way.
    pub fn is_at_rest(&self) -> bool {
        self.services.keys().all(|id| {
            let own = || self.tasks.values().filter(|record| &record.task.service == id);
            let serving = own().filter(|record| record.task.is_serving()).count() as u64;
            let wanted = self.services.get(id).and_then(|service| service.shape.replicas);
            !self.is_updating(id)
                && wanted.is_none_or(|wanted| serving == wanted)
                && own().all(|record| record.task.is_serving() || record.task.is_over())
        })
    }

    /// The service called `name`.
    pub fn service_named(&self, name: &str) -> Option<ServiceId> {
        let found = self.services.values().find(|service| service.shape.name == name);
        found.map(|service| service.id.clone())
    }

    /// The network with the id or the name `name`.
    pub fn network_named(&self, name: &str) -> Option<NetworkId> {
        let networks = || self.networks.values().map(|record| &record.network);
        let found = networks().find(|network| network.id.as_str() == name);
        let found = found.or_else(|| networks().find(|network| network.name == name));
        found.map(|network| network.id.clone())
    }

    /// Content of a secret, as a task that mounts it reads it.
    pub fn secret_data(&self, name: &str) -> Option<&[u8]> {
        let found = self.secrets.values().find(|record| record.secret.name == name);
        found.map(|record| record.data.as_slice())
    }

    /// Name of a secret.
    pub fn secret_name(&self, id: &SecretId) -> Option<&str> {
        self.secrets.get(id).map(|record| record.secret.name.as_str())
    }

    /// One task.
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id).map(|record| &record.task)
    }

    /// Docker's DNS answer for `tasks.NAME`, sorted; on one network, or on all of them.
    pub fn dns(&self, name: &str, network: Option<&NetworkId>) -> Vec<IpAddr> {
        let listed = self
            .tasks
            .values()
            .filter(|record| record.in_dns && record.name == name);
        let held = listed.flat_map(|record| &record.task.addresses);
        let wanted = |held: &&NetworkAddress| network.is_none_or(|network| &held.network == network);
        let mut found: Vec<IpAddr> = held.filter(wanted).map(|held| held.addr).collect();
        found.sort();
        found
    }
}

fn service(record: &ServiceRecord) -> Service {
    let shape = &record.shape;
    Service {
        id: record.id.clone(),
        name: shape.name.clone(),
        version: record.version,
        created_at: record.created_at.clone(),
        updated_at: None,
        labels: shape.labels.clone(),
        mode: match shape.replicas {
            Some(replicas) => ServiceMode::Replicated { replicas },
            None => ServiceMode::Global,
        },
        endpoint_mode: if shape.dnsrr {
            EndpointMode::Dnsrr
        } else {
            EndpointMode::Vip
        },
        virtual_ips: record.virtual_ips.clone(),
        ports: shape.ports.iter().cloned().collect(),
        networks: shape.networks.iter().cloned().collect(),
        has_health_check: !shape.health_command.is_empty(),
    }
}

/// What the tasks of a service are made of, but for secrets.
fn settings_of(shape: &ServiceShape) -> String {
    let mut template = template(shape);
    template.secrets.clear();
    serde_json::to_string(&template).expect("a shape is plain data with text keys")
}
