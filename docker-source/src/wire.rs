//! The part of Docker's JSON that Tidegate reads, as serde types.
//!
//! bollard's models are not used for lists: a task state that they do not know would make the whole list unreadable,
//! and they keep every field of 5,000 tasks in memory. Here enums are texts, every field may be missing or `null`, and
//! what is not named is skipped. Only the identity of an object must be there.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// A missing or `null` field is its type's default: Go writes empty lists and maps as `null`.
fn lenient<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $key:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        pub struct $name {
            $(
                #[doc = concat!("`", $key, "`")]
                #[serde(rename = $key, default, deserialize_with = "lenient")]
                pub $field: $type,
            )*
        }
    )*};
}

wire! {
    /// `Version`
    Version { index: u64 = "Index", }
    /// One of `GET /services`.
    Service {
        id: String = "ID",
        version: Version = "Version",
        created_at: String = "CreatedAt",
        updated_at: String = "UpdatedAt",
        spec: ServiceSpec = "Spec",
        endpoint: Endpoint = "Endpoint",
        update_status: UpdateStatus = "UpdateStatus",
    }
    /// `Spec` of a service.
    ServiceSpec {
        name: String = "Name",
        labels: BTreeMap<String, String> = "Labels",
        task_template: TaskSpec = "TaskTemplate",
        mode: Mode = "Mode",
        update_config: UpdateConfig = "UpdateConfig",
        networks: Vec<NetworkTarget> = "Networks",
        endpoint_spec: EndpointSpec = "EndpointSpec",
    }
    /// `Spec.Mode`: an object with one key.
    Mode {
        global: Option<serde_json::Value> = "Global",
        global_job: Option<serde_json::Value> = "GlobalJob",
        replicated: Option<Replicated> = "Replicated",
        replicated_job: Option<serde_json::Value> = "ReplicatedJob",
    }
    /// `Spec.Mode.Replicated`
    Replicated { replicas: u64 = "Replicas", }
    /// `Spec.TaskTemplate`
    TaskSpec {
        container: ContainerSpec = "ContainerSpec",
        placement: Placement = "Placement",
        networks: Vec<NetworkTarget> = "Networks",
    }
    /// `Spec.TaskTemplate.ContainerSpec`
    ContainerSpec {
        image: String = "Image",
        labels: BTreeMap<String, String> = "Labels",
        args: Vec<String> = "Args",
        env: Vec<String> = "Env",
        user: String = "User",
        read_only: bool = "ReadOnly",
        mounts: Vec<Mount> = "Mounts",
        secrets: Vec<SecretMount> = "Secrets",
        stop_signal: String = "StopSignal",
        stop_grace_period: u64 = "StopGracePeriod",
        health_check: HealthCheck = "Healthcheck",
    }
    /// `Healthcheck`
    HealthCheck { test: Vec<String> = "Test", }
    /// One of `Mounts`.
    Mount { kind: String = "Type", source: String = "Source", target: String = "Target", }
    /// One of `Secrets`.
    SecretMount { name: String = "SecretName", id: String = "SecretID", file: SecretFile = "File", }
    /// `File` of a secret.
    SecretFile { name: String = "Name", }
    /// `Placement`
    Placement { constraints: Vec<String> = "Constraints", preferences: Vec<Preference> = "Preferences", }
    /// One of `Preferences`.
    Preference { spread: Spread = "Spread", }
    /// `Spread`
    Spread { descriptor: String = "SpreadDescriptor", }
    /// One of `Networks`.
    NetworkTarget { target: String = "Target", }
    /// `UpdateConfig`
    UpdateConfig {
        parallelism: Option<u64> = "Parallelism",
        delay: u64 = "Delay",
        failure_action: String = "FailureAction",
        monitor: u64 = "Monitor",
        order: String = "Order",
    }
    /// `UpdateStatus`
    UpdateStatus { state: String = "State", started_at: String = "StartedAt", message: String = "Message", }
    /// `Endpoint`
    Endpoint { virtual_ips: Vec<VirtualIp> = "VirtualIPs", }
    /// One of `VirtualIPs`.
    VirtualIp { network: String = "NetworkID", addr: String = "Addr", }
    /// `EndpointSpec`
    EndpointSpec { mode: String = "Mode", ports: Vec<Port> = "Ports", }
    /// A port of a service or task.
    Port {
        protocol: String = "Protocol",
        target: u32 = "TargetPort",
        published: u32 = "PublishedPort",
        mode: String = "PublishMode",
    }
    /// One of `GET /tasks`.
    Task {
        id: String = "ID",
        version: Version = "Version",
        updated_at: String = "UpdatedAt",
        service: String = "ServiceID",
        slot: Option<u64> = "Slot",
        node: String = "NodeID",
        status: TaskStatus = "Status",
        desired: String = "DesiredState",
        attachments: Vec<Attachment> = "NetworksAttachments",
    }
    /// `Status` of a task.
    TaskStatus {
        state: String = "State",
        error: String = "Err",
        ports: PortStatus = "PortStatus",
        container: ContainerStatus = "ContainerStatus",
    }
    /// `ContainerStatus` of a task.
    ContainerStatus { exit_code: i64 = "ExitCode", }
    /// `PortStatus`
    PortStatus { ports: Vec<Port> = "Ports", }
    /// One of `NetworksAttachments`.
    Attachment { network: AttachedNetwork = "Network", addresses: Vec<String> = "Addresses", }
    /// `Network` of an attachment.
    AttachedNetwork { id: String = "ID", }
    /// One of `GET /networks`.
    Network {
        id: String = "Id",
        name: String = "Name",
        scope: String = "Scope",
        driver: String = "Driver",
        attachable: bool = "Attachable",
        ingress: bool = "Ingress",
        labels: BTreeMap<String, String> = "Labels",
    }
    /// One of `GET /nodes`.
    Node {
        id: String = "ID",
        spec: NodeSpec = "Spec",
        description: NodeDescription = "Description",
        status: NodeStatus = "Status",
        manager_status: ManagerStatus = "ManagerStatus",
    }
    /// `Spec` of a node.
    NodeSpec { role: String = "Role", availability: String = "Availability", }
    /// `Description` of a node.
    NodeDescription { hostname: String = "Hostname", }
    /// `Status` of a node.
    NodeStatus { state: String = "State", addr: String = "Addr", }
    /// `ManagerStatus` of a node
    ManagerStatus { addr: String = "Addr", }
    /// One of `GET /secrets`.
    Secret { id: String = "ID", spec: SecretSpec = "Spec", }
    /// `Spec` of a secret.
    SecretSpec { name: String = "Name", labels: BTreeMap<String, String> = "Labels", }
    /// One line of `GET /events`.
    Event { kind: String = "Type", action: String = "Action", actor: Actor = "Actor", }
    /// `Actor` of an event.
    Actor { id: String = "ID", }
    /// The body of an answer that is no success.
    Message { message: String = "message", }
}
