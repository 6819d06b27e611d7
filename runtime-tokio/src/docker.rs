//! A real engine behind the seam: `tidegate-docker` with one limit on every call.

use std::time::Duration;

use futures_util::Stream;
use tidegate_core::id::{SecretId, ServiceId, Version};
use tidegate_core::reconcile::desired::{ManagedService, ServiceShape};
use tidegate_core::swarm::model::{ApiError, Event, Network, Node, Secret, Service, Task};
use tidegate_docker::{Docker, limited};

use crate::swarm_api::SwarmApi;

/// An engine, each call to which ends within a limit: one that spans an election hangs 20 s otherwise (facts §4).
#[derive(Clone, Debug)]
pub struct LimitedDocker {
    docker: Docker,
    limit: Duration,
}

impl LimitedDocker {
    /// `limit` is for one method, also where that makes several requests. Of the event stream it limits the opening alone.
    pub fn new(docker: Docker, limit: Duration) -> Self {
        LimitedDocker { docker, limit }
    }
}

impl SwarmApi for LimitedDocker {
    async fn services(&self) -> Result<Vec<Service>, ApiError> {
        limited(self.limit, self.docker.services()).await
    }

    async fn tasks(&self, of: &[ServiceId]) -> Result<Vec<Task>, ApiError> {
        limited(self.limit, self.docker.tasks(of)).await
    }

    async fn networks(&self) -> Result<Vec<Network>, ApiError> {
        limited(self.limit, self.docker.networks()).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        limited(self.limit, self.docker.nodes()).await
    }

    async fn secrets(&self) -> Result<Vec<Secret>, ApiError> {
        limited(self.limit, self.docker.secrets()).await
    }

    async fn events(&self) -> Result<impl Stream<Item = Result<Event, ApiError>> + 'static, ApiError> {
        limited(self.limit, self.docker.events()).await
    }

    async fn managed_services(&self) -> Result<Vec<ManagedService>, ApiError> {
        limited(self.limit, self.docker.managed_services()).await
    }

    async fn create_service(&self, shape: &ServiceShape) -> Result<ServiceId, ApiError> {
        limited(self.limit, self.docker.create_service(shape)).await
    }

    async fn update_service(&self, id: &ServiceId, version: Version, shape: &ServiceShape) -> Result<(), ApiError> {
        limited(self.limit, self.docker.update_service(id, version, shape)).await
    }

    async fn remove_service(&self, id: &ServiceId) -> Result<(), ApiError> {
        limited(self.limit, self.docker.remove_service(id)).await
    }

    async fn create_secret(&self, name: &str, labels: &[(String, String)], data: &[u8]) -> Result<SecretId, ApiError> {
        limited(self.limit, self.docker.create_secret(name, labels, data)).await
    }

    async fn remove_secret(&self, id: &SecretId) -> Result<(), ApiError> {
        limited(self.limit, self.docker.remove_secret(id)).await
    }

    async fn create_network(&self, name: &str, internal: bool) -> Result<(), ApiError> {
        limited(self.limit, self.docker.create_network(name, internal)).await
    }
}
