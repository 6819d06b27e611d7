//! A real engine behind the seam.

use futures_util::Stream;
use tidegate_core::id::{SecretId, ServiceId, Version};
use tidegate_core::reconcile::desired::{ManagedService, ServiceShape};
use tidegate_core::swarm::model::{ApiError, Event, FeedEnd, Network, Node, Secret, Service, Task, TaskEvent};
use tidegate_docker::Docker;

use crate::swarm_api::SwarmApi;

/// Each method is the engine's own of the same name; the loop of the controller limits every call.
impl SwarmApi for Docker {
    async fn services(&self, of: &[ServiceId]) -> Result<Vec<Service>, ApiError> {
        self.services(of).await
    }

    async fn tasks(&self, of: &[ServiceId]) -> Result<Vec<Task>, ApiError> {
        self.tasks(of).await
    }

    async fn networks(&self) -> Result<Vec<Network>, ApiError> {
        self.networks().await
    }

    async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        self.nodes().await
    }

    async fn secrets(&self) -> Result<Vec<Secret>, ApiError> {
        self.secrets().await
    }

    async fn events(&self) -> Result<impl Stream<Item = Result<Event, ApiError>> + 'static, ApiError> {
        self.events().await
    }

    async fn task_changes(
        &self,
        resume_from: Option<Version>,
    ) -> Result<impl Stream<Item = Result<Vec<TaskEvent>, FeedEnd>> + 'static, FeedEnd> {
        self.task_changes(resume_from).await
    }

    async fn managed_services(&self) -> Result<Vec<ManagedService>, ApiError> {
        self.managed_services().await
    }

    async fn create_service(&self, shape: &ServiceShape) -> Result<ServiceId, ApiError> {
        self.create_service(shape).await
    }

    async fn update_service(&self, id: &ServiceId, version: Version, shape: &ServiceShape) -> Result<(), ApiError> {
        self.update_service(id, version, shape).await
    }

    async fn remove_service(&self, id: &ServiceId) -> Result<(), ApiError> {
        self.remove_service(id).await
    }

    async fn create_secret(&self, name: &str, labels: &[(String, String)], data: &[u8]) -> Result<SecretId, ApiError> {
        self.create_secret(name, labels, data).await
    }

    async fn remove_secret(&self, id: &SecretId) -> Result<(), ApiError> {
        self.remove_secret(id).await
    }

    async fn create_network(&self, name: &str, internal: bool) -> Result<(), ApiError> {
        self.create_network(name, internal).await
    }
}
