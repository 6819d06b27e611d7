//! The seam to Docker: one method per API call. `docker-source` speaks to a real engine, `sim` and `demo` to a
//! simulated Swarm.

use std::fmt::Debug;
use std::future::Future;

use futures_util::Stream;
use tidegate_core::id::{SecretId, ServiceId, Version};
use tidegate_core::reconcile::desired::{ManagedService, ServiceShape};
use tidegate_core::swarm::model::{ApiError, Event, FeedEnd, Network, Node, Secret, Service, Task, TaskEvent};

/// Speaks to one Swarm manager. Every call may fail or hang: callers put a limit around each, and a call that is
/// dropped is cancelled.
pub trait SwarmApi: Debug + 'static {
    /// `GET /services`; the named ones alone unless `of` is empty. One that is gone is missing.
    fn services(&self, of: &[ServiceId]) -> impl Future<Output = Result<Vec<Service>, ApiError>>;
    /// `GET /tasks`; of the named services alone unless `of` is empty.
    fn tasks(&self, of: &[ServiceId]) -> impl Future<Output = Result<Vec<Task>, ApiError>>;
    /// `GET /networks`
    fn networks(&self) -> impl Future<Output = Result<Vec<Network>, ApiError>>;
    /// `GET /nodes`
    fn nodes(&self) -> impl Future<Output = Result<Vec<Node>, ApiError>>;
    /// `GET /secrets`
    fn secrets(&self) -> impl Future<Output = Result<Vec<Secret>, ApiError>>;
    /// `GET /events`, Swarm scope. The stream is open when this returns; it ends when the engine closes it.
    fn events(&self) -> impl Future<Output = Result<impl Stream<Item = Result<Event, ApiError>> + 'static, ApiError>>;
    /// SwarmKit's watch of tasks, from now on or since a version. The stream is open when this returns; after an error nothing
    /// comes.
    fn task_changes(
        &self,
        resume_from: Option<Version>,
    ) -> impl Future<Output = Result<impl Stream<Item = Result<Vec<TaskEvent>, FeedEnd>> + 'static, FeedEnd>>;
    /// `GET /services`, those that Tidegate manages (label `tidegate.role`), with their whole shape.
    fn managed_services(&self) -> impl Future<Output = Result<Vec<ManagedService>, ApiError>>;
    /// `POST /services/create`
    fn create_service(&self, shape: &ServiceShape) -> impl Future<Output = Result<ServiceId, ApiError>>;
    /// `POST /services/ID/update?version=`: fields that [`ServiceShape`] does not know stay as they are.
    fn update_service(
        &self,
        id: &ServiceId,
        version: Version,
        shape: &ServiceShape,
    ) -> impl Future<Output = Result<(), ApiError>>;
    /// `DELETE /services/ID`
    fn remove_service(&self, id: &ServiceId) -> impl Future<Output = Result<(), ApiError>>;
    /// `POST /secrets/create`
    fn create_secret(
        &self,
        name: &str,
        labels: &[(String, String)],
        data: &[u8],
    ) -> impl Future<Output = Result<SecretId, ApiError>>;
    /// `DELETE /secrets/ID`
    fn remove_secret(&self, id: &SecretId) -> impl Future<Output = Result<(), ApiError>>;
    /// `POST /networks/create` of an overlay network.
    fn create_network(&self, name: &str, internal: bool) -> impl Future<Output = Result<(), ApiError>>;
}
